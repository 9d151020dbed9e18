"""Gauss-Kronrod panels, halved where their error is largest: for integrands with unknown kinks.

The trapezoidal rule of the declared families converges geometrically for integrands that are
smooth except at known places. A spline has kinks at knots that are not declared: the panels around
them are halved until they no longer matter (Piessens et al. 1983, QUADPACK).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

#: Kronrod's nodes from 0 on, and their weights; every second one belongs to Gauss's rule, too.
_NODES = (
    0.0, 0.207784955007898467600689403773245, 0.405845151377397166906606412076961,
    0.586087235467691130294144838258730, 0.741531185599394439863864773280788,
    0.864864423359769072789712788640926, 0.949107912342758524526189684047851,
    0.991455371120812639206854697526329,
)  # fmt: skip
_KRONROD = (
    0.209482141084727828012999174891714, 0.204432940075298892414161999234649,
    0.190350578064785409913256402421014, 0.169004726639267902826583426598550,
    0.140653259715525918745189590510238, 0.104790010322250183839876322541518,
    0.063092092629978553290700663189204, 0.022935322010529224963732008058970,
)  # fmt: skip
_GAUSS = (
    0.417959183673469387755102040816327, 0.0, 0.381830050505118944950369775488975, 0.0,
    0.279705391489276667901467771423780, 0.0, 0.129484966168869693270611432679082, 0.0,
)  # fmt: skip
COUNT = 2 * len(_NODES) - 1
#: Where the first panels end, as parts of the reach.
_ENDS = (0.125, 0.25, 0.5, 1.0)
#: How many panels of a row are halved at once.
_AT_ONCE = 8

#: The integrands at z of shape (nodes, rows): (integrands, nodes, rows).
Integrand = Callable[[Tensor], Tensor]


@lru_cache(maxsize=8)
def _rule(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes on (-1, 1), Kronrod's weights and Gauss's, each (15, 1, 1)."""
    signs = ((_NODES, -1), (_KRONROD, 1), (_GAUSS, 1))
    columns = [[*(side * x for x in reversed(half[1:])), *half] for half, side in signs]
    table = torch.tensor(columns, dtype=dtype, device=device).reshape(3, COUNT, 1, 1)
    return table[0], table[1], table[2]


def first_panels(
    low: Tensor, high: Tensor, breakpoints: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """From -low to high, split at 0 and at breakpoints; left and right ends, (panels, rows)."""
    inside = [torch.where((x > -low) & (x < high), x, 0.0) for x in breakpoints]
    ends = [*(-f * low for f in _ENDS), *(f * high for f in _ENDS), 0.0 * low, *inside]
    ordered = torch.stack(torch.broadcast_tensors(*ends)).sort(0).values
    return ordered[:-1], ordered[1:]


def nodes_of(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights of all panels, (nodes, rows)."""
    nodes, kronrod, _ = _rule(left.dtype, left.device)
    half = 0.5 * (right - left)
    z, weights = 0.5 * (left + right) + half * nodes, half * kronrod
    return z.flatten(0, 1), weights.flatten(0, 1)


def _evaluated(integrand: Integrand, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The integrals over each panel and their errors, (integrands, panels, rows)."""
    _, kronrod, gauss = _rule(left.dtype, left.device)
    half = 0.5 * (right - left)
    f = integrand(nodes_of(left, right)[0]).unflatten(1, (COUNT, -1))
    mean = (kronrod * f).sum(1)
    off = (half * ((kronrod - gauss) * f).sum(1)).abs()
    spread = half * (kronrod * (f - 0.5 * mean.unsqueeze(1)).abs()).sum(1)
    trusted = (200 * off / spread.clamp(min=1e-300)).clamp(max=1.0) ** 1.5
    return half * mean, spread * trusted


def halved(
    integrand: Integrand,
    panels: tuple[Tensor, Tensor],
    enough: Callable[[Tensor, Tensor], bool],
    most: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Halve the worst panels of each row until the sums are good enough.

    Args:
        integrand: of z, all functions that are integrated on the same panels.
        panels: left and right ends, (panels, rows).
        enough: of the integrals and their errors, (integrands, rows), whether to stop.
        most: how many nodes a row may take in all.

    Returns:
        Left and right ends of the last panels, the integrals over each, and the errors of the
        sums.
    """
    left, right = panels
    value, error = _evaluated(integrand, left, right)
    count = COUNT * left.shape[0]
    while True:
        count += 2 * COUNT * _AT_ONCE
        if count > most or enough(value.sum(1), error.sum(1)):
            return left, right, value, error.sum(1)
        worst = error.sum(0).topk(_AT_ONCE, 0).indices
        start, end = left.gather(0, worst), right.gather(0, worst)
        middle = 0.5 * (start + end)
        new, off = _evaluated(integrand, torch.cat((start, middle)), torch.cat((middle, end)))
        left = torch.cat((left, middle))
        right = torch.cat((right.scatter(0, worst, middle), end))
        value, error = (_replaced(x, worst, y) for x, y in ((value, new), (error, off)))


def _replaced(of_panels: Tensor, worst: Tensor, halves: Tensor) -> Tensor:
    """The numbers of all panels: those of the left halves replace those of the whole panels."""
    of_left, of_right = halves.chunk(2, 1)
    return torch.cat((of_panels.scatter(1, worst.expand_as(of_left), of_left), of_right), 1)
