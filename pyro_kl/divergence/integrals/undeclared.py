"""The KL of two univariate distributions by their `log_prob` and `support` alone.

p's support is mapped to the line. Grids, each inside the best cell of the one before, find the
peaks of both densities there and how wide they are. The nodes of the integral crowd at the peaks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from pyro.distributions import Empirical, Stable
from torch import Tensor
from torch.distributions import Distribution, Independent

from ...messages import see
from ...numerics.quadrature.integrate import Integral, requested_tolerance, short_of
from ...numerics.special.logarithms import HALF_LOG_TAU
from ...registry.line import Point
from ...registry.reduction import describe
from ...registry.shapes import peel
from ...registry.subclasses import is_a
from ...registry.tensors import is_foreign, own_copy
from ...wrappers.circle import ends_of
from ...wrappers.log_prob import log_prob_anywhere
from ...wrappers.transformed.user_code import integral_of_calls
from .support_line import Ends, line_of_support

LogDensity = Callable[[Tensor], Tensor]
#: Where a log density is so many nats below its maximum, nothing is left of the density.
_NOTHING = 45.0
#: A density so many nats above 1 over a distance would have a mass of e^3 there: it is wrong.
_TOO_MUCH = 3.0
#: The integrand has fallen by so many nats at least where floats end, or its rest is not known.
_FALLEN = 10.0
#: An integral with a larger relative error has not seen all of p's mass.
_WORST = 0.01
#: The line is searched from -_FAR to _FAR: x up to 1e260 for a distribution on the half-line.
_FAR = 600.0
_GRID, _ZOOMS, _HALVINGS = 121, 14, 60


class _Peak(NamedTuple):
    """Where a density lies on the line.

    Attributes:
        centre: its mode.
        width: the distance at which it has fallen by half a nat, on the narrower side.
        low: how many widths below the centre all of its mass lies.
        high: the same above.
    """

    centre: Tensor
    width: Tensor
    low: Tensor
    high: Tensor


def kl_of_undeclared(p: Distribution, q: Distribution) -> Integral | None:
    """KL(p || q) of two univariate continuous distributions; None if they are not that.

    It is differentiable by whatever their `log_prob` depends on, and +inf where p's support is
    not inside of q's.

    Raises:
        NotImplementedError: the values of `log_prob` do not tell whether the KL is finite: the
            integrand does not fall as far out as floats go, or a density over- or underflows.
    """
    if isinstance(p, Stable) or isinstance(q, Stable):
        raise NotImplementedError(
            f"KL({describe(p)} || {describe(q)}): Pyro's Stable.log_prob is a quadrature of its "
            "own, which is wrong from some hundred scales on; nothing can be integrated against "
            "it. Estimate the KL with pyro_kl.monte_carlo(p, q)." + see("approximate-density")
        )
    if isinstance(q, Empirical):  # whose support is the line, and which has no density
        return None
    on_line = None if p.event_shape or q.event_shape else line_of_support(p)
    if on_line is None:
        return None
    at, _, limits = on_line
    # copies of torch's classes do not validate their arguments
    p, q = (x if is_foreign(x) else own_copy(x) for x in (p, q))
    shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    x = at(torch.zeros((1, *shape), dtype=torch.float64)).x
    at_zero = [_log_prob_or_none(distribution, x) for distribution in (p, q)]
    if at_zero[0] is None or at_zero[1] is None:
        return None
    like = at_zero[0]
    log_p, log_q = (_log_density(distribution, at) for distribution in (p, q))
    with torch.no_grad():
        missing = _is_missing(log_p, shape) | _is_missing(log_q, shape)
        outside = _is_outside(p, q).to(like.device).expand(shape)
        if bool(outside.all()):
            infinite = torch.full(shape, math.inf, dtype=like.dtype, device=like.device)
            return Integral(infinite, torch.zeros_like(infinite), 0)
    log_p, log_q = _replaced(log_p, missing), _replaced(log_q, missing)
    with torch.no_grad():
        of_p, of_q = (search(log, shape, like.device, limits) for log in (log_p, log_q))
        decays, rest = _rest_beyond(log_p, log_q, of_p, limits)
        if not bool((outside | decays).all()):
            raise _not_known(p, q)
    found = _integral(log_p, log_q, of_p, of_q)
    with torch.no_grad():
        known = found.error <= _WORST * (1 + found.value.abs())  # not of nan
        if not bool((outside | known).all()):
            raise _not_known(p, q)
    value = torch.where(missing, math.nan, found.value)
    value = torch.where(outside, math.inf, value)
    error = torch.where(outside | missing, 0.0, found.error + rest)
    reason = short_of(value.detach(), error, requested_tolerance())
    return Integral(value.to(like.dtype), error, found.nodes, reason)


def is_on_line(p: Distribution, q: Distribution) -> bool:
    """Whether both are univariate and continuous, or products of such distributions."""
    if is_a(p, Independent) and is_a(q, Independent):
        shared = min(p.reinterpreted_batch_ndims, q.reinterpreted_batch_ndims)
        return is_on_line(peel(p, shared), peel(q, shared))
    univariate = not p.event_shape and not q.event_shape
    return univariate and all(line_of_support(x) is not None for x in (p, q))


def _integral(log_p: LogDensity, log_q: LogDensity, of_p: _Peak, of_q: _Peak) -> Integral:
    def terms(z: Tensor) -> tuple[Tensor, Tensor]:
        y = of_p.centre + of_p.width * z
        at_y = log_p(y).to(torch.float64)
        return at_y + torch.log(of_p.width), log_q(y) - at_y

    peak, width = (of_q.centre - of_p.centre) / of_p.width, of_q.width / of_p.width
    return integral_of_calls(terms, (of_p.low, of_p.high), peak, width)


def _not_known(p: Distribution, q: Distribution) -> NotImplementedError:
    return NotImplementedError(
        f"KL({describe(p)} || {describe(q)}): whether it is finite cannot be told from "
        "`log_prob`, which over- or underflows before the integrand has fallen to nothing. "
        "Estimate it with pyro_kl.monte_carlo(p, q), or declare a formula with @pyro_kl.register."
        + see("no-integral")
    )


# --- densities on the line ----------------------------------------------------------------------


def _log_density(distribution: Distribution, at: Callable[[Tensor], Point]) -> LogDensity:
    def of_y(y: Tensor) -> Tensor:
        point = at(y)
        return log_prob_anywhere(distribution, point.x) + point.log_slope

    return of_y


def _log_prob_or_none(distribution: Distribution, x: Tensor) -> Tensor | None:
    """Log density at x of shape (1, *batch); None if the class takes no such values."""
    try:
        return torch.as_tensor(log_prob_anywhere(distribution, x))
    except (RuntimeError, ValueError):  # NotImplementedError is a RuntimeError
        return None


def _is_missing(log: LogDensity, shape: torch.Size) -> Tensor:
    """Rows where the density is nan everywhere, because a parameter is nan."""
    y = torch.tensor([-1.0, 0.3, 1.0], dtype=torch.float64).reshape(-1, *(1,) * len(shape))
    return log(y.expand(-1, *shape)).isnan().all(0)


def _replaced(log: LogDensity, missing: Tensor) -> LogDensity:
    """A Normal's density in the rows where it is missing, so that these need few nodes."""
    if not bool(missing.any()):
        return log
    return lambda y: torch.where(missing, -0.5 * y * y - HALF_LOG_TAU, log(y))


