"""`check` passes what is right, and says of every seeded mistake what is wrong."""

from __future__ import annotations

import math
import warnings
import zlib
from dataclasses import replace

import pytest
import torch
from torch.distributions import (
    Distribution,
    Exponential,
    Gamma,
    InverseGamma,
    LogNormal,
    Normal,
    Uniform,
    kl_divergence,
)

import pyro_kl
from pyro_kl import Case, Moment
from pyro_kl.registry.register import pair_of

from ..registry.test_register import Own, family

pytestmark = pytest.mark.usefixtures("registries_as_they_were")


class Rain(LogNormal):
    """A user's class."""


class Prior(Gamma):
    """Another one."""


def terms(p, q):
    """-H(p) without its Jacobian, that Jacobian, and E log q in three parts."""
    rate_term = q.concentration * q.rate.log() - torch.lgamma(q.concentration)
    return (
        -p.scale.log() - 0.5 * math.log(2 * math.pi) - 0.5,
        -p.loc,
        rate_term,
        (q.concentration - 1) * p.loc,
        q.rate * (p.loc + p.scale**2 / 2).exp(),
    )


def right(p, q):
    own, jacobian, constant, power, mean = terms(p, q)
    return own + jacobian - constant - power + mean


#: E x = 1 / 2, E log x = -1: by hand, of the densities.
START = {"loc": 0.0, "scale": 1.0}
HERE = {"concentration": 1.0, "rate": 1.0}
CASE = Case(START, HERE, -0.5 * math.log(2 * math.pi) - 0.5 + math.exp(0.5))


def registered(formula, p=Rain, q=Prior, case=CASE, **options):
    """The pair, whether or not `register` would have let it in."""
    pyro_kl.register(p, q, cases=[case], reference="here", **options)(formula)
    return pair_of(p, q)


def test_what_is_right_passes():
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = pyro_kl.check(registered(right))
    assert report.ok, report
    assert torch.equal(torch.get_rng_state(), state)
    tried = {result.check for result in report.results if result.ok}
    assert tried >= {"worked cases", "definition", "samples", "infinity", "sign", "shapes"}
    assert tried >= {"dtype", "gradients", "nan"}
    assert "10 checks" not in str(report)
    assert str(report).splitlines()[-1] == "9 of 9 checks passed; pairs: 1"
    assert report == pyro_kl.check(Rain, Prior)


def dropped_jacobian(p, q):
    return right(p, q) + p.loc


def wrong_sign(p, q):
    return right(p, q) + 2 * terms(p, q)[3]


def detached(p, q):
    own, jacobian, constant, power, mean = terms(p, q)
    return own + jacobian - constant - power + mean.detach()


def wrong_dtype(p, q):
    return right(p, q).double()


def always_single(p, q):
    return right(p, q).float()


def summed(p, q):
    return right(p, q).sum()


def flat(p, q):
    return right(p, q).reshape(-1)


def of_the_first_row(p, q):
    value = right(p, q)
    return value - value.max() + value.max() if value.numel() else value.max()


def nan_hidden(p, q):
    return torch.nan_to_num(right(p, q))


def nan_leaks(p, q):
    value = right(p, q)
    return value + 0 * value.sum()


def crashes(p, q):
    if (q.concentration > 1.1).any():
        raise KeyError("shape")
    return right(p, q)


def no_tensor(p, q):
    value = right(p, q)
    return float(value) if value.numel() == 1 else value


@pytest.mark.parametrize(
    ("formula", "check", "says"),
    [
        (dropped_jacobian, "definition", "and the integral of the densities is"),
        (dropped_jacobian, "samples", "and samples say"),
        (wrong_sign, "definition", "and the integral of the densities is"),
        (detached, "gradients", "the gradient by p's loc is"),
        (wrong_dtype, "dtype", "float32 parameters give torch.float64"),
        (always_single, "dtype", "float64 parameters give torch.float32"),
        (summed, "shapes", r"shape () of batches (3, 1) and (2,), where (3, 2) is due"),
        (flat, "shapes", r"shape (6,) of batches (3, 1) and (2,)"),
        (of_the_first_row, "shapes", "max()"),
        (nan_hidden, "nan", "p's loc is nan, and the KL is"),
        (nan_leaks, "nan", "p's loc is nan in one row, and another's"),
        (crashes, "definition", "KeyError: 'shape'"),
        (no_tensor, "definition", "the formula returns a float, not a tensor"),
    ],
)
def test_a_seeded_mistake_is_caught(formula, check, says):
    report = pyro_kl.check(registered(formula))
    assert not report.ok
    found = {failure.check: failure.detail for failure in report.failures}
    assert says in found[check], report
    assert "FAILED" in str(report)


def test_a_wrong_digit_in_a_case_is_caught():
    pair = registered(right)
    wrong = replace(CASE, value=round(CASE.value, 4))
    report = pyro_kl.check(replace(pair, cases=(wrong,)))
    assert [failure.check for failure in report.failures] == ["worked cases"]
    assert f"says {wrong.value} nats, and the formula gives 0.2297" in report.failures[0].detail


