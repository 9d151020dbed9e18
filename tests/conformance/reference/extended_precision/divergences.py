"""Independent values of Renyi's and of Jensen and Shannon's divergence, with errors of their own.

As for the KL, from the densities as the books write them, in extended precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .functions import LD
from .integral import FAR, Integral, Member, _Line


class _OfPowers(Integral):
    """The integral of p^alpha q^(1 - alpha), for a p whose support is inside of q's."""

    def __init__(self, p: str, q: str, alpha: float) -> None:
        super().__init__(p, q)
        self.alpha = LD(alpha)

    def _log_power(self, line: _Line, a: Member, b: Member, y: Any) -> tuple[Any, Any]:
        at, log_slope = line.place(y)
        log_p, log_q = self.p.log_density(at, **a), self.q.log_density(at, **b)
        power = self.alpha * log_p + (1 - self.alpha) * log_q + log_slope
        return log_p + log_slope, power

    def _falls(self, line: _Line, a: Member, b: Member, side: int) -> bool | None:
        for far in FAR:
            power = self._log_power(line, a, b, side * far * np.array([1, 2, 4], LD))[1]
            if np.isfinite(power).all():
                return bool((power[2] - power[1]) - (power[1] - power[0]) < -1e-9 * far)
        return None

    def _heights(self, line: _Line, a: Member, b: Member, y: Any) -> tuple[Any, Any]:
        heights = self._log_power(line, a, b, y)
        return tuple(np.where(np.isfinite(x), x, -np.inf) for x in heights)

    def _terms(self, line: _Line, a: Member, b: Member, y: Any) -> tuple[Any, Any]:
        return tuple(
            np.where(np.isfinite(x), np.exp(x), 0) for x in self._log_power(line, a, b, y)
        )


class _HalfOfShannon(Integral):
    """KL(p || m) with m = (p + q) / 2, for a p whose support is that of q."""

    def _converges(self, a: Member, b: Member) -> bool:
        return True

    def _heights(self, line: _Line, a: Member, b: Member, y: Any) -> tuple[Any, Any]:
        at, log_slope = line.place(y)
        log_p = self.p.log_density(at, **a) + log_slope
        log_p = np.where(np.isfinite(log_p), log_p, -np.inf)
        return log_p, log_p

    def _terms(self, line: _Line, a: Member, b: Member, y: Any) -> tuple[Any, Any]:
        at, log_slope = line.place(y)
        log_p, log_q = self.p.log_density(at, **a), self.q.log_density(at, **b)
        mass = np.exp(log_p + log_slope)
        some = mass > 0
        log_mean = np.logaddexp(log_p, log_q) - np.log(LD(2))
        return np.where(some, mass, 0), np.where(some, mass * (log_p - log_mean), 0)


def renyi(p: str, a: Member, q: str, b: Member, alpha: float) -> tuple[float, float]:
    """Renyi's divergence and by how much it may be off; inf and 0, or nan and inf."""
    with np.errstate(all="ignore"):
        a, b = ({name: LD(float(x)) for name, x in one.items()} for one in (a, b))
        integral = _OfPowers(p, q, alpha)
        value, error, _ = integral.solve(a, b)
        if not np.isfinite(value):
            return float(value), float(error)
        scale = abs(LD(alpha) - 1)
        return float(np.log(value) / (LD(alpha) - 1)), float(error / value / scale)


def jensen_shannon(p: str, a: Member, q: str, b: Member) -> tuple[float, float]:
    """Jensen and Shannon's divergence of two distributions with one support, and its error."""
    with np.errstate(all="ignore"):
        a, b = ({name: LD(float(x)) for name, x in one.items()} for one in (a, b))
        found = [_HalfOfShannon(p, q).solve(a, b), _HalfOfShannon(q, p).solve(b, a)]
    return float(sum(x[0] for x in found) / 2), float(sum(x[1] for x in found) / 2)
