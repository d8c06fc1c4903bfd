"""`shoal render`: the objects that a fleet is started as, for who reviews, checks or keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from shoal.cli.engine_check import check_engine
from shoal.cli.options import SPEC_OPTIONS, Common, decorate, pass_common
from shoal.cli.output import say
from shoal.errors import ShoalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shoal.engines.kubernetes.render_fleet import LeftOut, RenderedFleet
    from shoal.spec.model import Fleet

_KUBERNETES = "kubernetes"


@click.command(short_help="Write the fleet as objects of Kubernetes.")
@click.option(
    "--engine",
    type=click.Choice([_KUBERNETES]),
    help="The engine, where the file or the environment does not say it.",
)
@decorate(SPEC_OPTIONS)
@pass_common
def render(common: Common, engine: str | None) -> None:
    """Write to stdout, as YAML, the objects that the first `shoal up` of the fleet makes on Kubernetes.

    No cluster is asked. The same file gives the same bytes. What is secret is named and not in it: the comment at the
    top says which Secrets `shoal up` adds.
    """
    from shoal.engines.kubernetes.render_fleet import render_fleet

    if engine is not None:
        common.sets.append(f"engine={engine}")
    loaded = common.load()
    for warning in loaded.warnings:
        say(f"warning: {warning}", fg="yellow")
    fleet = loaded.fleet
    if fleet.engine != _KUBERNETES:
        raise ShoalError(
            f"engine: found {fleet.engine}, and only a fleet on {_KUBERNETES} can be rendered; name an environment of "
            f"that engine by -e, or add --engine {_KUBERNETES}"
        )
    check_engine(loaded)
    namespace = fleet.namespace or fleet.fleet
    click.echo(format_rendered(fleet, namespace, render_fleet(fleet, namespace)), nl=False)


def format_rendered(fleet: Fleet, namespace: str, rendered: RenderedFleet) -> str:
    """One YAML document an object, below a comment that says what is not there."""
    from shoal.cli.kubernetes.manifest import format_manifest

    documents = "".join(f"---\n{format_manifest(item)}" for item in rendered.objects)
    return f"{_comment(fleet, namespace, rendered.left_out)}{documents}"


def _comment(fleet: Fleet, namespace: str, left_out: Sequence[LeftOut]) -> str:
    from shoal import __version__

    lines = [
        f"The fleet {fleet.fleet} in the namespace {namespace}, as Shoal {__version__} starts it.",
        "",
        "No value in here is secret. `shoal up` makes what is, and stores the fleet; until then what needs these",
        "Secrets waits for them:",
        *_listed(each for each in left_out if not each.stand_in),
    ]
    if stand_ins := [each for each in left_out if each.stand_in]:
        lines += [
            "",
            "These names stand in for others: Secrets are named by an HMAC of what they hold, whose key is in the",
            "cluster. `shoal up` makes them by their own names, and replaces the pods that name these:",
            *_listed(stand_ins),
        ]
    lines += ["", "Not in here either: the ConfigMaps of the state, and the controller's Lease."]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def _listed(secrets: Iterable[LeftOut]) -> list[str]:
    return [f"  {each.name}: {each.holds}" for each in secrets]
