"""Expressions at random: no request may end in a traceback, a warning or a silent failure.

    python -m tests.command.fuzz [--minutes 10] [--seed 0]

tries expressions of a grammar, good expressions with characters changed, and any text. A failure
is shrunk and printed; it goes into the `@example`s of `test_fuzz.py`.
"""

from __future__ import annotations

import argparse
import io
import itertools
import sys
import time
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from unittest import mock

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from pyro_kl_cli.main import main

#: Expressions that are changed a little.
GOOD = (
    "Gamma(2, 1)",
    "Normal(0, 1).expand([3]).to_event(1)",
    "Normal([0, 1], [[1], [2]]).mask([True, False])",
    "MixtureSameFamily(Categorical(probs=[.3, .7]), Normal([0., 1.], 1.))",
    "TransformedDistribution(Normal(0, 1), [ExpTransform(), AffineTransform(1, 2).inv])",
    "MultivariateNormal(zeros(2), covariance_matrix=[[1, .2], [.2, 2]])",
    "Independent(Beta(ones(2), 2 ** 3 / pi), 1)",
    "Binomial(total_count=5, logits=-1)",
    "LKJCholesky(3, 1.5)",
    "torch.distributions.Poisson(torch.tensor([1, 2]))",
    "ImproperUniform(constraints.interval(0, 1), [], [])",
)
CLASSES = (
    "Normal", "Gamma", "Beta", "Uniform", "Poisson", "Binomial", "Categorical", "Dirichlet",
    "Delta", "Laplace", "StudentT", "MultivariateNormal", "LogNormal", "Bernoulli", "HalfCauchy",
    "Independent", "MixtureSameFamily", "TransformedDistribution", "Pareto", "VonMises", "Wishart",
    "ZeroInflatedPoisson", "Multinomial", "Geometric", "Empirical", "MaskedDistribution", "Stable",
    "ExpTransform", "AffineTransform", "SigmoidTransform", "Permute", "Rejector", "DiscreteHMM",
    "zeros", "ones", "eye", "full", "arange", "linspace", "tensor", "constraints.interval", "Nrm",
)  # fmt: skip
KEYWORDS = (
    "loc", "scale", "probs", "logits", "rate", "concentration", "validate_args", "total_count",
    "covariance_matrix", "low", "dim", "x",
)  # fmt: skip
METHODS = ("expand", "to_event", "mask", "inv", "foo")
#: Places for parameters, which are nearly always possible ones.
LIKELY = (
    "Normal({}, {})", "Gamma({}, {})", "Beta({}, {})", "LogNormal({}, {})", "StudentT({}, {}, {})",
    "Poisson({})", "Bernoulli(logits={})", "Binomial(7, logits={})", "Geometric(logits={})",
    "Dirichlet([{}, {}])", "Categorical(logits=[{}, {}])", "Delta({})", "Exponential({})",
    "Normal([{}, {}], {})", "Gamma([{}, {}], [[1], [{}]])", "Uniform(-{}, {})", "Pareto({}, {})",
    "MultivariateNormal([{}, {}], {} * eye(2))", "MultivariateNormal([{}, 0], {} * eye(2))",
    "MixtureSameFamily(Categorical(logits=[{}, {}]), Normal([{}, 0], {}))",
    "TransformedDistribution(Normal({}, {}), [ExpTransform()])",
    "TransformedDistribution(Gamma({}, {}), [AffineTransform({}, {})])",
    "TransformedDistribution(Laplace({}, {}), TanhTransform())", "VonMises({}, {})",
    "NegativeBinomial({}, logits={})", "ZeroInflatedPoisson({}, gate=0.3)", "LKJCholesky(2, {})",
    "Wishart({}, {} * eye(2))", "Cauchy({}, {})", "GeneralizedPareto({}, {}, {})",
)  # fmt: skip
ENDINGS = ("", "", "", ".expand([2])", ".to_event(1)", ".expand([2]).to_event(1)", ".mask(False)")
TOKENS = ("(", ")", "[", "]", ",", ".", "**", "*", "-", "1e999", "None", "True", "'", "\\", "é")


