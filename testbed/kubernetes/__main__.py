"""`python -m testbed.kubernetes`: the bed's verbs."""

from __future__ import annotations

import argparse
import os
import sys
import time

from testbed.commands import BedError
from testbed.images import build_images
from testbed.kubernetes import agents, control_plane, environment, life, node, simulation
from testbed.kubernetes.bed import KubeBed, KubeShape
from testbed.kubernetes.binaries import VERSIONS
from testbed.kubernetes.daemons import Daemon
from testbed.node_verbs import NODE_VERBS, START, NodeVerbs
from testbed.swarm import node as machine
from testbed.swarm.life import held


def _node_verbs(bed: KubeBed) -> NodeVerbs:
    return {**NODE_VERBS, "start": (lambda one: life.start(bed, one), START)}


def main() -> int:
    try:
        bed = environment.bed_from_environment()
        words, passed_on = sys.argv[1:], list[str]()
        if words[:1] == ["kubectl"]:  # whose own options come first: `kubectl -n shop get pods`
            words, passed_on = words[:1], words[1:]
        return _do(bed, _parser(bed).parse_args(words), passed_on)
    except BedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _do(bed: KubeBed, arguments: argparse.Namespace, passed_on: list[str]) -> int:
    verb: str = arguments.verb
    if verb == "status":
        states = life.status(bed) if bed.kube_shape.read() is not None else []
        print("\n".join(f"{name:<26} {state}" for name, state in states) or "the bed is not up")
        return 0 if states else 3
    if verb == "env":
        print(f"export KUBECONFIG={bed.kubeconfig}")
        return 0
    if verb in ("kubectl", "sh"):
        inside = verb == "sh" and machine.inside(bed.node_named(arguments.node), arguments.command or ["sh"])
        command = inside or [*_kubectl(bed), *passed_on]
        os.execvp(command[0], command)
    started = time.monotonic()
    with held(bed):
        _change(bed, verb, arguments)
    print(f" ({time.monotonic() - started:.1f} s)")
    return 0


def _change(bed: KubeBed, verb: str, arguments: argparse.Namespace) -> None:
    if verb == "up":
        given = {"nodes": arguments.nodes, "version": arguments.version}
        asked = {name: value for name, value in given.items() if value is not None}
        print(f"up: {life.up(bed, KubeShape(**asked) if asked else None)}", end="")
    elif verb == "down":
        life.down(bed, purge=arguments.purge)
        print("down", end="")
    elif verb == "prepare":
        print(life.prepare(bed, arguments.version or KubeShape.version), end="")
    elif verb == "load":
        images = build_images(bed.cache).all()
        node.load_on_each(bed.nodes(), images)
        print("\n".join(node.name_of(image) for image in images))
        print(f"loaded into {len(bed.nodes())} nodes", end="")
    elif verb == "simulate":
        simulation.simulate(bed, arguments.count)
        print(f"{arguments.count} simulated nodes", end="")
    elif verb in ("stop", "run"):
        if verb == "stop":
            Daemon(bed.directory, arguments.part).stop()
        else:
            life.run_part(bed, arguments.part)
        print(f"{verb} {arguments.part}", end="")
    else:
        _node_verbs(bed)[verb][0](bed.node_named(arguments.node))
        print(f"{verb} {arguments.node}", end="")


def _kubectl(bed: KubeBed) -> list[str]:
    shape = bed.kube_shape.read() or KubeShape()
    return [str(life.prepare(bed, shape.version) / "kubectl"), "--kubeconfig", str(bed.kubeconfig)]


def _parser(bed: KubeBed) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m testbed.kubernetes",
        description=f"{__doc__}\n\n{environment.__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("up", help="makes the bed whole; changes nothing where it is")
    up.add_argument("--nodes", type=int, help="default 2")
    prepare = verbs.add_parser("prepare", help="builds and downloads what is needed, and no more")
    for each in (up, prepare):
        each.add_argument("--version", choices=VERSIONS, help=f"default {KubeShape.version}")
    down = verbs.add_parser("down", help="ends all of it")
    down.add_argument("--purge", action="store_true", help="the nodes' disks too, with the images on them")
    verbs.add_parser("status", help="every part and node; exit code 3 where the bed isn't up")
    verbs.add_parser("load", help="makes this checkout's images, and loads them into every node")
    for verb, (_, text) in _node_verbs(bed).items():
        verbs.add_parser(verb, help=text).add_argument("node")
    for verb, text in (("stop", "ends a part of the control plane, or an agent of the bed"), ("run", "runs it again")):
        verbs.add_parser(verb, help=text).add_argument("part", choices=(*control_plane.PARTS, *agents.AGENTS))
    simulate = verbs.add_parser("simulate", help="so many nodes that only seem to be there (KWOK), beside the others")
    simulate.add_argument("count", type=int)
    verbs.add_parser("env", help="the line for a shell that KUBECONFIG is the bed's by")
    verbs.add_parser("kubectl", help="Kubernetes' command line on the bed", add_help=False)
    inside = verbs.add_parser("sh", help="a command, or a shell, in a node's namespaces")
    inside.add_argument("node")
    inside.add_argument("command", nargs=argparse.REMAINDER)
    return parser


if __name__ == "__main__":
    sys.exit(main())
