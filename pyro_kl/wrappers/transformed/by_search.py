"""Distributions that nobody declared: KL from `log_prob` and `support` alone.

The support is mapped to the line. Where p lies there, and how wide it is, a few grids find, each
inside the best cell of the one before; the nodes then crowd at p's mode and at q's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from pyro.distributions import Stable
from torch import Tensor
from torch.distributions import Distribution, Independent

from ...numerics.quadrature.integrate import Integral, requested_tolerance, short_of
from ...numerics.special.logarithms import HALF_LOG_TAU, logaddexp
from ...registry.line import LARGEST, Point, from_line, half_line, interval
from ...registry.reduction import describe
from ...registry.shapes import peel
from ...registry.subclasses import is_a
from ...registry.tensors import is_foreign, own_copy
from ..circle import ends_of
from ..log_prob import log_prob_anywhere
from .user_code import integral_of_calls

OnLine = Callable[[Tensor], Tensor]
Ends = tuple[float, float]
#: Nats below its top at which a density has nothing left.
_NOTHING = 45.0
#: Nats: a density that is as high over an octave has a mass of e^3, and has gone wrong there.
_ALL = 3.0
#: By how many nats an integrand has fallen at least where floats end, if its rest is to be known.
_FALLEN = 10.0
#: An integral that may be off by more has not seen all of p's mass: its tails are not known.
_WORST = 0.01
#: The line is looked at from -_FAR to _FAR: x up to 1e260 for a distribution on the half-line.
_FAR = 600.0
_GRID, _ZOOMS, _HALVINGS = 121, 14, 60


def kl_of_undeclared(p: Distribution, q: Distribution) -> Integral | None:
    """KL(p || q) of two univariate continuous distributions; None if they are not that.

    Differentiable by whatever their `log_prob` depends on. +inf where p's support is not inside of
    q's.

    Raises:
        NotImplementedError: whether the KL is finite cannot be told from numbers: the integrand
            does not fall as far out as floats go, or a density has over- or underflowed.
    """
    if isinstance(p, Stable) or isinstance(q, Stable):
        raise NotImplementedError(
            f"KL({describe(p)} || {describe(q)}): Pyro's Stable.log_prob is a quadrature of its "
            "own, which is wrong from some hundred scales on; nothing can be integrated against "
            "it. Estimate the KL with pyro_kl.monte_carlo(p, q)."
        )
    found_map = None if p.event_shape or q.event_shape else _map(p)
    if found_map is None:
        return None
    at, limits = found_map
    p, q = (
        distribution if is_foreign(distribution) else own_copy(distribution)
        for distribution in (p, q)
    )  # that validate nothing
    shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    point = at(torch.zeros((1, *shape), dtype=torch.float64)).x
    probe, there = (_log_prob_or_none(distribution, point) for distribution in (p, q))
    if probe is None or there is None:
        return None

    def given_log_p(y: Tensor) -> Tensor:
        point = at(y)
        return log_prob_anywhere(p, point.x) + point.log_slope

    def given_log_q(y: Tensor) -> Tensor:
        point = at(y)
        return log_prob_anywhere(q, point.x) + point.log_slope

    with torch.no_grad():
        missing = _missing(given_log_p, shape) | _missing(given_log_q, shape)
    log_p, log_q = _elsewhere(given_log_p, missing), _elsewhere(given_log_q, missing)
    with torch.no_grad():
        outside = _outside(p, q).to(probe.device).expand(shape)
        if bool(outside.all()):
            infinite = torch.full(shape, math.inf, dtype=probe.dtype, device=probe.device)
            return Integral(infinite, torch.zeros_like(infinite), 0)
        centre, width, low, high = _where(log_p, shape, probe.device, limits)
        peak, narrow, _, _ = _where(log_q, shape, probe.device, limits)
        decays, rest = _tails(log_p, log_q, centre, width, low, high, limits)
        if not bool((outside | decays).all()):
            raise _unknown(p, q)

    def terms(z: Tensor) -> tuple[Tensor, Tensor]:
        y = centre + width * z
        a = log_p(y).to(torch.float64)
        return a + torch.log(width), log_q(y) - a

    found = integral_of_calls(terms, (low, high), (peak - centre) / width, narrow / width)
    total = found.value
    with torch.no_grad():
        known = found.error <= _WORST * (1 + total.abs())  # not of nan
    if not bool((outside | known).all()):
        raise _unknown(p, q)
    value, error = (
        torch.where(outside, math.inf, torch.where(missing, math.nan, total)),
        torch.where(outside | missing, 0.0, found.error + rest),
    )
    reason = short_of(value.detach(), error, requested_tolerance())
    return Integral(value.to(probe.dtype), error, found.nodes, reason)


def _missing(log: OnLine, shape: torch.Size) -> Tensor:
    """Rows of which the density is nowhere a number, as a parameter that is nan makes them."""
    y = torch.tensor([-1.0, 0.3, 1.0], dtype=torch.float64).reshape(-1, *(1,) * len(shape))
    return log(y.expand(-1, *shape)).isnan().all(0)


def _elsewhere(log: OnLine, missing: Tensor) -> OnLine:
    """The density, and in the rows that have none a Normal's, which keeps no other row waiting."""
    if not bool(missing.any()):
        return log
    return lambda y: torch.where(missing, -0.5 * y * y - HALF_LOG_TAU, log(y))


