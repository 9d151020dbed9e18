"""Gaussian sequences against one another and against products of univariate distributions.

GaussianHMM, GaussianMRF, LinearHMM with Gaussian noise, IndependentHMM and products of Normals
are all chains: one recursion compares any two of them.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from pyro.distributions import GaussianHMM, GaussianMRF, IndependentHMM, LinearHMM
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from ...numerics.dtypes import in_float64, promoted
from ...numerics.special.logarithms import HALF_LOG_TAU
from ...registry.entropy import entropy_formula
from ...registry.reduction import no_formula
from ...registry.renyi import renyi_formula
from ...registry.shapes import as_delta, broadcast_batch, check_durations
from ...registry.structured_family import register_each
from ..gaussian.factors import cholesky, diagonal
from ..gaussian.renyi import renyi_of_factors
from .chain import Chain, kalman, kl_chains
from .gaussian_hmm_cases import CASES, FAMILIES
from .markov_field import causal, conditional

Normals: TypeAlias = "Normal | MultivariateNormal | LowRankMultivariateNormal"
_NORMALS = (Normal, MultivariateNormal, LowRankMultivariateNormal)


def kl_sequences(p: Distribution, q: Distribution) -> Tensor:
    """KL of two Gaussian sequences, O(T) in their length T and of any two hidden dims.

    With x_t | x_1..x_{t-1} ~ N(m_t, S_t) under p and N(n_t, U_t) under q it is the sum over t of
    KL(N(0, S_t) || N(0, U_t)) + E_p[(n_t - m_t) U_t^-1 (n_t - m_t)'] / 2.
    """
    if (point := as_delta(p)) is not None:
        return kl_divergence(point, q)
    check_durations(p, q)
    shape, steps = broadcast_batch(p, q), p.event_shape[0]
    if isinstance(q, Independent) and _normal_base(q) is None:
        return _against_product(p, q, shape, steps)
    if isinstance(p, LinearHMM) and isinstance(q, LinearHMM):
        p, q = _without_shared_map(p, q)
    separate_p, separate_q = _coordinates(p), _coordinates(q)
    if separate_p is not None and separate_q is not None:
        return kl_divergence(separate_p, separate_q).sum(-1).expand(shape)
    kl = kl_chains(_chain_of(p, q, p), _chain_of(p, q, q), shape, steps)
    return kl.to(promoted((_some_parameter(p), _some_parameter(q))))


def _chain_of(p: Distribution, q: Distribution, distribution: Distribution) -> Chain:
    """One side of a pair as a chain; an error that names the pair if it is not Gaussian."""
    steps = distribution.event_shape[0]
    if isinstance(distribution, IndependentHMM):
        base = distribution.base_dist
        return _chain_of(p, q, base).expanded(base.batch_shape, steps).merged()
    if isinstance(distribution, (GaussianHMM, GaussianMRF)):
        n = distribution.hidden_dim
        transition, observation = distribution._trans, distribution._obs
        return causal(
            distribution._init, conditional(transition, n), conditional(observation, n), steps
        )
    if isinstance(distribution, LinearHMM):
        return _linear_chain(p, q, distribution)
    base = _normal_base(distribution)
    if base is None:
        raise no_formula(p, q)
    # independent steps: a chain whose one hidden coordinate is always 0
    c, r = _moments(base)
    zero = c.new_zeros((1, 1))
    return Chain(zero, zero, zero, zero, zero, torch.zeros_like(c[..., :1, :]), c, r)


def _linear_chain(p: Distribution, q: Distribution, distribution: LinearHMM) -> Chain:
    noises = (
        distribution.initial_dist,
        distribution.transition_dist,
        distribution.observation_dist,
    )
    bases = [_normal_base(noise) for noise in noises]
    if distribution.transforms or None in bases:
        raise no_formula(p, q)
    (mean, covariance), (b, noise), (c, r) = (_moments(base) for base in bases if base)
    f, h = in_float64(distribution.transition_matrix), in_float64(distribution.observation_matrix)
    return Chain(mean, covariance, f=f, b=b, q=noise, h=h, c=c, r=r)


def _without_shared_map(p: LinearHMM, q: LinearHMM) -> tuple[LinearHMM, LinearHMM]:
    """Both without the maps of their observations: a map that is the same changes no KL."""
    if not (p.transforms or q.transforms):
        return p, q
    if list(p.transforms) != list(q.transforms) or not all(t.bijective for t in p.transforms):
        raise no_formula(p, q)
    return _untransformed(p), _untransformed(q)


def _untransformed(distribution: LinearHMM) -> LinearHMM:
    new = distribution.expand(distribution.batch_shape)
    new.transforms = []
    return new


def _normal_base(distribution: Distribution) -> Normals | None:
    """The Normal inside any number of Independents; None if it is something else."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    # a subclass counts as its base: NanMaskedNormal's log_prob leaves out coordinates without a
    # value, and as a distribution it is a Normal
    return distribution if isinstance(distribution, _NORMALS) else None


def _moments(base: Normals) -> tuple[Tensor, Tensor]:
    """Mean, as a row, and covariance."""
    loc = in_float64(base.loc).unsqueeze(-2)
    if isinstance(base, Normal):
        return loc, torch.diag_embed(in_float64(base.scale).square())
    if isinstance(base, MultivariateNormal):
        tril = in_float64(base._unbroadcasted_scale_tril)
        return loc, tril @ tril.mT
    factor = in_float64(base._unbroadcasted_cov_factor)
    return loc, factor @ factor.mT + torch.diag_embed(in_float64(base._unbroadcasted_cov_diag))


def _coordinates(distribution: Distribution) -> Distribution | None:
    """A distribution of independent univariate sequences as a batch of them, coordinates last."""
    if isinstance(distribution, IndependentHMM):
        return distribution.base_dist
    base = _normal_base(distribution)
    if not isinstance(base, Normal):
        return None
    loc, scale = (x.mT.unsqueeze(-1) for x in torch.broadcast_tensors(base.loc, base.scale))
    return Independent(Normal(loc, scale, validate_args=False), 2, validate_args=False)


def _against_product(p: Distribution, q: Independent, shape: torch.Size, steps: int) -> Tensor:
    """KL against a product of any univariate distributions.

    It is the sum of the marginals' KLs and the total correlation, the sum of the marginals'
    entropies minus the entropy of the whole sequence.
    """
    if q.base_dist.event_shape:
        raise no_formula(p, q)
    chain = _chain_of(p, q, p).expanded(p.batch_shape, steps)
    mean, covariance = chain.marginals()
    scale = diagonal(covariance).sqrt()
    correlation = scale.log() - diagonal(kalman(chain).scale_tril).log()
    dtype = promoted((_some_parameter(p), _some_parameter(q)))
    loc, scale = mean.squeeze(-2).to(dtype), scale.to(dtype)
    marginals = Independent(Normal(loc, scale, validate_args=False), 2, validate_args=False)
    return (kl_divergence(marginals, q) + correlation.sum((-1, -2))).to(dtype).expand(shape)


def _some_parameter(distribution: Any) -> Tensor:
    """A tensor that has the dtype of the distribution's parameters."""
    while isinstance(distribution, (Independent, IndependentHMM)):
        distribution = distribution.base_dist
    if isinstance(distribution, (GaussianHMM, GaussianMRF)):
        return distribution._init.info_vec
    if isinstance(distribution, LinearHMM):
        return distribution.transition_matrix
    return distribution.mean


def kl_independent_hmms(p: IndependentHMM, q: IndependentHMM) -> Tensor:
    """KL of two products of univariate sequences, Gaussian or not: the sum of theirs."""
    shape = broadcast_batch(p, q)
    return kl_divergence(p.base_dist, q.base_dist).sum(-1).expand(shape)


for (_p, _q), _case in CASES.items():
    _of_products = _p is _q is IndependentHMM
    register_each(
        (FAMILIES[_p], FAMILIES[_q], [_case]),
        finite="always" if Independent not in (_p, _q) else "the marginals' KLs are",
        reference="chain rule over time, Kalman's filters (Anderson & Moore 1979, ch. 5); derived "
        "in structured.sequences.chain",
        method="rule" if _of_products else "closed form",
    )(kl_independent_hmms if _of_products else kl_sequences)


# --- entropy, and Renyi's divergence ------------------------------------------------------------


@entropy_formula(GaussianHMM, GaussianMRF, LinearHMM, IndependentHMM)
def entropy_of_sequence(p: Distribution) -> Tensor | None:
    """The sum of the entropies of Kalman's innovations, O(T); None if a noise is not Gaussian."""
    check_durations(p, p, "entropy")
    chain = _own_chain(p)
    if chain is None:
        return None
    scales = diagonal(kalman(chain).scale_tril)
    return (scales.log() + HALF_LOG_TAU + 0.5).sum((-1, -2))


def renyi_of_sequences(p: Distribution, q: Distribution, alpha: float) -> Tensor | None:
    """That of the two multivariate normals of the whole sequence, O((T m)^3)."""
    check_durations(p, q, "Renyi")
    if isinstance(p, LinearHMM) and isinstance(q, LinearHMM):
        p, q = _without_shared_map(p, q)
    chains = _own_chain(p), _own_chain(q)
    if chains[0] is None or chains[1] is None:
        return None
    (p_loc, p_covariance), (q_loc, q_covariance) = chains[0].joint(), chains[1].joint()
    return renyi_of_factors(p_loc, cholesky(p_covariance), q_loc, cholesky(q_covariance), alpha)


def _own_chain(distribution: Distribution) -> Chain | None:
    """A Gaussian sequence as a chain, expanded; None for another one."""
    try:
        chain = _chain_of(distribution, distribution, distribution)
    except NotImplementedError:
        return None
    return chain.expanded(distribution.batch_shape, distribution.event_shape[0])


for _p, _q in CASES:
    if not _p is _q is Independent:
        renyi_formula(_p, _q)(renyi_of_sequences)
