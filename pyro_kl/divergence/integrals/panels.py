"""Integrals over a line, on panels around the peaks of densities, with an error estimate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...numerics.quadrature.panels import halved, nodes_of
from ...numerics.quadrature.rule import ROUNDING

#: The relative error that the panels are halved for; a slope has fewer digits than its value.
AIM = 1e-11
_MOST_NODES = 1 << 13
#: So many panels, each a quarter as long as the one before, end next to an end of a support.
_SHRINKS = 26


class Peak(NamedTuple):
    """Where a density lies on the line.

    Attributes:
        centre: its mode.
        width: the distance at which it has fallen by half a nat, on the narrower side.
        low: the place below which nothing is left of it.
        high: the same above.
        top: the log density at the mode.
    """

    centre: Tensor
    width: Tensor
    low: Tensor
    high: Tensor
    top: Tensor


class Sums(NamedTuple):
    """Integrals over panels, with a graph, and the estimates of their errors."""

    value: Tensor
    error: Tensor
    nodes: int


def integrated(
    terms: Callable[[Tensor], Sequence[Tensor]],
    peaks: Sequence[Peak],
    kinks: Sequence[Tensor],
    floor: float = 0.0,
    edges: Sequence[Tensor] = (),
    aim: float = AIM,
) -> Sums:
    """Integrals over the line.

    Args:
        terms: of places (nodes, *batch), the integrands.
        peaks: of the densities that the integrands consist of: the panels cover them all, and are
            as narrow as they are.
        kinks: where the integrands may not be smooth.
        floor: an absolute error that suffices; 0 for integrands that are below 0 nowhere.
        edges: where the integrands may jump, with a graph: the nodes do not move with a jump, so
            that its height times what it moves by is added, which is 0 by its value.
        aim: the relative error that the panels are halved for.

    Returns:
        Values and errors of shape (integrands, *batch).
    """
    shape = peaks[0].centre.shape
    low = torch.stack([*(peak.low for peak in peaks), *kinks]).amin(0)
    high = torch.stack([*(peak.high for peak in peaks), *kinks]).amax(0)
    steps = (-16.0, -4.0, -1.0, 0.0, 1.0, 4.0, 16.0)
    places = [low, high, *kinks, *(x.centre + k * x.width for x in peaks for k in steps)]
    has_graph = any(term.requires_grad for term in terms(peaks[0].centre.unsqueeze(0)))
    if edges and has_graph:
        # a root of a density at its end has an infinite slope: the panels shrink towards it
        sizes = (0.25**k * (high - low) for k in range(1, _SHRINKS))
        places += [x.detach() + side * d for d in sizes for x in edges for side in (-1, 1)]
    ends = torch.stack([x.expand(shape) for x in places])
    ends = ends.clamp(min=low, max=high).reshape(len(ends), -1).sort(0).values

    def flat(y: Tensor) -> Tensor:
        found = torch.stack(tuple(terms(y.reshape(-1, *shape))))
        return found.reshape(len(found), *y.shape)

    def enough(value: Tensor, error: Tensor) -> bool:
        return bool((error <= aim * value.abs() + floor).all())

    with torch.no_grad():
        left, right, parts, error = halved(flat, (ends[:-1], ends[1:]), enough, _MOST_NODES)
        y, weights = nodes_of(left, right)
    if has_graph:
        parts = weights * flat(y)
    value, size = parts.sum(1).reshape(-1, *shape), parts.detach().abs().sum(1)
    for edge in edges:
        if edge.requires_grad:
            value = value + _height(terms, edge.detach(), low, high) * (edge - edge.detach())
    error = error + ROUNDING * size + floor + _beyond(terms, low, high).reshape(error.shape)
    return Sums(value, error.reshape(-1, *shape), y.shape[0])


@torch.no_grad()
def _beyond(terms: Callable[[Tensor], Sequence[Tensor]], low: Tensor, high: Tensor) -> Tensor:
    """What is left of the integrands beyond the panels, if they go on falling as they do there.

    It is nothing, unless the panels end where floats do.
    """
    step = 0.02 * (high - low)
    y = torch.stack((low, low + step, high - step, high))
    sizes = torch.stack(tuple(terms(y))).abs()
    rest = torch.zeros_like(sizes[:, 0])
    for end, inner in ((0, 1), (3, 2)):
        fallen = torch.log(sizes[:, inner] / sizes[:, end].clamp(min=1e-300)).clamp(min=0.1)
        rest = rest + torch.where(sizes[:, end] > 0, sizes[:, end] * step / fallen, 0.0)
    return rest


@torch.no_grad()
def _height(
    terms: Callable[[Tensor], Sequence[Tensor]], edge: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    """By how much the integrands fall at a place inside of the panels, (integrands, *batch)."""
    near = 1e-9 * (1 + edge.abs())
    sides = torch.stack(tuple(terms(torch.stack((edge - near, edge + near)))))
    inside = (edge > low) & (edge < high)
    return torch.where(inside, sides[:, 0] - sides[:, 1], 0.0)
