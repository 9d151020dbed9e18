"""Independent Renyi and Jensen-Shannon divergences and entropies, with errors of their own.

As for the KL, from the densities as the books write them, in extended precision. The integrals are
over the part of the line that both supports share, whose ends are those of the line itself: a
density may be infinite there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .adaptive_panels import bisected
from .functions import LD
from .integral import FURTHEST, Integral, Member, _Line

#: As `integral.FAR`, and further: where a LogNormal's tail takes over at alpha = 1 + 1e-6.
_FAR = (1e12, 1e6, 1250.0)
#: Below this log of the integral of p^alpha q^(1 - alpha), what it lacks of 1 is integrated.
_NEAR = 0.5
_LOG_2 = np.log(LD(2))
Answer = tuple[float, float]
UNKNOWN: Answer = (float("nan"), float("inf"))
INFINITE: Answer = (float("inf"), 0.0)

#: A function of log p, log q and log dx/dy at places on the line.
Term = Callable[[Any, Any, Any], Any]


class _Shared(Integral):
    """Integrals over what the supports of two members share.

    `lacking` is what p and what q have outside of it, from their integrals.
    """

    def __init__(self, p: str, a: Member, q: str, b: Member, alpha: float = 0.5) -> None:
        super().__init__(p, q)
        self.a, self.b, self.alpha = a, b, LD(alpha)
        self.base, self.base_q = a, b
        mine, theirs = self.p.ends(**a), self.q.ends(**b)
        self.low, self.high = max(mine[0], theirs[0]), min(mine[1], theirs[1])
        self.covers = [
            bool(x[0] <= y[0] and x[1] >= y[1]) for x, y in ((theirs, mine), (mine, theirs))
        ]
        self.line = self._line_between(a, b)

    def _line_between(self, a: Member, b: Member) -> _Line:
        """The line of the shared part, around p, or around q if that has a scale."""
        real = np.isneginf(self.low)
        centre = np.clip(self.p.centre(**a), self.low, self.high)
        width = a.get("scale", b.get("scale", LD(1))) if real else LD(1)
        return _Line(centre, width, LD(self.low), LD(self.high))

    @property
    def is_empty(self) -> bool:
        return bool(self.low >= self.high)

    def logs(self, y: Any) -> tuple[Any, Any, Any]:
        """Log p, log q (with respect to x) and log dx/dy."""
        at, log_slope = self.line.place(y)
        found = (self.p.log_density(at, **self.a), self.q.log_density(at, **self.b))
        log_p, log_q = (np.where(np.isnan(x), -np.inf, x) for x in found)
        return log_p, log_q, log_slope

    def log_power(self, y: Any) -> Any:
        log_p, log_q, log_slope = self.logs(y)
        power = self.alpha * log_p + (1 - self.alpha) * log_q + log_slope
        return np.where(np.isneginf(log_p), -np.inf, power)

    def is_finite(self) -> bool | None:
        """Whether p^alpha q^(1 - alpha) falls in both tails; None if that is not known."""
        sides = [self._power_falls(side) for side in (-1, 1)]
        return None if None in sides else all(sides)

    def _power_falls(self, side: int) -> bool | None:
        for far in _FAR:
            y = side * far * np.array([1, 2, 4], LD)
            log_p, log_q, _ = self.logs(y)
            power = self.log_power(y)
            if np.isfinite(power).all():
                return bool((power[2] - power[1]) - (power[1] - power[0]) < -1e-9 * far)
            if np.isneginf(log_p).all() and np.isfinite(log_q).all():
                return True
            cheaper = self._is_cheaper(y) if np.isneginf(log_q).all() else None
            if cheaper is not None:
                return cheaper
        return None

    def _is_cheaper(self, y: Any) -> bool | None:
        """Whether p^alpha falls faster than q^(1 - alpha) grows, where log q overflows."""
        at, _ = self.line.place(y)
        gain = np.log(self.alpha - 1) + self.q.log_cost_at(at, **self.b)
        cost = np.log(self.alpha) + self.p.log_cost_at(at, **self.a)
        known = np.isfinite(gain) & np.isfinite(cost)
        if (known & (gain < cost)).all() or (known & (gain > cost)).all():
            return bool((gain < cost).all())
        return None

    def _heights(self, line: _Line, a: Member, b: Member, y: Any) -> tuple[Any, Any]:
        """Logarithms on the line: of the one that the window starts from, and of all others."""
        log_p, log_q, log_slope = self.logs(y)
        found = (log_p + log_slope, log_q + log_slope, self.log_power(y))
        mine, other, power = (np.where(np.isfinite(x), x, -np.inf) for x in found)
        return (mine, power) if self.first == "p" else (other, power)

    def ends_and_marks(self) -> Any:
        """The panels: around p, around q and around the power of both."""
        ends = []
        marks = [*self._kinks(self.line, self.a, self.b)]
        for first, member, given in (("p", self.p, self.a), ("q", self.q, self.b)):
            self.first = first
            centre = np.clip(member.centre(**given), self.low, self.high)
            kept, self.p = self.p, _Centred(self.p, centre)
            low, high, own = self._window(self.line, self.a, self.b)
            self.p = kept
            ends += [low, high]
            marks += own
        marks += self._around(self.line, self.b)
        low, high = min(ends), max(ends)
        return np.array(sorted({low, high, *(y for y in marks if low < y < high)}))

    def integral(self, term: Term, panels: Any) -> tuple[Any, Any]:
        """The integral of a term and its error; what p and q lack is kept."""

        def both(first: bool) -> Callable[[Any], tuple[Any, Any]]:
            def terms(y: Any) -> tuple[Any, Any]:
                log_p, log_q, log_slope = self.logs(y)
                mass = np.exp((log_p if first else log_q) + log_slope)
                value = term(log_p, log_q, log_slope)
                return np.where(np.isfinite(mass), mass, 0), np.where(np.isfinite(value), value, 0)

            return terms

        sums = [bisected(both(first), panels) for first in (True, False)]
        self.masses = [x.mass for x in sums]
        value, error = sums[0].value, sums[0].error + abs(sums[0].value - sums[1].value)
        left = sum(abs(both(True)(panels[[end]])[1]).sum() for end in (0, -1))
        return value, error + FURTHEST * left

    def off(self) -> Any:
        """How far the integral of a density that has all of its mass here is off 1."""
        return sum(
            abs(x - 1) for x, inside in zip(self.masses, self.covers, strict=True) if inside
        )

    def lacking(self, i: int) -> Any:
        """What p (0) or q (1) has outside of the shared part."""
        return LD(0) if self.covers[i] else 1 - self.masses[i]


class _Centred:
    """A family whose centre is another one."""

    def __init__(self, family: Any, centre: Any) -> None:
        self._family, self._centre = family, centre

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def centre(self, **_: Any) -> Any:
        return self._centre


def _exact(parameters: Member) -> dict[str, Any]:
    return {name: LD(float(x)) for name, x in parameters.items()}


def renyi(p: str, a: Member, q: str, b: Member, alpha: float) -> Answer:
    """Renyi's divergence and by how much it may be off; inf and 0, or nan and inf."""
    with np.errstate(all="ignore"):
        both = _Shared(p, _exact(a), q, _exact(b), alpha)
        beta = 1 - both.alpha
        if both.is_empty or (alpha > 1 and not both.covers[0]):
            return INFINITE
        finite = both.is_finite() if alpha > 1 else True
        if not finite:
            return UNKNOWN if finite is None else INFINITE
        panels = both.ends_and_marks()
        top = max(both.log_power(panels).max(), LD(-1e4))

        def power(log_p: Any, log_q: Any, log_slope: Any) -> Any:
            height = both.alpha * log_p + beta * log_q + log_slope - top
            return np.where(np.isneginf(log_p), 0, np.exp(height))

        total, error = both.integral(power, panels)
        log_total = top + np.log(total)
        if abs(log_total) > _NEAR:
            error = error / total + both.alpha * both.off()
            return float(-log_total / beta), float(error / abs(beta))

        def lack(log_p: Any, log_q: Any, log_slope: Any) -> Any:
            mass = np.exp(log_p + log_slope)
            return np.where(mass > 0, -mass * np.expm1(beta * (log_q - log_p)) / beta, 0)

        k, error = both.integral(lack, panels)
        k += both.lacking(0) / beta
        error += both.off() + (0 if both.covers[0] else abs(1e-18 / beta))
        return float(-np.log1p(-beta * k) / beta), float(error / (1 - beta * k))


def jensen_shannon(p: str, a: Member, q: str, b: Member) -> Answer:
    """Jensen and Shannon's divergence and its error."""

    def term(log_p: Any, log_q: Any, log_slope: Any) -> Any:
        log_mean = np.logaddexp(log_p, log_q) - _LOG_2
        halves = [
            np.where(np.isfinite(x), np.exp(x + log_slope) * (x - log_mean), 0)
            for x in (log_p, log_q)
        ]
        return (halves[0] + halves[1]) / 2

    with np.errstate(all="ignore"):
        both = _Shared(p, _exact(a), q, _exact(b))
        if both.is_empty:
            return float(_LOG_2), 0.0
        value, error = both.integral(term, both.ends_and_marks())
        value += _LOG_2 * (both.lacking(0) + both.lacking(1)) / 2
        return float(value), float(error + both.off() + 1e-18)


def entropy(p: str, a: Member) -> Answer:
    """The entropy and its error."""
    with np.errstate(all="ignore"):
        both = _Shared(p, _exact(a), p, _exact(a))
        value, error = both.integral(
            lambda log_p, _, log_slope: -np.exp(log_p + log_slope) * log_p, both.ends_and_marks()
        )
        return float(value), float(error + both.off() * (1 + abs(value)))
