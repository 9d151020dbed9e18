"""LKJCholesky and LKJ: random correlation matrices, and their Cholesky factors."""

from __future__ import annotations

import torch
from pyro.distributions import LKJ
from torch import Tensor
from torch.distributions import LKJCholesky, constraints

from ...numerics.dtypes import in_float64, promoted
from ...numerics.special.gamma_divergences import bregman_lgamma
from ...registry.pair import Case
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
