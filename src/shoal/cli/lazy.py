"""Commands that are imported when they are called. `shoal --help` knows them by a table, so that it costs no more than
importing Click; a test holds the table and the commands together."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives (`module:attribute`), its short help and the section of the help it stands in."""

    target: str
    help: str
    section: str


class LazyGroup(click.Group):
    """A group whose commands are those of a table, each imported at its first use."""

    def __init__(self, *args: object, entries: dict[str, Entry] | None = None, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # click's own arguments, passed on
        self.entries = entries or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself, imported now."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As Click's, with the nearest name in the error."""
        name = args[0]
        if name not in self.entries and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, self.entries, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such command '{name}'.{hint}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The table's names and the group's own options, without importing a command."""
        from click.shell_completion import CompletionItem

        matching = [(name, entry) for name, entry in self.entries.items() if name.startswith(incomplete)]
        names = [CompletionItem(name, help=entry.help) for name, entry in matching]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table by sections, without importing a command."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, entry in self.entries.items():
            sections.setdefault(entry.section, []).append((name, entry.help))
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl(rows, col_max=14)