def _outside(p: Distribution, q: Distribution) -> Tensor:
    """Where an end of p's support is outside of q's, as far as is known."""
    mine, other = ends_of(p), ends_of(q)
    if mine is None or other is None:
        return torch.tensor(False)
    low, high, other_low, other_high = (
        torch.as_tensor(end, dtype=torch.float64) for end in (*mine, *other)
    )
    return (low < other_low) | (high > other_high)


def _unknown(p: Distribution, q: Distribution) -> NotImplementedError:
    return NotImplementedError(
        f"KL({describe(p)} || {describe(q)}): whether it is finite cannot be told from "
        "`log_prob`, which over- or underflows before the integrand has fallen to nothing. "
        "Estimate it with pyro_kl.monte_carlo(p, q), or declare a formula with @pyro_kl.register."
    )


def _log_prob_or_none(distribution: Distribution, x: Tensor) -> Tensor | None:
    """Log density at x of shape (1, *batch); None if the class takes no such values."""
    try:
        return torch.as_tensor(log_prob_anywhere(distribution, x))
    except (RuntimeError, ValueError):  # NotImplementedError is a RuntimeError
        return None


def is_on_line(p: Distribution, q: Distribution) -> bool:
    """Whether both are continuous and univariate, or products of such, as their classes say."""
    if is_a(p, Independent) and is_a(q, Independent):
        shared = min(p.reinterpreted_batch_ndims, q.reinterpreted_batch_ndims)
        return is_on_line(peel(p, shared), peel(q, shared))
    return not p.event_shape and not q.event_shape and all(_map(x) is not None for x in (p, q))


def _map(p: Distribution) -> tuple[Callable[[Tensor], Point], Ends] | None:
    """From the line to p's support, and how far x can be told from its ends; None if unknown."""
    ends = ends_of(p)
    if ends is None:
        return None
    low, high = (torch.as_tensor(end, dtype=torch.float64) for end in ends)
    if _is_no_end(low) and _is_no_end(high):
        return _sinh, (-LARGEST, LARGEST)
    if _is_no_end(high):
        return lambda y: _shifted(half_line(y), low, 1), (_nearest(low), LARGEST)
    if _is_no_end(low):
        return lambda y: _shifted(half_line(-y), high, -1), (-LARGEST, -_nearest(high))
    return lambda y: interval(y, low, high), (_nearest(low), -_nearest(high))


def _is_no_end(end: Tensor) -> bool:
    return bool(end.isinf().all())


def _nearest(end: Tensor | float) -> float:
    """The logarithm of the distance at which x is still another number than the end."""
    return -LARGEST if bool((torch.as_tensor(end) == 0).all()) else -34.0


def _sinh(y: Tensor) -> Point:
    point = from_line(torch.sinh(y))
    return Point(point.x, logaddexp(y, -y) - math.log(2))


