"""The definition of the KL, integrated or summed at 50 digits.

The densities are those of `densities`; only the support is taken from a family. It is mapped to
the line such that power distributions become exponentials:

    from a upward   x = a + exp(y)
    from a to b     x = a + (b - a) / (1 + exp(-y))
    real line       x = sinh(y)

Whether the integral converges is then read off the integrand's exponential rates in both tails.
The integral itself is the trapezoidal rule in t, y = mode + width sinh(t), halved until it
stands still: the double exponential formula of Takahasi & Mori (1974). Where a density has a
kink (`Family.kinks`) the line is cut, and each piece gets a double exponential map of its own.
The same nodes must give the integral of the density itself as 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from mpmath import mp, mpf

from pyro_kl import Family
from pyro_kl.registry.family import end_at

from .densities import log_density_of

DIGITS = 50
#: Digits at which the sums are taken; the difference is there to be cancelled.
WORKING_DIGITS = 80
#: How far out the tails' rates are measured, on the line; near the end of an interval each step
#: costs digits.
FAR, FAR_IN_INTERVAL = 2000, 500
#: Doubling y must divide the integrand by e at least, or its integral diverges: a rate of
#: 1 / FAR is enough, and a power of y is not.
LEAST_DROP = 1
MAX_HALVINGS = 12
#: Nats below its top at which a density has nothing left at the working digits.
_NOTHING = 1.3 * WORKING_DIGITS * 2.302585

Parameters = Mapping[str, Any]


def exact(value: Any) -> Any:
    """A parameter as it is in float64, without rounding; a list by its elements."""
    if isinstance(value, (list, tuple)):
        return [exact(x) for x in value]
    return mpf(float(value))


def _end(value: float) -> Any:
    """An end of a support without rounding; a circle's is pi itself."""
    if abs(value) != math.pi:
        return mpf(value)
    with mp.workdps(1000):  # more than any integral's: an end that is short of pi loses mass
        return mp.sign(value) * mp.pi


class Member:
    """A member of a family: its exact parameters, the ends of its support, its kinks."""

    def __init__(self, family: Family, example: Parameters) -> None:
        self.density, support = log_density_of(family), family.support
        self.parameters = {name: exact(x) for name, x in example.items()}
        values = family.of(family.make(example))
        self.low, self.high = (
            _end(float(end_at(end, values))) for end in (support.low, support.high)
        )
        self.kinks = family.kinks(**self.parameters) if family.kinks else ()

    def log_density(self, x: Any) -> Any:
        """The log density or log mass, -inf outside the support."""
        # the ends belong to a discrete support, and are of measure zero in a continuous one
        if not self.low <= x <= self.high:
            return -mp.inf
        value = self.density(mp, x, **self.parameters)
        # the end is rounded to float64: next to it x may be beyond the pole of a density
        return -mp.inf if value == mp.inf else value

    @property
    def bounded(self) -> bool:
        """Whether both ends of the support are finite."""
        return self.low != -mp.inf and self.high != mp.inf


# --- the line -----------------------------------------------------------------------------------


class Line:
    """The map from the line to a support, its inverse, and the logarithm of its slope."""

    def __init__(self, low: Any, high: Any) -> None:
        self.low, self.high = low, high
        self.real = low == -mp.inf

    def to_support(self, y: Any) -> Any:
        """Where y lies."""
        if self.real:
            return mp.sinh(y)
        if self.high == mp.inf:
            return self.low + mp.exp(y)
        return self.low + (self.high - self.low) / (1 + mp.exp(-y))

    def from_support(self, x: Any) -> Any:
        """The inverse."""
        if self.real:
            return mp.asinh(x)
        if self.high == mp.inf:
            return mp.log(x - self.low)
        return mp.log((x - self.low) / (self.high - x))

    def log_slope(self, y: Any) -> Any:
        """log dx/dy."""
        if self.real:
            return mp.log(mp.cosh(y))
        if self.high == mp.inf:
            return y
        return mp.log(self.high - self.low) - abs(y) - 2 * mp.log1p(mp.exp(-abs(y)))


