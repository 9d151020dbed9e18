"""KL of two distributions on categories, as one node of autograd's graph with its derivatives by
hand.

The terms and their slopes are one program; the sum stands around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TypeAlias

import torch
from torch import Tensor

from ..autograd.fused import block_size, fused
from ..autograd.program import Program, program
from ..dtypes import in_float64, promoted, summed_to
from .bernoulli import excess_of_rounded_masses
from .divergences import kl_div_from_zero, kl_div_of_logs

#: Of two masses, or of their logarithms.
Term: TypeAlias = Callable[[Tensor, Tensor], Tensor]
#: What is kept to go back: the slopes of the terms by either side.
Slopes: TypeAlias = tuple[Tensor, Tensor]


@cache
def _terms_of(term: Term) -> Program:
    """A term x log(x/y) - x + y, and its derivatives by both arguments."""
    found = program(lambda p, q: term(p["x"], q["y"]), ("x",), ("y",), (True, True))
    assert found is not None
    return found


def _total(x: Tensor) -> Tensor:
    """The sum over the last dimension, which torch's own takes long for when there are few."""
    return x @ torch.ones(x.shape[-1], dtype=x.dtype, device=x.device)


def _kl(term: Term, terms: Tensor, x: Tensor, y: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum of the terms, in a precision.

    Masses that sum to 1 in float32 do so to 1e-7, or to 1e-7 times the size of the logits that
    they were made of. The KL of what they would be without that rounding is a sum of x per unit,
    and smaller by half the square of the sums' relative difference, up to its cube: it may come
    out as that much less than 0.
    """
    kl = _total(terms)
    if dtype is torch.float64:
        return kl
    if term is kl_div_of_logs:
        x, y = x.exp(), y.exp()
    sum_x = _total(x).detach()
    gap = (_total(y).detach() - sum_x) / sum_x
    return torch.addcmul(kl / sum_x, gap, gap, value=-0.5).clamp(min=0.0).to(dtype)


def _composed(term: Term, x: Tensor, y: Tensor) -> Tensor:
    """Operation by operation."""
    a, b = in_float64(x), in_float64(y)
    return _kl(term, term(a, b), a, b, promoted((x, y)))


def _at_once(term: Term, x: Tensor, y: Tensor) -> tuple[Tensor, Slopes]:
    a, b = in_float64(x), in_float64(y)
    terms, by_x, by_y = _terms_of(term)((a, b))
    return _kl(term, terms, a, b, promoted((x, y))), (by_x.to(x.dtype), by_y.to(y.dtype))


def _forward(term: Term, x: Tensor, y: Tensor) -> tuple[Tensor, Slopes]:
    """Value and slopes, rows that fit a cache at a time: no more memory than they take."""
    size = block_size(x)
    if x.numel() <= size or x.shape != y.shape:
        return _at_once(term, x, y)
    a, b = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    kl = torch.empty(len(a), dtype=promoted((x, y)), device=x.device)
    by_x, by_y = torch.empty_like(a), torch.empty_like(b)
    step = max(1, size // a.shape[-1])
    for start in range(0, len(a), step):
        rows = slice(start, start + step)
        kl[rows], (by_x[rows], by_y[rows]) = _at_once(term, a[rows], b[rows])
    return kl.view(x.shape[:-1]), (by_x.view(x.shape), by_y.view(y.shape))


def _gradient(slope: Tensor, grad: Tensor, x: Tensor) -> Tensor:
    """Of the sum over the categories, in x's shape."""
    return summed_to(slope * grad.unsqueeze(-1), x)


def _backward(
    grad: Tensor, inputs: Sequence[Tensor], slopes: list[Tensor], asked: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    sides = zip(slopes, inputs, asked, strict=True)
    return tuple(_gradient(slope, grad, x) if wanted else None for slope, x, wanted in sides)


def _term_of_masses(x: Tensor, y: Tensor) -> Term:
    rounded = x.dtype is not torch.float64 and y.dtype is not torch.float64
    return excess_of_rounded_masses if rounded else kl_div_from_zero


@fused(lambda x, y: _forward(_term_of_masses(x, y), x, y), _backward)
def kl_of_masses(x: Tensor, y: Tensor) -> Tensor:
    """KL of two distributions on categories by their masses along the last dimension, which sum to
    1.

    d/dx = log(x/y) and d/dy = 1 - x/y: what changes the sums of the masses is for whoever made
    them sum to 1.
    """
    return _composed(_term_of_masses(x, y), x, y)


@fused(partial(_forward, kl_div_of_logs), _backward)
def kl_of_logs(x: Tensor, y: Tensor) -> Tensor:
    """The same by the masses' logarithms. d/dx = p (log p - log q) and d/dy = q - p."""
    return _composed(kl_div_of_logs, x, y)
