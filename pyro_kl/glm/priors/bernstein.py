r"""Expectations of log densities that are Bernstein functions of the square, under a Normal.

A density that falls from 0 outwards, such as Student's t or the horseshoe, has

    -log p(x) = constant + integral over t from 0 of (1 - exp(-t x^2)) kappa(t)

with kappa positive: it is a Bernstein function of x^2 (Schilling, Song & Vondracek, 2012,
Bernstein Functions, ch. 3 and 6). Under x ~ Normal(m, v) the expectation of exp(-t x^2) is

    (1 + 2 t v)^(-1/2) exp(-t m^2 / (1 + 2 t v))

so that expectation and derivatives are one integral over t, whatever m and v are. It is taken by
the trapezoidal rule in log t, whose nodes and weights are constants. The integrand is analytic and
bounded for |Im log t| < pi/2, so that a step h leaves an error of the order of exp(-pi^2 / h)
(Trefethen & Weideman, 2014, The Exponentially Convergent Trapezoidal Rule, theorem 5.1).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

#: The step in log t: exp(-pi^2 / h) is 6e-13.
_STEP = 0.35
#: The first and the last k of the nodes log t = k h: enough for squares from 1e-40 to 1e40.
_LOWEST, _HIGHEST = -400, 450
#: What the nodes that are left out add to the integral, relative to the rest.
_NEGLIGIBLE = 1e-13
#: Squares are taken as no larger than this to find the nodes.
_LARGEST = 1e60
#: So many coefficients at a time: the arrays over their nodes stay in the cache.
_BLOCK = 64


class Weights(NamedTuple):
    """The measure kappa(t) dt at the nodes.

    Attributes:
        nodes: t, from exp(_LOWEST _STEP) on, shape ``(nodes,)``.
        weight: kappa(t) dt there.
        reference: the 1 of 1 - exp(-t x^2), or exp(-t) where kappa falls so slowly that the
            integral is infinite: the constant is then that of x = 1.
    """

    nodes: Tensor
    weight: Tensor
    reference: Tensor


class Expected(NamedTuple):
    """The expectation of a Bernstein function h of the square, and its derivatives.

    Attributes:
        value: E h(x^2), less h(1) where the weights have that reference.
        slope: its derivative in the mean.
        curvature: twice its derivative in the variance, the second derivative in the mean.
    """

    value: Tensor
    slope: Tensor
    curvature: Tensor


def _nodes(highest: int) -> Tensor:
    return torch.exp(_STEP * torch.arange(_LOWEST, highest + 1, dtype=torch.float64))


@lru_cache(maxsize=1)
def log1p_weights() -> Weights:
    """Of h(y) = log(1 + y): kappa is exp(-t) / t (Frullani's integral)."""
    t = _nodes(math.ceil(math.log(40.0) / _STEP))  # from there on exp(-t) is below 1e-17
    return Weights(t, _STEP * torch.exp(-t), torch.ones_like(t))


@lru_cache(maxsize=1)
def log_inverse_exp1_weights() -> Weights:
    r"""Of h(y) = -log(exp(y) E1(y)), the horseshoe's, less h(1).

    exp(y) E1(y) is the integral of exp(-w) / (y + w), a Stieltjes function. Its logarithm has the
    derivative -integral of eta(w) / (y + w)^2, where pi eta(w) is the argument of the function at
    -w, just below the cut: that of -Ei(w) + i pi. Hence kappa(t) is the Laplace transform
    of eta, here by the trapezoidal rule in log(t w).
    """
    from scipy.special import expi

    t, step = _nodes(_HIGHEST), 0.2
    scaled = torch.exp(torch.arange(-180, 21, dtype=torch.float64) * step)
    w = (scaled / t.unsqueeze(-1)).clamp(max=700.0)  # Ei overflows; eta is 1 long before
    minus_ei = torch.from_numpy(-expi(w.numpy()))
    eta = torch.atan2(torch.full_like(w, math.pi), minus_ei) / math.pi
    kappa = eta @ (step * scaled * torch.exp(-scaled))
    return Weights(t, _STEP * kappa, torch.exp(-t))


def expected(weights: Weights, loc: Tensor, variance: Tensor) -> Expected:
    """Return E h(x^2) and its derivatives for x ~ Normal(loc, variance).

    Args:
        weights: of h.
        loc: shape ``(n,)``, float64.
        variance: shape ``(n,)``, positive.
    """
    blocks = zip(loc.split(_BLOCK), variance.split(_BLOCK), strict=True)
    parts = [_of_block(weights, m, v) for m, v in blocks]
    return Expected(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _of_block(weights: Weights, loc: Tensor, variance: Tensor) -> Expected:
    square = loc.square()
    used = _needed(square, variance)
    t, weight, reference = (x[used] for x in weights)
    shrunk = 1.0 / (1.0 + 2.0 * torch.outer(variance, t))
    rate = shrunk * t
    mean = shrunk.sqrt() * torch.exp(-rate * square.unsqueeze(-1))
    value = weight @ reference - mean @ weight
    first = rate * mean
    once, twice = first @ weight, (rate * first) @ weight
    return Expected(value, 2.0 * loc * once, 2.0 * once - 4.0 * square * twice)


@torch.no_grad()
def _needed(square: Tensor, variance: Tensor) -> slice:
    """The nodes that count for any of these means and variances.

    Below, 1 - E exp(-t x^2) is at most t E x^2. Above, E exp(-t x^2) is at most
    (2 t v)^(-1/2), and exp(-t m^2 / 2) as long as 2 t v is below 1.
    """
    if not square.numel():
        return slice(0, 1)
    square, variance = (x.nan_to_num(1.0, _LARGEST) for x in (square, variance))
    log_least = math.log(_NEGLIGIBLE)
    low = log_least - math.log1p(float((square + variance).max()))
    by_mean, turn = math.log(-2.0 * log_least) - torch.log(square), -torch.log(2.0 * variance)
    high = torch.where(by_mean < turn, by_mean, turn - 2.0 * log_least)
    last = min(max(float(high.max()), math.log(-log_least)), _STEP * _HIGHEST)
    return slice(max(0, int(low / _STEP) - _LOWEST), int(last / _STEP) + 2 - _LOWEST)