def _digits_at(distribution: Member, distance: float) -> int:
    """Digits that tell x from an end of its support that is not 0, `distance` away."""
    shifted = distribution.bounded or distribution.low not in (0, -mp.inf)
    return WORKING_DIGITS + (int(distance / 2.3) + 1 if shifted else 0)


class Integrand:
    """p (log p - log q) on the line."""

    def __init__(self, p: Member, q: Member) -> None:
        self.p, self.q = p, q
        self.line = Line(p.low, p.high)
        self.to_support, self.log_slope = self.line.to_support, self.line.log_slope

    def cuts(self) -> list[Any]:
        """The kinks of both densities, on the line."""
        inside = {x for x in (*self.p.kinks, *self.q.kinks) if self.p.low < x < self.p.high}
        return sorted(self.line.from_support(x) for x in inside)

    def log_p(self, y: Any) -> Any:
        """Log density of p as a distribution on the line."""
        return self.p.log_density(self.to_support(y)) + self.log_slope(y)

    def log_ratio(self, y: Any) -> Any:
        """Log p - log q: the same on the line and on the support."""
        x = self.to_support(y)
        return self.p.log_density(x) - self.q.log_density(x)

    def size(self, y: Any) -> Any:
        """The logarithm of the integrand's absolute value."""
        log_p = self.log_p(y)
        if log_p == -mp.inf:  # also beyond an end that is rounded
            return log_p
        ratio = abs(self.log_ratio(y))
        return log_p + mp.log(ratio) if ratio else -mp.inf

    def converges(self) -> bool:
        """Whether the integrand decays exponentially in both tails."""
        far = FAR if _digits_at(self.p, 100) == WORKING_DIGITS else FAR_IN_INTERVAL
        with mp.workdps(_digits_at(self.p, 2 * far)):
            return all(self._drop(side * far, 2 * side * far) > LEAST_DROP for side in (-1, 1))

    def _drop(self, near: int, far: int) -> Any:
        end = self.size(mpf(far))
        return mp.inf if end == -mp.inf else self.size(mpf(near)) - end