def _is_outside(p: Distribution, q: Distribution) -> Tensor:
    """Where an end of p's support is known to be outside of q's."""
    mine, other = ends_of(p), ends_of(q)
    if mine is None or other is None:
        return torch.tensor(False)
    low, high, other_low, other_high = (
        torch.as_tensor(end, dtype=torch.float64) for end in (*mine, *other)
    )
    return (low < other_low) | (high > other_high)


def search(log: LogDensity, shape: torch.Size, device: torch.device, limits: Ends) -> _Peak:
    """The peak of a density."""
    centre = _mode(log, shape, device)
    column = (-1,) + (1,) * len(shape)
    powers = torch.arange(-_HALVINGS, 11, dtype=torch.float64, device=device).reshape(column)
    outward = torch.exp2(powers)
    top = _number(log(centre.unsqueeze(0)))
    drops = []
    for side in (-1, 1):
        height = _number(log(centre + side * outward))
        wrong = height + torch.log(outward) >= _TOO_MUCH
        drops.append(top - torch.where(wrong, -math.inf, height))
    narrow = torch.minimum(*((d < 0.5).sum(0) for d in drops)).clamp(0, len(outward) - 1)
    width = outward.reshape(-1)[narrow]
    ranks = torch.arange(len(outward), device=device).reshape(column)
    window = []
    for side, drop in zip((-1, 1), drops, strict=True):
        furthest = torch.where(drop < _NOTHING, ranks, -1).max(0).values + 1
        far = outward.reshape(-1)[furthest.clamp(max=len(outward) - 1)]
        room = (limits[side > 0] - centre) * side
        window.append((torch.minimum(far, room) / width).clamp(min=1.0))
    return _Peak(centre, width, *window)


