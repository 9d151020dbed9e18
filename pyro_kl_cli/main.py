"""`pyro-kl`: run one command, and end with its exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from .parser import COMMANDS, PROGRAM, parsed, versions
from .refused import Failed, Refused


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; for a wrong request print one line that says what to do.

    Args:
        argv: the words after the command's name; those of the process by default.

    Returns:
        The exit code: 0 for done, 1 for a failed check or output that cannot be written, 2 for a
        wrong request, 130 for Ctrl-C.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # for a terminal without Greek letters
    try:
        return _ended(list(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:
        _drop_output()
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # a full disk behind `>`
        _drop_output()
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1


def _ended(argv: list[str]) -> int:
    """Run the command and print its answer; the exit code."""
    try:
        arguments = parsed(argv)
        print(versions() if arguments.version else _function(arguments)(arguments), flush=True)
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 2
    except Failed as failed:
        print(failed, flush=True)
        return 1
    return 0


def _function(arguments: argparse.Namespace) -> Callable[[argparse.Namespace], str]:
    command = COMMANDS[arguments.command]
    return getattr(import_module(f".{command.module}", __package__), command.function)


def _drop_output() -> None:
    """Nothing more can be written, as to a closed pipe: what is left to write goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
