"""Checks of a pair's values: worked cases, definition, samples of p, infinity, zero, sign."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch.distributions import Distribution

from ..messages import without_link
from ..numerics.quadrature.integrate import tolerance
from .check_subject import F64, Cell, Check, NotTried, Subject, Wrong, in_words, unvalidated
from .integrals.undeclared import kl_of_undeclared
from .monte_carlo import monte_carlo

#: A sampled value that is more standard errors away than this is another value.
_LARGEST_Z = 5.0
_SAMPLES, _ATOMS = 20_000, 200_000
#: torch clamps a probability of 0 to a mass of 2e-16.
_CLAMPED = math.log(1e-15)


def _cases(subject: Subject) -> None:
    """Against the worked cases of the declaration."""
    if not subject.pair.cases:
        raise NotTried("derived from two families: no case of its own")
    wrong = [text for text in map(subject.pair.wrong_case, subject.pair.cases) if text]
    if wrong:
        raise Wrong("; ".join(wrong))


def _definition(subject: Subject) -> None:
    """Against the integral, or the sum, of the classes' own densities."""
    if subject.pair.method == "point density":
        raise NotTried("no integral of a density")
    tried = 0
    for cell in subject.cells:
        p, q = subject.made(cell)
        other = _by_definition(p, q)
        if other is None:
            raise NotTried("not univariate: see the samples")
        right, error = other
        if not math.isfinite(right):
            continue
        tried += 1
        value, own_error = subject.value(cell)
        if not abs(value - right) <= 1e-6 * abs(right) + 10 * error + own_error + 1e-9:
            how = "the sum" if p.support.is_discrete else "the integral"  # type: ignore[union-attr]
            raise Wrong(f"{value:.9g} nats, and {how} of the densities is {right:.9g}, at {cell}")
    if not tried:
        raise NotTried("no example has a finite integral")


def _by_definition(p: Distribution, q: Distribution) -> tuple[float, float] | None:
    """KL from the densities alone, and its error; None if they are not univariate."""
    if p.event_shape or q.event_shape:
        return None
    try:
        discrete = p.support.is_discrete, q.support.is_discrete  # type: ignore[union-attr]
    except (NotImplementedError, AttributeError):
        return None
    if not any(discrete):
        with torch.no_grad(), tolerance(1e-9):
            try:
                found = kl_of_undeclared(p, q)
            except NotImplementedError:
                return None
        return None if found is None else (float(found.value), float(found.error.abs()))
    if not all(discrete):
        return math.inf, 0.0
    return _summed(p, q)


def _summed(p: Distribution, q: Distribution) -> tuple[float, float]:
    finite = p.has_enumerate_support
    atoms = p.enumerate_support() if finite else torch.arange(_ATOMS, dtype=F64)
    atoms = atoms.to(F64).reshape(-1)
    if not finite:
        low = getattr(p.support, "lower_bound", 0)
        atoms = atoms + float(low)
    with unvalidated():
        log_p = p.log_prob(atoms)
        inside = q.support.check(atoms)  # type: ignore[union-attr]
        log_q = q.log_prob(torch.where(inside, atoms, atoms[0]))
    if bool((~inside & (log_p > -math.inf)).any()):
        return math.inf, 0.0
    mass = log_p.exp()
    has_mass = log_p > _CLAMPED
    terms = torch.where(has_mass, mass * (log_p - log_q), 0.0)
    if bool((has_mass & inside & (log_q < _CLAMPED)).any()) or abs(1 - float(mass.sum())) > 1e-9:
        return math.nan, 0.0  # torch has clamped a mass of q, or atoms are missing
    return float(terms.sum()), 1e-12 * float(terms.abs().sum())


def _samples(subject: Subject) -> None:
    """Against the mean of log p - log q over samples of p."""
    why = subject.sides[0].samples or subject.sides[1].samples
    if why:
        raise NotTried(why)
    values = [(cell, *subject.value(cell)) for cell in subject.cells]
    known = [(cell, x, error) for cell, x, error in values if math.isfinite(x)]
    # a KL near 1 is the best: there log p - log q has light tails, and its mean a small error
    known.sort(key=lambda item: abs(math.log(abs(item[1]) + 1e-9)))
    judged = 0
    for cell, value, own_error in known[:3]:
        try:
            sampled = monte_carlo(*subject.made(cell), _SAMPLES)
        except (RuntimeError, ValueError) as why_not:
            raise NotTried(f"{type(why_not).__name__}: {without_link(why_not)}") from why_not
        mean, error = float(sampled.value), float(sampled.standard_error)
        if math.isnan(mean):
            raise NotTried("the densities are nan at samples of p")
        if sampled.unreliable is not None:  # few samples have the variance: no evidence
            continue
        judged += 1
        bound = _LARGEST_Z * error + own_error + 1e-6 * abs(value) + 1e-9
        if not (math.isfinite(mean) and abs(mean - value) <= bound):
            raise Wrong(f"{value:.6g} nats, and samples say {mean:.6g} +- {error:.2g}, at {cell}")
    if not known:
        raise NotTried("no example has a finite KL")
    if not judged:
        raise NotTried("the standard error of the samples does not hold")


def _infinity(subject: Subject) -> None:
    """+inf, and not nan or a number, where p has samples outside q's support."""
    why = subject.sides[0].samples
    if why:
        raise NotTried(why)
    for cell in subject.cells:
        p, q = subject.made(cell)
        try:
            outside = _samples_outside(p, q)
        except NotImplementedError:
            raise NotTried("p has no sampler, or q no support") from None
        value = float(subject.of(cell))
        if outside and value != math.inf:
            raise Wrong(f"{value:.6g} nats, and p has mass outside q's support, at {cell}")
        if math.isnan(value) or value == -math.inf:
            raise Wrong(f"{value} at {cell}")


def _samples_outside(p: Distribution, q: Distribution) -> bool:
    if p.event_shape != q.event_shape or q.support is None or p.support is None:
        return False
    if p.support.is_discrete and not q.support.is_discrete:
        return True
    return not bool(q.support.check(p.sample(torch.Size((200,)))).all())


def _itself(subject: Subject) -> None:
    """0 of a member and itself."""
    if subject.pair.p is not subject.pair.q or subject.sides[0].make is not subject.sides[1].make:
        raise NotTried("two classes")
    for cell in subject.cells:
        value, error = subject.value(Cell(cell.q, dict(cell.q)))
        if not abs(value) <= 1e-9 + error:
            raise Wrong(f"{value:.6g} nats of p = q = {in_words(cell.q)} instead of 0")


def _sign(subject: Subject) -> None:
    """Neither nan nor negative."""
    for cell in subject.cells:
        value, error = subject.value(cell)
        if math.isnan(value) or value < -1e-9 - error:
            raise Wrong(f"{value:.6g} nats, which no KL is, at {cell}")


#: The checks of this file, by what `check` prints.
VALUES: Mapping[str, Check] = {
    "worked cases": _cases,
    "definition": _definition,
    "samples": _samples,
    "infinity": _infinity,
    "itself": _itself,
    "sign": _sign,
}
