"""One look at all nodes of a recorded integrand: the integral, its error's signs, its derivatives.

What autograd would make of an integrand, operation by operation, costs more than the arithmetic
until a batch has thousands of rows. Here a look is the recorded program, two matrix products and
some twenty operations on the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .integrand import Sweep

EPS = 2.0**-52
#: Of a sum of p times a log ratio: a log density is some thirty operations on terms of its own
#: order, each of which rounds by half a unit, and so is the other.
ROUNDING = 64 * EPS
#: Below this difference between the integral of q and 1, q has its mass where the nodes are.
COVERED = 1e-13
#: A KL below this is put together from terms that are never negative.
NEAR = 1e-3
_TINY = 1e-290
#: Of the spectrum at 7/16, what a kink's has at 1 and its multiples: (7/16)^2 pi^2/6; twice that.
_KINK = 0.63


class Nodes(NamedTuple):
    """What a look needs that depends on no parameter.

    Args:
        kept: results of the prelude.
        minus: weights of the terms, (nodes, rows or 1).
        masses: the same, positive.
        patterns: (8, nodes), as `patterns` has them; times `minus` if that has one column.
        off: how far the sum of a known density is off 1, and rounding; None if it depends on
            parameters.
        last: the outermost nodes below and above.
        edge: three times the reach there, and the density if it is known, (2, rows or 1).
        fallen: the logarithm of the density there, if it is known.
        share: three times the reach there over the whole reach.
        steep: the positive weights over the distance to the node before; 0 for a piece's first.
    """

    kept: tuple[Tensor, ...]
    minus: Tensor
    masses: Tensor
    patterns: Tensor
    off: Tensor | None
    last: Tensor
    edge: Tensor
    fallen: Tensor | None
    share: Tensor
    steep: Tensor


def patterns(count: int, pieces: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(8, nodes): the sum of all, and waves of a half, a quarter, 3/8 and 7/16 of their frequency.

    All but the first two in both phases.
    """
    k = torch.arange(count)
    # by sixteenths of a turn, from exact sines
    turns = [math.sin(0.125 * math.pi * i) if i % 8 else 0.0 for i in range(16)]
    sine = torch.tensor(turns, dtype=dtype)
    rows = [torch.ones(count, dtype=dtype), 1.0 - 2.0 * (k % 2)]
    rows += [2 * sine[(m * k + shift) % 16] for m in (4, 6, 7) for shift in (4, 0)]
    return torch.stack(rows).repeat(1, pieces).to(device)


_kept_patterns = lru_cache(maxsize=64)(patterns)


@lru_cache(maxsize=64)
def _last(count: int, pieces: int, device: torch.device) -> Tensor:
    return torch.tensor(
        [0 if pieces == 1 else count - 1, pieces * count - 1], device=device, dtype=torch.int64
    )


def prepare(sweep: Sweep, z: Tensor, weights: Tensor, low: Tensor, high: Tensor) -> Nodes:
    """Run the prelude on nodes and weights of shape (pieces, count, rows or 1)."""
    pieces, count, _ = z.shape
    z, weights = z.flatten(0, 1), weights.flatten(0, 1)
    minus, masses, *kept = sweep.prelude((z, weights))
    waves = _kept_patterns(count, pieces, z.dtype, z.device)
    last = _last(count, pieces, z.device)
    off = fallen = None
    reach = torch.stack(torch.broadcast_tensors(low, high)).reshape(2, -1)
    edge, share = 3 * reach, 3 * reach / reach.sum(0)
    if sweep.is_fixed:
        off = (masses.sum(0) - 1).abs() + ROUNDING
        density = masses[last] / weights[last].clamp(min=_TINY)
        edge, fallen = edge * density, _fallen(density)
    if masses.shape[1] == 1:
        waves = waves * minus.t()
    steep = masses / distances(z, count)
    return Nodes(tuple(kept), minus, masses, waves, off, last, edge, fallen, share, steep)


def distances(z: Tensor, count: int) -> Tensor:
    """From each node to the one before it, infinite for the first of a piece."""
    apart = torch.full_like(z, math.inf)
    apart[1:] = (z[1:] - z[:-1]).abs().clamp(min=_TINY)
    apart[::count] = math.inf
    return apart


def misplaced(ratio: Tensor, steep: Tensor, far: Tensor) -> Tensor:
    """What a relative rounding of the places of nodes and of p's and q's locations does.

    Where p is narrow and far away from 0, x has lost digits: by `far`, its size over p's width.
    """
    moved = torch.zeros_like(ratio)
    moved[1:] = (ratio[1:] - ratio[:-1]).abs()
    return EPS * far * (moved * steep).nan_to_num(0.0, 0.0, 0.0).sum(0)


