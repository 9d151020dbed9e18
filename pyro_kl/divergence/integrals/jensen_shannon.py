"""Jensen and Shannon's divergence of two univariate distributions: an integral over both lines."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...numerics.special.alpha_divergences import jensen_shannon_inside, jensen_shannon_share
from ...registry.reduction import describe
from ...wrappers.circle import check_one_turn
from ..found import Found
from .checks import checked, not_on_line, of_empty_batch
from .panels import integrated
from .rows import in_groups, with_rows
from .trapezoid import summed
from .two_densities import two_densities

#: How far off 1 rounding takes the integral of a density, as that in log gamma of large numbers.
_FACTOR = 1e-9
#: The logarithm of p + q has poles next to the line: see `summed`.
_TRUST = 0.25
#: Closer to log 2, rows are left to panels.
_APART = 1e-4
_SOURCE = "log densities over both supports"
#: An absolute error that suffices where the integrand has a sign.
_FLOOR = 1e-13


def jensen_shannon_by_integral(p: Distribution, q: Distribution) -> Found:
    """The mean of E_p and E_q of a bounded function of the log ratio, each over its own line."""
    check_one_turn(p, q)
    check_one_turn(q, p)
    empty = of_empty_batch(p, q)
    if empty is not None:
        return empty
    quick = summed(p, q, jensen_shannon_inside, _TRUST)
    if quick is None:
        return _by_panels(p, q)
    # what two distributions share that are nearly apart is too little to be seen in a spectrum
    settled = quick.settled & ~(quick.value > math.log(2) - _APART)
    found = Found(quick.value, "quadrature", _SOURCE, quick.error, quick.nodes)
    return with_rows(found, ~settled, p, q, _by_panels) or _by_panels(p, q)


def _by_panels(p: Distribution, q: Distribution) -> Found:
    first, second = _half(p, q), _half(q, p)
    assert first.error is not None
    assert second.error is not None
    value, error = 0.5 * (first.value + second.value), 0.5 * (first.error + second.error)
    return first._replace(value=value, error=error, nodes=max(first.nodes, second.nodes))


def _half(p: Distribution, q: Distribution) -> Found:
    """KL(p || m), but for a part that the other half cancels."""
    densities = two_densities(p, q)
    if densities is None:
        raise not_on_line("Jensen-Shannon", p, q)
    known = ~densities.unknown & ~densities.apart
    elsewhere = torch.where(densities.unknown, math.nan, math.log(2)).to(torch.float64)
    if not bool(known.any()):
        return Found(elsewhere, "quadrature", _SOURCE, torch.zeros_like(elsewhere))
    groups = [known & densities.inside, known & ~densities.inside]
    if not any(bool(group.all()) for group in groups):
        found = in_groups(p, q, groups, elsewhere, _half)
        if found is not None:
            return found

    def terms(y: Tensor) -> list[Tensor]:
        log_p, log_q, _ = densities(y)
        return [jensen_shannon_share(log_p, log_q), torch.exp(log_p)]

    kinks, peaks = densities.kinks(), [densities.peak(densities.log_p)]
    edges = densities.edges()
    half = integrated(terms, peaks, kinks, edges=edges)
    value, error = half.value[0], half.error[0]
    # a density that is off by a factor is so everywhere; mass that is left out costs log 2 at most
    off = (half.value[1].detach() - 1).abs()
    error = error + off * torch.where(off > _FACTOR, math.log(2), value.detach())
    if value.requires_grad and edges and bool(densities.infinite_at_ends()[1].any()):
        # fixed places do not follow such an end of q's: the slope is that on q's line
        moving = _over_the_other(p, q)
        value = value.detach() + moving - moving.detach()
    value = torch.where(known, value, elsewhere)
    checked(f"Jensen-Shannon({describe(p)} || {describe(q)})", densities, value, error)
    return Found(value, "quadrature", _SOURCE, error, half.nodes)


def _over_the_other(p: Distribution, q: Distribution) -> Tensor:
    """The same over q's line: the function of the log ratio is log 2 where q has no mass."""
    densities = two_densities(q, p)
    assert densities is not None

    def terms(y: Tensor) -> list[Tensor]:
        log_q, log_p, _ = densities(y)
        return [jensen_shannon_share(log_p, log_q) - math.log(2) * torch.exp(log_p)]

    peaks = [densities.peak(log) for log in (densities.log_p, densities.log_q)]
    found = integrated(terms, peaks, densities.kinks(), _FLOOR, densities.edges())
    return math.log(2) + found.value[0]
