"""`python -m pyro_kl`: what a user reads, and what bad input gets."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pyro.distributions as dist
import pytest
import torch

import pyro_kl
from pyro_kl.divergence.classes import concrete_classes, members
from pyro_kl.registry.register import pair_of
from pyro_kl_cli.explain import explained
from pyro_kl_cli.index import index
from pyro_kl_cli.main import main

ROOT = Path(__file__).parents[2]


def printed(capsys, *arguments):
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_pairs_gives_a_row_to_each(capsys):
    lines = printed(capsys, "pairs").splitlines()
    assert any(line.startswith("Gamma || LogNormal ") for line in lines)
    assert any(line.strip().startswith("Delta || Distribution: ") for line in lines), "reasons"


@pytest.mark.parametrize("columns", [None, "80"])
def test_explain_fits_a_terminal_and_a_pipe(monkeypatch, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    for pair in index().pairs:
        assert max(map(len, explained(pair).splitlines())) <= 80, pair.name


def test_explain_shows_the_functions_of_a_composed_formula(capsys):
    text = printed(capsys, "explain", "Gamma", "InverseGamma")
    for part in (
        "method     closed form",
        "finite     p.concentration > 1",
        "error      5e-15 relative, the largest of 6 reference values",
    ):
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


@pytest.mark.parametrize(
    ("p", "q", "method"),
    [
        ("Normal", "MixtureSameFamily", "quadrature"),
        ("MixtureSameFamily", "MixtureSameFamily", "quadrature"),
        ("TruncatedPolyaGamma", "Normal", "quadrature"),
        ("MultivariateNormal", "Laplace", "closed form"),
        ("LAPLACE", "multivariatenormal", "closed form"),
    ],
)
def test_both_answer_what_no_pair_of_classes_has(capsys, p, q, method):
    """What `kl` finds for two members: an integral, a rule, a product of independent copies."""
    text = printed(capsys, "explain", p, q)
    assert f"method     {method}" in text
    assert "nats  [" in text
    text = printed(capsys, "compare", p, q)
    assert f"nats  [{method}" in text
    assert "z  " in text


@pytest.mark.filterwarnings("ignore")
def test_explain_answers_wherever_kl_does(capsys):
    """Every class of Pyro's against itself, and some against others."""
    classes = concrete_classes()
    others = random.Random(0).sample(list(product(classes, repeat=2)), 60)
    for p, q in [(cls, cls) for cls in classes] + others:
        answers = pair_of(p, q) is not None or any(
            answered(a, b)
            for a, b in product(known(p), known(q))
            if a.event_shape == b.event_shape
        )
        code = main(["explain", p.__name__, q.__name__])
        said = capsys.readouterr()
        assert (code == 0) >= answers, (p, q, said.err)
        assert said.err.count("\n") == (code != 0)


def known(cls):
    try:
        return members(cls)[:2]
    except LookupError:
        return ()


def answered(p, q):
    try:
        pyro_kl.kl(p, q)
    except NotImplementedError:
        return False
    return True


