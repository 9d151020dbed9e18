"""KLs of continuous distributions from `densities`, in extended precision.

P's support is mapped to the line such that power distributions become exponentials; the window is
where p or the integrand is above 1e-32 of its top, cut at the kinks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .adaptive_panels import NODES, bisected, nodes_of
from .densities import CONTINUOUS, Place
from .functions import LD, log1pexp
from .maps import Map, pulled_back

#: Nats below its top at which nothing is left of a density: 1e-32.
NOTHING = 74.0
#: The line is looked at so far from its middle.
FURTHEST = 4e6
#: From here, twice as far and four times as far the tails are what they are at infinity; the
#: second where exp(y) overflows at the first.
FAR = (1e6, 1250.0)

Member = Mapping[str, Any]
INFINITE = (float("inf"), 0.0, 0)
UNKNOWN = (float("nan"), float("inf"), 0)


# --- the map from the line ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    """From the line to a support whose ends may depend on parameters, varied along axis 0."""

    centre: Any
    width: Any
    low: Any
    high: Any

    @property
    def real(self) -> bool:
        return bool(np.isneginf(self.low).all())

    @property
    def half(self) -> bool:
        return not self.real and bool(np.isposinf(self.high).all())

    def place(self, y: Any) -> tuple[Place, Any]:
        """Where y lies, and log dx/dy."""
        if self.real:
            offset = self.width * np.sinh(y)
            x = self.centre + offset
            log_slope = np.log(self.width) + np.logaddexp(y, -y) - np.log(LD(2))
            return (
                Place(x, self.low, x, self.high, x, self.centre, offset, log_size=log_slope),
                log_slope,
            )
        if self.half:
            above = np.exp(y)
            x = self.low + above
            place = Place(
                x, self.low, above, self.high, above, self.low, above, log_above=y, log_size=y
            )
            return place, y
        length = self.high - self.low
        logs = [np.log(length) - log1pexp(-s * y) for s in (1, -1)]
        above, below = (np.exp(log) for log in logs)
        x = np.where(y < 0, self.low + above, self.high - below)
        place = Place(x, self.low, above, self.high, below, log_above=logs[0], log_below=logs[1])
        return place, logs[0] + logs[1] - np.log(length)

    def inverse(self, x: Any) -> Any:
        if self.real:
            return np.arcsinh((x - self.centre) / self.width)
        if self.half:
            return np.log(x - self.low)
        return np.log((x - self.low) / (self.high - x))


# --- integrals ----------------------------------------------------------------------------------


class Integral:
    """KL(p || q) of two families by their names, for parameters in extended precision.

    With maps, KL(T(p) || q) for T their composition, whose numbers go with q's parameters.
    """

    def __init__(self, p: str, q: str, maps: Sequence[Map] = ()) -> None:
        self.p, self.q, self.maps = CONTINUOUS[p], CONTINUOUS[q], maps
        self.period = self.q.period
        if maps:
            self.q = pulled_back(self.q, maps)

    def solve(self, a: Member, b: Member) -> tuple[Any, Any, int]:
        """Nats, their error and the number of nodes."""
        if self._outside(a, b):
            return INFINITE
        converges = self._converges(a, b)
        if not converges:
            return UNKNOWN if converges is None else INFINITE
        self.base, self.base_q = a, b
        line = self._line(a)
        panels = self._panels(line, a, b)
        self.sum = bisected(lambda y: self._terms(line, a, b, y), panels)
        value = self.sum.value
        if np.isposinf(value) and abs(self.sum.mass - 1) < 1e-15:
            return self._beyond(line, a, b)
        error = self.sum.error + abs(self.sum.mass - 1) * (1 + abs(value))
        # nothing must be left at the ends
        error += FURTHEST * sum(abs(self._terms(line, a, b, y)[1]) for y in panels[[0, -1]])
        return value, error, NODES * len(self.sum.panels)

    def _beyond(self, line: _Line, a: Member, b: Member) -> tuple[Any, Any, int]:
        """A KL that extended precision cannot hold: where it is beyond float64 too, the largest.

        What overflows may be q's cost at places that p hardly reaches.
        """
        y, weight = nodes_of(self.sum.panels)
        p, terms = self._terms(line, a, b, y)
        largest = np.finfo(LD).max
        if (p * weight)[np.isposinf(terms)].sum() * largest > np.finfo(float).max:
            return largest, 0.0, terms.size
        return UNKNOWN

    def again(self, a: Member, b: Member) -> Any:
        """By the nodes of `solve`, for parameters next to those, varied along axis 0."""
        line, panels = self._line(a), self.sum.panels
        kinks = list(zip(self._kinks(self._line(self.base), self.base, self.base_q),
                         self._kinks(line, a, b), strict=True))  # fmt: skip
        for before, now in kinks:
            panels = np.where(panels == before, np.reshape(now, (-1, 1, 1)), panels)
        y, weight = nodes_of(panels)
        return (self._terms(line, a, b, y)[1] * weight).sum(-1)

    def _line(self, distribution: Member) -> _Line:
        """Of the distribution next to the base: but for the ends of the support, the map stays."""
        low, high = (np.asarray(x, LD) for x in self.p.ends(**distribution))
        base = getattr(self, "base", distribution)
        real = np.isneginf(low).all()
        return _Line(self.p.centre(**base), base["scale"] if real else LD(1), low, high)

    # whether it is finite

    def _outside(self, a: Member, b: Member) -> bool:
        mine, theirs = self.p.ends(**a), self.q.ends(**b)
        if self.period:  # one turn from anywhere
            low, high = (self._image(end) for end in mine)
            return bool(abs(high - low) > self.period)
        if np.isnan([float(end) for end in theirs]).any():
            return True
        slack = [1e-15 * abs(x) if np.isfinite(x) and self.q.places else 0 for x in theirs]
        return bool(theirs[0] - slack[0] > mine[0] or mine[1] > theirs[1] + slack[1])

    def _image(self, x: Any) -> Any:
        for one in self.maps:
            x = one.of(x)
        return x

    def _converges(self, a: Member, b: Member) -> bool | None:
        """Whether p falls faster than -log q grows in both tails; None if that is not known."""
        line = self._line(a)
        sides = [self._falls(line, a, b, side) for side in (-1, 1)]
        return None if None in sides else all(sides)

    def _falls(self, line: _Line, a: Member, b: Member, side: int) -> bool | None:
        """As exponentials of y: what is a power of y cancels between two octaves."""
        for far in FAR:
            at, log_slope = line.place(side * far * np.array([1, 2, 4], LD))
            log_p = self.p.log_density(at, **a) + log_slope
            cost = np.maximum(self.q.log_cost_at(at, **b), 0)
            if np.isneginf(log_p[2]) and np.isfinite(cost[2]):
                return True
            size = log_p + cost
            if np.isfinite(size).all():
                return bool((size[2] - size[1]) - (size[1] - size[0]) < -1e-9 * far)
        return None

    # where to integrate

    def _panels(self, line: _Line, a: Member, b: Member) -> Any:
        low, high, marks = self._window(line, a, b)
        marks += self._kinks(line, a, b)
        marks += self._around(line, b)
        return np.array(sorted({low, high, *(y for y in marks if low < y < high)}))

    def _around(self, line: _Line, b: Member) -> list[Any]:
        """Around q's mass, where that is inside of p's support, and where the map bends."""
        places = self.q.around(**b)
        grades = [s * LD(4) ** k for s in (-1, 1) for k in range(-3, 12)]
        if not np.all((places[0] > line.low) & (places[0] < line.high)):
            return grades
        middle = line.inverse(places[0])
        inside = [line.inverse(x) for x in places if line.low < x < line.high]
        return [*grades, *(middle + x for x in grades), *inside]

    def _window(self, line: _Line, a: Member, b: Member) -> tuple[Any, Any, list[Any]]:
        """The ends, and p's top and places at geometric distances from it."""
        middle = line.inverse(self.p.centre(**a))
        middle = middle if np.isfinite(middle) else LD(0)
        steps = LD(2) ** (np.arange(-320, 704) / LD(32))
        steps = np.concatenate([steps, [LD(FURTHEST)]])
        for _ in range(2):
            y = np.concatenate([middle - steps[::-1], [middle], middle + steps])
            log_p, size = self._heights(line, a, b, y)
            middle = y[np.argmax(log_p)]
        tops = log_p.max(), size.max()

        def alive(y: Any) -> Any:
            heights = self._heights(line, a, b, y)
            return (heights[0] > tops[0] - NOTHING) | (heights[1] > tops[1] - NOTHING)

        def end(last: int, beyond: int) -> Any:
            finer = np.linspace(y[last], y[min(max(beyond, 0), len(y) - 1)], 17)
            return finer[min(np.nonzero(alive(finer))[0][-1] + 1, 16)]

        inside = np.nonzero(alive(y))[0]
        low, high = end(inside[0], inside[0] - 1), end(inside[-1], inside[-1] + 1)
        top = y[log_p > log_p.max() - 1]
        width = max(top[-1] - top[0], steps[0]) / 2
        largest = y[np.argmax(size)]
        graded = [middle + s * width * LD(2) ** k for s in (-1, 1) for k in range(30)]
        return low, high, [middle, largest, *graded]

    def _heights(self, line: _Line, a: Member, b: Member, y: Any) -> tuple[Any, Any]:
        """The logarithms of p on the line and of the integrand's size."""
        at, log_slope = line.place(y)
        log_p = self.p.log_density(at, **a)
        size = log_p + log_slope + np.log(np.abs(log_p - self.q.log_density(at, **b)))
        return tuple(np.where(np.isfinite(x), x, -np.inf) for x in (log_p + log_slope, size))

    def _kinks(self, line: _Line, a: Member, b: Member) -> list[Any]:
        found = [*self.p.kinks(**a), *self.q.kinks(**b)]
        return [
            line.inverse(np.where((x > line.low) & (x < line.high), x, LD("nan"))) for x in found
        ]

    # what to integrate

    def _terms(self, line: _Line, a: Member, b: Member, y: Any) -> tuple[Any, Any]:
        """P's mass and the integrand."""
        at, log_slope = line.place(y)
        log_p = self.p.log_density(at, **a)
        mass = np.exp(log_p + log_slope)
        some = mass > 0
        ratio = log_p - self.q.log_density(at, **b)
        return np.where(some, mass, 0), np.where(some, mass * ratio, 0)
