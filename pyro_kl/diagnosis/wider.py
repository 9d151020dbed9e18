"""A guide with wider distributions: draws where the posterior may have more mass than the guide.

Importance weights fail where the posterior's tails are heavier than the guide's. Draws of the
guide and of a wider one together, weighed by their mixture, are defensive importance sampling
(Hesterberg 1995; Owen & Zhou 2000): the weights are much smaller in the tails, and never larger
than a small multiple of those of the guide alone.

The density of a wider distribution is that of the guide to a power below one, normalised. For a
Normal the power 1 / factor^2 makes the sd larger by the factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch.distributions as torch_dist
from pyro import distributions as dist
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..elbo.terms import scaled
from ..elbo.traces import Site, Trace


def _flatter(concentration: Tensor, factor: float) -> Tensor:
    """The exponent of x is concentration - 1."""
    return 1 + (concentration - 1) / factor**2


_WIDER: dict[type, Callable[[Any, float], Any]] = {
    torch_dist.Normal: lambda d, f: dist.Normal(d.loc, d.scale * f, validate_args=False),
    torch_dist.MultivariateNormal: lambda d, f: dist.MultivariateNormal(
        d.loc, scale_tril=d.scale_tril * f, validate_args=False
    ),
    torch_dist.LowRankMultivariateNormal: lambda d, f: dist.LowRankMultivariateNormal(
        d.loc, d.cov_factor * f, d.cov_diag * f**2, validate_args=False
    ),
    torch_dist.HalfNormal: lambda d, f: dist.HalfNormal(d.scale * f, validate_args=False),
    torch_dist.Laplace: lambda d, f: dist.Laplace(d.loc, d.scale * f**2, validate_args=False),
    torch_dist.Exponential: lambda d, f: dist.Exponential(d.rate / f**2, validate_args=False),
    torch_dist.Gamma: lambda d, f: dist.Gamma(
        _flatter(d.concentration, f), d.rate / f**2, validate_args=False
    ),
    torch_dist.Beta: lambda d, f: dist.Beta(
        _flatter(d.concentration1, f), _flatter(d.concentration0, f), validate_args=False
    ),
    torch_dist.Dirichlet: lambda d, f: dist.Dirichlet(
        _flatter(d.concentration, f), validate_args=False
    ),
}


def wider(distribution: Any, factor: float) -> Any:
    """A wider distribution; None where none is known.

    Args:
        distribution: of a site of the guide.
        factor: its density has the power 1 / factor^2.
    """
    for kind, make in _WIDER.items():
        if _is(distribution, kind):
            return make(distribution, factor)
    if _is(distribution, torch_dist.Independent):
        base = wider(distribution.base_dist, factor)
        return base and base.to_event(distribution.reinterpreted_batch_ndims)
    if _is(distribution, torch_dist.TransformedDistribution):
        base = wider(distribution.base_dist, factor)
        return base and dist.TransformedDistribution(
            base, distribution.transforms, validate_args=False
        )
    return None


def _is(distribution: Any, kind: Any) -> bool:
    """Whether a distribution is of a class and has its density.

    A subclass may have another one: HalfCauchy is a TransformedDistribution by |x|.
    """
    own: Any = type(distribution)
    return issubclass(own, kind) and own.log_prob is kind.log_prob


def factor_of(trace: Trace, rows: int = 1) -> float:
    """The factor of the sds, from a trace with one draw; 1 if no site can be made wider.

    For d coordinates it is 1 + 1.25 / sqrt(d): KL(guide || wider) of Normals is then 0.4 to 1.6
    nats for any d, so that each draws where the other has mass.

    Args:
        trace: of the guide.
        rows: each of which has weights of its own.
    """
    elements = sum(node["value"].numel() for node in trace.nodes.values() if _is_wider(node))
    coordinates = elements / rows
    return 1 + 1.25 / math.sqrt(coordinates) if coordinates else 1.0


class Wider(Messenger):
    """Sites are drawn from wider distributions, and keep the distributions of the guide.

    Args:
        factor: of the sds.
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def _pyro_sample(self, msg: Any) -> None:
        if msg["value"] is None and not msg["is_observed"]:
            found = wider(msg["fn"], self._factor)
            if found is not None:
                msg["infer"] = {**msg["infer"], "pyro_kl_guide": msg["fn"]}
                msg["fn"] = found

    def _pyro_post_sample(self, msg: Any) -> None:
        msg["fn"] = msg["infer"].pop("pyro_kl_guide", msg["fn"])


def log_ratio(trace: Trace, factor: float) -> list[Tensor]:
    """The terms of the log density of the wider guide minus that of the guide.

    Args:
        trace: of either, with the guide's distributions.
        factor: of the sds.
    """
    terms = []
    for node in trace.nodes.values():
        if _is_wider(node):
            distribution, value = node["fn"], node["value"]
            ratio = wider(distribution, factor).log_prob(value) - distribution.log_prob(value)
            terms.append(scaled(ratio, node))
    return terms


def _is_wider(node: Site) -> bool:
    """Whether a site has a wider distribution."""
    return (
        node["type"] == "sample" and not node["is_observed"] and wider(node["fn"], 2.0) is not None
    )