def test_the_table_fits_a_width_and_can_be_filtered(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    wide = printed(capsys, "pairs", "Gamma")
    rows = [line for line in wide.splitlines()[1:] if " || " in line.split("  ")[0]]
    assert all("Gamma" in row.split("  ")[0].split(" || ") for row in rows)
    assert len(rows) > 50
    monkeypatch.setenv("COLUMNS", "80")
    for command in (["pairs"], ["classes"]):
        lines = printed(capsys, *command).splitlines()
        assert max(map(len, lines)) <= 80
    narrow = printed(capsys, "pairs", "gamma", "--method", "quadrature")
    assert "".join(narrow.split()) != ""
    assert "closed form" not in narrow
    two = printed(capsys, "pairs", "Gamma", "LogNormal").splitlines()
    assert [line.split("  ")[0] for line in two if " || " in line] == [
        "p || q",
        "Gamma || LogNormal",
        "LogNormal || Gamma",
    ]
    # a class without pairs of its own has those of its base
    assert printed(capsys, "pairs", "NanMaskedMultivariateNormal") == printed(
        capsys, "pairs", "MultivariateNormal"
    )


@pytest.mark.parametrize("arguments", [["pairs"], ["--help"], ["compare", "Gamma", "LogNormal"]])
def test_a_closed_pipe_is_quiet(arguments):
    """The reader is gone before the first byte, as `head -0` is while torch is loading."""
    reads, writes = os.pipe()
    os.close(reads)
    process = run(arguments, stdout=writes)
    os.close(writes)
    codes = {0, 1} if arguments == ["--help"] else {1}  # argparse of new Pythons takes no notice
    assert process.returncode in codes
    assert process.stderr == ""


def test_a_full_disk_is_said():
    with open("/dev/full", "w") as full:
        process = run(["pairs"], stdout=full)
    assert process.returncode == 1
    assert "No space left" in process.stderr
    assert process.stderr.count("\n") == 1


def test_output_that_is_closed_is_no_error():
    shell = f"{sys.executable} -m pyro_kl_cli pairs Gamma LogNormal >&-"
    process = subprocess.run(shell, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert (process.returncode, process.stderr) == (0, "")


def test_ctrl_c_ends_without_a_traceback():
    """While torch is loading or while the KL is computed: whatever comes first."""
    arguments = ["compare", "Gamma(2, 1)", "LogNormal(0, 1)", "--samples", "100000000"]
    command = [sys.executable, "-m", "pyro_kl_cli", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    # a library may have set the signal's default while it is loading: for a shell this is 130 too
    assert process.returncode in (130, -signal.SIGINT)
    assert error == ""


def test_letters_that_the_terminal_has_not():
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    process = run(["explain", "Pareto", "Gamma"], stdout=subprocess.PIPE, env=ascii_only)
    assert process.returncode == 0
    assert process.stdout.isascii()


def run(arguments, **options):
    command = [sys.executable, "-m", "pyro_kl_cli", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, **options)


def test_version(capsys):
    assert f"pyro_kl {pyro_kl.__version__}, torch " in printed(capsys, "--version")


def test_compare_prints_both_and_z(capsys):
    text = printed(capsys, "compare", "Gamma", "LogNormal")
    assert text.count("KL(Gamma || LogNormal)") == 3
    assert "sampled" in text
    assert "z " in text


def test_expressions_have_the_kl_of_python(capsys):
    q = "MixtureSameFamily(Categorical(probs=[.3, .7]), Normal([0., 1.], 1.))"
    found = json.loads(printed(capsys, "explain", "Normal([0, 1], 2)", q, "--json"))
    parts = dist.Normal(double([0.0, 1.0]), double([1.0, 1.0]))
    mixture = dist.MixtureSameFamily(dist.Categorical(probs=double([0.3, 0.7])), parts)
    right = pyro_kl.kl(dist.Normal(double([0.0, 1.0]), double([2.0])), mixture)
    assert found["value"] == right.value.tolist()
    assert found["error"] == right.error.tolist()
    assert (found["method"], found["pair"]) == ("quadrature", None)
    text = printed(capsys, "explain", "Gamma(2, 1)", "LogNormal(0, 1)")
    assert "reference  Johnson" in text
    assert "\n  KL         0.176348 nats  [closed form: " in text


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def test_a_batch_keeps_every_word_at_a_narrow_width(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    text = printed(capsys, "compare", "Gamma([2, 1], 1)", "LogNormal(0, 1)", "--samples", "100")
    assert max(map(len, text.splitlines())) <= 40
    p, q = dist.Gamma(double([2.0, 1.0]), 1.0), dist.LogNormal(0.0, 1.0)
    line = " ".join(pyro_kl.kl(p, q).line().split())
    assert line in " ".join(text.split())


def test_compare_takes_samples_and_a_seed(capsys):
    arguments = ("compare", "Gamma(2, 1)", "LogNormal(0, 1)", "--samples", "500", "--json")
    one, same, other = (
        json.loads(printed(capsys, *arguments, "--seed", seed)) for seed in ("1", "1", "2")
    )
    assert one == same
    assert one["exact"] == other["exact"]
    assert one["sampled"]["value"] != other["sampled"]["value"]
    assert one["sampled"]["num_samples"] == 500
    assert abs(one["z"]) < 5
    never = json.loads(printed(capsys, "compare", "Normal(0, 1)", "Gamma(1, 1)", "--json"))
    assert (never["exact"]["value"], never["z"]) == ("inf", None)
    assert torch.get_default_dtype() == torch.float32


def test_compare_takes_another_divergence(capsys):
    pair = ("compare", "Gamma(2, 1)", "LogNormal(0, 1)")
    text = printed(capsys, *pair, "--divergence", "renyi", "--alpha", "2")
    assert text.startswith("Renyi(2.0)(Gamma || LogNormal)\n")
    assert "exact      inf nats" in text
    found = json.loads(printed(capsys, *pair, "--divergence", "jensen-shannon", "--json"))
    p, q = dist.Gamma(double(2.0), 1.0), dist.LogNormal(double(0.0), 1.0)
    assert found["divergence"] == "Jensen-Shannon"
    assert found["exact"]["value"] == float(pyro_kl.jensen_shannon(p, q))
    assert abs(found["z"]) < 5


def test_entropy_of_an_expression_and_of_the_examples_of_a_class(capsys):
    assert "entropy    1.93147 nats  [exact sum" in printed(capsys, "entropy", "Poisson(3)")
    assert printed(capsys, "entropy", "Beta").count("entropy(Beta)") == 3
    found = json.loads(printed(capsys, "entropy", "Gamma([2, 3], 1)", "--json"))
    assert found["value"] == pytest.approx(dist.Gamma(double([2.0, 3.0]), 1.0).entropy().tolist())
    assert len(json.loads(printed(capsys, "entropy", "Beta", "--json"))) == 3


def test_a_class_of_the_user_may_raise_anything(capsys, tmp_path, monkeypatch):
    (tmp_path / "raising_law.py").write_text(
        "from pyro.distributions import Normal\n"
        "class Raising(Normal):\n"
        "    def log_prob(self, value):\n        return {}['density']\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["explain", "raising_law.Raising(0, 1)", "Normal(0, 1)"]) == 2
    assert capsys.readouterr().err == "KeyError: 'density'\n"


@pytest.mark.parametrize("p", ["Gamma(2, 1)", "Dirichlet([1, 2])"])
def test_compare_draws_a_picture(capsys, tmp_path, p):
    path = tmp_path / "out.png"
    text = printed(capsys, "compare", p, p.replace("2", "3"), "--plot", str(path))
    assert f"Written: {path}" in text
    assert path.read_bytes().startswith(b"\x89PNG")


def test_an_option_before_its_command_is_told_its_place(capsys):
    with pytest.raises(SystemExit):
        main(("--json", "explain", "Gamma", "Beta"))
    assert "'--json'; write it after `pyro-kl explain`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("compare", "Gamma(2, 1)", "Gamma(1, 1)", "--plot", "none/a.png"), "--plot none/a.png:"),
        (("compare", "Gamma(2, 1)", "Gamma(1, 1)", "--samples", "1"), "--samples 1: from 2 to"),
        (("compare", "Gamma(2, 1)", "Gamma(1, 1)", "--seed", "-1"), "--seed -1: from 0 to 42949"),
        (("compare", "Gamma(2, 1)", "Gamma(1, 1)", "--plot", "none"), "--plot none: the name of"),
        (
            ("compare", "Poisson(3)", "Normal(0, 1)", "--plot", "none.png"),
            "--plot none.png: one of the distributions is discrete",
        ),
        (
            ("compare", "Beta", "Beta", "--alpha", "2"),
            "--alpha is the order of --divergence renyi",
        ),
        (("compare", "Beta", "Beta", "--divergence", "renyi"), "give both or neither"),
        (
            ("compare", "Beta", "Beta", "--divergence", "renyi", "--alpha", "-1"),
            "alpha must be a number from 0 to infinity",
        ),
        (
            ("compare", "Beta", "Beta", "--divergence", "jeffreys", "--plot", "a.png"),
            "--plot draws the KL",
        ),
        (("entropy", "Rejector"), "No formula for the entropy of Rejector. Rejector: the"),
        (("entropy", "Poison"), "did you mean Poisson"),
        (("explain", "Normal(0, 1)", "Normal([0, 1], 1).to_event(1)"), "event shapes"),
        (("explain", "Normal(zeros(1000, 1), 1)", "Normal(zeros(2000), 1)"), "is too large"),
        (
            ("explain", "Gama", "Gamma"),
            "'Gama' is not a class of pyro.distributions; did you mean",
        ),
        (("explain", "lognorml", "Gamma"), "did you mean LogNormal"),
        (("explain", "Rejector", "Gamma"), "No formula for KL(Rejector || Gamma). Rejector: the"),
        (("compare", "Gamma", "os"), "'os' is not a class"),
        (("compare", "MixtureOfDiagNormals", "MixtureOfDiagNormals"), "pyro_kl.bounds(p, q)"),
        (("explain", "Dirichlet", "Wishart"), "No formula for KL(Dirichlet || Wishart)"),
        (("pairs", "Gamma", "Normal", "Beta"), "pairs takes one class or two, not 3"),
        (("pairs", "Gama"), "did you mean Gamma?"),
        (("pairs", "--method", "exact"), "did you mean exact sum?"),
        (("pairs", "Normal", "Rejector"), "no registered pair has all of that"),
    ],
)
def test_bad_input_gets_one_line(capsys, arguments, says):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