def _mode(log: LogDensity, shape: torch.Size, device: torch.device) -> Tensor:
    """The place of the maximum, by grids in the best cell of the one before."""
    column = (-1,) + (1,) * len(shape)
    steps = torch.linspace(-1, 1, _GRID, dtype=torch.float64, device=device).reshape(column)
    # finer near the middle: most distributions are of the order of 1
    first = _FAR * steps.sign() * torch.expm1(6 * steps.abs()) / math.expm1(6)
    grid = first.expand(_GRID, *shape)
    for zoom in range(_ZOOMS):
        best = _number(log(grid)).max(0, keepdim=True).indices
        centre, before, after = (
            grid.gather(0, (best + k).clamp(0, _GRID - 1)).squeeze(0) for k in (0, -1, 1)
        )
        half = torch.maximum(after - centre, centre - before)
        if zoom and bool((half < 1e-12 * (1 + centre.abs())).all()):
            break
        grid = centre + half * steps
    return centre


def _number(log: Tensor) -> Tensor:
    """A log density in float64; -inf where it is no number or infinite."""
    return log.to(torch.float64).nan_to_num(nan=-math.inf, posinf=-math.inf)


def _rest_beyond(
    log_p: LogDensity, log_q: LogDensity, of_p: _Peak, limits: Ends
) -> tuple[Tensor, Tensor]:
    """Whether p |log p - log q| has fallen, and still falls, at both ends of p's window.

    And its integral beyond, if it goes on falling at least half as fast as it does there.
    """
    centre, width = of_p.centre, of_p.width
    decays, rest = torch.ones_like(centre, dtype=torch.bool), torch.zeros_like(centre)
    top = log_p(centre.unsqueeze(0)).squeeze(0)
    for side, reach in ((-1, of_p.low), (1, of_p.high)):
        sizes = []
        for factor in (0.5, 1.0):
            y = (centre + side * factor * reach * width).clamp(*limits).unsqueeze(0)
            a, b = log_p(y).squeeze(0), log_q(y).squeeze(0)
            gone = a == -math.inf
            ratio = torch.where(gone, 1.0, (a - b).abs())
            sizes.append(torch.where(gone, -math.inf, a + torch.log(ratio.clamp(min=1e-300))))
        falls = (sizes[1] < sizes[0] - 0.05) & (sizes[1] < top - _FALLEN)
        decays = decays & (falls | torch.isneginf(sizes[1]))
        length = reach * width / (sizes[0] - sizes[1]).clamp(min=0.05)
        rest = rest + torch.where(falls, torch.exp(sizes[1]) * length, 0.0)
    return decays, rest
