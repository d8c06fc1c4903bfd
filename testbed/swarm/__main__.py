"""`python -m testbed.swarm`: the bed's verbs."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from testbed.commands import BedError
from testbed.docker_root import docker_version
from testbed.images import build_images
from testbed.node_verbs import NODE_VERBS, START, NodeVerbs
from testbed.swarm import dockerd, environment, life, loading
from testbed.swarm import node as machine
from testbed.swarm.bed import Bed, Node, Shape

_NODE_VERBS: NodeVerbs = {
    **NODE_VERBS,
    "start": (life.start, START),
    "killd": (dockerd.kill, "kills dockerd and containerd alone; containers go on"),
    "startd": (life.start_dockerd, "starts dockerd again"),
}


def main() -> int:
    arguments = _parser().parse_args()
    try:
        return _do(environment.bed_from_environment(), arguments)
    except BedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _do(bed: Bed, arguments: argparse.Namespace) -> int:
    verb: str = arguments.verb
    if verb == "status":
        return _status(bed)
    if verb == "env":
        print(f"export DOCKER_HOST=unix://{bed.node_named(arguments.node).socket}")
        return 0
    if verb in ("docker", "sh"):
        node = bed.node_named(arguments.node)
        command = _client(node, arguments) if verb == "docker" else machine.inside(node, arguments.command or ["sh"])
        os.execvp(command[0], command)
    started = time.monotonic()
    with life.held(bed):
        if verb == "up":
            shape = life.up(bed, _shape(arguments))
            print(life.table(life.status(bed)))
            print(f"up: {shape}, Docker {docker_version(life.prepare(bed))}", end="")
        elif verb == "down":
            life.down(bed, purge=arguments.purge)
            print("down", end="")
        elif verb == "load":
            _load(bed, arguments.file)
        elif verb == "prepare":
            print(f"Docker {docker_version(life.prepare(bed))} in {life.prepare(bed)}", end="")
        else:
            _NODE_VERBS[verb][0](bed.node_named(arguments.node))
            print(f"{verb} {arguments.node}", end="")
    print(f" ({time.monotonic() - started:.1f} s)")
    return 0


def _load(bed: Bed, files: list[Path]) -> None:
    if files:
        loading.load_files(bed.nodes(), files)
    else:
        images = build_images(bed.cache)
        loading.load_images(bed.nodes(), images.all())
        for image in images.all():
            print(f"{image.tag} {image.image_id}")
    print(f"loaded into {len(bed.nodes())} nodes", end="")


def _status(bed: Bed) -> int:
    states = life.status(bed)
    print(life.table(states) if states else "the bed is not up; start it with: python -m testbed.swarm up")
    return 0 if states else 3


def _client(node: Node, arguments: argparse.Namespace) -> list[str]:
    """Docker's command line: this machine's, or the one of the nodes, with the libraries that it needs."""
    root = life.prepare(node.bed)
    libraries = root / "usr/lib/x86_64-linux-gnu"
    own = [str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries), str(root / "usr/bin/docker")]
    client = [found] if (found := shutil.which("docker")) else own
    return [*client, "--host", f"unix://{node.socket}", *arguments.command]


def _shape(arguments: argparse.Namespace) -> Shape | None:
    """What was asked for; None where nothing was."""
    given: dict[str, Any] = {
        "managers": arguments.managers,
        "workers": arguments.workers,
        "heartbeat_s": arguments.heartbeat,
        "registry": arguments.registry or None,
        "generic": _generic(arguments.gres) or None,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    return Shape(**asked) if asked else None


def _generic(given: list[str]) -> dict[str, list[str]]:
    """`n2=gpu=GPU-1,gpu=GPU-2` by node."""
    found: dict[str, list[str]] = {}
    for text in given:
        node, _, resources = text.partition("=")
        if not all("=" in resource for resource in resources.split(",")):
            raise BedError(f"--gres {text}: expected NODE=KIND=ID,..., such as n2=gpu=GPU-1,gpu=GPU-2")
        found.setdefault(node, []).extend(resources.split(","))
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m testbed.swarm",
        description=f"{__doc__}\n\n{environment.__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("up", help="makes the bed whole; changes nothing where it is")
    up.add_argument("--managers", type=int, help="default 1")
    up.add_argument("--workers", type=int, help="default 2")
    up.add_argument("--heartbeat", type=float, metavar="S", help="default 5; a node is down after three missed ones")
    up.add_argument("--registry", action="store_true", help="a registry with a password at registry:5000")
    up.add_argument("--gres", action="append", default=[], metavar="NODE=KIND=ID,...", help="generic resources")
    down = verbs.add_parser("down", help="ends all of it")
    down.add_argument("--purge", action="store_true", help="the nodes' disks too, with the images on them")
    verbs.add_parser("prepare", help="downloads Docker's root file system, and no more")
    verbs.add_parser(
        "status", help="every node: name, address, state, role, socket; exit code 3 where the bed isn't up"
    )
    load = verbs.add_parser("load", help="makes this checkout's images, and loads them into every node")
    load.add_argument("file", nargs="*", type=Path, help="archives, as `docker save` writes them, instead")
    for verb, (_, text) in _NODE_VERBS.items():
        verbs.add_parser(verb, help=text).add_argument("node")
    verbs.add_parser("env", help="the line for a shell that DOCKER_HOST is the node by").add_argument("node")
    for verb, text in (("docker", "Docker's command line on a node"), ("sh", "a command inside a node")):
        found = verbs.add_parser(verb, help=text)
        found.add_argument("node")
        found.add_argument("command", nargs=argparse.REMAINDER)
    return parser


if __name__ == "__main__":
    sys.exit(main())
