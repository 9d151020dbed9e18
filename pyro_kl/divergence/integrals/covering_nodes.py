"""Nodes on the line of one of two declared families, between the outermost of which both lie."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...numerics.dtypes import Parameters
from ...numerics.quadrature.nodes import split_nodes, step_at, whole_nodes
from ...registry.family import Family
from ...registry.line import LARGEST, Line, from_line
from ...registry.window import kinks_of


class CoveringNodes:
    """The line of one of two families, with nodes that cover both.

    Args:
        own: the family whose line it is.
        other: the other one.
        mine: parameters of the first, of one shape (rows,).
        theirs: those of the other.

    Attributes:
        centre: of the own density on its line.
        width: how wide that is.
        low: how many widths below the centre both densities lie.
        high: the same above.
        pieces: how many the line has between kinks.
        spacing: in proportion to the distance of the nodes next to the centre.
        coarseness: the same in proportion to the narrower density.
    """

    def __init__(self, own: Family, other: Family, mine: Parameters, theirs: Parameters) -> None:
        line, other_line = own.line, other.line
        assert line is not None
        assert other_line is not None
        a, b = ({name: x.detach() for name, x in each.items()} for each in (mine, theirs))
        self.centre, self.width = line.centre(**a), line.width(**a)
        middle, half = other_line.centre(**b), other_line.width(**b)
        reach = other_line.reach

        def place(y: Tensor) -> Tensor:
            return (line.place(other_line.at(y, **b).x, **a) - self.centre) / self.width

        start, below, at, above, end = (
            place(middle + k * half) for k in (-reach[0], -1.0, 0.0, 1.0, reach[1])
        )
        self.low, self.high = (
            (side * x).nan_to_num(nan=0.0).clamp(min=mass).minimum(self._room(line, side))
            for side, x, mass in ((-1, start, line.reach[0]), (1, end, line.reach[1]))
        )
        kinks = kinks_of(other, line, a, b, self.centre, self.width)
        self.has_kinks = line.peaked or bool(own.kinks) or bool(kinks)
        self.kinks = [torch.where(inside, x, 0.0) for x, inside in kinks]
        self.pieces = 2 + len(self.kinks) if self.has_kinks else 1
        spacing = step_at(self.low, is_heavy=True) + step_at(self.high, is_heavy=True)
        nearest = torch.fmin(above - at, at - below) / torch.sqrt(1 + at**2)
        self.spacing = spacing
        self.coarseness = (spacing / nearest.clamp(max=1.0)).nan_to_num(nan=math.inf)

    def _room(self, line: Line, side: int) -> Tensor:
        """How far out places are where x does not overflow."""
        if line.at is from_line:
            return torch.full_like(self.centre, math.inf)
        return ((LARGEST - side * self.centre) / self.width).clamp(min=1.0)

    def nodes(
        self, rows: Tensor, window: tuple[Tensor, Tensor], count: int
    ) -> tuple[Tensor, Tensor]:
        """In the own widths from the own centre, nodes and weights, (nodes, rows or 1).

        Args:
            rows: of the batch.
            window: how far below and above the centre the nodes go, if there are no kinks.
            count: of a piece.
        """
        if self.has_kinks:
            kinks = [x[rows] for x in self.kinks]
            z, weights = split_nodes(self.low[rows], self.high[rows], kinks, count)
        else:
            z, weights = whole_nodes(*window, count)
        return z.flatten(0, 1), weights.flatten(0, 1)
