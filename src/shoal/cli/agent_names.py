"""Names of agents and queues for the shell's completion: from the file alone, quickly, and never with an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def complete_agents(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str | CompletionItem]:
    """The agents that the file names."""
    return _complete(ctx, "agents", incomplete)


def complete_queues(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str | CompletionItem]:
    """The queues that the file names."""
    return _complete(ctx, "queues", incomplete)


def _complete(ctx: click.Context, section: str, incomplete: str) -> list[str | CompletionItem]:
    from shoal.cli.options import Common

    try:
        import yaml

        document: Any = yaml.safe_load(ctx.ensure_object(Common).paths()[0].read_text(encoding="utf-8"))
        names = cast(dict[str, object], document.get(section) or {})
    except Exception:  # noqa: BLE001 - a broken file must not write into the middle of a person's command line
        return []
    return [name for name in names if name.startswith(incomplete)]
