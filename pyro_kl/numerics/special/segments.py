"""Bregman divergences of smooth functions where the two arguments are close, and segment means.

Gauss-Legendre's rule on the segment between the arguments: for a function that is analytic in a
neighbourhood of it, 16 nodes leave nothing beyond rounding, and no term cancels another.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

_NODES, _WEIGHTS = (tuple(0.5 * x for x in xs) for xs in np.polynomial.legendre.leggauss(16))
_T = tuple(0.5 + float(x) for x in _NODES)
_W = tuple(float(w) for w in _WEIGHTS)
_FALLING = tuple(w * (1 - t) for w, t in zip(_W, _T, strict=True))


def _weighted(f: Callable[[Tensor], Tensor], x: Tensor, d: Tensor, w: tuple[float, ...]) -> Tensor:
    """sum_i w_i f(x + t_i d)."""
    nodes = torch.tensor(_T, dtype=x.dtype, device=x.device)
    weights = torch.tensor(w, dtype=x.dtype, device=x.device)
    return (f(x.unsqueeze(-1) + nodes * d.unsqueeze(-1)) * weights).sum(-1)


def mean_over_segment(f: Callable[[Tensor], Tensor], x: Tensor, d: Tensor) -> Tensor:
    """The mean of f over the segment from x to x + d."""
    return _weighted(f, x, d, _W)


def bregman_nearby(curvature: Callable[[Tensor], Tensor], x: Tensor, d: Tensor) -> Tensor:
    """f(x + d) - f(x) - d f'(x) = d^2 integral_0^1 (1 - t) f''(x + t d) dt, from f''."""
    return d * d * _weighted(curvature, x, d, _FALLING)


def slope_difference_nearby(curvature: Callable[[Tensor], Tensor], x: Tensor, d: Tensor) -> Tensor:
    """f'(x + d) - f'(x), from f''."""
    return d * _weighted(curvature, x, d, _W)
