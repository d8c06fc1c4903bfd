"""`shoal completion`: the script that teaches a shell this command line."""

from __future__ import annotations

import click


@click.command(short_help="Print a completion script for a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script for a shell.

    \b
    bash   echo 'eval "$(shoal completion bash)"' >> ~/.bashrc
    zsh    echo 'eval "$(shoal completion zsh)"' >> ~/.zshrc
    fish   shoal completion fish > ~/.config/fish/completions/shoal.fish
    """
    from click.shell_completion import get_completion_class

    from shoal.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "shoal", "_SHOAL_COMPLETE").source())
