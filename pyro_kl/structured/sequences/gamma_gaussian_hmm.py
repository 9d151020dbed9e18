"""GammaGaussianHMM: a Gaussian sequence whose noises share one random scale."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import Gamma, GammaGaussianHMM, MultivariateNormal, MultivariateStudentT
from pyro.ops.gaussian import Gaussian
from torch import Tensor
from torch.distributions import constraints, kl_divergence

from ...numerics.dtypes import in_float64, promoted
from ...registry.entropy import declared_entropy, entropy_formula
from ...registry.pair import Case
from ...registry.shapes import broadcast_batch, check_durations
from ...registry.structured_family import StructuredFamily, register_each
from ..gaussian.factors import cholesky
from .markov_field import causal, conditional

_MATRIX = constraints.independent(constraints.real, 2)


def _made(
    concentration: Tensor, rate: Tensor, matrix: Tensor, noise: Tensor, loc: Tensor, scale: Tensor
) -> GammaGaussianHMM:
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype)
    zero = matrix[..., :1, :] * 0
    return GammaGaussianHMM(
        Gamma(concentration, rate),
        MultivariateNormal(zero.squeeze(-2), scale_tril=eye),
        matrix.unsqueeze(-3),
        MultivariateNormal(zero, scale_tril=torch.diag_embed(noise).unsqueeze(-3)),
        eye,
        MultivariateNormal(loc, scale_tril=torch.diag_embed(scale).unsqueeze(-3)),
    )


_SCALES = constraints.independent(constraints.positive, 1)
GAMMA_GAUSSIAN_HMM = StructuredFamily(
    GammaGaussianHMM,
    {
        "concentration": constraints.positive,
        "rate": constraints.positive,
        "matrix": _MATRIX,
        "noise": _SCALES,
        "loc": _MATRIX,
        "scale": _SCALES,
    },
    _made,
    samples="Pyro's class has no sampler",
)
_EXAMPLE = {
    "concentration": 3.0,
    "rate": 2.0,
    "matrix": [[0.5]],
    "noise": [1.0],
    "loc": [[0.0], [0.5]],
    "scale": [1.0],
}


@register_each(
    (GAMMA_GAUSSIAN_HMM, GAMMA_GAUSSIAN_HMM, [Case(_EXAMPLE, _EXAMPLE, 0.0)]),
    finite="always",
    reference="Tronarp, Karvonen & Särkkä (2019), Student's t-filters: the sequence is a "
    "multivariate Student's t",
    method="quadrature",
)
def kl_gamma_gaussian_hmms(p: GammaGaussianHMM, q: GammaGaussianHMM) -> Tensor:
    """KL of the two multivariate Student's t distributions of the whole sequence, O((T m)^3).

    Given the scale s ~ Gamma(a, b) the sequence is N(loc, V / s): a t distribution of 2 a degrees
    of freedom, location loc and scale matrix V b / a.
    """
    shape = broadcast_batch(p, q)
    check_durations(p, q)
    value = kl_divergence(_student_t(p), _student_t(q))
    return value.to(promoted((p._init.info_vec, q._init.info_vec))).expand(shape)


def _student_t(distribution: GammaGaussianHMM) -> MultivariateStudentT:
    n, steps, init = distribution.hidden_dim, distribution.event_shape[0], distribution._init
    transition, observation = (
        conditional(_with_unit_scale(x), n) for x in (distribution._trans, distribution._obs)
    )
    chain = causal(_with_unit_scale(init), transition, observation, steps)
    loc, covariance = chain.expanded(distribution.batch_shape, steps).joint()
    own = in_float64(init.precision)
    mean = torch.linalg.solve(own, in_float64(init.info_vec))
    concentration = in_float64(init.alpha) + 1 - 0.5 * n
    rate = in_float64(init.beta) - 0.5 * (mean * in_float64(init.info_vec)).sum(-1)
    tril = cholesky(covariance)
    scale = (rate / concentration).sqrt()[..., None, None]
    return MultivariateStudentT(2 * concentration, loc, tril * scale, validate_args=False)


def _with_unit_scale(factor: Any) -> Gaussian:
    return Gaussian(torch.zeros_like(factor.alpha), factor.info_vec, factor.precision)


@entropy_formula(GammaGaussianHMM)
def entropy_of_gamma_gaussian_hmm(p: GammaGaussianHMM) -> Tensor | None:
    """That of the multivariate Student's t of the whole sequence."""
    check_durations(p, p, "entropy")
    found = declared_entropy(_student_t(p))
    return found and found[0]
