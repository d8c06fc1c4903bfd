"""What a plan says would happen, and what it keeps to itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.drift import Drift
from shoal.core.masking import Mask
from shoal.core.plan import HIDDEN, Change, make_plan
from shoal.core.plan_text import format_plan
from shoal.core.revision import revision_of, template_of
from shoal.errors import PlanError
from shoal.spec.model import Broker, Fleet, Queue

SERVICE: dict[str, Any] = {"command": "run", "port": 8000, "environment": {"A": "1"}}
WORKER: dict[str, Any] = {"command": "work", "queue": "q"}


@dataclass(frozen=True)
class Can:
    """What an engine can do."""

    support: str
    note: str = ""


@dataclass(frozen=True)
class Engine:
    """The capabilities of an engine that runs commands."""

    engine: str = "local"
    runs_images: bool = False
    table: Mapping[str, Can] = field(default_factory=dict[str, Can])


LOCAL = Engine()
CONTAINERS = Engine("kubernetes", runs_images=True)


def fleet_of(engine: str = "local", fleet: str = "f", **agents: Any) -> Fleet:
    named = {name.replace("_", "-"): spec for name, spec in agents.items()}
    return Fleet.model_validate({"fleet": fleet, "engine": engine, "agents": named})


def changed(**changes: Any) -> Change:
    """The one change of an agent whose spec has these changes."""
    (change,) = make_plan(fleet_of(a=SERVICE), fleet_of(a={**SERVICE, **changes}), LOCAL).changes
    return change


def test_equal_fleets_have_no_changes() -> None:
    """Nor do fleets that differ in order alone."""
    old = fleet_of(a={**SERVICE, "calls": ["a", "b"], "secrets": ["S", "T"]}, b=WORKER)
    new = fleet_of(b=WORKER, a={**SERVICE, "calls": ["b", "a"], "secrets": ["T", "S"]})
    plan = make_plan(old, new, LOCAL)
    assert plan.changes == () and not plan
    assert format_plan(plan) == "fleet f on the local engine\n\nNo changes."


@pytest.mark.parametrize(
    ("changes", "class_", "path"),
    [
        ({"scale": {"max": 4}}, "live", "scale.max"),
        ({"public": "/x"}, "live", "public.path"),
        ({"idempotent": ["GET"]}, "live", "idempotent"),
        ({"max_requests": 4}, "live", "max_requests"),
        ({"request_timeout": "4s"}, "live", "request_timeout"),
        ({"sticky": {"cookie": "c"}}, "live", "sticky.cookie"),
        ({"image": "i"}, "rolling", "image"),
        ({"command": "other"}, "rolling", "command"),
        ({"environment": {"A": "2"}}, "rolling", "environment.A"),
        ({"port": 8001}, "rolling", "port"),
        ({"health": "/h"}, "rolling", "health.path"),
        ({"resources": {"memory": "1Gi"}}, "rolling", "resources.memory"),
        ({"calls": ["b"]}, "rolling", "calls"),
        ({"secrets": ["S"]}, "rolling", "secrets.S"),
        ({"stop_grace_period": "1m"}, "rolling", "stop_grace_period"),
        ({"stateful": True}, "recreate", "stateful"),
        ({"stateful": True, "volumes": ["d:/d"]}, "recreate", "volumes"),
        ({"port": None, "schedule": "0 2 * * *"}, "recreate", "port"),
        ({"port": None, "queue": "q"}, "rolling", "port"),
        ({"update": {"max_surge": 1}}, "live", "update.max_surge"),
    ],
)
def test_each_field_has_its_class(changes: dict[str, Any], class_: str, path: str) -> None:
    """Live what only Shoal and the gateway hold, rolling what a replica is made of, recreate what it keeps."""
    change = changed(**changes)
    assert (change.agent, change.class_) == ("a", class_)
    assert path in [each for each, _, _ in change.fields]
    old, new = (template_of(fleet_of(a=spec), "a", {}) for spec in (SERVICE, {**SERVICE, **changes}))
    assert (revision_of(old) == revision_of(new)) is (class_ == "live")


def test_the_strongest_class_wins() -> None:
    """A new image with a new scale is a rollout."""
    assert changed(scale=3, image="i").class_ == "rolling"
    assert changed(scale=3, image="i", stateful=True).class_ == "recreate"


def test_a_secret_that_changed_is_named_and_not_shown() -> None:
    """Only agents that read it are rolled."""
    fleet = fleet_of(a={**SERVICE, "secrets": ["TOKEN"]}, b=WORKER)
    (change,) = make_plan(fleet, fleet, LOCAL, ["TOKEN", "OTHER"]).changes
    assert (change.agent, change.class_, [path for path, _, _ in change.fields]) == ("a", "rolling", ["secrets.TOKEN"])


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("DB_PASSWORD", "s3cret", False),
        ("OPENAI_API_KEY", "s3cret", False),
        ("GITHUB_TOKEN", "s3cret", False),
        ("DATABASE_URL", "postgres://u:s3cret@h/d", False),
        ("LOG_LEVEL", "s3cret", True),
        ("MONKEY", "s3cret", True),
    ],
)
def test_variables_that_look_like_secrets_are_hidden(name: str, value: str, shown: bool) -> None:
    """They should have been secrets; a plan is pasted into tickets."""
    for old in (None, fleet_of(a=SERVICE)):
        plan = make_plan(old, fleet_of(a={**SERVICE, "environment": {name: value}}), LOCAL)
        assert ("s3cret" in format_plan(plan)) is shown
        assert shown or HIDDEN in format_plan(plan)


def test_what_secrets_hold_is_masked_wherever_it_stands() -> None:
    """Whatever carried it there: in a command, in a list, beside other text."""
    old = fleet_of(a={**SERVICE, "environment": {"LINE": "s3cret-one"}})
    new = fleet_of(
        a={**SERVICE, "command": ["x", "--key=s3cret-two"], "environment": {"LINE": "now s3cret-two"}},
        b={**SERVICE, "command": ["y", "s3cret-two"]},
    )
    said = format_plan(make_plan(old, new, LOCAL, mask=Mask((b"s3cret-one", b"s3cret-two")).apply))
    assert "s3cret" not in said
    assert "--key=***" in said and '"***" -> "now ***"' in said and "command: y '***'" in said


def test_agents_that_come_and_go_are_named() -> None:
    """With their kinds, in the order of their names."""
    plan = make_plan(fleet_of(b=SERVICE, c=SERVICE), fleet_of(a=WORKER, b=SERVICE), LOCAL)
    assert [(change.agent, change.class_, change.kind) for change in plan.changes] == [
        ("a", "create", "worker"),
        ("c", "remove", "service"),
    ]


def test_queues_and_externals_are_the_fleets_own() -> None:
    """They change without a restart."""
    old, new = (
        Fleet.model_validate({"fleet": "f", "agents": {"a": WORKER}, "queues": {"q": {"max_attempts": times}}})
        for times in (3, 4)
    )
    (change,) = make_plan(old, new, LOCAL).changes
    assert change == Change(None, "live", (("queues.q.max_attempts", 3, 4),))


def test_the_broker_that_nobody_wrote_is_not_shown() -> None:
    """It comes and goes with the queues; one that changes is shown."""
    none = fleet_of(a=SERVICE)
    some = none.model_copy(update={"brokers": {"main": Broker()}, "queues": {"q": Queue()}})
    mine = some.model_copy(update={"brokers": {"main": Broker(type="rabbitmq", url="amqp://h")}})
    only = none.model_copy(update={"brokers": {"main": Broker()}})

    def shown(old: Fleet, new: Fleet) -> set[str]:
        (change,) = make_plan(old, new, LOCAL).changes
        return {path for path, *_ in change.fields if path.startswith("brokers")}

    assert shown(some, none) == shown(none, some) == set()
    assert shown(some, mine) == {"brokers.main.type", "brokers.main.url"}
    assert shown(mine, none) == {"brokers.main"}
    assert shown(only, none) == {"brokers.main"}, "else the plan would be empty"


def test_an_image_alone_is_no_command_on_this_machine() -> None:
    """The error names the ways out, for all agents at once."""
    fleet = fleet_of(a={"image": "i:1", "port": 1}, b={"image": "i:2", "port": 1}, c=SERVICE)
    with pytest.raises(PlanError) as caught:
        make_plan(None, fleet, LOCAL)
    assert str(caught.value).splitlines()[0] == (
        "agents.a: found the image i:1 and no command; on the local engine agents are started by their command (give "
        "it a `command`, or choose an engine that runs images: swarm, kubernetes)"
    )
    assert len(str(caught.value).splitlines()) == 2


def test_an_engine_of_containers_needs_images() -> None:
    """A command alone runs on this machine only."""
    with pytest.raises(PlanError, match=r"agents\.a: found no image"):
        make_plan(None, fleet_of("kubernetes", a=SERVICE), CONTAINERS)


@pytest.mark.parametrize("other", [{"fleet": "g"}, {"engine": "swarm"}])
def test_a_fleet_keeps_its_name_and_engine(other: dict[str, str]) -> None:
    """Another one is another fleet, and the first would be left behind."""
    image = {**SERVICE, "image": "i"}
    with pytest.raises(PlanError, match="shoal down"):
        make_plan(fleet_of(a=image), fleet_of(a=image, **other), CONTAINERS)


def test_notes_say_what_is_not_enforced_where_it_is_used() -> None:
    """From the table of the engine; what nobody uses is not mentioned."""
    table = {
        "agents.calls": Can("advisory", "all agents are the same user"),
        "agents.gpu": Can("impossible", "no GPUs"),
        "agents.image": Can("impossible", "give a command"),
        "agents.secrets.env": Can("advisory"),
        "agents.sticky": Can("impossible"),
        "agents.public": Can("native"),
    }
    fleet = fleet_of(
        a={**SERVICE, "calls": ["b"], "public": "/a", "image": "i"},
        b={**SERVICE, "resources": {"gpu": 1}, "secrets": ["S", {"name": "T", "as": "env"}]},
    )
    assert make_plan(None, fleet, Engine(table=table)).notes == (
        "agents.calls is not enforced on the local engine: all agents are the same user (a)",
        "agents.gpu is impossible on the local engine: no GPUs (b)",
        "agents.secrets.env is not enforced on the local engine (b)",
        "images are not used on the local engine: commands run as they are",
    )


def test_a_note_names_the_first_of_many() -> None:
    """A thousand agents make no note of a thousand names."""
    agents: dict[str, Any] = {f"a{index}": SERVICE for index in range(1000)}
    fleet = fleet_of("local", "f", **agents)
    (note,) = make_plan(None, fleet, Engine(table={"agents.port": Can("advisory")})).notes
    assert note.endswith("(a0, a1, a2, a3, a4 and 995 more)")


def test_a_restart_is_a_rollout_of_the_same() -> None:
    """It is said as one, and of a stateful agent how its replicas follow each other."""
    same = fleet_of(a=SERVICE, b={**SERVICE, "stateful": True})
    assert format_plan(make_plan(same, same, LOCAL, restarted=("a", "b"))).splitlines()[2:] == [
        "  ~ a (service): rolling: new replicas take over from old ones",
        "      restart: new replicas of the same version",
        "",
        "  ~ b (service): rolling: each replica stops before its successor starts, the highest ordinal first",
        "      restart: new replicas of the same version",
        "",
        "Plan: 2 rolling.",
    ]


def test_going_back_to_what_serves_is_told_as_what_it_is() -> None:
    """After a version that was given up nothing restarts, also where such a change would stop replicas first."""
    old = fleet_of(a={**SERVICE, "image": "bad"}, b={**SERVICE, "stateful": True, "image": "bad"}, c=SERVICE)
    new = fleet_of(a=SERVICE, b={**SERVICE, "stateful": True, "volumes": ["v:/v"]}, c={**SERVICE, "scale": 2})
    plan = make_plan(old, new, LOCAL, returning=("a", "b", "c"))
    assert [(each.class_, each.returns) for each in plan.changes] == [("live", True), ("live", True), ("live", False)]
    assert format_plan(plan).splitlines()[2] == (
        "  ~ a (service): live: this version still serves, as the one after it was given up; nothing restarts"
    )


def test_the_text_is_readable_and_stable() -> None:
    """One block an agent, units as people write them."""
    old = fleet_of(a=SERVICE, b=SERVICE, c=SERVICE, d={"command": "x", "schedule": "0 2 * * *"})
    new = fleet_of(
        a={**SERVICE, "scale": {"max": 4}, "resources": {"memory": "256Mi"}, "stop_grace_period": "1m30s"},
        b={**SERVICE, "stateful": True},
        d={"command": "y z", "schedule": "0 2 * * *"},
        e={**WORKER, "scale": {"min": 0, "max": 3, "target": {"queue_depth": 2.5}}},
    )
    assert (
        format_plan(make_plan(old, new, LOCAL))
        == """\
