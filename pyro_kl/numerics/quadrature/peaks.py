"""Peaks of densities that are not declared, and the effect of a kink there on derivatives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Points of the first grid and of each later grid; how many later grids there are.
_FIRST, _NEXT, _ZOOMS = 81, 17, 8
#: In widths: how far from a peak its slope is measured, and the smallest jump that is a kink.
_NEXT_TO, _JUMP = 1e-6, 1e-3


@torch.no_grad()
def peak_between(log: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Where a log density is largest: each grid covers the best cell of the grid before."""
    column = (-1,) + (1,) * low.dim()
    centre, half = 0.5 * (low + high), 0.5 * (high - low)
    for count in (_FIRST, *[_NEXT] * _ZOOMS):
        steps = torch.linspace(-1, 1, count, dtype=low.dtype, device=low.device).reshape(column)
        grid = centre + half * steps
        best = log(grid).nan_to_num(nan=-torch.inf, posinf=-torch.inf).max(0, keepdim=True).indices
        centre = grid.gather(0, best).squeeze(0)
        half = half * (2.0 / (count - 1))
    return centre


def square_over_jump(log: Callable[[Tensor], Tensor], peak: Tensor, width: Tensor) -> Tensor:
    r"""Twice what a kink adds to a second derivative of the integral of `log`; 0 by its value.

    Nodes that are constants do not move with a kink. Where `log` has two branches f and g that
    meet at m, let D = f - g at a fixed place next to m and K the jump of the slope there. Then
    dm/dt = -D'/K, and (D - its value)^2 / K has the second derivative 2 D'^2 / K. It is 0 where
    the slope does not jump by a part of 1 / width.
    """
    near = _NEXT_TO * width
    steps = torch.stack([-2 * near, -near, near, 2 * near])
    below, left, right, above = log(peak + steps).to(torch.float64).unbind(0)
    jump = ((above - right) / near - (left - below) / near).detach()
    kinked = (jump.abs() * width > _JUMP) & torch.isfinite(jump)
    gap = right - left
    return torch.where(kinked, (gap - gap.detach()) ** 2 / torch.where(kinked, jump, 1.0), 0.0)
