"""The checks of `pyro-kl check`: each gives one outcome for every pair that it tries."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pyro_kl import Case, Pair, check, compare, kl, registered
from pyro_kl.divergence.check_report import CheckReport

from .index import index
from .operands import double_precision

_REFERENCE = Path(__file__).with_name("reference_values.json")
_SAMPLES = 5_000
#: A sampled value further from the exact one, in standard errors, is another value.
_LARGEST_Z = 5.0
#: The short form runs the conformance checks on each class against itself, and on one of so many
#: other pairs.
_ONE_OF = 32
#: What cannot be compared, and why: the reason is not the KL.
LEFT_OUT: Mapping[str, str] = {
    "ContinuousBernoulli": "torch clamps its probabilities, which its samples show",
    "Empirical": "it has atoms, which no integral finds",
    "MaskedDistribution": "it has no density to integrate",
}


@dataclass(frozen=True)
class Outcome:
    """One pair under one check.

    Attributes:
        pair: "p || q".
        wrong: what is wrong, with both numbers; "" if nothing is.
        measure: the number that the check is about, or 0.
    """

    pair: str
    wrong: str = ""
    measure: float = 0.0


def worked_cases(full: bool) -> Iterator[Outcome]:
    """Each formula against the values of its declaration, to 6 digits."""
    for pair in registered():
        for case in pair.cases:
            yield Outcome(pair.name, pair.wrong_case(case))


def reference_values(full: bool) -> Iterator[Outcome]:
    """The relative error against a value of 20 digits or more, as a part of the tabulated one."""
    for pair, case, tabulated in _stored():
        found = kl(*pair.made(case))
        error = abs(float(found) - case.value) / abs(case.value)
        told = 0.0 if found.error is None else float(found.error) / abs(case.value)
        promised = max(tabulated, told)  # an integral says itself how good it is
        wrong = f"{float(found)!r} nats where {case.value!r} is right; {promised:.0e} is promised"
        held = error <= promised  # not of nan
        yield Outcome(pair.name, "" if held else wrong, error / promised)


def samples(full: bool) -> Iterator[Outcome]:
    """|z| of the sampled value beside the exact one, at the same parameters."""
    for pair, case, _ in _stored():
        if _is_left_out(pair):
            continue
        try:
            # torch's GeneralizedPareto mixes dtypes with any other default
            with double_precision():
                found = compare(*pair.made(case), num_samples=_SAMPLES)
        except NotImplementedError:  # without a sampler
            continue
        z = abs(float(found.z_score))
        if math.isnan(z):  # the standard error does not hold, which the comparison says
            continue
        wrong = f"exact {found.exact:.6g}, sampled {found.sampled:.6g}, z {z:.1f}"
        yield Outcome(pair.name, wrong if z > _LARGEST_Z else "", z)


def conformance(full: bool) -> Iterator[Outcome]:
    """`pyro_kl.check`: definition, gradients, shapes, dtypes, nan, infinity, KL(p || p) = 0."""
    for pair in registered():
        if not (full or _in_short_form(pair)) or _is_left_out(pair):
            continue
        try:
            report: CheckReport = check(pair)
        except LookupError:  # without an example
            continue
        failures = [f"{failure.check}: {failure.detail}" for failure in report.failures]
        yield Outcome(pair.name, "; ".join(failures))


def _in_short_form(pair: Pair) -> bool:
    """Whether a pair is tried without --full; most infinite pairs are one rule."""
    if pair.p is pair.q:
        return True
    return pair.method != "infinite" and zlib.crc32(pair.name.encode()) % _ONE_OF == 0


def _is_left_out(pair: Pair) -> bool:
    return not LEFT_OUT.keys().isdisjoint((pair.p.__name__, pair.q.__name__))


def _stored() -> Iterator[tuple[Pair, Case, float]]:
    """The stored reference values, each with the relative error that is promised."""
    pairs = {pair.name: pair for pair in registered()}
    promised = {pair.name: pair.error[0] for pair in index().pairs if pair.error}
    stored = json.loads(_REFERENCE.read_text(encoding="utf-8"))["values"]
    for name, (p, q, value) in stored.items():
        if name in pairs:
            yield pairs[name], Case(p, q, value), promised[name]


Check = Callable[[bool], Iterator[Outcome]]
#: The checks, by what the table says; and the form of the largest measure, if there is one.
CHECKS: Mapping[str, tuple[Check, str]] = {
    "worked cases": (worked_cases, ""),
    "reference values": (reference_values, "{:.2f} of the tabulated error"),
    "samples": (samples, "|z| = {:.2f}"),
    "conformance": (conformance, ""),
}