def mode_of(log_p: Callable[[Any], Any]) -> Any:
    """The mode of a unimodal density on the line, by bisection of the slope's sign."""
    low, high, step = mpf(-300), mpf(300), mpf(10) ** (-WORKING_DIGITS // 3)
    for _ in range(60):
        middle = (low + high) / 2
        if log_p(middle + step) > log_p(middle):
            low = middle
        else:
            high = middle
    return (low + high) / 2


def width_of(log_p: Callable[[Any], Any], mode: Any) -> Any:
    """How far from its mode the density has fallen by e, on the steeper side."""
    top, width = log_p(mode), mpf(2) ** 20
    while any(log_p(mode + side * width) < top - 1 for side in (-1, 1)):
        width /= 2
    return width


Piece = Callable[[Any], tuple[Any, Any]]


def _pieces(cuts: Sequence[Any], mode: Any, width: Any) -> list[Piece]:
    """Double exponential maps t -> (y, dy/dt) whose images make up the line."""
    if not cuts:
        return [lambda t: (mode + width * mp.sinh(t), width * mp.cosh(t))]

    def outward(end: Any, side: int) -> Piece:
        def piece(t: Any) -> tuple[Any, Any]:
            step = width * mp.exp(t - mp.exp(-t))
            return end + side * step, step * (1 + mp.exp(-t))

        return piece

    def between(left: Any, right: Any) -> Piece:
        middle, half = (left + right) / 2, (right - left) / 2

        def piece(t: Any) -> tuple[Any, Any]:
            return middle + half * mp.tanh(mp.sinh(t)), half * mp.cosh(t) / mp.cosh(
                mp.sinh(t)
            ) ** 2

        return piece

    inner = [between(x, y) for x, y in pairwise(cuts)]
    return [outward(cuts[0], -1), *inner, outward(cuts[-1], 1)]


def _reach(integrand: Integrand, piece: Piece, top: Any, side: int) -> int:
    """How far the sum goes in t: beyond, nothing is left at the working digits."""
    nothing = top - _NOTHING
    t = 1
    while True:
        with mp.workdps(_digits_at(integrand.p, 300)):
            y, slope = piece(mpf(side * t))
        if not slope:
            return t
        with mp.workdps(_digits_at(integrand.p, abs(float(y)))):
            if max(integrand.log_p(y), integrand.size(y)) + mp.log(slope) < nothing:
                return t
        t += 1


def integrate(p: Member, q: Member) -> Any:
    """KL of two distributions on the line; inf where the integral diverges."""
    if q.low > p.low or q.high < p.high:
        return mp.inf
    with mp.workdps(WORKING_DIGITS):
        integrand = Integrand(p, q)
        if not integrand.converges():
            return mp.inf
        with mp.workdps(_digits_at(p, 300)):
            mode = mode_of(integrand.log_p)
            width = width_of(integrand.log_p, mode)
            top = integrand.log_p(mode)
            # a kink where p has nothing left to integrate would only misplace the nodes
            cuts = [y for y in integrand.cuts() if integrand.log_p(y) > top - _NOTHING]
            pieces = _pieces(cuts, mode, width)
        ranges = [
            (piece, -_reach(integrand, piece, top, -1), _reach(integrand, piece, top, 1))
            for piece in pieces
        ]
    furthest = max(abs(float(piece(mpf(t))[0])) for piece, *ends in ranges for t in ends)
    with mp.workdps(_digits_at(p, furthest)):
        return _trapezoid(integrand, ranges)


def _trapezoid(integrand: Integrand, ranges: Sequence[tuple[Piece, int, int]]) -> Any:
    """Halve the step until the sum stands still and the density integrates to 1."""

    def add(offset: Any, step: Any) -> tuple[Any, Any]:
        mass = kl = mpf(0)
        for piece, low, high in ranges:
            t = low + offset
            while t < high:
                y, slope = piece(t)
                weight = mp.exp(integrand.log_p(y)) * slope
                mass += weight
                kl += weight * integrand.log_ratio(y) if weight else 0
                t += step
        return mass, kl

    step = mpf(1) / 4
    mass, kl = add(mpf(0), step)
    previous = kl * step
    for _ in range(MAX_HALVINGS):
        more_mass, more_kl = add(step / 2, step)
        step /= 2
        mass, kl = mass + more_mass, kl + more_kl
        value = kl * step
        # squared at each halving: a difference of 1e-26 leaves an error of about 1e-52
        still = abs(value - previous) <= mpf(10) ** (-DIGITS // 2 - 3) * abs(value)
        if still and abs(mass * step - 1) < mpf(10) ** -DIGITS:
            return value
        previous = value
    distribution = integrand.p
    raise ArithmeticError(f"no convergence: {distribution.parameters}, mass {mass * step}")


# --- atoms --------------------------------------------------------------------------------------


def add_up(p: Member, q: Member) -> Any:
    """KL of two distributions on the counts, until all of p's mass has been met."""
    with mp.workdps(WORKING_DIGITS):
        left, kl, k = mpf(1), mpf(0), 0
        while left > mpf(10) ** (-WORKING_DIGITS + 5):
            log_p = p.log_density(k)
            if log_p != -mp.inf:
                log_q = q.log_density(k)
                if log_q == -mp.inf:
                    return mp.inf
                mass = mp.exp(log_p)
                left -= mass
                kl += mass * (log_p - log_q)
            k += 1
        return kl


def kl(p: Family, a: Parameters, q: Family, b: Parameters) -> Any:
    """KL(p || q) by its definition, as an mpmath number."""
    if p.support.discrete != q.support.discrete:
        return mp.inf  # an atom has no density, a density no atom
    distributions = Member(p, a), Member(q, b)
    return add_up(*distributions) if p.support.discrete else integrate(*distributions)
