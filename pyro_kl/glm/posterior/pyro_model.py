"""The Pyro model of a regression, with the sites of its guides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ...likelihoods import BERNOULLI_LOGIT, BERNOULLI_PROBIT, POISSON
from ..priors.prior import GaussianPrior, Prior
from .coefficients import marginals, select
from .guide import GUIDES


def _probit(predictor: Tensor) -> dist.TorchDistribution:
    """A Bernoulli of probability Phi(predictor), by its logit, which keeps the tails."""
    log_ndtr = torch.special.log_ndtr
    return dist.Bernoulli(logits=log_ndtr(predictor) - log_ndtr(-predictor))


#: By the likelihood's name: the distribution of a target, given its linear predictor.
TARGETS: dict[str, Callable[[Tensor], dist.TorchDistribution]] = {
    BERNOULLI_LOGIT.name: lambda predictor: dist.Bernoulli(logits=predictor),
    BERNOULLI_PROBIT.name: _probit,
    POISSON.name: lambda predictor: dist.Poisson(predictor.exp()),
}


class RegressionModel:
    """Coefficients from their prior, targets given a linear predictor.

    Args:
        prior: of all coefficients, the bias first.
        likelihood: name of the likelihood of a target given its linear predictor.
        sites: names of the sites of bias and weights, or one name for all coefficients jointly.
        units: what turns features into those that the coefficients belong to.
    """

    def __init__(
        self,
        prior: Prior,
        likelihood: str,
        sites: Sequence[str],
        units: Callable[[Any], Tensor],
    ) -> None:
        self.prior, self.likelihood, self.sites = prior, likelihood, tuple(sites)
        self._units = units

    def __call__(self, features: Any, target: Tensor | None = None) -> Tensor:
        """Sample the coefficients and observe the target at site ``obs``.

        Args:
            features: shape (N, D), in the units of the data.
            target: shape (N,), in the likelihood's terms; None to draw it.

        Returns:
            The linear predictor, shape (..., N).
        """
        bias, weights = self._coefficients()
        x = self._units(features).to(weights.dtype)
        predictor = weights @ x.mT
        if predictor.dim() > 1:
            # A batch of draws has shape (draws, 1): the 1 keeps the place of the data plate.
            predictor = predictor.squeeze(-2)
        predictor = predictor + bias
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("obs", TARGETS[self.likelihood](predictor), obs=target)
        return predictor

    def _coefficients(self) -> tuple[Tensor, Tensor]:
        if len(self.sites) == 1:
            both = pyro.sample(self.sites[0], self.prior.distribution())
            return both[..., 0], both[..., 1:]
        bias_site, weights_site = self.sites
        if isinstance(self.prior, GaussianPrior):
            split = GUIDES[type(self.prior.covariance)]
            parts = split(self.prior.loc, self.prior.covariance, trainable=False)
            bias = pyro.sample(bias_site, parts.bias())
            return bias, pyro.sample(weights_site, parts.weights_given(bias))
        each = marginals(self.prior.distribution())
        bias = pyro.sample(bias_site, select(each, 0))
        return bias, pyro.sample(weights_site, select(each, slice(1, None)).to_event(1))
