"""The index that the commands read instead of importing torch is that of the registry."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyro
import pytest
import torch

from pyro_kl_cli.index import Index, index

ROOT = Path(__file__).parents[2]
#: Commands that answer from files; the last one is what a wrong word gets.
WITHOUT_TORCH = [
    ("pairs",),
    ("pairs", "Gamma", "--json"),
    ("classes",),
    ("explain", "Gamma", "LogNormal"),
    ("--help",),
    ("compare", "--help"),
    ("--version",),
    ("help",),
    ("pirs",),
]


@pytest.fixture(scope="module")
def made():
    """The index as the registry makes it, in a process of its own: tests declare classes."""
    code = "import json, tools.pair_index as t; print(json.dumps(t.made()))"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return Index(json.loads(process.stdout))


def test_the_pairs_are_those_of_the_registry(made):
    stored = {pair.name: pair for pair in index().pairs}
    stale = [pair.name for pair in made.pairs if stored.get(pair.name) != pair]
    stale += stored.keys() - {pair.name for pair in made.pairs}
    assert stale == [], "run `python -m tools.pair_index`"


def test_the_classes_are_those_of_pyro(made):
    here = {"torch": torch.__version__.split("+")[0], "pyro": pyro.__version__}
    if index().versions != here:
        pytest.skip(f"the index was made with {index().versions}, whose classes differ from these")
    assert made.content == index().content, "run `python -m tools.pair_index`"


@pytest.mark.parametrize("arguments", WITHOUT_TORCH, ids=" ".join)
def test_torch_is_not_imported(arguments):
    code = (
        "import sys\nfrom pyro_kl_cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print({'torch', 'numpy', 'pyro', 'pyro_kl'} & sys.modules.keys())"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert process.stdout.splitlines()[-1] == "set()"
