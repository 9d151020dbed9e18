"""Mixtures of all classes as weights and components."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from pyro.distributions import (
    GaussianScaleMixture,
    MixtureOfDiagNormals,
    MixtureOfDiagNormalsSharedCovariance,
)
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from ..messages import see
from ..numerics.special.logarithms import HALF_LOG_TAU
from ..registry.register import family_of
from ..registry.shapes import broadcast_batch
from ..registry.subclasses import is_a

_OF_NORMALS = (MixtureOfDiagNormals, MixtureOfDiagNormalsSharedCovariance, GaussianScaleMixture)


def is_mixture(distribution: Distribution) -> bool:
    """Whether the class of a distribution is one of mixtures."""
    return is_a(distribution, (MixtureSameFamily, *_OF_NORMALS))


def check_operands(*distributions: object, what: str = "a KL") -> None:
    """Check that the operands are distributions, and that mixtures have components.

    Args:
        distributions: one or two.
        what: is asked for.

    Raises:
        TypeError: one of them is not a distribution.
        ValueError: one of them is a mixture without components.
    """
    of = "between two distributions" if len(distributions) == 2 else "of a distribution"
    for distribution in distributions:
        if not isinstance(distribution, Distribution):
            got = (
                f"the class {distribution.__name__}"
                if isinstance(distribution, type)
                else type(distribution).__name__
            )
            raise TypeError(f"{what} is {of}, not {got}" + see("not-a-distribution"))
        if is_mixture(distribution) and not components(distribution)[0].shape[-1]:
            raise ValueError(
                f"a {type(distribution).__name__} without components is no distribution: give it "
                "at least one weight" + see("not-a-distribution")
            )


def check_pair(p: Distribution, q: Distribution, name: str) -> None:
    """Check that both are distributions, and their shapes, for a relative of the KL."""
    what = name if name.endswith("entropy") else f"{name} divergence"
    check_operands(p, q, what=f"the {what}")
    broadcast_batch(p, q, name)


def components(distribution: Any) -> tuple[Tensor, Distribution]:
    """Log weights (..., K), and components with the last batch dim K; for no mixture, K = 1."""
    if isinstance(distribution, MixtureSameFamily):
        logits = distribution.mixture_distribution.logits
        return logits.log_softmax(-1), distribution.component_distribution
    if not isinstance(distribution, _OF_NORMALS):
        return torch.zeros(*distribution.batch_shape, 1), unsqueezed(distribution, -1)
    if isinstance(distribution, GaussianScaleMixture):
        scale = distribution.component_scale.unsqueeze(-1) * distribution.coord_scale
        loc = torch.zeros_like(scale)
    else:
        loc, scale = distribution.locs, distribution.coord_scale
        if isinstance(distribution, MixtureOfDiagNormalsSharedCovariance):
            scale = scale.unsqueeze(-2).expand_as(loc)
    normals = Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)
    return distribution.component_logits.log_softmax(-1), normals


def unsqueezed(distribution: Distribution, dim: int) -> Distribution:
    """The distribution with a new batch dim of size 1 at the negative position `dim`."""
    if is_a(distribution, Independent):
        n = distribution.reinterpreted_batch_ndims
        return Independent(unsqueezed(distribution.base_dist, dim - n), n, validate_args=False)
    at = len(distribution.batch_shape) + 1 + dim
    if is_a(distribution, MultivariateNormal):
        return MultivariateNormal(
            distribution.loc.unsqueeze(at),
            scale_tril=distribution.scale_tril.unsqueeze(at),
            validate_args=False,
        )
    family = family_of(type(distribution))
    if family is not None:
        build: Any = partial(family.distribution, validate_args=False)
        given = {name: x.unsqueeze(at) for name, x in family.of(distribution).items()}
    else:
        build, own = type(distribution), distribution.__dict__
        given = {
            name: own[name].unsqueeze(at) for name in distribution.arg_constraints if name in own
        }
    if given:
        with suppress(TypeError):  # its constructor takes others, too
            return build(**given)
    raise NotImplementedError(
        f"No bounds with a {type(distribution).__name__} as a component: it does not say "
        "what its parameters are. Estimate the KL with pyro_kl.kl(p, q, num_samples=...)."
        + see("no-formula")
    )


def pairwise(p: Distribution, q: Distribution) -> Tensor:
    """KL of every component of p against every component of q, (..., K_p, K_q)."""
    return kl_divergence(unsqueezed(p, -1), unsqueezed(q, -2))


def log_overlap(p: Distribution, q: Distribution, power: float) -> Tensor | None:
    """Log of the integral of (p q)^power for all pairs of normal components; None for others.

    Power 1/2 is Bhattacharyya's coefficient, 1 the expected likelihood.
    """
    left, right = unsqueezed(p, -1), unsqueezed(q, -2)
    if isinstance(left, MultivariateNormal) and isinstance(right, MultivariateNormal):
        return _log_overlap_dense(left, right, power)
    ndims = [len(x.event_shape) for x in (left, right)]
    left, right = (x.base_dist if isinstance(x, Independent) else x for x in (left, right))
    if not (isinstance(left, Normal) and isinstance(right, Normal)):
        return None
    a, b = left.variance, right.variance
    gap = (left.loc - right.loc).square()
    # N(m, v)^c = (2 pi v)^((1 - c) / 2) c^(-1/2) N(m, v / c)
    value = (
        (1 - power) * (2 * HALF_LOG_TAU + 0.5 * (a.log() + b.log()))
        - math.log(power)
        - HALF_LOG_TAU
        - 0.5 * ((a + b) / power).log()
        - 0.5 * power * gap / (a + b)
    )
    return value.sum(tuple(range(-ndims[0], 0))) if ndims[0] else value


def _log_overlap_dense(p: MultivariateNormal, q: MultivariateNormal, power: float) -> Tensor:
    both = p.covariance_matrix + q.covariance_matrix
    joint = MultivariateNormal(torch.zeros_like(p.loc), both / power, validate_args=False)
    log_dets = sum(x.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) for x in (p, q))
    d = p.loc.shape[-1]
    outside = (1 - power) * (d * math.log(2 * math.pi) + log_dets) - d * math.log(power)
    return outside + joint.log_prob(p.loc - q.loc)
