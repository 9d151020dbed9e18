"""KL of two categorical distributions, as one node of autograd's graph.

The terms x log(x/y) - x + y and their derivatives are a recorded program; they are summed here.
The derivatives by masses that are 0 would be nan with autograd.
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

#: A term, as a function of two masses or of their logarithms.
Term: TypeAlias = Callable[[Tensor, Tensor], Tensor]
#: For the backward pass: the derivatives of the terms by x and by y.
Slopes: TypeAlias = tuple[Tensor, Tensor]


@cache
def _terms_of(term: Term) -> Program:
    """A term x log(x/y) - x + y, and its derivatives by both arguments."""
    found = program(lambda p, q: term(p["x"], q["y"]), ("x",), ("y",), (True, True))
    assert found is not None
    return found


def _total(x: Tensor) -> Tensor:
    """The sum over the last dimension; torch.sum takes longer for few categories."""
    return x @ torch.ones(x.shape[-1], dtype=x.dtype, device=x.device)


def _kl(term: Term, terms: Tensor, x: Tensor, y: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum of the terms, in the given precision.

    In float32 the sums of x and of y are 1 up to an error of 1e-7, or 1e-7 times the size of the
    logits. The KL of the normalised masses is sum(terms) / sum(x) - gap^2 / 2 + O(gap^3), where
    gap is the relative difference of the two sums. The O(gap^3) may make it negative.
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
    """The KL, operation by operation."""
    a, b = in_float64(x), in_float64(y)
    return _kl(term, term(a, b), a, b, promoted((x, y)))


def _at_once(term: Term, x: Tensor, y: Tensor) -> tuple[Tensor, Slopes]:
    a, b = in_float64(x), in_float64(y)
    terms, by_x, by_y = _terms_of(term)((a, b))
    return _kl(term, terms, a, b, promoted((x, y))), (by_x.to(x.dtype), by_y.to(y.dtype))


def _forward(term: Term, x: Tensor, y: Tensor) -> tuple[Tensor, Slopes]:
    """Value and slopes, computed for as many rows at a time as a cache holds."""
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


def _backward(
    grad: Tensor, inputs: Sequence[Tensor], slopes: list[Tensor], needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    return tuple(
        summed_to(slope * grad.unsqueeze(-1), x) if need else None
        for slope, x, need in zip(slopes, inputs, needed, strict=True)
    )


def _term_of_masses(x: Tensor, y: Tensor) -> Term:
    rounded = x.dtype is not torch.float64 and y.dtype is not torch.float64
    return excess_of_rounded_masses if rounded else kl_div_from_zero


@fused(lambda x, y: _forward(_term_of_masses(x, y), x, y), _backward)
def kl_of_masses(x: Tensor, y: Tensor) -> Tensor:
    """KL of two categorical distributions by their masses along the last dimension.

    The derivatives are log(x/y) by x and 1 - x/y by y. They are those of the sum of the terms: the
    masses are normalised by the distributions' constructors, through which autograd goes on.
    """
    return _composed(_term_of_masses(x, y), x, y)


@fused(partial(_forward, kl_div_of_logs), _backward)
def kl_of_logs(x: Tensor, y: Tensor) -> Tensor:
    """The same by the masses' logarithms. d/dx = p (log p - log q) and d/dy = q - p."""
    return _composed(kl_div_of_logs, x, y)
