"""Maps of places, with their distances from the ends, and a density pulled back through them.

From the definitions alone, in extended precision, as `densities`. A map is a name, its
numbers and whether its inverse is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .densities import Continuous, Place
from .functions import LD, log1pexp

INF = LD("inf")


@dataclass(frozen=True)
class Map:
    """One map of the line: "exp", "sigmoid", "tanh", "softplus", "affine", "stretch" or
    "power"."""

    name: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    inverse: bool = False

    @property
    def inv(self) -> Map:
        return replace(self, inverse=not self.inverse)

    def carried(self, at: Place) -> tuple[Place, Any]:
        """Where a place goes, and the logarithm of the slope there."""
        return _CARRIERS[self.name][self.inverse](at, **self.numbers)

    def of(self, x: Any) -> Any:
        """Where a number goes; the nearest end for one outside of the domain."""
        return _NUMBERS[self.name][self.inverse](x, **self.numbers)


# --- places -------------------------------------------------------------------------------------


def _place(x: Any, slope: Any, low: tuple[Any, Any], high: tuple[Any, Any], size: Any) -> Any:
    """Of the ends and the logarithms of the distances from them; None for an end at infinity."""
    (left, log_above), (right, log_below) = low, high
    above = x if log_above is None else np.exp(log_above)
    below = x if log_below is None else np.exp(log_below)
    base, offset = (None, None) if log_above is None else (left, above)
    return Place(
        x, left, above, right, below, base, offset, log_above, log_below, log_size=size
    ), slope


def _no_low(at: Place) -> bool:
    return bool(np.isneginf(at.low).all())


def _no_high(at: Place) -> bool:
    return bool(np.isposinf(at.high).all())


def _exp(at: Place) -> Any:
    x = at.x
    low = (LD(0), x) if _no_low(at) else (np.exp(at.low), at.low + _log_expm1(at.above))
    high = (INF, None) if _no_high(at) else (np.exp(at.high), x + _log_expm1(at.below))
    return _place(np.exp(x), x, low, high, x)


def _log(at: Place) -> Any:
    log_x = at.log_over(0)
    if np.all(at.low == 0):
        low = (-INF, None)
    else:
        far = log_x - np.log(at.low)
        low = (np.log(at.low), np.log(np.where(far > 1, far, np.log1p(at.above / at.low))))
    high = (INF, None) if _no_high(at) else (np.log(at.high), _log_ratio(at.below, at.high))
    return _place(log_x, -log_x, low, high, np.log(np.abs(log_x)))


def _sigmoid(at: Place) -> Any:
    x = at.x
    up, down = -log1pexp(-x), -log1pexp(x)
    if _no_low(at):
        low = (LD(0), up)
    else:
        low = (1 / (1 + np.exp(-at.low)), up - log1pexp(at.low) + _log1mexp_of(at.above))
    if _no_high(at):
        high = (LD(1), down)
    else:
        high = (1 / (1 + np.exp(-at.high)), down - log1pexp(-at.high) + _log1mexp_of(at.below))
    return _place(np.exp(up), up + down, low, high, None)


def _logit(at: Place) -> Any:
    log_x, log_rest = at.log_over(0), at.log_under(1)
    x = log_x - log_rest
    if np.all(at.low == 0):
        low = (-INF, None)
    else:
        up = np.log1p(at.above / at.low) - np.log1p(-at.above / (1 - at.low))
        end = np.log(at.low / (1 - at.low))
        low = (end, np.log(np.where(x - end > 1, x - end, up)))  # each where it has its digits
    if np.all(at.high == 1):
        high = (INF, None)
    else:
        down = np.log1p(at.below / (1 - at.high)) - np.log1p(-at.below / at.high)
        end = np.log(at.high / (1 - at.high))
        high = (end, np.log(np.where(end - x > 1, end - x, down)))
    return _place(x, -log_x - log_rest, low, high, np.log(np.abs(x)))


def _softplus(at: Place) -> Any:
    x = at.x
    image = log1pexp(x)
    log_image = np.where(x < -60, x, np.log(image))
    if _no_low(at):
        low = (LD(0), log_image)
    else:
        up = np.log1p(np.exp(-log1pexp(-at.low)) * np.expm1(np.minimum(at.above, 5000)))
        low = (log1pexp(at.low), np.log(np.where(at.above > 5000, image - at.low, up)))
    if _no_high(at):
        high = (INF, None)
    else:
        high = (
            log1pexp(at.high),
            np.log(np.log1p(np.exp(-log1pexp(-x)) * np.expm1(at.below))),
        )
    return _place(image, -log1pexp(-x), low, high, log_image)


def _softplus_inverse(at: Place) -> Any:
    x, log_x = at.over(0), at.log_over(0)
    log_rest = np.where(x < 1e-25, log_x, np.log(-np.expm1(-x)))  # of 1 - exp(-x)
    if np.all(at.low == 0):
        low = (-INF, None)
    else:
        up = np.log1p(np.expm1(at.above) / -np.expm1(-at.low))
        low = (at.low + np.log(-np.expm1(-at.low)), np.log(up))
    if _no_high(at):
        high = (INF, None)
    else:
        down = np.log1p(np.expm1(at.below) / -np.expm1(-x))
        high = (at.high + np.log(-np.expm1(-at.high)), np.log(down))
    return _place(x + log_rest, -log_rest, low, high, log_x)


def _affine(at: Place, loc: Any, scale: Any) -> Any:
    log_scale = np.log(np.abs(scale))
    ends = [
        (at.low, at.log_above if at.log_above is not None else np.log(at.above)),
        (at.high, at.log_below if at.log_below is not None else np.log(at.below)),
    ]
    ends = [
        (np.sign(scale) * end, None)
        if np.isinf(end).all()
        else (loc + scale * end, log_scale + log)
        for end, log in ends
    ]
    if np.all(scale < 0):
        ends.reverse()
    size = None if at.log_size is None else at.log_size + log_scale
    place, slope = _place(loc + scale * at.x, log_scale + 0 * at.x, ends[0], ends[1], size)
    if place.base is None and at.base is not None:
        place = replace(place, base=loc + scale * at.base, offset=scale * at.offset)
    return place, slope


def _stretch(at: Place, scale: Any) -> Any:
    return _affine(at, LD(0), scale)


def _stretch_inverse(at: Place, scale: Any) -> Any:
    return _affine(at, LD(0), 1 / scale)


def _affine_inverse(at: Place, loc: Any, scale: Any) -> Any:
    return _affine(at, loc=-loc / scale, scale=1 / scale)


def _power(at: Place, exponent: Any) -> Any:
    k, log_x = exponent, at.log_over(0)
    x = np.exp(k * log_x)
    ends = []
    for end, open_end, apart in (
        (at.low, 0, lambda: np.log1p(at.above / at.low)),
        (at.high, INF, lambda: np.log1p(at.below / (at.high - at.below))),
    ):
        if np.all(end == open_end):  # it goes to 0 or to infinity
            to_zero = np.all(k > 0) == (open_end == 0)
            ends.append((LD(0), k * log_x) if to_zero else (INF, None))
        else:  # |x^k - end^k|, from log(x / end)
            ratio, far = apart() * (1 if end is at.low else -1), log_x - np.log(end)
            rise = k * np.where(np.abs(far) > 1, far, ratio)
            log_rise = np.where(rise > 50, rise, np.log(np.abs(np.expm1(np.minimum(rise, 50)))))
            ends.append((end**k, k * np.log(end) + log_rise))
    if np.all(k < 0):
        ends.reverse()
    slope = np.log(np.abs(k)) + (k - 1) * log_x
    return _place(x, slope, ends[0], ends[1], k * log_x)


def _power_inverse(at: Place, exponent: Any) -> Any:
    return _power(at, exponent=1 / exponent)


def _tanh(at: Place) -> Any:
    two, one = {"loc": LD(0), "scale": LD(2)}, {"loc": LD(-1), "scale": LD(2)}
    return _chain(at, [Map("affine", two), Map("sigmoid"), Map("affine", one)])


def _atanh(at: Place) -> Any:
    half, one = {"loc": LD(0), "scale": LD(0.5)}, {"loc": LD(0.5), "scale": LD(0.5)}
    return _chain(at, [Map("affine", one), Map("sigmoid").inv, Map("affine", half)])


def _chain(at: Place, maps: Sequence[Map]) -> tuple[Place, Any]:
    total = 0 * at.x
    for one in maps:
        at, slope = one.carried(at)
        total = total + slope
    return at, total


def _log_expm1(x: Any) -> Any:
    return np.where(x > 1, x + np.log(-np.expm1(-x)), np.log(np.expm1(np.minimum(x, 1))))


def _log1mexp_of(x: Any) -> Any:
    """log(1 - exp(-x))."""
    return np.log(-np.expm1(-x))


def _log_ratio(below: Any, high: Any) -> Any:
    """The logarithm of log(high / x)."""
    return np.log(-np.log1p(-below / high))


_CARRIERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "exp": (_exp, _log),
    "sigmoid": (_sigmoid, _logit),
    "softplus": (_softplus, _softplus_inverse),
    "tanh": (_tanh, _atanh),
    "affine": (_affine, _affine_inverse),
    "stretch": (_stretch, _stretch_inverse),
    "power": (_power, _power_inverse),
}


# --- numbers ------------------------------------------------------------------------------------


def _number_logit(x: Any) -> Any:
    x = np.clip(x, 0, 1)
    return np.log(x) - np.log1p(-x)


def _number_power(x: Any, exponent: Any) -> Any:
    return np.maximum(x, LD(0)) ** exponent


_NUMBERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "exp": (np.exp, lambda x: np.log(np.maximum(x, LD(0)))),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), _number_logit),
    "softplus": (
        log1pexp,
        lambda x: np.maximum(x, LD(0)) + np.log(-np.expm1(-np.maximum(x, LD(0)))),
    ),
    "tanh": (np.tanh, lambda x: _number_logit((x + 1) / 2) / 2),
    "affine": (
        lambda x, loc, scale: loc + scale * x,
        lambda x, loc, scale: (x - loc) / scale,
    ),
    "stretch": (lambda x, scale: scale * x, lambda x, scale: x / scale),
    "power": (_number_power, lambda x, exponent: _number_power(x, 1 / exponent)),
}


# --- densities ----------------------------------------------------------------------------------


def pulled_back(q: Continuous, shape: Sequence[Map]) -> Continuous:
    """The distribution whose image under the maps is q; the maps' numbers are parameters like q's.

    Those of map i are called `i.loc`, `i.scale` and so on; the numbers in `shape` do not matter.
    """

    def split(distribution: Mapping[str, Any]) -> tuple[list[Map], dict[str, Any]]:
        own = {name: x for name, x in distribution.items() if "." not in name}
        maps = [
            replace(one, numbers={name: distribution[f"{i}.{name}"] for name in one.numbers})
            for i, one in enumerate(shape)
        ]
        return maps, own

    def back(x: Any, maps: Sequence[Map]) -> Any:
        for one in reversed(maps):
            x = one.inv.of(x)
        return x

    def log_density(at: Place, **distribution: Any) -> Any:
        maps, own = split(distribution)
        at, slope = _chain(at, maps)
        return q.log_density(at, **own) + slope

    def log_cost(at: Place, **distribution: Any) -> Any:
        maps, own = split(distribution)
        at, slope = _chain(at, maps)
        cost = np.logaddexp(q.log_cost_at(at, **own), np.log(np.abs(slope)))
        return np.where(np.isfinite(at.x), cost, LD("nan"))  # not known

    def ends(**distribution: Any) -> tuple[Any, Any]:
        maps, own = split(distribution)
        found = [back(end, maps) for end in q.ends(**own)]
        return np.minimum(*found), np.maximum(*found)

    def through(places: Callable[..., Any]) -> Callable[..., Any]:
        def moved(**distribution: Any) -> tuple[Any, ...]:
            maps, own = split(distribution)
            return tuple(back(x, maps) for x in places(**own))

        return moved

    return Continuous(
        log_density,
        lambda **distribution: through(lambda **own: (q.centre(**own),))(**distribution)[0],
        ends,
        through(q.kinks),
        log_cost,
        through(q.around),
    )
