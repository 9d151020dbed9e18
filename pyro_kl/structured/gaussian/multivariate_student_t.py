"""MultivariateStudentT, against itself and in both directions against normals."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import MultivariateStudentT
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    constraints,
)

from ...numerics.dtypes import in_float64
from ...numerics.quadrature.fixed import equal_steps
from ...numerics.special.gamma import stirling, stirling_slope
from ...numerics.special.logarithms import HALF_LOG_TAU, expm1mx
from ...registry.entropy import entropy_formula
from ...registry.pair import Case
from ...registry.reduction import no_formula
from ...registry.renyi import renyi_formula
from ...registry.shapes import broadcast_batch
from ...registry.structured_family import StructuredFamily, register_each
from ...registry.tensors import promoted
from .factors import diagonal, scale_divergence, solve_lower
from .low_rank_multivariate_normal import (
    LOW_RANK,
    dense_factor,
    parameters,
    trace_minus_log_det,
    with_identity,
)
from .multivariate_normal import MULTIVARIATE_NORMAL, kl_of_factors
from .products import PRODUCT_OF_NORMALS

STUDENT_T = StructuredFamily(
    MultivariateStudentT,
    {
        "df": constraints.positive,
        "loc": constraints.real_vector,
        "scale_tril": constraints.lower_cholesky,
    },
)
_HEAVY = {"df": 5.0, "loc": [1.0, -0.5], "scale_tril": [[1.0, 0.0], [0.6, 0.8]]}
_HEAVIER = {"df": 2.0, "loc": [0.0, 0.3], "scale_tril": [[0.7, 0.0], [-0.2, 1.5]]}
_LIGHT = {**_HEAVIER, "df": 1e6}
_DENSE = {"loc": [0.3, 0.0], "scale_tril": [[0.7, 0.0], [-0.2, 1.5]]}
_PRODUCT = {"loc": [0.0, 1.0], "scale": [2.0, 0.5]}
_LOW = {"loc": [0.5, 0.0], "cov_factor": [[1.0], [-0.5]], "cov_diag": [0.3, 2.0]}

#: Nodes of the integrals over a logarithmic axis.
_NODES = 256


def _factor(distribution: Any) -> tuple[Tensor, Tensor]:
    """The mean and the Cholesky factor of a normal, however it is written, or of a t."""
    if isinstance(distribution, LowRankMultivariateNormal):
        loc, factor, diag = parameters(distribution)
        return loc, dense_factor(factor, diag)
    if isinstance(distribution, Independent):
        base = distribution.base_dist
        return in_float64(base.loc), torch.diag_embed(in_float64(base.scale))
    return in_float64(distribution.loc), in_float64(distribution._unbroadcasted_scale_tril).tril()


def _common_batch(p: Distribution, q: Distribution) -> torch.Size:
    """The batch shape of the pair; an error if one side is a product of other than Normals."""
    shape = broadcast_batch(p, q)
    for side in (p, q):
        if isinstance(side, Independent) and not isinstance(side.base_dist, Normal):
            raise no_formula(p, q)
    return shape


@entropy_formula(MultivariateStudentT)
def entropy_of_student_t(p: MultivariateStudentT) -> Tensor:
    r"""That of N(m, L L'), and what the tails add, as in the KL to a normal."""
    tril, df = _factor(p)[1], in_float64(p.df)
    d = tril.shape[-1]
    return diagonal(tril).log().sum(-1) + d * (HALF_LOG_TAU + 0.5) - _tails(df, d)


def _tails(df: Tensor, d: int) -> Tensor:
    """F(y) - F(x) + y [F'(x) - F'(y)] for x = nu/2 and y = (nu + d)/2."""
    x, y = 0.5 * df, 0.5 * (df + d)
    return stirling(y) - stirling(x) + y * (stirling_slope(x) - stirling_slope(y))


# --- a t against a normal -----------------------------------------------------------------------

_AGAINST_DENSE = [
    Case(_HEAVY, _DENSE, 1.6202028008955845201),
    Case(_LIGHT, _DENSE, 0.10204081633053587717),
    Case({**_HEAVY, "df": 2.0}, _DENSE, math.inf),
]


@register_each(
    (STUDENT_T, MULTIVARIATE_NORMAL, _AGAINST_DENSE),
    (STUDENT_T, LOW_RANK, [Case(_HEAVY, _LOW, 0.72711201095859963543)]),
    (STUDENT_T, PRODUCT_OF_NORMALS, [Case(_HEAVY, _PRODUCT, 6.9898102179808765146)]),
    finite="p.df > 2",
    reference="Villa & Rubio (2018), Computational Statistics & Data Analysis 124; split "
    "derived in the docstring",
)
def kl_student_t_normal(p: MultivariateStudentT, q: Distribution) -> Tensor:
    r"""KL(t_nu(m, L L') || N(mu, K K')): that of two normals, and what the tails add.

    With F(x) = lgamma(x) - x log x + x, x = nu/2 and y = (nu + d)/2,

        KL = KL(N(m, L L') || N(mu, K K')) + |K^-1 L|^2 / (nu - 2)
             + F(y) - F(x) + y [F'(x) - F'(y)]
    """
    shape = _common_batch(p, q)
    (loc, tril), (mu, other) = _factor(p), _factor(q)
    df, d = in_float64(p.df), loc.shape[-1]
    infinite = df <= 2
    df = torch.where(infinite, 3.0, df)
    spread = solve_lower(other, tril).square().sum((-2, -1)) / (df - 2)
    tails = _tails(df, d)
    # the constant inf has no gradient, and the masked branch has finite derivatives
    kl = torch.where(infinite, math.inf, kl_of_factors(loc, tril, mu, other) + spread + tails)
    return kl.to(promoted((p, q))).expand(shape)


def renyi_of_heavier_tails(
    p: MultivariateStudentT, q: Distribution, alpha: float
) -> Tensor | None:
    """+inf above order 1, as a normal's tails are lighter than any t's; not known below it."""
    if alpha == 0.0 or alpha > 1:
        _common_batch(p, q)
        value = 0.0 if alpha == 0.0 else math.inf
        return torch.where(in_float64(p.df).isnan(), math.nan, value)
    return None


for _normal in (MultivariateNormal, LowRankMultivariateNormal, Independent):
    renyi_formula(MultivariateStudentT, _normal)(renyi_of_heavier_tails)


# --- a normal against a t -----------------------------------------------------------------------


def _log_axis(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Points whose logarithms are equal steps from low to high, and the step."""
    logs, step = equal_steps(low, high, _NODES)
    return torch.exp(logs), step


def _at_nodes(matrix: Tensor, tau: Tensor) -> Tensor:
    return matrix.unsqueeze(-3) * tau.unsqueeze(-1).unsqueeze(-1)


def _quadratic(matrix: Tensor, vector: Tensor) -> Tensor:
    """v' (I + M)^-1 v at each node."""
    right = vector.unsqueeze(-2).unsqueeze(-1)
    root = with_identity(matrix)
    return torch.linalg.solve_triangular(root, right, upper=False).square().sum((-2, -1))


_OF_DENSE = [
    Case(_DENSE, _HEAVY, 1.0564793385622620012),
    Case(_DENSE, _HEAVIER, 0.27398896686756084001),
]


@register_each(
    (MULTIVARIATE_NORMAL, STUDENT_T, _OF_DENSE),
    (LOW_RANK, STUDENT_T, [Case(_LOW, _HEAVY, 0.87126324343699797917)]),
    (PRODUCT_OF_NORMALS, STUDENT_T, [Case(_PRODUCT, _HEAVY, 2.743537102481781942)]),
    method="quadrature",
    reference="Frullani's integral of the quadratic form's Laplace transform, Provost & "
    "Mathai (1992), ch. 3; derived in the docstring",
)
def kl_normal_student_t(p: Distribution, q: MultivariateStudentT) -> Tensor:
    r"""KL(N(m, L L') || t_nu(mu, K K')), by one integral.

    With B = K^-1 L, A = B B' and delta = K^-1 (m - mu), the t's quadratic form Q has the Laplace
    transform det(I + 2 s A)^(-1/2) exp(-s delta' (I + 2 s A)^-1 delta), and

        E log(1 + Q/nu) = int_0^inf exp(-nu s) (1 - E exp(-s Q)) ds/s
    """
    shape = _common_batch(p, q)
    (loc, tril), (mu, other) = _factor(p), _factor(q)
    df, d = in_float64(q.df), loc.shape[-1]
    b = solve_lower(other, tril)
    delta = solve_lower(other, (loc - mu).unsqueeze(-1)).squeeze(-1)
    a = b @ b.mT
    trace = diagonal(a).sum(-1)
    low = -38.0 - torch.log(1 + trace + delta.square().sum(-1)) - torch.log(df + d)
    tau, step = _log_axis(low, torch.log(40.0 / df))
    matrix = _at_nodes(2 * a, tau)
    log_det = 2 * tau * trace.unsqueeze(-1) - trace_minus_log_det(matrix)
    exponent = 0.5 * log_det + tau * _quadratic(matrix, delta)
    mean_log = step * (torch.exp(-df.unsqueeze(-1) * tau) * -torch.expm1(-exponent)).sum(-1)
    x, y = 0.5 * df, 0.5 * (df + d)
    constants = stirling(x) - stirling(y) - y * torch.log1p(d / df)
    scales = torch.log(diagonal(other) / diagonal(tril)).sum(-1)
    kl = scales + constants + y * mean_log
    return kl.to(promoted((p, q))).expand(shape)


# --- a t against a t ----------------------------------------------------------------------------


_OF_TWO = [
    Case(_HEAVY, _HEAVIER, 1.1462809200461993143),
    Case(_HEAVIER, _HEAVY, 1.6971327535352467563),
    Case({**_HEAVIER, "df": 1.0}, {**_HEAVY, "df": 30.0}, 9.0741546239478780615),
    Case(_LIGHT, _HEAVY, 1.5938400781203938256),
]


@register_each(
    (STUDENT_T, STUDENT_T, _OF_TWO),
    reference="Bouhlel & Rousseau (2023), IEEE Signal Processing Letters 30, have it as a "
    "Lauricella function; the integral is derived in the docstring",
    method="quadrature",
)
def kl_student_t(p: MultivariateStudentT, q: MultivariateStudentT) -> Tensor:
    r"""KL(t_nu(m, L L') || t_kappa(mu, K K')), by two integrals over one axis each.

    The first is KL(t_nu || t_kappa) at equal location and scale, over the log radius. Let
    A = K^-1 L L' K'^-1 = I + E and delta = K^-1 (m - mu). With the mixing variable of p integrated
    out, E log(1 + Q/kappa) is the Frullani integral of the transform

        M_A(s) = det(I + 2 s A)^(-1/2) [1 + 2 s (kappa + delta' (I + 2 s A)^-1 delta) / nu]^(-nu/2)

    and the rest of the KL is

        -log det(A)/2 + (kappa + d)/2 int_0^inf [M_I(s) - M_A(s)] ds/s.

    Where E and delta are small, the part that is linear in E is left out of both terms.
    """
    shape = broadcast_batch(p, q)
    (loc, tril), (mu, other) = _factor(p), _factor(q)
    nu, kappa, d = in_float64(p.df), in_float64(q.df), loc.shape[-1]
    n = solve_lower(other, (tril - other).tril())
    delta = solve_lower(other, (loc - mu).unsqueeze(-1)).squeeze(-1)
    e = n + n.mT + n @ n.mT
    trace = diagonal(e).sum(-1)
    s, sigma = diagonal(tril), diagonal(other)
    normal_part = scale_divergence(s, sigma).sum(-1) + 0.5 * n.square().sum((-2, -1))

    size = 1 + trace.abs() + delta.square().sum(-1)
    low = -38.0 - torch.log(size) - torch.log(kappa + d)
    tau, step = _log_axis(low, _last_log_tau(nu, kappa, d, s / sigma))
    at = nu.unsqueeze(-1), kappa.unsqueeze(-1)
    spread = torch.log1p(2 * tau)
    mixing = -0.5 * at[0] * torch.log1p(2 * tau * at[1] / at[0])
    weight = torch.exp(mixing - 0.5 * d * spread)
    share = 2 * tau / (1 + 2 * tau)
    matrix = _at_nodes(e, share)
    excess = trace_minus_log_det(matrix)
    shift = _quadratic(matrix, delta) * share / (at[0] + 2 * tau * at[1])
    log_shift = 0.5 * at[0] * torch.log1p(shift)
    exponent = 0.5 * (share * trace.unsqueeze(-1) - excess) + log_shift

    half = 0.5 * (kappa + d)
    far = normal_part - 0.5 * trace - half * step * (weight * torch.expm1(-exponent)).sum(-1)
    # at equal df the linear terms cancel; `unequal` is their sum at other df
    balance = torch.expm1(mixing + 0.5 * at[1] * spread) * torch.exp(-0.5 * (at[1] + d) * spread)
    unequal = 0.5 * half * trace * step * (share * balance).sum(-1)
    second = weight * (expm1mx(-exponent) + 0.5 * excess - log_shift)
    near = normal_part + unequal - half * step * second.sum(-1)
    kl = _kl_of_tails(nu, kappa, d) + torch.where(size < 2, near, far)
    return kl.to(promoted((p, q))).expand(shape)


def _last_log_tau(nu: Tensor, kappa: Tensor, d: int, ratio: Tensor) -> Tensor:
    """Log of the s from which on both transforms are negligible, by df or by the dimension."""
    by_df = torch.log(nu / (2 * kappa)) + torch.log(torch.expm1(76.0 / nu))
    by_size = 76.0 / d - 2 * torch.log(ratio).amin(-1).clamp(max=0.0)
    return torch.maximum(torch.minimum(by_df, by_size), 76.0 / (d + kappa))


def _kl_of_tails(nu: Tensor, kappa: Tensor, d: int) -> Tensor:
    """KL(t_nu || t_kappa) in d dimensions at equal location and scale, over the log of Q."""
    nu, kappa = torch.broadcast_tensors(nu, kappa)
    lighter = torch.minimum(nu, kappa)
    low = math.log(d) - 9 * torch.sqrt(2 / d + 2 / lighter).clamp(max=3.0) - 76.0 / d
    high = math.log(d) + 9 * torch.sqrt(2 / d + 2 / lighter).clamp(max=3.0) + 76.0 / lighter
    square, step = _log_axis(low, high)
    x, k = nu.unsqueeze(-1), kappa.unsqueeze(-1)

    def log_kernel(df: Tensor) -> Tensor:
        half = 0.5 * (df + d)
        constant = torch.lgamma(half) - torch.lgamma(0.5 * df) - 0.5 * d * df.log()
        return constant - half * torch.log1p(square / df)

    radial = 0.5 * d * square.log() - math.lgamma(0.5 * d)
    log_p, log_q = log_kernel(x) + radial, log_kernel(k) + radial
    gap = log_p - log_q
    near = gap.abs() < 1
    mass = torch.exp(log_p)
    close = mass * expm1mx(-torch.where(near, gap, 0.0))
    far = torch.exp(log_q) - mass + mass * gap
    return step * torch.where(near, close, far).sum(-1)