def _shifted(point: Point, end: Tensor | float, side: int) -> Point:
    return Point(end + side * point.x, point.log_slope)


def _clean(log: OnLine, y: Tensor) -> Tensor:
    return log(y).to(torch.float64).nan_to_num(nan=-math.inf, posinf=-math.inf)


def _where(
    log: OnLine, shape: torch.Size, device: torch.device, limits: Ends
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A density's mode on the line, its width there, and its reach below and above in widths."""
    column = (-1,) + (1,) * len(shape)
    steps = torch.linspace(-1, 1, _GRID, dtype=torch.float64, device=device).reshape(column)
    # finer near the middle: most distributions are of the order of 1
    first = _FAR * steps.sign() * torch.expm1(6 * steps.abs()) / math.expm1(6)
    grid = first.expand(_GRID, *shape)
    half = torch.zeros(shape, dtype=torch.float64, device=device)
    centre = half
    for zoom in range(_ZOOMS):
        best = _clean(log, grid).max(0).indices
        centre = grid.gather(0, best.unsqueeze(0)).squeeze(0)
        before = grid.gather(0, (best - 1).clamp(min=0).unsqueeze(0)).squeeze(0)
        after = grid.gather(0, (best + 1).clamp(max=_GRID - 1).unsqueeze(0)).squeeze(0)
        half = torch.maximum(after - centre, centre - before)
        grid = centre + half * steps
        if zoom and bool((half < 1e-12 * (1 + centre.abs())).all()):
            break
    powers = torch.arange(-_HALVINGS, 11, dtype=torch.float64, device=device).reshape(column)
    outward = torch.exp2(powers)
    top = _clean(log, centre.unsqueeze(0))
    drops = [top - _possible(_clean(log, centre + side * outward), outward) for side in (-1, 1)]
    narrow = torch.minimum(*((d < 0.5).sum(0) for d in drops)).clamp(0, len(outward) - 1)
    width = outward.reshape(-1)[narrow]
    ranks = torch.arange(len(outward), device=device).reshape(column)
    reach = []
    for side, drop in zip((-1, 1), drops, strict=True):
        furthest = torch.where(drop < _NOTHING, ranks, -1).max(0).values + 1
        far = outward.reshape(-1)[furthest.clamp(max=len(outward) - 1)]
        room = (limits[side > 0] - centre) * side
        reach.append((torch.minimum(far, room) / width).clamp(min=1.0))
    return centre, width, reach[0], reach[1]


def _possible(log_p: Tensor, distance: Tensor) -> Tensor:
    """A log density at a distance; -inf where it would be more than 1 over an octave there."""
    return torch.where(log_p + torch.log(distance) < _ALL, log_p, -math.inf)


def _tails(
    log_p: OnLine,
    log_q: OnLine,
    centre: Tensor,
    width: Tensor,
    low: Tensor,
    high: Tensor,
    limits: Ends,
) -> tuple[Tensor, Tensor]:
    """Whether p |log p - log q| has fallen, and still falls, where it is cut off on both sides.

    And what is cut off, if it goes on falling at least half as fast as it does there.
    """
    answer, rest = torch.ones_like(centre, dtype=torch.bool), torch.zeros_like(centre)
    top = log_p(centre.unsqueeze(0)).squeeze(0)
    for side, reach in ((-1, low), (1, high)):
        sizes = []
        for factor in (0.5, 1.0):
            y = (centre + side * factor * reach * width).clamp(*limits).unsqueeze(0)
            a, b = log_p(y).squeeze(0), log_q(y).squeeze(0)
            gone = a == -math.inf
            ratio = torch.where(gone, 1.0, (a - b).abs())
            sizes.append(torch.where(gone, -math.inf, a + torch.log(ratio.clamp(min=1e-300))))
        falls = (sizes[1] < sizes[0] - 0.05) & (sizes[1] < top - _FALLEN)
        answer = answer & (falls | torch.isneginf(sizes[1]))
        length = reach * width / (sizes[0] - sizes[1]).clamp(min=0.05)
        rest = rest + torch.where(falls, torch.exp(sizes[1]) * length, 0.0)
    return answer, rest
