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


def _masses(x: Tensor) -> Tensor:
    """Masses that sum to 1 in float64: what float32 leaves of that is divided out."""
    if x.dtype is torch.float64:
        return x
    mass = in_float64(x)
    return mass / _total(mass.detach()).unsqueeze(-1)


def _logs(x: Tensor) -> Tensor:
    """Logarithms of such masses."""
    if x.dtype is torch.float64:
        return x
    log = in_float64(x)
    return log - log.detach().logsumexp(-1, keepdim=True)


def _gradient(slope: Tensor, grad: Tensor, x: Tensor) -> Tensor:
    """Of the sum over the categories, in x's shape and precision."""
    each = slope * grad.unsqueeze(-1)
    return (each if each.shape == x.shape else each.sum_to_size(x.shape)).to(x.dtype)


def _backward(
    grad: Tensor, inputs: Sequence[Tensor], slopes: Sequence[Tensor], asked: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    sides = zip(slopes, inputs, asked, strict=True)
    return tuple(_gradient(slope, grad, x) if wanted else None for slope, x, wanted in sides)


def _masses_forward(x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    terms, *slopes = _terms_of(excess_of_masses)((_masses(x), _masses(y)))
    return _total(terms).to(promoted((x, y))), tuple(slopes)


@in_one_node(_masses_forward, _backward)
def kl_of_masses(x: Tensor, y: Tensor) -> Tensor:
    """KL of two laws on categories by their masses along the last dimension, which sum to 1.

    d/dx = log(x/y) and d/dy = 1 - x/y: what changes the sums of the masses is for whoever made
    them sum to 1.
    """
    return excess_of_masses(_masses(x), _masses(y)).sum(-1).to(promoted((x, y)))


def _logs_forward(x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    terms, *slopes = _terms_of(generalised_kl_of_logs)((_logs(x), _logs(y)))
    return _total(terms).to(promoted((x, y))), tuple(slopes)


@in_one_node(_logs_forward, _backward)
def kl_of_logs(x: Tensor, y: Tensor) -> Tensor:
    """The same by the masses' logarithms. d/dx = p (log p - log q) and d/dy = q - p."""
    return generalised_kl_of_logs(_logs(x), _logs(y)).sum(-1).to(promoted((x, y)))
