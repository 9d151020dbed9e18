"""The definition of the KL, integrated or summed at 50 digits.

The only thing taken from a family is its density, as the book writes it. The support is mapped
to the line such that power laws become exponentials:

    positive half-line  x = exp(y)
    unit interval       x = 1 / (1 + exp(-y))
    real line           x = sinh(y)

Whether the integral converges is then read off the integrand's exponential rates in both tails.
The integral itself is the trapezoidal rule in t, y = mode + width sinh(t), halved until it
stands still: the double exponential formula of Takahasi & Mori (1974). The same nodes must give
the integral of the density itself as 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import mpmath
from mpmath import mp, mpf

from pyro_kl import POSITIVE, REAL, UNIT_INTERVAL, Family

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

Parameters = Mapping[str, Any]


class _Arithmetic:
    """mpmath for `Family.log_density`, with the constants of a density computed once."""

    def __getattr__(self, name: str) -> Any:
        return getattr(mp, name)

    def loggamma(self, x: Any) -> Any:
        return _loggamma(x, mp.prec)


@lru_cache(maxsize=4096)
def _loggamma(x: Any, prec: int) -> Any:
    return mpmath.loggamma(x)


_ARITHMETIC = _Arithmetic()


def exact(value: Any) -> Any:
    """A parameter as it is in float64, without rounding; a list by its elements."""
    if isinstance(value, (list, tuple)):
        return [exact(x) for x in value]
    return mpf(float(value))


def log_density(family: Family, parameters: Parameters, x: Any) -> Any:
    """The log density or log mass, -inf outside the support."""
    support = family.support
    # the ends belong to a discrete support, and are of measure zero in a continuous one
    inside = support.low <= x <= support.high
    if not inside:
        return -mp.inf
    return family.log_density(_ARITHMETIC, x, **parameters)


# --- the line -----------------------------------------------------------------------------------


def _from_line(family: Family) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """The map from the line to the support, and the logarithm of its derivative."""
    if family.support == POSITIVE:
        return mp.exp, lambda y: y
    if family.support == UNIT_INTERVAL:
        return (
            lambda y: 1 / (1 + mp.exp(-y)),
            lambda y: -abs(y) - 2 * mp.log1p(mp.exp(-abs(y))),
        )
    if family.support == REAL:
        return mp.sinh, lambda y: mp.log(mp.cosh(y))
    raise NotImplementedError(f"no map from the line to the {family.support.name}")


def _digits_at(family: Family, distance: float) -> int:
    """Digits that tell x from the end of its support, `distance` away on the line."""
    bounded = family.support == UNIT_INTERVAL
    return WORKING_DIGITS + (int(distance / 2.3) + 1 if bounded else 0)


class Integrand:
    """p (log p - log q) on the line."""

    def __init__(self, p: Family, a: Parameters, q: Family, b: Parameters) -> None:
        self.p, self.q = p, q
        self.a = {name: exact(x) for name, x in a.items()}
        self.b = {name: exact(x) for name, x in b.items()}
        self.to_support, self.log_slope = _from_line(p)

    def log_p(self, y: Any) -> Any:
        """Log density of p as a law on the line."""
        return log_density(self.p, self.a, self.to_support(y)) + self.log_slope(y)

    def log_ratio(self, y: Any) -> Any:
        """Log p - log q: the same on the line and on the support."""
        x = self.to_support(y)
        return log_density(self.p, self.a, x) - log_density(self.q, self.b, x)

    def size(self, y: Any) -> Any:
        """The logarithm of the integrand's absolute value."""
        ratio = abs(self.log_ratio(y))
        return self.log_p(y) + mp.log(ratio) if ratio else -mp.inf

    def converges(self) -> bool:
        """Whether the integrand decays exponentially in both tails."""
        far = FAR_IN_INTERVAL if self.p.support == UNIT_INTERVAL else FAR
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


def _reach(integrand: Integrand, mode: Any, width: Any, side: int) -> int:
    """How far the sum goes in t: beyond, nothing is left at the working digits."""
    top = integrand.log_p(mode)
    nothing = top - 1.3 * WORKING_DIGITS * mp.log(10)
    t = 1
    while True:
        with mp.workdps(_digits_at(integrand.p, 300)):
            y = mode + width * mp.sinh(side * t)
        with mp.workdps(_digits_at(integrand.p, abs(float(y)))):
            if max(integrand.log_p(y), integrand.size(y)) < nothing:
                return t
        t += 1


def integrate(p: Family, a: Parameters, q: Family, b: Parameters) -> Any:
    """KL of two laws on the line; inf where the integral diverges."""
    with mp.workdps(WORKING_DIGITS):
        integrand = Integrand(p, a, q, b)
        if not integrand.converges():
            return mp.inf
        with mp.workdps(_digits_at(p, 300)):
            mode = mode_of(integrand.log_p)
            width = width_of(integrand.log_p, mode)
        low = -_reach(integrand, mode, width, -1)
        high = _reach(integrand, mode, width, 1)
    furthest = max(abs(float(mode + width * mp.sinh(t))) for t in (low, high))
    with mp.workdps(_digits_at(p, furthest)):
        return _trapezoid(integrand, mode, width, low, high)


def _trapezoid(integrand: Integrand, mode: Any, width: Any, low: int, high: int) -> Any:
    """Halve the step until the sum stands still and the density integrates to 1."""

    def add(start: Any, step: Any) -> tuple[Any, Any]:
        mass = kl = mpf(0)
        t = start
        while t < high:
            y = mode + width * mp.sinh(t)
            weight = mp.exp(integrand.log_p(y)) * width * mp.cosh(t)
            mass += weight
            kl += weight * integrand.log_ratio(y)
            t += step
        return mass, kl

    step = mpf(1) / 4
    mass, kl = add(mpf(low), step)
    previous = kl * step
    for _ in range(MAX_HALVINGS):
        more_mass, more_kl = add(low + step / 2, step)
        step /= 2
        mass, kl = mass + more_mass, kl + more_kl
        value = kl * step
        # squared at each halving: a difference of 1e-26 leaves an error of about 1e-52
        still = abs(value - previous) <= mpf(10) ** (-DIGITS // 2 - 3) * abs(value)
        if still and abs(mass * step - 1) < mpf(10) ** -DIGITS:
            return value
        previous = value
    raise ArithmeticError(f"no convergence: {integrand.a}, {integrand.b}, mass {mass * step}")


# --- atoms --------------------------------------------------------------------------------------


def add_up(p: Family, a: Parameters, q: Family, b: Parameters) -> Any:
    """KL of two laws on the counts, until all of p's mass has been met."""
    with mp.workdps(WORKING_DIGITS):
        a = {name: exact(x) for name, x in a.items()}
        b = {name: exact(x) for name, x in b.items()}
        left, kl, k = mpf(1), mpf(0), 0
        while left > mpf(10) ** (-WORKING_DIGITS + 5):
            log_p = log_density(p, a, k)
            if log_p != -mp.inf:
                log_q = log_density(q, b, k)
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
    if p.support.discrete:
        return add_up(p, a, q, b)
    return integrate(p, a, q, b)