def numbers():
    return st.one_of(
        st.integers(-3, 12).map(str),
        st.floats(allow_nan=False, allow_infinity=False, width=16).map(repr),
        st.sampled_from(
            ["pi", "inf", "nan", "1e308", "1e-320", "10**12", "9**9**9", "0.0", "True"]
        ),
    )


def values():
    """Numbers, lists, calls and what is not possible, inside one another."""
    words = ("None", "True", "'word'", "x", "constraints.positive", "[]")
    leaves = st.one_of(numbers(), st.sampled_from([*GOOD, *words]))
    return st.recursive(leaves, _larger, max_leaves=8)


def _larger(inner):
    arguments = st.lists(inner, max_size=3).map(", ".join)
    keyword = st.tuples(st.sampled_from(KEYWORDS), inner).map("=".join)
    names, methods = (
        st.sampled_from(CLASSES),
        st.sampled_from(["expand", "to_event", "mask", "foo"]),
    )
    return st.one_of(
        st.builds("[{}]".format, arguments),
        st.builds("{} {} {}".format, inner, st.sampled_from("+-*/"), inner),
        st.builds("{}({})".format, names, arguments),
        st.builds("{}({}, {})".format, names, inner, keyword),
        st.builds("{}.{}({})".format, inner, methods, arguments),
    )


@st.composite
def likely(draw):
    """A distribution, most of the time."""
    shown = draw(st.sampled_from(LIKELY))
    positive = st.one_of(
        st.floats(2**-10, 2**10, width=32),
        st.sampled_from([1, 2, 1e-30, 1e30, 1e300, 5e-324, 0, -1]),
    )
    filled = shown.format(*(draw(positive) for _ in range(shown.count("{}"))))
    return filled + draw(st.sampled_from(ENDINGS))


@st.composite
def changed(draw):
    """A good expression with a few characters deleted, doubled or replaced."""
    text = draw(st.sampled_from(GOOD))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 4)))
        new = draw(st.one_of(st.sampled_from(TOKENS), st.just(""), st.text(max_size=2)))
        text = text[:start] + new + text[end:]
    return text


def expressions():
    return st.one_of(likely(), values(), changed(), st.text(max_size=20))


def check_request(p: str, q: str) -> int:
    """Ask for an explanation; it is given, or refused in one line and at most a caret."""
    out, err = io.StringIO(), io.StringIO()
    with warnings.catch_warnings(record=True) as warned, only_what_is_imported():
        warnings.simplefilter("always")
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = main(["explain", "--json", "--", p, q])
            except SystemExit as stopped:  # argparse's
                code = stopped.code
    said = err.getvalue()
    assert code in (0, 2), (code, said)
    assert (code == 0) == bool(out.getvalue())
    assert (code == 2) == bool(said.strip()), said
    assert said.count("\n") in (0, 1, 3), said
    assert "Traceback" not in said
    assert not warned, [str(each.message) for each in warned]
    return code


@contextmanager
def only_what_is_imported():
    """A path at random may be the name of any module, and importing it would run it."""

    def import_module(name):
        if name not in sys.modules:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return sys.modules[name]

    with mock.patch("pyro_kl_cli.expressions.names.import_module", import_module):
        yield


def run(minutes: float, first_seed: int) -> None:
    """Try more and more seeds until the time is over; an exception is a finding."""
    started, counts, slowest = time.monotonic(), {0: 0, 2: 0}, (0.0, "")

    def one(p, q):
        nonlocal slowest
        before = time.monotonic()
        counts[check_request(p, q)] += 1
        slowest = max(slowest, (time.monotonic() - before, f"{p!r} {q!r}"))

    for number in itertools.count(first_seed):
        if time.monotonic() - started > 60 * minutes:
            break
        options = settings(
            max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        sides = expressions(), st.one_of(st.sampled_from(GOOD), likely(), expressions())
        seed(number)(options(given(*sides)(one)))()
        print(f"seed {number}: {counts[0]} answered, {counts[2]} refused", flush=True)
    print(f"the slowest took {slowest[0]:.1f} s: {slowest[1]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    given_arguments = parser.parse_args()
    run(given_arguments.minutes, given_arguments.seed)
