"""Shell blocks of pages: those that start with `pyro-kl` or write a file are run and answered."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```shell\n((?:pyro-kl|cat >).*?)^```$", re.MULTILINE | re.DOTALL)


def run_shell_blocks(app: Any, docname: str, source: list[str]) -> None:
    """Put the output below each block, before Sphinx parses a page.

    The blocks of a page share an empty folder, so that one command reads what another wrote.
    """
    if not BLOCK.search(source[0]):
        return
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "bin/pyro-kl")
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pyro_kl_cli "$@"\n')
        program.chmod(0o755)
        work = Path(folder, "work")
        work.mkdir()

        def with_output(block: re.Match[str]) -> str:
            answer = output(
                block[1], work, program.parent
            )  # a page of `help` has fences of its own
            return f"{block[0]}\n\n`````text\n{answer}\n`````"

        source[0] = BLOCK.sub(with_output, source[0])


def output(commands: str, folder: Path, programs: Path) -> str:
    """What the commands print on both streams, at 80 columns.

    Raises:
        RuntimeError: a command ends with a traceback.
    """
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", commands],
        cwd=folder,
        env={**os.environ, "PATH": path, "COLUMNS": "80", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if "Traceback (most recent call last)" in done.stdout:
        raise RuntimeError(f"{commands}\n{done.stdout}")
    return done.stdout.rstrip()
