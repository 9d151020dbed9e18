"""Types from outside: mypy --strict and pyright on code that uses the installed package.

    python -m tests.release.typed PYTHON

PYTHON is the interpreter of an environment with the wheel in it; mypy and pyright are those of
this one. What they check: each Python block of the README, and `public_api.py`.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Pyro has functions without types.
MYPY = ("--strict", "--allow-untyped-calls", "--no-incremental", "--config-file=")
PYRIGHT = {"typeCheckingMode": "standard", "reportMissingModuleSource": "none"}


def unbound(code: str) -> list[str]:
    """The names that a piece of code reads and does not bind: those of the text around it."""
    names = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    bound = {name.id for name in names if isinstance(name.ctx, ast.Store)} | set(dir(builtins))
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return sorted({name.id for name in names} - bound)


def standalone(code: str) -> str:
    """A block as a file of its own: modules imported, the other names of any type."""
    lines = ["from typing import Any"]
    for name in unbound(code):
        if name in ("torch", "pyro", "pyro_kl"):
            lines.append(f"import {name}")
        elif name == "dist":
            lines.append("import pyro.distributions as dist")
        else:
            lines.append(f"{name}: Any = ...")
    # Pages leave the types of functions out, and Pyro finds the names of `pyro.optim` as it runs.
    ignored = re.sub(r"^( *def .*:|.*\bpyro\.optim\..*)$", r"\1  # type: ignore", code, flags=re.M)
    return "\n".join([*lines, ignored])


def write_files(folder: Path) -> list[str]:
    """Write the README's blocks and `public_api.py` into a folder; their names."""
    shutil.copy(Path(__file__).with_name("public_api.py"), folder)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for number, code in enumerate(blocks, start=1):
        (folder / f"readme_{number}.py").write_text(standalone(code))
    settings = {**PYRIGHT, "include": ["*.py"]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    return sorted(path.name for path in folder.glob("*.py"))


def main(python: str) -> int:
    """Run both checkers in an empty folder; how many of them found something."""
    tools = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        names = write_files(folder)
        print("types from outside:", ", ".join(names), flush=True)
        commands = [
            [tools / "mypy", *MYPY, "--python-executable", python, *names],
            [tools / "pyright", "--pythonpath", python],
        ]
        done = [subprocess.run(command, cwd=folder) for command in commands]
    return sum(result.returncode != 0 for result in done)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
