"""The KL divergences of a fit, exact against sampled: per site, per coefficient, jointly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyro.distributions as dist
import torch

import pyro_kl

if TYPE_CHECKING:
    from models.logistic_regression import Fit, Guide, LogisticRegression


@dataclass(frozen=True)
class KLRow:
    """One KL divergence of a fit, as computed and as sampled; nats.

    Attributes:
        name: What it is the KL of.
        value: The KL.
        method: How ``value`` was computed, in `pyro_kl`'s words.
        sampled: Monte Carlo estimate; the same as ``value`` where there is no formula.
        standard_error: Of ``sampled``.
        z: ``(sampled - value) / standard_error``; None where there is no formula, or where
            every draw gives the same log ratio.
    """

    name: str
    value: float
    method: str
    sampled: float
    standard_error: float
    z: float | None


def _row(name: str, exact: pyro_kl.Estimate, sampled: pyro_kl.Estimate, index: int = -1) -> KLRow:
    """Return one row; ``index`` picks from a batch, -1 says there is none."""

    def number(value: Any) -> float:
        value = torch.as_tensor(value, dtype=torch.float64)
        return float(value if index < 0 or value.dim() == 0 else value[index])

    value, estimate = number(exact.value), number(sampled.value)
    error = number(sampled.standard_error)
    formula = exact is not sampled and error > 0
    z = (estimate - value) / error if formula else None
    return KLRow(name, value, exact.method, estimate, error, z)


def _both(
    p: dist.TorchDistribution, q: dist.TorchDistribution, num_samples: int
) -> tuple[pyro_kl.Estimate, pyro_kl.Estimate]:
    """Return the exact and the sampled KL; the sampled one twice where there is no formula."""
    try:
        comparison = pyro_kl.compare(p, q, num_samples=num_samples)
    except NotImplementedError:
        sampled = pyro_kl.monte_carlo(p, q, num_samples)
        return sampled, sampled
    return comparison.exact, comparison.sampled


@torch.no_grad()
def coefficient_kls(fit: Fit, names: Sequence[str], num_samples: int = 10_000) -> list[KLRow]:
    """Return the KL of every coefficient's marginal against its prior, bias first.

    With a full-rank guide these add up to less than the joint KL: the rest is the
    `total_correlation` of the guide.
    """
    exact, sampled = _both(_marginals(fit.guide), fit.model.coefficient_prior(), num_samples)
    return [_row(name, exact, sampled, i) for i, name in enumerate(["bias", *names])]


def _marginals(guide: Guide) -> dist.TorchDistribution:
    """Return ``q`` of every coefficient on its own, batch shape ``(D + 1,)``."""
    return dist.Normal(guide.mean(), guide.sd())


@torch.no_grad()
def total_correlation(fit: Fit, num_samples: int = 10_000) -> KLRow:
    """Return KL(q || product of q's marginals): what the guide's correlations cost.

    Source: Watanabe (1960), Information Theoretical Analysis of Multivariate Correlation.
    """
    if fit.guide.name == "mean-field":
        return KLRow("total correlation", 0.0, "independent", 0.0, 0.0, None)
    exact, sampled = _both(fit.guide.joint(), _marginals(fit.guide).to_event(1), num_samples)
    return _row("total correlation", exact, sampled)


@torch.no_grad()
def site_kls(fit: Fit, num_samples: int = 10_000) -> list[KLRow]:
    """Return the KL of each Pyro site and of all coefficients jointly.

    The rows are ``bias``, then ``weights`` (in a full-rank guide ``weights | bias``: the KL of
    the conditional, averaged over the bias), then ``joint``, which is their sum by the chain
    rule of the KL.
    """
    guide, model = fit.guide, fit.model
    bias = _row("bias", *_both(guide.bias(), model.bias_prior(), num_samples))
    joint = _row("joint", *_both(guide.joint(), model.joint_prior(), num_samples))
    if guide.name == "mean-field":
        q = guide.weights_given(guide.mean()[0])
        weights = _row("weights", *_both(q, model.weights_prior(), num_samples))
    else:
        weights = _conditional_row(guide, model, bias, joint, num_samples)
    return [bias, weights, joint]


def _conditional_row(
    guide: Guide, model: LogisticRegression, bias: KLRow, joint: KLRow, num_samples: int
) -> KLRow:
    """Return the row of ``weights | bias``: exact by the chain rule, and sampled."""
    q = guide.weights_given(guide.bias().sample((num_samples,)))
    weights = q.sample()
    log_ratio = q.log_prob(weights) - model.weights_prior().log_prob(weights)
    sampled = float(log_ratio.mean())
    error = float(log_ratio.std()) / math.sqrt(num_samples)
    if joint.z is None:
        return KLRow("weights | bias", sampled, joint.method, sampled, error, None)
    value = joint.value - bias.value
    return KLRow("weights | bias", value, "chain rule", sampled, error, (sampled - value) / error)
