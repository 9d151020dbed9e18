"""Renyi's divergence of two univariate distributions: the integral of p^alpha q^(1 - alpha)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...numerics.special.alpha_divergences import renyi_inside, renyi_of_sum, renyi_terms
from ...registry.reduction import describe
from ...wrappers.circle import check_one_turn, period_of
from ..found import Found
from .checks import checked
from .panels import AIM, Peak, integrated
from .rows import in_groups, with_rows
from .trapezoid import summed
from .two_densities import TwoDensities, two_densities

#: From this log of the integral of p^alpha q^(1 - alpha) on, up and down, it is used itself.
_FAR = 0.5
#: The relative error with which it is first known on which side of that it is.
_ROUGH = 1e-2
#: The terms are entire functions of log p and log q: see `summed`.
_TRUST = 0.5
_SOURCE = "p^alpha q^(1 - alpha) over p's support"
#: An absolute error that suffices where the integrand changes its sign.
_FLOOR = 1e-15
#: How far off 1 rounding takes the integral of a density, as that in log gamma of large numbers.
_FACTOR = 1e-9
#: Mass of q's that the panels may miss: as much is lost by rounding.
_ROUNDED = 1e-13


def renyi_by_integral(
    p: Distribution, q: Distribution, alpha: float, may_exchange: bool = True
) -> Found | None:
    """The divergence of order alpha; None if too little is known of p or q.

    Args:
        p: the first distribution.
        q: the second one.
        alpha: the order.
        may_exchange: whether some rows may be integrated on q's line.
    """
    check_one_turn(p, q)
    if 0 < alpha < 1:  # above, most of the integral may lie where both densities are nothing
        quick = _by_common_nodes(p, q, alpha)
        if quick is not None:
            return quick
    return _by_panels(p, q, alpha, may_exchange)


def _by_common_nodes(p: Distribution, q: Distribution, alpha: float) -> Found | None:
    """The same of two declared families, if panels can be left to the rows that need them."""
    if alpha < 0.5:
        found = _by_common_nodes(q, p, 1 - alpha)
        return found and found.changed(lambda x: alpha / (1 - alpha) * x)
    quick = summed(p, q, renyi_inside(alpha), _TRUST)
    if quick is None:
        return None
    remaining = 1 - (1 - alpha) * quick.value.detach()
    apart = remaining < _ROUNDED  # the value is infinite by rounding
    value = renyi_of_sum(torch.where(apart, 0.0, quick.value), alpha)
    error = quick.error / torch.where(apart, 1.0, remaining)
    # a row that is nan is settled
    settled = quick.settled & ~apart & ~(error > AIM * value.detach())
    found = Found(value, "quadrature", _SOURCE, error.nan_to_num(0.0), quick.nodes)
    return with_rows(found, ~settled, p, q, lambda p, q: _by_panels(p, q, alpha))


def _by_panels(
    p: Distribution,
    q: Distribution,
    alpha: float,
    may_exchange: bool = True,
) -> Found | None:
    """The same by a search for the mass of p^alpha q^(1 - alpha).

    Rows where it is infinite, or where a parameter is nan, are left out of the integral.

    Args:
        p: the first distribution.
        q: the second one.
        alpha: the order.
        may_exchange: whether some rows may be integrated on q's line.
    """
    densities = two_densities(p, q)
    if densities is None:
        return None
    unknown = densities.unknown
    infinite = densities.apart & ~unknown
    if alpha > 1:
        infinite = ~densities.powers_are_finite(alpha, ~unknown).finite & ~unknown
    exchanged = torch.zeros_like(unknown)
    if may_exchange and 0 < alpha < 1:
        exchanged = _is_exchanged(densities, alpha, period_of(p) is not None)
    rest, inside = ~(unknown | infinite), densities.inside
    groups = [rest & inside & ~exchanged, rest & ~inside & ~exchanged, rest & exchanged]
    elsewhere = torch.where(unknown, math.nan, math.inf).to(torch.float64)
    if not bool(rest.any()):
        reason = "q's tail is too light for p's, or q lacks mass of p's"
        return Found(elsewhere, "infinite", reason)
    if not any(bool(group.all()) for group in groups):
        found = in_groups(
            p, q, groups, elsewhere, lambda p, q: _by_panels(p, q, alpha, may_exchange)
        )
        if found is not None:
            return found
    elif bool(groups[2].all()):
        found = _by_panels(q, p, 1 - alpha, may_exchange=False)
        return found and found.changed(lambda x: alpha / (1 - alpha) * x)
    value, error, nodes = _integral(densities, alpha)
    value, error = torch.where(rest, value, elsewhere), torch.where(rest, error, 0.0)
    short = checked(f"Renyi({describe(p)} || {describe(q)})", densities, value, error)
    return Found(value, "quadrature", "; ".join([_SOURCE, *filter(None, [short])]), error, nodes)


def _is_exchanged(densities: TwoDensities, alpha: float, on_circle: bool) -> Tensor:
    """The rows that are integrated on q's line: (1 - a) D(p, q, a) = a D(q, p, 1 - a).

    These are the rows where q's support is inside of p's. Where both are equal it depends on the
    order: the terms keep their digits from 1/2 on. Where no support is inside of the other, it is
    the line of the density that is infinite at an end, or else depends on the order, too.
    """
    around, inside = densities.around & ~densities.inside, densities.inside
    if on_circle:  # the density of angles is that of one turn on the line of these angles only
        return around
    own, other = densities.infinite_at_ends()
    crossing = ~inside & ~densities.around & (~own if alpha < 0.5 else other & ~own)
    return around | crossing | (densities.same_support & torch.tensor(alpha < 0.5))


def _integral(densities: TwoDensities, alpha: float) -> tuple[Tensor, Tensor, int]:
    """Value, error and nodes: from the log of the integral, or near 0 from what it lacks of 1."""
    log_power = densities.log_power(alpha)
    peak = densities.peak(log_power)
    top = torch.where(peak.top.isfinite(), peak.top, 0.0)
    kinks, edges = densities.kinks(), densities.edges()

    def power(y: Tensor) -> list[Tensor]:
        return [torch.exp(log_power(y) - top)]

    near = torch.zeros_like(densities.inside)
    if alpha > 0:
        with torch.no_grad():
            rough = integrated(power, [peak], kinks, aim=_ROUGH).value[0]
            near = (top + torch.log(rough)).abs() < _FAR
    if bool(near.all()):
        return _near(densities, alpha, near, peak)
    whole = integrated(power, [peak], kinks, edges=edges)
    total = whole.value[0].clamp(min=1e-300)
    value = (top + torch.log(total)) / (alpha - 1)
    error = whole.error[0] / total.detach() / abs(1 - alpha)
    if alpha > 0:
        # where p's density is off by a factor, so is its power
        error = error + alpha / abs(1 - alpha) * densities.missing_mass(kinks)
    if not bool(near.any()):
        return value, error, whole.nodes
    close, off, nodes = _near(densities, alpha, near, peak)
    nodes = max(whole.nodes, nodes)
    return torch.where(near, close, value), torch.where(near, off, error), nodes


def _near(
    densities: TwoDensities, alpha: float, rows: Tensor, peak: Peak
) -> tuple[Tensor, Tensor, int]:
    """Value, error and nodes in rows where the integral is close to 1, from what it lacks of it.

    Args:
        densities: both densities.
        alpha: the order.
        rows: which ones; the others are not looked at.
        peak: of p^alpha q^(1 - alpha).
    """
    same = densities.same_support
    all_same, any_same = bool(same.all()), bool(same.any())

    def terms(y: Tensor) -> list[Tensor]:
        log_p, log_q, _ = densities(y)
        # where both have one support, the terms lack nothing of first order
        covered = renyi_terms(log_p, log_q, alpha) if any_same else log_p
        term = covered if all_same else torch.where(same, covered, _signed(log_p, log_q, alpha))
        return [torch.where(rows, term, 0.0), torch.exp(log_q), torch.exp(log_p)]

    peaks = [peak, densities.peak(densities.log_p), densities.peak(densities.log_q)]
    floor = 0.0 if all_same else _FLOOR
    lack = integrated(terms, peaks, densities.kinks(), floor, densities.edges())
    # q's mass beyond the panels, where p has none: q / (1 - alpha) times 1 - alpha
    beyond = torch.where(same, 1 - lack.value[1], 0.0)
    total = lack.value[0] + torch.where(beyond.detach().abs() > _ROUNDED, beyond, 0.0)
    # p's mass that the panels miss, or by which its density is off
    missing = (lack.value[2].detach() - 1).abs()
    is_lost = (missing > _FACTOR).logical_or(torch.tensor(densities.is_opaque))
    off = lack.error[0] + torch.where(is_lost, alpha / abs(1 - alpha) * missing, 0.0)
    off = off / (1 - (1 - alpha) * total.detach())
    return renyi_of_sum(total, alpha), off, lack.nodes


def _signed(log_p: Tensor, log_q: Tensor, alpha: float) -> Tensor:
    """(p - p^a q^(1 - a)) / (1 - a), whose integral is that of the terms as p's is 1."""
    beta = 1 - alpha
    inside = ~(torch.isneginf(log_p) | torch.isneginf(log_q))
    lp, lq = torch.where(inside, log_p, 0.0), torch.where(inside, log_q, 0.0)
    r = beta * (lq - lp)
    near = r.abs() < 1
    power = torch.exp(alpha * lp + beta * lq)
    p = torch.exp(lp)
    value = torch.where(near, -p * torch.expm1(torch.where(near, r, 0.0)), p - power) / beta
    return torch.where(inside, value, torch.exp(log_p) / beta)
