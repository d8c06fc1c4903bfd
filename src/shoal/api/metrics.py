"""The controller's state in Prometheus' text format. Pure: it reads, and changes nothing.

`METRICS` is all that there is, which docs/metrics.md lists too; a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shoal import __version__
from shoal.api.present import agent_view
from shoal.api.views import AgentView
from shoal.control.controller import Controller
from shoal.control.tally import PASS_BOUNDS_S

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels, float]  # what is added to the metric's name, labels, value


@dataclass(frozen=True, slots=True)
class Metric:
    """One family. `kind` is `gauge`, `counter` or `histogram`; a gauge of an agent is absent where nothing is known."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ("agent",)


REPLICAS = {
    "desired": Metric("shoal_agent_replicas_desired", "gauge", "Replicas that the agent should have."),
    "ready": Metric("shoal_agent_replicas_ready", "gauge", "Replicas that can serve."),
    "starting": Metric("shoal_agent_replicas_starting", "gauge", "Replicas on their way to be ready."),
    "stopping": Metric("shoal_agent_replicas_stopping", "gauge", "Replicas that finish what they do and end."),
    "min": Metric("shoal_agent_replicas_min", "gauge", "The fewest replicas that the spec allows."),
    "max": Metric("shoal_agent_replicas_max", "gauge", "The most replicas that the spec allows."),
}
SIGNALS = {
    "concurrency": Metric("shoal_agent_concurrency", "gauge", "Requests in flight or held, the mean of 1 s."),
    "rps": Metric("shoal_agent_requests_per_second", "gauge", "Requests that ended in a second, the mean of 2 s."),
    "p95_s": Metric("shoal_agent_latency_p95_seconds", "gauge", "What 95 of 100 requests of the last 5 s kept to."),
    "queue_depth": Metric("shoal_agent_queue_depth", "gauge", "Tasks that wait or are in progress in its queue."),
    "cpu_cores": Metric("shoal_agent_cpu_cores", "gauge", "Cores that all its replicas use."),
    "memory_bytes": Metric("shoal_agent_memory_bytes", "gauge", "Memory that all its replicas use."),
    "gpus_busy": Metric("shoal_agent_gpus_busy", "gauge", "GPUs of all its replicas that are busy; half a GPU is 0.5."),
    "gpu_memory_bytes": Metric("shoal_agent_gpu_memory_bytes", "gauge", "Memory used on the GPUs of its replicas."),
}
HELD = Metric("shoal_agent_requests_held", "gauge", "Requests that wait for a first replica.")
SETTLED = Metric("shoal_agent_settled", "gauge", "1 where the agent is as it should be, else 0.")
REQUESTS = Metric(
    "shoal_gateway_requests_total", "counter", "Requests to the agent by the class of the answer: `5xx` or `other`.",
    ("agent", "class"),
)  # fmt: skip
DECISIONS = Metric(
    "shoal_decisions_total", "counter",
    "Changes of an agent's count by direction (`up`, `down`) and reason: the trigger, `pin`, "
    "`owner` (somebody else sets it), `min`, `max`, `waiting`.",
    ("agent", "direction", "reason"),
)  # fmt: skip
GATEWAYS = Metric("shoal_gateways_connected", "gauge", "Gateways on the line to the controller.", ())
GENERATION = Metric("shoal_fleet_generation", "gauge", "The fleet's generation as it was stored.", ())
OBSERVED = Metric("shoal_fleet_observed_generation", "gauge", "The generation that is in force.", ())
PASSES = Metric("shoal_controller_pass_seconds", "histogram", "How long a pass of the loop took.", ("le",))
INFO = Metric("shoal_build_info", "gauge", "1; the version of Shoal is a label.", ("version",))

METRICS: tuple[Metric, ...] = (
    *REPLICAS.values(), *SIGNALS.values(), HELD, SETTLED, REQUESTS, DECISIONS, GATEWAYS, GENERATION, OBSERVED, PASSES,
    INFO,
)  # fmt: skip


def render_metrics(controller: Controller) -> bytes:
    """The whole page."""
    states = [controller.states[name] for name in sorted(controller.states)]
    agents = [(agent_view(state, None), (("agent", state.name),)) for state in states]
    parts: list[str] = []
    for view_name, metric in (*REPLICAS.items(), *SIGNALS.items()):
        parts += _family(metric, _gauges(agents, view_name))
    traffic = [(state.traffic, (("agent", state.name),)) for state in states if state.traffic is not None]
    parts += _family(HELD, [("", label, counts.held) for counts, label in traffic])
    parts += _family(SETTLED, [("", label, int(view.settled)) for view, label in agents])
    parts += _family(
        REQUESTS,
        [
            ("", (*label, ("class", kind)), count)
            for counts, label in traffic
            for kind, count in (("5xx", counts.failures), ("other", max(0, counts.requests - counts.failures)))
        ],
    )
    decided = sorted(controller.tally.decisions.items())
    parts += _family(DECISIONS, [("", tuple(zip(DECISIONS.labels, key, strict=True)), count) for key, count in decided])
    parts += _fleet(controller)
    return "".join(parts).encode()


def _fleet(controller: Controller) -> Iterator[str]:
    generations = (controller.wished, controller.wired)
    wished, observed = (each.generation if each is not None else 0 for each in generations)
    yield from _family(GATEWAYS, [("", (), len(controller.parts.gateways.live))])
    yield from _family(GENERATION, [("", (), wished)])
    yield from _family(OBSERVED, [("", (), observed)])
    yield from _family(PASSES, _passes(controller))
    yield from _family(INFO, [("", (("version", __version__),), 1)])


def _passes(controller: Controller) -> Iterator[Sample]:
    total = 0
    for bound, count in zip((*PASS_BOUNDS_S, math.inf), controller.tally.passes, strict=True):
        total += count
        yield "_bucket", (("le", "+Inf" if math.isinf(bound) else f"{bound:g}"),), total
    yield "_sum", (), controller.tally.passes_s
    yield "_count", (), total


def _gauges(agents: Iterable[tuple[AgentView, Labels]], view_name: str) -> Iterator[Sample]:
    for view, label in agents:
        value: float | None = getattr(view, view_name)
        if value is not None:
            yield "", label, value


def _family(metric: Metric, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"
    for suffix, labels, value in samples:
        written = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
        braces = f"{{{written}}}" if written else ""
        yield f"{metric.name}{suffix}{braces} {value!r}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
