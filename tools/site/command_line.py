"""The page of the command line, from what argparse prints."""

from __future__ import annotations

from pathlib import Path

from pyro_kl_cli.parser import parser

from .pages import fence, write_page


def write_command_line(root: Path) -> None:
    """docs/reference/command_line.md: the help of the program and of each command."""
    whole = parser()
    commands = next(x.choices for x in whole._actions if isinstance(x.choices, dict))
    blocks = [
        "# Command line",
        "Examples with their output are in [the guide](../how_to/command_line.md).",
        fence(whole.format_help()),
    ]
    for name, command in commands.items():
        blocks += [f"## pyro-kl {name}", fence(command.format_help())]
    write_page(root / "docs/reference/command_line.md", "\n\n".join(blocks) + "\n")