fleet f on the local engine

  ~ a (service): rolling: new replicas take over from old ones
      resources.memory: 256Mi
      scale.max: 1 -> 4
      stop_grace_period: 10s -> 1m30s

  -/+ b (service): recreate: each replica stops before its successor starts, the highest ordinal first
      stateful: false -> true

  - c (service): remove

  ~ d (job): rolling: from the next run on
      command: x -> y z

  + e (worker): create
      command: work
      scale.min: 0
      scale.max: 3
      scale.target.queue_depth: 2.5
      queue: q

Plan: 1 create, 1 recreate, 2 rolling, 1 remove."""
    )


SPECS = st.fixed_dictionaries(
    {},
    optional={
        "scale": st.integers(1, 3),
        "public": st.sampled_from(["/a", "/b"]),
        "environment": st.dictionaries(st.sampled_from("AB"), st.sampled_from("12")),
        "stateful": st.booleans(),
        "calls": st.lists(st.sampled_from("ab"), unique=True),
        "health": st.sampled_from(["/x", "/y"]),
    },
)
FLEETS = st.dictionaries(st.sampled_from(["a", "b"]), SPECS.map(lambda spec: {**SERVICE, **spec}), min_size=1)


@settings(max_examples=60, deadline=None)
@given(FLEETS, FLEETS)
def test_a_plan_is_empty_only_for_equal_fleets(old: dict[str, Any], new: dict[str, Any]) -> None:
    """And from a fleet to itself there is never anything to do."""
    before, after = fleet_of(**old), fleet_of(**new)
    plan = make_plan(before, after, LOCAL)
    same = {name: {**agent.model_dump(), "calls": sorted(agent.calls)} for name, agent in before.agents.items()} == {
        name: {**agent.model_dump(), "calls": sorted(agent.calls)} for name, agent in after.agents.items()
    }
    assert bool(plan) is not same
    assert not make_plan(after, after, LOCAL)
    assert {change.agent for change in plan.changes} <= {*old, *new}


def test_queues_that_go_keep_what_is_in_them_and_the_plan_says_so() -> None:
    """How much that is, where it is known; a queue that stays or is new is no note."""
    old, new = (
        fleet_of(a=WORKER).model_copy(update={"queues": dict.fromkeys(names, Queue())})
        for names in (("old", "both"), ("both",))
    )
    for messages, kept in (
        (None, "what is in it"),
        ({"old": 1, "both": 5}, "1 message"),
        ({"old": 1200}, "1,200 messages"),
    ):
        notes = [note for note in make_plan(old, new, LOCAL, messages=messages).notes if note.startswith("queue")]
        assert notes == [
            f"queue old is no longer in the fleet; the broker keeps {kept} (shoal down --volumes deletes it)"
        ]
    assert not [note for note in make_plan(new, old, LOCAL).notes if note.startswith("queue")]


def test_volumes_that_go_are_kept_and_the_plan_says_so() -> None:
    """Those of a stateful agent by the agent, others by who had them; directories of the host are nobody's to keep."""
    stock = {**SERVICE, "stateful": True, "volumes": ["stock:/data", "/srv/models:/models:ro"]}
    shared = {**SERVICE, "volumes": ["cache:/cache", "both:/both"]}
    old = fleet_of(stock=stock, a=shared, b=shared)
    new = fleet_of(stock={**stock, "volumes": []}, a={**SERVICE, "volumes": ["both:/both"]})
    notes = [note for note in make_plan(old, new, LOCAL).notes if note.startswith("volume")]
    kept = "is no longer in the fleet; it is kept (shoal down --volumes deletes it)"
    assert notes == [f"volume cache of a, b {kept}", f"volume stock of each replica of stock {kept}"]
    assert not [note for note in make_plan(new, old, LOCAL).notes if note.startswith("volume")]