def _fallen(density: Tensor) -> Tensor:
    """By how much a density has fallen since its top, where it is of the order of 1."""
    return (-1 - torch.log(density.clamp(min=_TINY))).clamp(min=1.0)


def look(
    sweep: Sweep,
    nodes: Nodes,
    parameters: Sequence[Tensor],
    tolerance: Tensor | float,
    kink: Tensor | None = None,
    far: Tensor | None = None,
) -> tuple[bool, list[Tensor]]:
    """For rows of parameters: the integral, its error, and the derivatives that were recorded.

    Before them, whether all are as exact as the tolerance asks.
    """
    terms, *rest = sweep.main((*nodes.kept, *parameters))
    sizes = terms.abs()
    if nodes.masses.shape[1] == 1:
        sums, size = torch.mm(nodes.patterns, terms), torch.mm(nodes.masses.t(), sizes)[0]
    else:
        weighed = nodes.minus * terms
        sums, size = torch.mm(nodes.patterns, weighed), weighed.abs_().sum(0)
    if sweep.is_fixed:
        assert nodes.off is not None
        assert nodes.fallen is not None
        ratio, masses, off, fallen = terms, nodes.masses, nodes.off, nodes.fallen
    else:
        density, ratio, *rest = rest
        masses = nodes.masses * density
        off, fallen = (masses.sum(0) - 1).abs_().add_(ROUNDING), _fallen(density[nodes.last])
    value, noise = sums[0], (size + 1).mul_(off)
    rough = truncation(sums, size, kink).add_(_left_over(nodes, sizes, size, fallen))
    if far is not None:
        steep = nodes.steep if sweep.is_fixed else nodes.steep * density
        rough = rough + misplaced(ratio, steep, far)
    error = noise + rough
    if (error <= value * tolerance).logical_and_(value >= NEAR).all():
        return True, [value, error, *rest]
    few = torch.nonzero(value < NEAR)[:, 0]
    if few.numel():
        shift = (_some(masses, few) * torch.expm1(ratio[:, few].clamp(max=60.0))).sum(0)
        covered = shift.abs() <= COVERED
        value = value.index_put((few,), value[few] + torch.where(covered, shift, 0.0))
        finer = _some(off, few) * size[few]
        error[few] = torch.where(covered, finer, noise[few]) + rough[few]
    return False, [value, error, *rest]


def _some(x: Tensor, rows: Tensor) -> Tensor:
    return x[..., rows] if x.shape[-1] != 1 else x


def truncation(sums: Tensor, size: Tensor, kink: Tensor | None) -> Tensor:
    """What the integrand's spectrum at a half of the nodes' frequency and below says of it there.

    The sum over all nodes is off by the spectrum at their frequency and its multiples. That over
    every second node tells one at half of it, but with an unknown phase, and may be right by
    chance; at a quarter, at 3/8 and at 7/16 the phase is known. From one of them to the next the
    spectrum of what is analytic falls by one factor: from a half to one it would fall by twice
    that of a quarter to a half, and a quarter of that is trusted. In rows with a `kink` what is
    left at 7/16 may be that of a bend between two nodes, which only falls like the square of the
    frequency.
    """
    half, slow, fast, last = (
        sums[i].square() + sums[j].square() + _TINY for i, j in ((1, 1), (2, 3), (4, 5), (6, 7))
    )
    half = 0.5 * half
    half = torch.maximum(half, fast * fast / slow)
    by_half = 4 * (half * (half / (slow + half)).sqrt()).sqrt()
    falling = fast / size.clamp(min=_TINY**0.5)  # of two equal distributions the size is 0
    error = torch.maximum(by_half, falling)
    if kink is not None:
        bend = _KINK * torch.maximum(last, half).sqrt() * (kink > 0)
        # it would show itself only where all else has converged
        hidden = kink * torch.maximum(8 * half.sqrt(), 4 * fast.sqrt())
        error = torch.maximum(error, torch.maximum(bend, hidden))
    return error


def _left_over(nodes: Nodes, sizes: Tensor, size: Tensor, fallen: Tensor) -> Tensor:
    """What an exponential tail leaves beyond the outermost nodes.

    The integrand is somewhere as high as its mean over the nodes' reach: by how much it has
    fallen since, over the distance, is its rate.
    """
    edge = sizes.index_select(0, nodes.last).mul_(nodes.edge)
    rate = (size * nodes.share).div_(edge.clamp(min=_TINY)).log_().clamp_(min=0.01)
    return edge.div_(torch.minimum(rate, fallen)).sum(0)
