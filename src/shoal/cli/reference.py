"""docs/cli.md, made from the commands themselves: `python -m shoal.cli.reference > docs/cli.md`."""

from __future__ import annotations

import inspect

import click

from shoal.cli.main import ENTRIES, cli

_HEAD = """\
# The command line

<!-- Made by `python -m shoal.cli.reference`; a test says when it is stale. -->

Data goes to stdout, progress and errors to stderr. Colours are left out where the output is no terminal, with
`--no-color`, and where `NO_COLOR` is set.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | an error, told in words; for `doctor`: something would fail |
| 2 | wrong usage; for `plan --detailed-exitcode`: there are changes |
| 70 | a fault of Shoal's own, told with how to report it |
| 130 | Ctrl-C |

The fleet is that of the nearest `shoal.yaml` or `shoal.yml`, in this directory or one above it. A fleet keeps its state
in `$SHOAL_HOME/FLEET`; without that variable in `$XDG_STATE_HOME/shoal/FLEET`, which is usually
`~/.local/state/shoal/FLEET`. Its controller listens there on `controller.sock` and writes `controller.log`. One on a
Swarm keeps it there; on this machine is only the context by which you reach its controller (`shoal context`).

Secrets are taken from the variables of their names, else from `.env` beside the file, by each `up`.
"""


def render_reference() -> str:
    """The whole page."""
    with click.Context(cli, info_name="shoal", **cli.context_settings) as root:
        parts = [_HEAD, _options(cli, root)]
        sections: dict[str, list[str]] = {}
        for name, entry in ENTRIES.items():
            sections.setdefault(entry.section, []).append(name)
        for section, names in sections.items():
            parts.append(f"## {section}\n")
            for name in names:
                command = cli.get_command(root, name)
                assert command is not None
                parts += _command(command, root, f"shoal {name}", "###")
    return "\n".join(part for part in parts if part)


def _command(command: click.Command, parent: click.Context, path: str, heading: str) -> list[str]:
    ctx = click.Context(command, info_name=path.rpartition(" ")[2], parent=parent)
    with ctx:
        usage = " ".join([path, *command.collect_usage_pieces(ctx)])
        parts = [
            f"{heading} {path}\n",
            f"```\n{usage}\n```\n",
            f"{_text(command.help or '')}\n",
            _options(command, ctx),
        ]
        if isinstance(command, click.Group):
            for name in command.list_commands(ctx):
                inner = command.get_command(ctx, name)
                assert inner is not None
                parts += _command(inner, ctx, f"{path} {name}", "####")
    return parts


def _text(help_text: str) -> str:
    """Paragraphs as Markdown; what `\\b` keeps as it stands becomes a block of code."""
    paragraphs: list[str] = []
    for paragraph in inspect.cleandoc(help_text).split("\n\n"):
        if paragraph.startswith("\b\n"):
            paragraphs.append("```\n" + paragraph.removeprefix("\b\n") + "\n```")
        else:
            paragraphs.append(paragraph)
    return "\n\n".join(paragraphs)


def _options(command: click.Command, ctx: click.Context) -> str:
    records = [record for param in command.params if (record := param.get_help_record(ctx)) is not None]
    if not records:
        return ""
    rows = [f"| `{_cell(names)}` | {_cell(text)} |" for names, text in records]
    return "\n".join(["| option | |", "|---|---|", *rows, ""])


def _cell(text: str) -> str:
    """A bar within a cell would begin another one."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    click.echo(render_reference(), nl=False)