def test_what_volumes_lack_is_said_of_who_uses_it() -> None:
    """That a path is not mounted concerns all, that nothing keeps from writing only those that ask for it."""
    engine = Engine(table={"agents.volumes": Can("advisory"), "agents.volumes.ro": Can("advisory")})
    fleet = fleet_of(a={**SERVICE, "volumes": ["d:/d"]}, b={**SERVICE, "volumes": ["e:/e:ro"]}, c=SERVICE)
    assert make_plan(None, fleet, engine).notes == (
        "agents.volumes is not enforced on the local engine (a, b)",
        "agents.volumes.ro is not enforced on the local engine (b)",
    )


def test_who_starts_after_whom_is_said_of_new_agents() -> None:
    """Another order restarts nothing, and concerns nobody who was started."""
    old = fleet_of(a=SERVICE, b=SERVICE)
    new = fleet_of(a={**SERVICE, "depends_on": ["b"]}, b=SERVICE, c={**WORKER, "depends_on": ["b", "a"]})
    plan = make_plan(old, new, LOCAL)
    assert plan.notes == ("c starts once a, b are ready",)
    assert {change.agent: change.class_ for change in plan.changes} == {"a": "live", "c": "create"}
    templates = [template_of(fleet, "a", {}) for fleet in (old, new)]
    assert revision_of(templates[0]) == revision_of(templates[1])


