"""`pyro-kl check`: what it prints, and that it finds what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from pyro_kl_cli import check, checks
from pyro_kl_cli.main import main
from tools import pair_index

ROOT = Path(__file__).parents[2]


def first(function, count):
    """A check of a few pairs."""
    return lambda full: islice(function(full), count)


@pytest.fixture
def few(monkeypatch):
    shown = {name: (first(f, 4), text) for name, (f, text) in checks.CHECKS.items()}
    monkeypatch.setattr(check, "CHECKS", shown)


def test_a_table_of_what_was_checked(few, capsys):
    assert main(["check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"torch {torch.__version__.partition('+')[0]}" in lines[0]  # a wheel may lack its +cu
    assert [line.split("  ")[0] for line in lines[4:8]] == list(checks.CHECKS)
    assert lines[-1].startswith("All is as promised")
    assert max(map(len, lines)) <= 80


def test_a_wrong_value_is_found(few, capsys, monkeypatch):
    """A formula that is off by a thousandth, as on a machine with another arithmetic."""
    registered = checks.registered

    def off(pair):
        return replace(pair, formula=lambda p, q: pair.formula(p, q) * 1.001)

    monkeypatch.setattr(checks, "registered", lambda: tuple(map(off, registered())))
    assert main(["check"]) == 1
    said = capsys.readouterr().out
    assert "the worked case p = " in said
    assert said.splitlines()[-1].endswith(" s).")
    assert " of these values are not as promised" in said


def test_a_reference_value_that_is_missed_is_found(monkeypatch):
    pair, case, promised = next(checks._stored())
    wrong = replace(case, value=case.value * 1.001)
    monkeypatch.setattr(checks, "_stored", lambda: iter([(pair, wrong, promised)]))
    (outcome,) = checks.reference_values(False)
    assert f"nats where {wrong.value!r} is right" in outcome.wrong
    assert outcome.measure > 1.0


def test_the_reference_values_are_those_of_the_tests():
    made = json.loads(json.dumps(pair_index.reference_values()))
    assert made == json.loads(checks._REFERENCE.read_text()), "run `python -m tools.pair_index`"
    assert len(made["values"]) > 500


@pytest.mark.sweep
def test_all_is_as_promised():
    process = subprocess.run([sys.executable, "-m", "pyro_kl_cli", "check"], cwd=ROOT)
    assert process.returncode == 0