class Span(Uniform):
    """An interval: what is outside q's is infinitely far."""


def test_a_finite_value_outside_the_support_is_caught():
    case = Case({"low": 0.0, "high": 1.0}, {"low": 0.0, "high": 2.0}, math.log(2))

    def ignores_the_support(p, q):
        return torch.log((q.high - q.low) / (p.high - p.low))

    found = pyro_kl.check(registered(ignores_the_support, Span, Span, case))
    said = {failure.check: failure.detail for failure in found.failures}
    assert "p has mass outside q's support" in said["infinity"]
    assert "which no KL is" in said["sign"]


class Mine(Normal):
    """A family against itself."""


def test_a_distance_of_itself_is_caught():
    case = Case({"loc": 0.0, "scale": 1.0}, {"loc": 1.0, "scale": 1.0}, 0.5)

    def lopsided(p, q):
        return 0.5 * (p.loc - q.loc).square() + 0.1 * (p.scale - 1).square()

    found = pyro_kl.check(registered(lopsided, Mine, Mine, case))
    assert "nats of p = q =" in {f.check: f.detail for f in found.failures}["itself"]


# --- families -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_a_family_and_all_that_follows_from_it():
    own = pyro_kl.declare(family())
    for q in (Gamma, Exponential, LogNormal, own):
        assert pyro_kl.check(own, q).ok
    report = pyro_kl.check(Normal, Own)
    assert report.ok
    assert {r.check for r in report.results if r.ok} >= {"infinity", "sign", "shapes"}


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        ({"entropy": lambda scale, concentration: scale.log() + 1 + 0 * concentration}, True),
        (
            {"moments": family().moments | {"mean": Moment(lambda scale, concentration: scale)}},
            True,
        ),
        ({"reference": "another book"}, False),
    ],
    ids=["entropy", "moment", "right"],
)
def test_a_mistake_in_a_family_is_caught(changes, fails):
    pyro_kl.declare(family(**changes))
    report = pyro_kl.check(Own, Gamma)
    assert report.ok != fails
    assert ("definition" in {failure.check for failure in report.failures}) == fails


def test_all_pairs_of_a_family(monkeypatch):
    """Each of them, with one line for each that fails: here the checks are two."""
    from pyro_kl.divergence import check as conformance

    kept = {name: conformance._CHECKS[name] for name in ("worked cases", "sign")}
    monkeypatch.setattr(conformance, "_CHECKS", kept)
    own = pyro_kl.declare(family())
    report = pyro_kl.check(own)
    names = {result.pair for result in report.results}
    assert len(names) > 40
    assert all("Own" in name.split(" || ") for name in names)
    assert str(report).splitlines()[-1].endswith(f"pairs: {len(names)}")


# --- what it starts from ------------------------------------------------------------------------


class Unknown(Distribution):
    """A class that nobody has declared."""


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((Unknown, Normal), LookupError, r"no pair KL\(Unknown \|\| Normal\) is registered"),
        ((Unknown,), LookupError, "Unknown is not declared"),
        ((3.0,), TypeError, "give a Pair, a declared Family or a class"),
        ((Normal(0.0, 1.0), Normal), TypeError, "not Normal"),
    ],
)
def test_nothing_to_check(arguments, error, message):
    with pytest.raises(error, match=message):
        pyro_kl.check(*arguments)


def test_a_subclass_is_checked_as_itself():
    """It has its parent's pairs, which may not be right for its own density."""

    class Shifted(Normal):
        def log_prob(self, value):
            return super().log_prob(value - 1.0)

    said = {failure.check for failure in pyro_kl.check(Shifted, Normal).failures}
    assert "definition" in said or pair_of(Shifted, Normal).p is not Normal


SOME = [pair for pair in pyro_kl.registered() if zlib.crc32(pair.name.encode()) % 100 == 2]


@pytest.mark.parametrize("pair", SOME, ids=lambda pair: pair.name.replace(" || ", "-"))
def test_pairs_of_this_package_pass(pair):
    report = pyro_kl.check(pair)
    assert report.ok, report


def test_samples_of_infinite_variance_are_no_evidence():
    """log p - log q has a mean under p and no variance: 1 / x has a tail of index 1.1."""

    class Base(Gamma):
        pass

    class Inverse(InverseGamma):
        pass

    def kl(p, q):
        inverse = InverseGamma(q.concentration, q.rate)
        return kl_divergence(Gamma(p.concentration, p.rate), inverse)

    start = {"concentration": 1.1, "rate": 1.0}
    value = float(kl(Base(**start), Inverse(**HERE)))
    registered(kl, Base, Inverse, Case(start, HERE, value))
    report = pyro_kl.check(Base, Inverse)
    assert report.ok, report.failures
