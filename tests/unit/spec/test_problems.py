"""What is refused, and how it is said: each rule by its own words, and all of them at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

SERVICE = "command: x, port: 1"
WORKER = "command: x, queue: q"
JOB = "command: x, schedule: '0 2 * * *'"

Refused = Callable[..., list[str]]


def test_everything_is_said_at_once(refuse: Refused) -> None:
    """Unknown keys, wrong values and wrong combinations of several agents, in the order of the file."""
    text = """\
fleet: Ware_house
agnets: {}
agents:
  a:
    port: 99999
    stopGracePeriod: 3s
    stateful: no
    calls: [b, zz]
    scale: {target: {cpu: 70%, queue_depth: x}}
  b:
    queue: tasks
    command: run
    sticky: {header: x}
"""
    assert refuse(text) == [
        "shoal.yaml:1:8: fleet: 'Ware_house' can't be the name of a fleet (expected small letters, digits and hyphens,"
        " a letter first, at most 40)",
        "shoal.yaml:2:1: agnets: there is no such key (did you mean `agents`?)",
        "shoal.yaml:4:3: agents.a: found neither `command` nor `image`; expected what to run",
        "shoal.yaml:5:11: agents.a.port: found 99999; expected at most 65535",
        "shoal.yaml:6:5: agents.a.stopGracePeriod: there is no such key (did you mean `stop_grace_period`?)",
        "shoal.yaml:7:15: agents.a.stateful: 'no' is text, as YAML 1.2 reads it; expected true or false",
        "shoal.yaml:8:13: agents.a.calls[0]: b has no `port`, so nobody can call it",
        "shoal.yaml:8:16: agents.a.calls[1]: 'zz' is neither an agent nor an external (there are a)",
        "shoal.yaml:9:45: agents.a.scale.target.queue_depth: 'x' is not a number; expected a number such as 20 or 0.5",
        "shoal.yaml:13:5: agents.b.sticky: only an agent with a `port` has this",
    ]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("port: '8080x'", "agents.a.port: '8080x' is not a whole number; expected a number such as 8"),
        ("port: 010", "agents.a.port: '010' is octal to some readers of YAML and decimal to others; write it"),
        ("port: 8_000", "agents.a.port: '8_000' is not a whole number in YAML 1.2; write it without the _"),
        ("port: true", "agents.a.port: true is not a whole number"),
        ("port: 1.5", "agents.a.port: 1.5 is not a whole number"),
        ("port: [1]", "agents.a.port: a list is not a whole number"),
        ("stateful: on", "agents.a.stateful: 'on' is text, as YAML 1.2 reads it; expected true or false"),
        ("stateful: 1", "agents.a.stateful: 1 is not a truth value; expected true or false"),
        ("protocol: htpp", "agents.a.protocol: found 'htpp'; expected one of http, grpc (did you mean http?)"),
        ("command: 'a \"b'", "agents.a.command: 'a \"b' can't be split as a shell would: no closing quotation"),
        ("command: []", "agents.a.command: there is no program; expected its name and its arguments"),
        ('command: ["a\\0"]', "agents.a.command: there is a NUL character in it"),
        ("command: [{a: b}]", "agents.a.command[0]: found a mapping; expected text"),
        ("image: 'a b'", "agents.a.image: found 'a b'; expected the name of an image, such as acme/warehouse:1.4"),
        ("stop_grace_period: 10 minutes", "agents.a.stop_grace_period: '10 minutes' is not a duration; expected"),
        ("stop_grace_period: .inf", "agents.a.stop_grace_period: infinity is too large; expected at most 100 years"),
        ("stop_grace_period: true", "agents.a.stop_grace_period: true is not a duration"),
        ("health: {interval: 0s}", "agents.a.health.interval: found '0s'; expected more than 0"),
        ("health: healthz", "agents.a.health.path: found 'healthz'; expected a path that starts with /"),
        ("health: [a]", "agents.a.health: found a list; expected a mapping of keys to values"),
        ("public: true", "agents.a.public: found true; expected a mapping of keys to values"),
        ("public: {}", "agents.a.public: found neither `path` nor `host`; expected one of them or both"),
        ("public: {host: 'A.example'}", "agents.a.public.host: found 'A.example'; expected a host name in lower case"),
        ("resources: {memory: 1Mi}", "agents.a.resources.memory: found '1Mi'; expected at least 4Mi"),
        ("resources: {memory: 1 GB}", "agents.a.resources.memory: '1 GB' is not an amount of memory; expected"),
        ("resources: {cpu: 0}", "agents.a.resources.cpu: found 0; expected more than 0"),
        ("idempotent: [get]", "agents.a.idempotent[0]: found 'get'; expected an HTTP method (did you mean GET?)"),
        ("sticky: {}", "agents.a.sticky: expected one of `header` and `cookie`"),
        ("sticky: {header: a, cookie: b}", "agents.a.sticky: expected one of `header` and `cookie`"),
        ("environment: {1x: 1}", "agents.a.environment.1x: '1x' can't be the name of a variable"),
        ("environment: {SHOAL_X: 1}", "agents.a.environment.SHOAL_X: names that start with SHOAL_ are Shoal's own"),
        ("environment: {PORT: 1}", "agents.a.environment.PORT: PORT is set when a replica starts, from `port`"),
        ("environment: {A: }", 'agents.a.environment.A: the variable has no value (write "${A}" to pass it on'),
        ("environment: {A: [b]}", "agents.a.environment.A: found a list; expected text"),
        ("environment: [A=1, A=2]", "agents.a.environment[1]: A is assigned a second time"),
        ("environment: A=1", "agents.a.environment: found 'A=1'; expected a mapping of keys to values"),
        ("secrets: ['a b']", "agents.a.secrets[0].name: 'a b' can't be the name of a secret"),
        ("secrets: [a, a]", "agents.a.secrets[1].name: the secret a stands here a second time"),
        ("secrets: [{as: env}]", "agents.a.secrets[0].name: the key `name` is missing"),
        ("secrets: [{name: a.b, as: env}]", "agents.a.secrets[0].name: 'a.b' can't be the name of a variable"),
        ("secrets: [{name: A, as: env}], environment: {A: 1}", "agents.a.secrets[0].name: the variable A is in"),
        ("volumes: ['d:data']", "agents.a.volumes[0]: found 'd:data'; expected NAME:PATH or DIRECTORY:PATH, such"),
        ("volumes: [/data]", "agents.a.volumes[0]: found '/data'; expected NAME:PATH or DIRECTORY:PATH, such as"),
        ("volumes: ['D:/data']", "agents.a.volumes[0]: 'D' can't be the name of a volume, and a path starts with ./"),
        ("volumes: ['d:/data:z']", "agents.a.volumes[0]: found 'z' after the path; expected `ro` or `rw`"),
        ("volumes: ['./d:/data:']", "agents.a.volumes[0]: found '' after the path; expected `ro` or `rw`"),
        ("volumes: ['d:/']", "agents.a.volumes[0]: found the path '/'; expected one below /"),
        ("volumes: ['d:/a/../..']", "agents.a.volumes[0]: found the path '/a/../..'; expected one below /"),
        ("volumes: ['d:/a', 'd:/b']", "agents.a.volumes[1]: the volume d stands here a second time"),
        ("volumes: ['a-b:/a', 'a_b:/b']", "agents.a.volumes[1]: a-b and a_b would share the variable SHOAL_VOLUME_A_B"),
        ("stateful: true, volumes: ['d:/a', 'e:/a/']", "agents.a.volumes[1]: the path /a stands here a second time"),
        ("tmpfs: [run]", "agents.a.tmpfs[0]: found 'run'; expected PATH or PATH:size=64Mi, such as /run"),
        ("tmpfs: ['/run:mode=755']", "agents.a.tmpfs[0]: found 'mode=755' after the path; expected size=64Mi"),
        ("tmpfs: ['/run:size=64m']", "agents.a.tmpfs[0]: '64m' is not an amount of memory; expected a number with a"),
        ("tmpfs: [/]", "agents.a.tmpfs[0]: found the path '/'; expected one below /"),
        ("tmpfs: [/a/../..]", "agents.a.tmpfs[0]: found the path '/a/../..'; expected one below /"),
        ("tmpfs: [/a, '/a/:size=1Mi']", "agents.a.tmpfs[1]: the path /a stands here a second time"),
        ("tmpfs: [/a-b, /a/b]", "agents.a.tmpfs[1]: /a-b and /a/b would share the variable SHOAL_TMPFS_A_B"),
        ("tmpfs: [/a], volumes: ['d:/a']", "agents.a.tmpfs[0]: there is a volume at /a already"),
        ("tmpfs: /run", "agents.a.tmpfs: found '/run'; expected a list"),
        ("shm_size: 0", "agents.a.shm_size: found 0; expected more than 0"),
        ("shm_size: lots", "agents.a.shm_size: 'lots' is not an amount of memory; expected a number with a unit"),
        ("user: 'a b'", "agents.a.user: 'a b' is no user; expected a number or name"),
        ("user: -1", "agents.a.user: '-1' is no user; expected a number or name"),
        ("cap_add: [CHOWN]", "agents.a.cap_add: only root has capabilities"),
        ("user: root, cap_add: [CHOWN, CAP_CHOWN]", "agents.a.cap_add[1]: CHOWN stands here a second time"),
        ("user: root, cap_add: [NET_BIND]", "agents.a.cap_add[0]: 'NET_BIND' is no capability of Linux; did you mean"),
        ("calls: [a, a]", "agents.a.calls[1]: a stands here a second time"),
        ("publishes: ['Q!']", "agents.a.publishes[0]: 'Q!' can't be the name of a queue"),
        ("timeout: 1m", "agents.a.timeout: only an agent with a `schedule` has this"),
        ("retries: 1", "agents.a.retries: only an agent with a `schedule` has this"),
        ("queue: q", "agents.a.queue: found `port` and `queue`; expected one of them"),
        ("scale: {min: 2}", "agents.a.scale.min: min is 2 and max is 1 by default; expected min to be at most max"),
        ("scale: {min: 3, max: 2}", "agents.a.scale.min: min is 3 and max is 2; expected min to be at most max"),
        ("scale: {target: {rps: 1}}", "agents.a.scale.target: a target needs a `max` to scale to"),
        ("scale: 0", "agents.a.scale.max: found 0; expected at least 1"),
        ("scale: -3", "agents.a.scale: found -3; expected at least 1"),
        ("scale: two", "agents.a.scale: 'two' is not a whole number; expected a number such as 8"),
        (
            "scale: {max: 2, target: {cpu: 70%}}",
            "agents.a.scale.target.cpu: a percentage of what? expected `resources.",
        ),
        ("scale: {max: 2, target: {memory: 7%}}", "agents.a.scale.target.memory: a percentage of what?"),
        ("scale: {max: 2, target: {cpu: a lot}}", "agents.a.scale.target.cpu: 'a lot' is not a percentage"),
        (
            "scale: {max: 2, target: {queue_depth: 3}}",
            "agents.a.scale.target.queue_depth: only an agent with a `queue`",
        ),
        (
            "scale: {max: 2, cron: [{start: 0 8 * * *, end: 0 18 * *, replicas: 3, time_zone: Europe/Berln}]}",
            "agents.a.scale.cron[0].end: found '0 18 * *' with 4 fields; expected five",
        ),
        (
            "scale: {behavior: {scale_up: {policies: [{type: pod, value: 1, period: 1h}]}}}",
            "agents.a.scale.behavior.scale_up.policies[0].type: found 'pod'; expected one of pods, percent",
        ),
    ],
)
def test_each_rule_for_a_service(refused_agent: Refused, lines: str, problem: str) -> None:
    """A path, what was found and what was expected."""
    base = "port: 1" if lines.startswith("command") else "command: x" if lines.startswith("port") else SERVICE
    assert any(found.startswith(problem) for found in refused_agent(f"{base}, {lines}"))


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("command: x", "agents.a: found neither `port`, `queue` nor `schedule`; expected one of them"),
        ("port: 1", "agents.a: found neither `command` nor `image`; expected what to run"),
        (f"{WORKER}, public: /x", "agents.a.public: only an agent with a `port` has this"),
        (f"{WORKER}, health: /x", "agents.a.health: only an agent with a `port` has this"),
        (f"{WORKER}, request_timeout: 1s", "agents.a.request_timeout: only an agent with a `port` has this"),
        (f"{WORKER}, scale: {{max: 2, target: {{p95: 1s}}}}", "agents.a.scale.target.p95: only an agent with a `port`"),
        ("command: 'x $PORT', queue: q", "agents.a.command[1]: $PORT is set only for an agent with a `port`"),
        (f"{JOB}, scale: 3", "agents.a.scale: a job can't have this: it runs and ends"),
        (f"{JOB}, stateful: true", "agents.a.stateful: a job can't have this: it runs and ends"),
        (f"{JOB}, queue: q", "agents.a.schedule: found `queue` and `schedule`; expected one of them"),
        (
            "command: x, schedule: '61 * * * *'",
            "agents.a.schedule.cron: '61 * * * *' is not a cron expression: bad min",
        ),
        ("command: x, schedule: '@daily'", "agents.a.schedule.cron: found '@daily'; expected five fields"),
        (
            "command: x, schedule: {cron: '* * * * *', time_zone: Europe/Berln}",
            "agents.a.schedule.time_zone: there is no time zone 'Europe/Berln' (did you mean Europe/Berlin?)",
        ),
        (
            "command: x, schedule: {cron: '* * * * *', catch_up: twice}",
            "agents.a.schedule.catch_up: found 'twice'; exp",
        ),
    ],
)
def test_each_rule_for_a_kind(refused_agent: Refused, lines: str, problem: str) -> None:
    """A worker has no requests, a job no replicas."""
    (found,) = refused_agent(lines)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("agents: {a: {command: x, port: 1}}", "fleet: the key `fleet` is missing"),
        ("fleet: f", "agents: there are no agents; expected at least one"),
        ("fleet: f\nagents: {}", "agents: there are no agents; expected at least one"),
        ("fleet: f\nagents: [a]", "agents: found a list; expected a mapping of names to blocks"),
        ("fleet: f\nagents: {a: 3}", "agents.a: found 3; expected a mapping of keys to values"),
        ("fleet: f\nagents: {A: {command: x, port: 1}}", "agents.A: 'A' can't be the name of an agent"),
        (f"fleet: f\nagents: {{{'a' * 41}: {{{SERVICE}}}}}", "can't be the name of an agent"),
        (f"fleet: f\nagents: {{a: {{{SERVICE}}}}}\nengine: k8s", "engine: found 'k8s'; expected one of local, swarm"),
        (f"fleet: f\nagents: {{a: {{{SERVICE}}}}}\nservices: {{}}", "services: there is no such key (did you mean `ag"),
        (
            f"fleet: f\nagents: {{a: {{{SERVICE}}}}}\nnamespace: x",
            "namespace: only the engine kubernetes has this, and the engine is local (write it into the environment "
            "with `engine: kubernetes`, or leave it out)",
        ),
        (
            f"fleet: f\nagents: {{a: {{{SERVICE}}}}}\nengine: kubernetes\ndocker_context: lab",
            "docker_context: only the engine swarm has this, and the engine is kubernetes",
        ),
        (f"fleet: f\nagents: {{a: {{{SERVICE}}}}}\nlocal: {{bind: here}}", "local.bind: found 'here'; expected an IP"),
        (
            f"fleet: f\nagents: {{a: {{{SERVICE}}}}}\nexternal: {{a: {{url: 'http://x'}}}}",
            "external.a: there is an agent of that name, so `calls` could mean either",
        ),
        (f"fleet: f\nagents: {{a: {{{SERVICE}}}}}\nexternal: {{b: {{url: x}}}}", "external.b.url: found 'x'; expected"),
        (f"fleet: f\nagents: {{a: {{{SERVICE}}}}}\nexternal: {{b: {{}}}}", "external.b.url: the key `url` is missing"),
        (
            f"fleet: f\nagents: {{a: {{{WORKER}}}}}\nqueues: {{q: {{broker: man}}}}",
            "queues.q.broker: there is no broker 'man' (did you mean main?)",
        ),
        (
            f"fleet: f\nagents: {{a: {{{WORKER}, publishes: [q-1, q_1]}}}}",
            "agents.a.publishes[1]: q_1 and q-1 would share the variables SHOAL_QUEUE_Q_1_...",
        ),
        (
            f"fleet: f\nagents: {{a: {{{SERVICE}, public: /x}}, b: {{{SERVICE}, public: /x/}}}}",
            "agents.b.public: the agent a is public under /x already",
        ),
        ("fleet: f\nagents: {a: &a {command: x, port: 1}, b: *a, c: {<<: 3}}", "agents.c.<<: << merges what is no"),
    ],
)
def test_each_rule_for_a_fleet(refuse: Refused, text: str, problem: str) -> None:
    """Names, routes, what must be there."""
    assert any(problem in found for found in refuse(text))


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("stopGracePeriod", "did you mean `stop_grace_period`?"),
        ("replicas", "did you mean `scale`?"),
        ("deploy", "did you mean `scale`, `resources` and `placement`?"),
        ("cron", "did you mean `schedule`?"),
        ("ports", "did you mean `port`?"),
        ("envFrom", "did you mean `env_file`?"),
        ("livenessProbe", "did you mean `health`?"),
        ("terminationGracePeriodSeconds", "did you mean `stop_grace_period`?"),
        ("restart", "leave it out: replicas that stop are always replaced"),
        ("enviroment", "did you mean `environment`?"),
        ("spec_version", ""),
    ],
)
def test_other_tools_names_are_known(refused_agent: Refused, key: str, remedy: str) -> None:
    """camelCase, Compose, Kubernetes and slips."""
    (found,) = refused_agent(f"{SERVICE}, {key}: 1")
    expected = f"agents.a.{key}: there is no such key"
    assert found == (f"{expected} ({remedy})" if remedy else expected)


@pytest.mark.parametrize("attribute", ["timeout_s", "as_", "memory_bytes", "interval_s", "files", "environments"])
def test_only_the_written_names_are_keys(refused_agent: Refused, attribute: str) -> None:
    """How the code calls a value is nobody's key."""
    (found,) = refused_agent(f"{SERVICE}, {attribute}: 1")
    assert "there is no such key" in found


def test_what_can_not_be_judged_is_not_judged(refused_agent: Refused) -> None:
    """A port that is no number is still a port: nothing follows from its being wrong."""
    (found,) = refused_agent("command: x, port: eighty, public: /x, calls: [a], health: /h")
    assert found.startswith("agents.a.port: 'eighty' is not a whole number")


@pytest.mark.parametrize(
    ("lines", "warning"),
    [
        (f"{SERVICE}, scale: {{max: 3}}", "nothing changes the count between 1 and 3 (give a target or cron)"),
        (
            f"{WORKER}, resources: {{cpu: 1}}, scale: {{min: 0, max: 3, target: {{cpu: 70%}}}}",
            "with no replica left nothing wakes the worker (give target.queue_depth, or a min of 1)",
        ),
    ],
)
def test_what_is_hardly_meant_is_a_warning(read: Callable[..., Any], lines: str, warning: str) -> None:
    """Right, but without effect."""
    (found,) = read(f"fleet: f\nagents: {{a: {{{lines}}}}}\n").warnings
    assert str(found).endswith(f"agents.a.scale: {warning}")
