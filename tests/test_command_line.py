"""`python -m pyro_kl`: what a user reads, and what bad input gets."""

from __future__ import annotations

import pytest

from pyro_kl.__main__ import main


def printed(capsys, *arguments):
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_pairs_gives_a_row_to_each(capsys):
    lines = printed(capsys, "pairs").splitlines()
    assert any(line.startswith("Gamma || LogNormal ") for line in lines)
    assert any(line.strip().startswith("Delta || Distribution: ") for line in lines), "reasons"


def test_explain_shows_the_functions_of_a_composed_formula(capsys):
    text = printed(capsys, "explain", "Gamma", "InverseGamma")
    for part in ("method     closed form", "finite     p.concentration > 1", "error      at most"):
        assert part in text
    # the code of the moment that q asks for, and of p's entropy
    assert "rate / (concentration - 1)" in text
    assert "H(p)" in text
    assert "digamma" in text


def test_explain_shows_the_derivation_of_a_written_formula(capsys):
    text = printed(capsys, "explain", "Gamma", "Gamma")
    assert "KL = c (r - 1 - log r)" in text
    assert "replaces   torch's" in text


def test_explain_an_infinite_pair(capsys):
    text = printed(capsys, "explain", "Normal", "Gamma")
    assert "finite     never" in text
    assert "error      none" in text


def test_compare_prints_both_and_z(capsys):
    text = printed(capsys, "compare", "Gamma", "LogNormal")
    assert text.count("KL(Gamma || LogNormal)") == 3
    assert "sampled" in text
    assert "z " in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("explain", "Gama", "Gamma"), "'Gama' is not a class of pyro.distributions"),
        (("explain", "Rejector", "Gamma"), "No formula for KL(Rejector || Gamma)"),
        (("compare", "Gamma", "os"), "'os' is not a class"),
    ],
)
def test_bad_input_gets_one_line(capsys, arguments, says):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
