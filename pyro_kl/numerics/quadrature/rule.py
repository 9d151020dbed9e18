r"""The rule of a row: trapezoid in t, z = sinh(t), whole or in pieces, and what its sums say.

The nodes are constants: the gradient is that of the sum. Sums with waves of lower frequencies say
how far off the value is (`sweep`). A kink would show itself only where all else has converged, and
is therefore announced by whoever knows of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..concrete import holds_everywhere
from .integrand import Integrand, Sweep
from .nodes import split_nodes, whole_nodes
from .sweep import EPS, ROUNDING, Nodes, distances, misplaced, patterns, prepare, truncation

#: For the usual tolerance nodes need not go as far as there are digits, unless many are wanted.
_NEARER, _LAST_NEAR = 0.78, 73
#: A reach, in widths, of a tail that falls like exp(-exp(z)).
_DOUBLE = 4.0
#: Below this difference between the integral of q and 1, q has its mass where the nodes are.
_COVERED = 1e-13


@dataclass(frozen=True)
class Rows:
    """What is to be integrated: a function, and for each row of a batch its parameters."""

    integrand: Integrand
    low: Tensor  # reach below 0, rows or ()
    high: Tensor
    cuts: tuple[Tensor, ...]  # rows each
    kinked: bool
    is_density: bool = True
    narrow: Tensor | None = None  # rows: 1 where q changes as a kink would, else 0
    key: tuple[Any, ...] | None = None  # of nodes that are the same for all rows
    heavy: tuple[bool, bool] = (True, True)
    nearer: bool = False  # whether the nodes need not go as far as there are digits
    far: Tensor | None = None  # rows: how many of p's widths it is from 0, if that costs digits

    def nodes(self, count: int, *, split: bool) -> tuple[Tensor, Tensor]:
        """Z and weights, of shape (pieces, count, rows or 1)."""
        if split:
            return split_nodes(self.low, self.high, self.cuts, count)
        low, high = self.low, self.high
        if self.nearer and count <= _LAST_NEAR:
            low, high = (_nearer(end) for end in (low, high))
        return whole_nodes(low, high, count, self.heavy)

    @property
    def is_light(self) -> bool:
        """Whether both tails fall faster than an exponential."""
        return not any(self.heavy)

    def take(self, rows: Tensor | slice) -> Rows:
        low, high = (x[rows] if x.dim() else x for x in (self.low, self.high))
        narrow, far = (None if x is None else x[rows] for x in (self.narrow, self.far))
        cuts = tuple(c[rows] for c in self.cuts)
        return replace(self, low=low, high=high, cuts=cuts, narrow=narrow, far=far)

    def kink(self, *, split: bool) -> Tensor | None:
        """How much of a kink's error there may be under what converges."""
        return None if self.narrow is None else self.narrow / (12.0 if split else 3.0)

    def prepared(self, sweep: Sweep, count: int, *, split: bool) -> Nodes:
        """What a look at the nodes needs; kept if they are the same for all rows."""
        key = None if split or self.key is None else (*self.key, count, self.nearer)
        found = sweep.nodes.get(key)
        if found is None:
            with torch.inference_mode(mode=False), torch.no_grad():
                found = prepare(sweep, *self.nodes(count, split=split), self.low, self.high)
            if key is not None:
                sweep.nodes[key] = found
        return found


@dataclass
class Sums:
    """The rule with all nodes, and by how much it may be off.

    Args:
        value: all nodes.
        truncation: what their spectrum says.
        noise: what rounding leaves.
        ends: what is beyond the outermost nodes.
    """

    value: Tensor
    truncation: Tensor
    noise: Tensor
    ends: Tensor

    def error(self) -> Tensor:
        return self.truncation + self.noise + self.ends


def sums_over(rows: Rows, parameters: Sequence[Tensor], count: int, *, split: bool) -> Sums:
    z, weight = rows.nodes(count, split=split)
    pieces, n, _ = z.shape
    log_p, d = _at_nodes_with_mass(rows.integrand, z.flatten(0, 1), parameters)
    p = torch.exp(log_p)
    mass = weight.flatten(0, 1) * p
    terms = -mass * d
    by_piece = terms.reshape(pieces, n, -1)
    value = by_piece.sum((0, 1))
    with torch.no_grad():
        size = terms.abs().sum(0)
        ends = _left_over(rows, by_piece, log_p.reshape(pieces, n, -1), weight, split=split)
        sums = patterns(n, pieces, terms.dtype, terms.device) @ terms
        rough = truncation(sums, size, rows.kink(split=split))
        if rows.far is not None:
            steep = mass / distances(z.flatten(0, 1), n)
            rough = rough + misplaced(d, steep, rows.far)
    if not rows.is_density:
        return Sums(value, rough, 4 * EPS * size, ends)
    shift = (mass * torch.expm1(d.clamp(max=60.0))).sum(0)
    near = (shift.detach().abs() <= _COVERED) & (value.detach() < 1e-3)
    with torch.no_grad():
        # p's own integral tells what rounding and too few nodes do to its density
        off = ROUNDING + (mass.sum(0) - 1).abs()
        noise = torch.where(near, off * size, off * (1 + size))
    value = value + torch.where(near, shift, 0.0)
    return Sums(value, rough, noise, ends)


def _at_nodes_with_mass(
    integrand: Integrand, z: Tensor, parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Log p and log q - log p; -inf and 0 where nothing is left of p.

    There log q and log p may be infinite themselves, or have slopes that are. A product with 0
    would make nan of them: such a node is moved to 0 before anything is differentiated.
    """
    log_p, d = integrand(z, *parameters)
    alive = torch.exp(log_p.detach()) > 0
    if torch.is_grad_enabled() and not holds_everywhere(alive, lambda x: x):
        log_p, d = integrand(torch.where(alive, z, 0.0), *parameters)
    return torch.where(alive, log_p, -math.inf), torch.where(alive, d, 0.0)


def _left_over(rows: Rows, terms: Tensor, log_p: Tensor, weight: Tensor, *, split: bool) -> Tensor:
    """What an exponential tail leaves beyond the outermost nodes.

    At 0 the density is of the order of 1: what it has fallen by since is its rate times the reach.
    Where log q grows as fast as the density falls, the integrand falls more slowly.
    """
    total = torch.zeros_like(terms[0, 0])
    heights = terms.abs() / weight.clamp(min=1e-300)
    for piece, end, reach in ((0, -1 if split else 0, rows.low), (-1, -1, rows.high)):
        size = heights[piece, end]
        fallen = torch.log(heights.amax((0, 1)) / size.clamp(min=1e-300)).clamp(min=0.01)
        if rows.is_density:
            fallen = torch.minimum(fallen, (-1 - log_p[piece, end]).clamp(min=1.0))
        else:
            fallen = fallen.clamp(max=10.0)
        total = total + 3 * size * reach / fallen
    return total


def _nearer(reach: Tensor) -> Tensor:
    """As far as 1e-10 of the mass."""
    return torch.where(reach < _DOUBLE, reach - 0.3, _NEARER * reach)
