"""KL of two laws on categories, as one node of autograd's graph with its derivatives by hand.

The terms and their slopes are one program; the sum stands around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from .elementwise import promoted
from .masses import excess_of_masses
from .one_node import in_one_node
from .special import generalised_kl_of_logs, in_float64
from .symbolic import Program, program

__all__ = ["kl_of_logs", "kl_of_masses"]


@cache
def _terms_of(kernel: Callable[..., Tensor]) -> Program:
    """A term x log(x/y) - x + y, and its derivatives by both arguments."""
    found = program(lambda p, q: kernel(p["x"], q["y"]), ("x",), ("y",), (True, True))
    assert found is not None
    return found


def _total(x: Tensor) -> Tensor:
    """The sum over the last dimension, which torch's own takes long for when there are few."""
    return x @ torch.ones(x.shape[-1], dtype=x.dtype, device=x.device)


def _kl(
    terms: Tensor,
    x: Tensor,
    y: Tensor,
    given: Sequence[Tensor],
    mass: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """The sum of the terms, in the precision of what was given.

    Masses that sum to 1 in float32 do so to 1e-7, and the KL of what they would be without that
    rounding is smaller by half the square of the sums' difference, to third order.
    """
    kl = _total(terms)
    dtype = promoted(given)
    if dtype is torch.float64:
        return kl
    gap = (_total(mass(y)) - _total(mass(x))).detach()
    return torch.addcmul(kl, gap, gap, value=-0.5).clamp(min=0.0).to(dtype)


def _gradient(slope: Tensor, grad: Tensor, x: Tensor) -> Tensor:
    """Of the sum over the categories, in x's shape."""
    each = slope * grad.unsqueeze(-1)
    return each if each.shape == x.shape else each.sum_to_size(x.shape)


def _backward(
    grad: Tensor, inputs: Sequence[Tensor], slopes: Sequence[Tensor], asked: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    sides = zip(slopes, inputs, asked, strict=True)
    return tuple(_gradient(slope, grad, x) if wanted else None for slope, x, wanted in sides)


def _slopes(slopes: Sequence[Tensor], given: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(slope.to(x.dtype) for slope, x in zip(slopes, given, strict=True))


def _masses_forward(x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    a, b = in_float64(x), in_float64(y)
    terms, *slopes = _terms_of(excess_of_masses)((a, b))
    return _kl(terms, a, b, (x, y)), _slopes(slopes, (x, y))


@in_one_node(_masses_forward, _backward)
def kl_of_masses(x: Tensor, y: Tensor) -> Tensor:
    """KL of two laws on categories by their masses along the last dimension, which sum to 1.

    d/dx = log(x/y) and d/dy = 1 - x/y: what changes the sums of the masses is for whoever made
    them sum to 1.
    """
    a, b = in_float64(x), in_float64(y)
    return _kl(excess_of_masses(a, b), a, b, (x, y))


def _logs_forward(x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    a, b = in_float64(x), in_float64(y)
    terms, *slopes = _terms_of(generalised_kl_of_logs)((a, b))
    return _kl(terms, a, b, (x, y), torch.exp), _slopes(slopes, (x, y))


@in_one_node(_logs_forward, _backward)
def kl_of_logs(x: Tensor, y: Tensor) -> Tensor:
    """The same by the masses' logarithms. d/dx = p (log p - log q) and d/dy = q - p."""
    a, b = in_float64(x), in_float64(y)
    return _kl(generalised_kl_of_logs(a, b), a, b, (x, y), torch.exp)
