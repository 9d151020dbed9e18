"""Renyi's divergence of infinite order on a line: the upper bound of log p - log q."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...messages import see
from ..found import Found
from .rows import in_groups
from .two_densities import TwoDensities, two_densities

_SOURCE = "largest log p - log q over p's support"
#: The ratio is looked at so many doublings of the distance from the centre, and the grid is
#: narrowed so often around its largest value.
_DOUBLINGS, _ZOOMS, _GRID = 70, 14, 61
#: The difference of log densities up to this size is right to 1e-12.
_LARGEST = 2e3
#: And with the logarithm of a slope up to this size to 1e-8.
_STEEPEST = 1e7
#: The last digit of a log density of 1 or more, in its units.
_DIGIT = 2e-15
#: A ratio that grows by more than this while the distance doubles, and by more than three quarters
#: of what it was before, has no limit.
_GROWS = 1e-8


def greatest_ratio_on_line(p: Distribution, q: Distribution) -> Found | None:
    """The upper bound of log p - log q; None if too little is known of p or q.

    It is infinite where q's tail is too light, and at an end where both tails are alike, if the
    ratio still grows as far out as its digits go.

    Raises:
        NotImplementedError: how the tails fall is not known, or floats end before the ratio falls.
    """
    densities = two_densities(p, q)
    if densities is None:
        return None
    unknown = densities.unknown
    bounded, alike = densities.powers_are_finite(math.inf, ~unknown)
    elsewhere = torch.where(unknown, math.nan, math.inf).to(torch.float64)
    if not bool(bounded.any()):
        return Found(elsewhere, "infinite", "log p - log q has no upper bound")
    if not bool(bounded.all()):
        found = in_groups(p, q, [bounded], elsewhere, greatest_ratio_on_line)
        if found is not None:
            return found
    value, error = _largest(densities, alike, bounded)
    value, error = torch.where(bounded, value, elsewhere), torch.where(bounded, error, 0.0)
    return Found(value, "maximum", _SOURCE, error)


def _largest(
    densities: TwoDensities, alike: tuple[Tensor, Tensor], rows: Tensor
) -> tuple[Tensor, Tensor]:
    """The upper bound, with a graph, and its error."""
    with torch.no_grad():
        ladder, grows, limits = _ladder(densities, alike, rows)
        kinks = torch.stack(densities.kinks())
        place = _place_of_largest(densities, torch.cat((ladder, kinks)).sort(0).values)
        size = 1 + _size(*densities(place.unsqueeze(0))).squeeze(0)
    value = _log_ratio(densities, place.unsqueeze(0)).squeeze(0)
    # a kink of p's may be the place, and moves with p
    for own in densities.own_kinks():
        at_kink = _log_ratio(densities, own.unsqueeze(0)).squeeze(0)
        value = torch.where(at_kink.detach() >= value.detach() - 1e-13, at_kink, value)
    value = torch.where(value.detach() > 0, value, 0.0 * value)
    error = 4 * _DIGIT * size + (limits - value.detach()).clamp(min=0.0)
    return torch.where(grows, math.inf, value), torch.where(grows, 0.0, error)


def _log_ratio(densities: TwoDensities, y: Tensor) -> Tensor:
    """Log p - log q, -inf where p is 0 or where a density has overflowed."""
    log_p, log_q, _ = densities(y)
    inside = log_p.isfinite() & log_q.isfinite()
    ratio = torch.where(inside, log_p, 0.0) - torch.where(inside, log_q, 0.0)
    return torch.where(inside, ratio, -math.inf)


def _size(log_p: Tensor, log_q: Tensor, log_slope: Tensor) -> Tensor:
    """Of the terms that the log ratio is a difference of: the slopes of maps cancel in it."""
    return log_p.abs() + log_q.abs() + log_slope.abs()


def _ladder(
    densities: TwoDensities, alike: tuple[Tensor, Tensor], rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Places at distances from the centre that double, where the ratio grows on, and its limits.

    At an end where p and q fall alike, the places stay where the ratio keeps its digits. If it
    comes to a limit, that is not above what is added to it at the last place, twice.

    Raises:
        NotImplementedError: at another end it still grows at the last place, in one of the rows.
    """
    shape = densities.shape
    powers = (
        torch.arange(-10.0, _DOUBLINGS, dtype=torch.float64).exp2().reshape(-1, *(1,) * len(shape))
    )
    grows = torch.zeros(shape, dtype=torch.bool)
    limits = torch.full(shape, -math.inf, dtype=torch.float64)
    places = []
    for side, is_alike in zip((-1, 1), alike, strict=True):
        y = densities.within(densities.centre + side * densities.width * powers)
        log_p, log_q, log_slope = densities(y)
        ratio = _log_ratio(densities, y)
        has_digits = (log_p.abs() + log_q.abs() < _LARGEST) & (log_slope.abs() < _STEEPEST)
        known = ratio.isfinite() & (~is_alike | has_digits)
        known = known & (y != y.roll(1, 0))
        ranks = torch.arange(len(y)).reshape(powers.shape)
        last = torch.where(known, ranks, 2).amax(0, keepdim=True)
        steps = [ratio.gather(0, last - k).squeeze(0) for k in range(3)]
        rise, earlier = (a - b for a, b in itertools.pairwise(steps))
        rise = rise.nan_to_num(nan=0.0, posinf=0.0)  # a density has overflowed
        goes_on = (rise > _GROWS) & (rise > 0.75 * earlier)
        grows = grows | (is_alike & goes_on)
        if bool((rows & ~is_alike & (rise > _GROWS)).any()):
            raise NotImplementedError(
                "the largest log p - log q lies further out than floating-point numbers go"
                + see("no-integral")
            )
        limit = steps[0] + 2 * rise.clamp(min=0.0)
        limits = torch.maximum(limits, torch.where(is_alike & ~goes_on, limit, -math.inf))
        places.append(torch.where(ranks <= last, y, y.gather(0, last)))
    return torch.cat([*places, densities.centre.unsqueeze(0)]), grows, limits


def _place_of_largest(densities: TwoDensities, grid: Tensor) -> Tensor:
    """Where the ratio is largest, by grids that become finer around it."""
    steps = torch.linspace(-1, 1, _GRID, dtype=torch.float64)
    steps = steps.reshape(-1, *(1,) * len(densities.shape))
    for _ in range(_ZOOMS):
        # where the ratio is flat, the place with most digits
        values = _log_ratio(densities, grid) - _DIGIT * _size(*densities(grid))
        best = values.max(0, keepdim=True).indices
        last = grid.shape[0] - 1
        before, middle, after = (grid.gather(0, (best + k).clamp(0, last)) for k in (-1, 0, 1))
        half = torch.maximum(after - middle, middle - before)
        grid = densities.within(middle + half * steps)
    return middle.squeeze(0)
