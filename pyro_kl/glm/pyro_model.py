"""The Pyro model of a regression, with the sites of its guides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro
from torch import Tensor

from ..likelihoods import Likelihood
from .coefficients import marginals, select
from .guide import GUIDES
from .prior import GaussianPrior, Prior


class RegressionModel:
    """Coefficients from their prior, targets given a linear predictor.

    Args:
        prior: of all coefficients, the bias first.
        likelihood: of a target given its linear predictor.
        sites: names of the sites of bias and weights, or one name for all coefficients jointly.
        units: what turns features into those that the coefficients belong to.
    """

    def __init__(
        self,
        prior: Prior,
        likelihood: Likelihood,
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
        x = self._units(features)
        predictor = weights @ x.mT
        if predictor.dim() > 1:
            # A batch of draws has shape (draws, 1): the 1 keeps the place of the data plate.
            predictor = predictor.squeeze(-2)
        predictor = predictor + bias
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("obs", self.likelihood.distribution(predictor), obs=target)
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
