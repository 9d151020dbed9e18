"""Densities that are known by calls alone: the line of one, and an integral of two.

What such a density depends on is not known as tensors. An integral of it is therefore computed for
the whole batch, in the graph that its own operations make.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...numerics.quadrature.integrate import Integral, integrate_opaque
from ...numerics.quadrature.peaks import square_over_jump
from ...registry.line import Point
from ...registry.subclasses import class_of
from ...registry.user_classes import callable_copy, called
from ..circle import ends_of, period_of
from .distribution_line import DistributionLine
from .rules import base_and_transforms


def line_by_log_prob(distribution: Distribution) -> DistributionLine | None:
    """The line of a continuous distribution, by its own log density at x."""
    if period_of(base_and_transforms(distribution)[0]) is not None:
        return None  # torch takes the density at images of any angle
    ends = ends_of(distribution)
    if ends is None or class_of(distribution).log_prob is Distribution.log_prob:
        return None
    distribution = callable_copy(distribution)

    def log_density(point: Point) -> Tensor:
        return called(distribution.log_prob, _off_the_ends(point.x, *ends))

    return DistributionLine(log_density, (), *ends, is_opaque=True)


def _off_the_ends(x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """x, moved by one digit to the inside where it has rounded to an end of the support."""
    eps = torch.finfo(x.dtype).eps
    for end, side in ((low, 1), (high, -1)):
        at = torch.as_tensor(end, dtype=x.dtype, device=x.device)
        if isinstance(end, Tensor) or math.isfinite(end):
            inside = at + side * torch.where(at == 0, 1e-300, eps * at.abs())
            x = torch.maximum(x, inside) if side > 0 else torch.minimum(x, inside)
    return x


def integral_of_calls(
    terms: Callable[[Tensor], tuple[Tensor, ...]],
    window: tuple[Tensor, Tensor],
    peak: Tensor,
    width: Tensor,
) -> Integral:
    """The integral of p (log p - log q) over p's line.

    Args:
        terms: of places z, in p's widths from its peak: the log density of z under p, then
            log q - log p, then what else the nodes have to be fine enough for.
        window: how far below and above 0 p has mass, of batch shape.
        peak: the place of q's peak, where it may have a kink or be narrow.
        width: how wide q's peak is.
    """
    found = integrate_opaque(terms, window, [peak])
    if not found.value.requires_grad:
        return found
    return replace(found, value=found.value + _bend_of_kinks(terms, peak, width))


def _bend_of_kinks(
    terms: Callable[[Tensor], tuple[Tensor, ...]], peak: Tensor, width: Tensor
) -> Tensor:
    """0, with a slope of 0, and the second derivative that kinks at the two peaks contribute.

    The slope of the integrand p (log p - log q) jumps by p (1 + log p - log q) times that of
    log p, and by -p times that of log q.
    """
    centre = torch.zeros_like(peak)
    with torch.no_grad():
        log_p, d = terms(torch.stack((centre, peak)))[:2]
    of_p = torch.exp(log_p[0]) * (1 - d[0])
    of_q = -torch.exp(log_p[1])
    by_p = square_over_jump(lambda z: terms(z)[0], centre, torch.ones_like(centre))
    by_q = square_over_jump(lambda z: terms(z)[0] + terms(z)[1], peak, width)
    return 0.5 * ((of_p * by_p).nan_to_num(nan=0.0) + (of_q * by_q).nan_to_num(nan=0.0))