def test_rights_take_new_replicas() -> None:
    """What a container may is what it is made with."""
    old, new = fleet_of(a=SERVICE), fleet_of(a={**SERVICE, "user": "1000:1000", "read_only": False})
    plan = make_plan(old, new, LOCAL)
    assert plan.changes[0].class_ == "rolling"
    assert "      user: 1000:1000\n      read_only: true -> false" in format_plan(plan)


def test_memory_is_shown_as_people_write_it() -> None:
    """More shared memory, or another tmpfs, takes new replicas."""
    old, new = (fleet_of(a={**SERVICE, "shm_size": size, "tmpfs": ["/run"]}) for size in ("64Mi", "1.5Gi"))
    plan = make_plan(old, new, LOCAL)
    assert plan.changes[0].class_ == "rolling" and "      shm_size: 64Mi -> 1.5Gi" in format_plan(plan)


def test_what_somebody_else_changed_is_told_and_put_back() -> None:
    """With who and when, where that is known; it is something to do though the file says nothing else."""
    same = fleet_of(a=SERVICE)
    drift = (
        Drift("Deployment a-1", "spec.template.image", "nginx", "x:1", "kubectl-set", 1767225600.0, "a"),
        Drift("Deployment a-1", "spec.template.hostNetwork", True, None, "kubectl-edit", None, "a"),
        Drift("Service shoal-gateway", "spec.ports[public].port", None, 80),
        Drift("NetworkPolicy shoal-default", ""),
    )  # fmt: skip
    plan = replace(make_plan(same, same, LOCAL, restarted=["a"]), drift=drift)
    assert format_plan(plan).splitlines()[2:] == [
        "  ~ a (service): rolling: new replicas take over from old ones",
        "      restart: new replicas of the same version",
        "",
        "changed by somebody else since, and put back by `up`:",
        "  ! Deployment a-1: spec.template.image: nginx (kubectl-set, 2026-01-01 00:00:00Z) -> x:1",
        "  ! Deployment a-1: spec.template.hostNetwork: true (kubectl-edit) -> nothing",
        "  ! Service shoal-gateway: spec.ports[public].port: nothing -> 80",
        "  ! NetworkPolicy shoal-default: is gone",
        "",
        "Plan: 1 rolling, 4 put back.",
    ]
    alone = replace(make_plan(same, same, LOCAL), drift=drift[2:])
    assert alone and not alone.changes and format_plan(alone).endswith("Plan: 2 put back.")


def test_who_scales_is_said_where_the_file_asks_for_the_engines_autoscaler() -> None:
    """Those that are handed over together; of each that stays why."""
    cpu = {"min": 1, "max": 4, "target": {"cpu": "50%"}}
    base = {**SERVICE, "image": "i", "resources": {"cpu": 1}}
    agents = {
        "a": {**base, "scale": cpu},
        "b": {**base, "scale": {**cpu, "min": 0, "target": {"cpu": "50%", "rps": 9}}},
        "c": {**base, "scale": 2},
    }
    document = {"fleet": "f", "engine": "kubernetes", "kubernetes": {"autoscaler": "native"}, "agents": agents}
    assert make_plan(None, Fleet.model_validate(document), CONTAINERS).notes == (
        "a: scaled by a HorizontalPodAutoscaler; at its scale-down Kubernetes chooses who leaves, and nobody is "
        "drained before",
        "b stays with Shoal's autoscaler: a HorizontalPodAutoscaler has no min 0 and no target rps",
    )
