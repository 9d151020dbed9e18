"""Gaussian guides over the coefficients of a regression, in sites whose exact KLs are valid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from ...messages import see
from ..covariances.covariance import (
    Covariance,
    DiagonalCovariance,
    FullCovariance,
    LowRankCovariance,
)
from ..passes.design import Memory

#: The sites of a guide: the bias, a scalar, and the weights, a vector.
SITES = ("bias", "weights")


class GaussianGuide(PyroModule):
    """A Gaussian over (bias, weights), drawn site by site in that order.

    Two sites are written by the chain rule, bias and then weights given bias. That is the same
    Gaussian, and the site of each is drawn from a distribution whose KL to the prior is exact.

    Args:
        loc: means, the bias first, shape (D + 1,).
        covariance: of all coefficients.
        sites: names of the sites of bias and weights, or one name for all coefficients jointly.
        trainable: whether the numbers are parameters, which start at `loc` and `covariance`.
    """

    def __init__(
        self,
        loc: Tensor,
        covariance: Any,
        sites: Sequence[str] | str = SITES,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.sites = (sites,) if isinstance(sites, str) else tuple(sites)
        if len(self.sites) not in (1, 2):
            raise ValueError(
                f"sites are two names (bias, weights) or one for all, got {self.sites}"
                + see("option")
            )
        for name, value in {"loc": loc, **self._numbers(covariance)}.items():
            value = value.detach().clone()
            if trainable:
                setattr(self, name, torch.nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def _numbers(self, covariance: Any) -> dict[str, Tensor]:
        """The unconstrained numbers of a covariance, by name."""
        raise NotImplementedError

    def covariance(self) -> Covariance:
        """The covariance of all coefficients; gradients reach the parameters."""
        raise NotImplementedError

    def bias(self) -> dist.TorchDistribution:
        """Return ``q(bias)``, a scalar Normal."""
        raise NotImplementedError

    def weights_given(self, bias: Tensor) -> dist.TorchDistribution:
        """Return ``q(weights | bias)``, batch shape of ``bias``, event shape ``(D,)``."""
        raise NotImplementedError

    def joint(self) -> dist.TorchDistribution:
        """Return ``q`` over all coefficients, event shape ``(D + 1,)``."""
        return self.covariance().distribution(self.loc)

    def mean(self) -> Tensor:
        """Return the mean of every coefficient, shape ``(D + 1,)``."""
        return self.loc.detach()

    def sd(self) -> Tensor:
        """Return the standard deviation of every coefficient, shape ``(D + 1,)``."""
        return self.covariance().marginal_scale.detach()

    def predictor(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and sd of the linear predictor of rows ``(N, D)``, each ``(N,)``."""
        return Memory().design(features).predictor(self.loc, self.covariance())

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Draw the sites; the arguments are the model's, and the guide does not need them."""
        if len(self.sites) == 1:
            pyro.sample(self.sites[0], self.joint())
            return
        bias = pyro.sample(self.sites[0], self.bias())
        pyro.sample(self.sites[1], self.weights_given(bias))


class DiagonalGuide(GaussianGuide):
    """Every coefficient Normal and independent of the others: ``2 (D + 1)`` numbers."""

    def _numbers(self, covariance: DiagonalCovariance) -> dict[str, Tensor]:
        return {"log_scale": covariance.scale.log()}

    def covariance(self) -> Covariance:
        """The diagonal covariance; gradients reach the parameters."""
        return DiagonalCovariance(self.log_scale.exp())

    def bias(self) -> dist.TorchDistribution:
        """Return ``q(bias)``, a scalar Normal."""
        return dist.Normal(self.loc[0], self.log_scale[0].exp())

    def weights_given(self, bias: Tensor) -> dist.TorchDistribution:
        """Return ``q(weights)``, which ignores ``bias``."""
        return dist.Normal(self.loc[1:], self.log_scale[1:].exp()).to_event(1)


class FullGuide(GaussianGuide):
    """All coefficients jointly Gaussian, with every correlation.

    ``weights`` given ``bias`` is multivariate Normal with a mean linear in ``bias``.
    """

    def _numbers(self, covariance: FullCovariance) -> dict[str, Tensor]:
        tril = covariance.scale_tril
        return {
            "log_scale": tril.diagonal().log(),
            "gain": tril[1:, 0] / tril[0, 0],
            "free_tril": torch.tril(tril[1:, 1:], diagonal=-1),
        }

    def _weights_scale_tril(self) -> Tensor:
        lower = torch.tril(self.free_tril, diagonal=-1)
        return lower + torch.diag(self.log_scale[1:].exp())

    def covariance(self) -> Covariance:
        """The full covariance; gradients reach the parameters."""
        scale = self.log_scale[0].exp()
        top = torch.cat([scale.reshape(1), torch.zeros_like(self.gain)])
        below = torch.cat([(self.gain * scale).unsqueeze(-1), self._weights_scale_tril()], -1)
        return FullCovariance(torch.cat([top.unsqueeze(0), below]))

    def bias(self) -> dist.TorchDistribution:
        """Return ``q(bias)``, a scalar Normal."""
        return dist.Normal(self.loc[0], self.log_scale[0].exp())

    def weights_given(self, bias: Tensor) -> dist.TorchDistribution:
        """Return ``q(weights | bias)``, batch shape of ``bias``, event shape ``(D,)``."""
        loc = self.loc[1:] + self.gain * (bias - self.loc[0]).unsqueeze(-1)
        return dist.MultivariateNormal(loc, scale_tril=self._weights_scale_tril())


class LowRankGuide(GaussianGuide):
    """A few directions of correlation and independent noise: ``(D + 1) (r + 2)`` numbers.

    ``weights`` given ``bias`` has the same form: with ``f`` the bias's row of the factor, ``s``
    its noise and ``v = s^2 + f'f``, the factor of the weights is multiplied by the symmetric
    square root of ``1 - f f' / v``, which is ``1 - f f' / (v + s sqrt(v))``.
    """

    def _numbers(self, covariance: LowRankCovariance) -> dict[str, Tensor]:
        return {"log_scale": covariance.scale.log(), "factor": covariance.factor}

    def covariance(self) -> Covariance:
        """The covariance; gradients reach the parameters."""
        return LowRankCovariance(self.factor, self.log_scale.exp())

    def _bias_scale(self) -> Tensor:
        return (self.log_scale[0].mul(2).exp() + self.factor[0].square().sum()).sqrt()

    def bias(self) -> dist.TorchDistribution:
        """Return ``q(bias)``, a scalar Normal."""
        return dist.Normal(self.loc[0], self._bias_scale())

    def weights_given(self, bias: Tensor) -> dist.TorchDistribution:
        """Return ``q(weights | bias)``, batch shape of ``bias``, event shape ``(D,)``."""
        row, factor, scale = self.factor[0], self.factor[1:], self._bias_scale()
        toward_bias = factor @ row
        loc = self.loc[1:] + toward_bias / scale.square() * (bias - self.loc[0]).unsqueeze(-1)
        shrink = scale * (scale + self.log_scale[0].exp())
        rest = factor - (toward_bias / shrink).unsqueeze(-1) * row
        return dist.LowRankMultivariateNormal(loc, rest, self.log_scale[1:].mul(2).exp())


#: The guide of each family of covariances.
GUIDES: dict[type, type[GaussianGuide]] = {
    DiagonalCovariance: DiagonalGuide,
    FullCovariance: FullGuide,
    LowRankCovariance: LowRankGuide,
}
