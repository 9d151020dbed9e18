"""LKJCholesky and LKJ: random correlation matrices, and their Cholesky factors."""

from __future__ import annotations

import math

import torch
from pyro.distributions import LKJ
from torch import Tensor
from torch.distributions import LKJCholesky, constraints

from ...numerics.dtypes import in_float64, promoted
from ...numerics.special.gamma import stirling, stirling_slope
from ...numerics.special.gamma_divergences import bregman_lgamma
from ...registry.entropy import entropy_formula
from ...registry.pair import Case
from ...registry.renyi import geometric_mixture
from ...registry.shapes import broadcast_batch
from ...registry.structured_family import StructuredFamily, register_each

_CONCENTRATION = {"concentration": constraints.positive}
LKJ_CHOLESKY = StructuredFamily(
    LKJCholesky,
    _CONCENTRATION,
    make=lambda dim, concentration: LKJCholesky(int(dim), concentration),
    samples="torch's sampler draws from another distribution for dim >= 3: the first parameter of "
    "its Betas is offset + 1/2 instead of (offset + 1)/2",
)
LKJ_MATRIX = StructuredFamily(
    LKJ,
    _CONCENTRATION,
    make=lambda dim, concentration: LKJ(int(dim), concentration),
    samples=LKJ_CHOLESKY.samples,
)

_CASES = [
    Case(
        {"dim": 3, "concentration": 1.0}, {"dim": 3, "concentration": 2.0}, 0.40546510810816438198
    ),
    Case(
        {"dim": 5, "concentration": 0.3}, {"dim": 5, "concentration": 4.0}, 16.761555229911642691
    ),
    Case(
        {"dim": 4, "concentration": 1.5},
        {"dim": 4, "concentration": 1.5009765625},
        4.219838323333731876e-7,
    ),
]
_REFERENCE = (
    "Lewandowski, Kurowicka & Joe (2009), p. 1999, the constant; a one-parameter exponential "
    "family's KL is the Bregman divergence of its logarithm"
)


@register_each((LKJ_CHOLESKY, LKJ_CHOLESKY, _CASES), reference=_REFERENCE)
def kl_lkj_cholesky(p: LKJCholesky, q: LKJCholesky) -> Tensor:
    r"""KL(LKJ(d, eta) || LKJ(d, theta)), the same for matrices and for their factors.

    det R is a product of independent Beta(eta + (d - 1 - i)/2, i/2), i = 1 .. d - 1, and a
    KL in the first parameter alone is a divergence D of log gammas. With x_i = eta + (d - 1 - i)/2
    and x = eta + (d - 1)/2, the same y for theta,

        KL = sum_i D(y_i, x_i) - (d - 1) D(y, x)
    """
    shape = broadcast_batch(p, q)
    eta, theta = in_float64(p.concentration), in_float64(q.concentration)
    half = 0.5 * torch.arange(p.dim, dtype=eta.dtype, device=eta.device)
    each = bregman_lgamma(theta.unsqueeze(-1) + half, eta.unsqueeze(-1) + half)
    kl = each[..., :-1].sum(-1) - (p.dim - 1) * each[..., -1]
    return kl.to(promoted((p.concentration, q.concentration))).expand(shape)


@register_each((LKJ_MATRIX, LKJ_MATRIX, _CASES), reference=_REFERENCE)
def kl_lkj(p: LKJ, q: LKJ) -> Tensor:
    """KL of the Cholesky factors: the map to them is one to one."""
    return kl_lkj_cholesky(p.base_dist, q.base_dist)


# --- entropy, and what Renyi's divergence needs -------------------------------------------------


def _rows(concentration: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """i, b_i and x: L_ii^2 of row i = 1 .. d - 1 is Beta(b_i, i/2), with b_i + i/2 = x."""
    i = torch.arange(1, dim, dtype=concentration.dtype, device=concentration.device)
    x = concentration.unsqueeze(-1) + 0.5 * (dim - 1)
    return i, x - 0.5 * i, x


@entropy_formula(LKJCholesky)
def entropy_of_lkj_cholesky(p: LKJCholesky) -> Tensor:
    r"""Row i is a point z of a ball, of density proportional to (1 - |z|^2)^(b_i - 1).

    With Stirling's remainder F, so that no terms which grow with the concentration cancel,

        H = sum_i [i/2 log pi + i/2 + F(b) - F(x) - (b - 1) (F'(b) - F'(x)) + log(b/x)
            - i/2 log x]
    """
    i, b, x = _rows(in_float64(p.concentration), p.dim)
    slopes = (b - 1) * (stirling_slope(b) - stirling_slope(x))
    each = stirling(b) - stirling(x) - slopes + torch.log(b / x)
    return (each + 0.5 * i * (1 + math.log(math.pi) - x.log())).sum(-1)


@entropy_formula(LKJ)
def entropy_of_lkj(p: LKJ) -> Tensor:
    """That of the factor, and the mean log Jacobian: sum_i (d - 1 - i) E log L_ii."""
    factor: LKJCholesky = p.base_dist
    i, b, x = _rows(in_float64(factor.concentration), factor.dim)
    log_square = stirling_slope(b) - stirling_slope(x) + torch.log(b / x)
    stretch = 0.5 * ((factor.dim - 1 - i) * log_square).sum(-1)
    return entropy_of_lkj_cholesky(factor) + stretch


@geometric_mixture(LKJCholesky)
def mixture(p: LKJCholesky, q: LKJCholesky, alpha: float) -> tuple[LKJCholesky, Tensor]:
    """The concentration is the natural parameter."""
    eta, theta = in_float64(p.concentration), in_float64(q.concentration)
    concentration = theta + alpha * (eta - theta)
    inside = ~(concentration <= 0)
    safe = torch.where(inside, concentration, 1.0)
    return LKJCholesky(p.dim, safe, validate_args=False), inside
