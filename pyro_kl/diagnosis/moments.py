"""Means and sds of the latents, of the guide and corrected by importance weights, in one pass.

The tail of the weights is smoothed when all of them are known. So the values of the draws with the
largest weights are kept until then, and of all others only sums: the memory does not grow with the
number of draws.
"""

from __future__ import annotations

import math
from dataclasses import InitVar, dataclass, field

import torch
from torch import Tensor

from . import pareto
from .histograms import BINS, Bins

#: Tails and histograms are kept for each element if there are at most so many of them in all.
MOST_ELEMENTS = 2000
#: Covariances are kept if there are at most so many.
MOST_WITH_COVARIANCES = 200


@dataclass
class Moments:
    """Sums over draws.

    Attributes:
        first: some draws of the guide, of shape (draws, elements). Their mean is the centre about
            which the powers are taken, and their range decides the bins of the histograms.
        keep: the number of draws with the largest weights that are kept.
    """

    first: InitVar[Tensor]
    keep: int
    bins: Bins | None = field(init=False, default=None)
    _count: int = 0
    _centre: Tensor = field(init=False)
    _plain: Tensor = field(init=False)
    _once: Tensor = field(init=False)
    _twice: Tensor = field(init=False)
    _largest: float = -math.inf
    _logs: Tensor = field(init=False)
    _values: Tensor = field(init=False)
    _tails: Tensor = field(init=False)
    _of_guide: Tensor = field(init=False)
    _of_posterior: Tensor = field(init=False)
    _products: Tensor | None = field(init=False, default=None)

    def __post_init__(self, first: Tensor) -> None:
        self._centre = first.mean(0)
        size = len(self._centre)
        zeros = torch.zeros(size, dtype=torch.float64)
        self._plain = zeros.expand(4, size).clone()
        self._once, self._twice = zeros.expand(3, size).clone(), zeros.expand(3, size).clone()
        self._logs, self._values = zeros.new_empty(0), zeros.new_empty(0, size)
        if size <= MOST_WITH_COVARIANCES:
            self._products = zeros.expand(2, size, size).clone()
        if size <= MOST_ELEMENTS:
            self.bins = Bins.of(first)
            self._tails = zeros.new_empty(0, size)
            self._of_guide, self._of_posterior = zeros.new_zeros(2, size, BINS + 2)

    def add(self, log_weights: Tensor, values: Tensor, of_guide: bool) -> None:
        """Take in some draws.

        Args:
            log_weights: of shape (draws,).
            values: of shape (draws, elements).
            of_guide: whether they are draws of the guide itself.
        """
        values = values - self._centre
        if of_guide:
            self._count += len(values)
            self._plain += torch.stack([(values**power).sum(0) for power in (1, 2, 3, 4)])
            if self._products is not None:
                self._products[0] += values.T @ values
            if self.bins:
                self._of_guide += self.bins.sums(values + self._centre, torch.ones(len(values)))
        if self.bins:
            logs = values.square().log() + log_weights[:, None]
            self._tails = _largest(torch.cat([self._tails, logs]), self.keep)
        logs, values = torch.cat([self._logs, log_weights]), torch.cat([self._values, values])
        order = logs.argsort()
        rest, kept = order.tensor_split([max(0, len(order) - self.keep)])
        self._add_weighted(logs[rest], values[rest])
        self._logs, self._values = logs[kept], values[kept]

    def _add_weighted(self, logs: Tensor, values: Tensor) -> None:
        if not len(logs) or not math.isfinite(float(logs.max())):
            return
        largest = max(self._largest, float(logs.max()))
        shrink = math.exp(self._largest - largest)
        self._once, self._twice = self._once * shrink, self._twice * shrink**2
        self._largest = largest
        weight = (logs - largest).exp()
        powers = torch.stack([torch.ones_like(values), values, values.square()])
        self._once += torch.einsum("s,psd->pd", weight, powers)
        self._twice += torch.einsum("s,psd->pd", weight.square(), powers)
        if self._products is not None:
            self._products[1] *= shrink
            self._products[1] += values.T @ (weight[:, None] * values)
        if self.bins:
            self._of_posterior *= shrink
            self._of_posterior += self.bins.sums(values + self._centre, weight)

    def finish(self, smoothed: pareto.Smoothed) -> Marginals:
        """The moments, with the tail of the weights smoothed."""
        tail = smoothed.quantiles.clamp(max=0.0) + smoothed.largest
        if length := len(tail):
            self._logs[-length:] = tail
        self._add_weighted(self._logs, self._values)
        self._logs, self._values = self._logs[:0], self._values[:0]
        one, two, three, four = self._plain / self._count
        variance = two - one.square()
        fourth = four - 4 * one * three + 6 * one.square() * two - 3 * one**4
        total = self._once[0]
        mean, square = self._once[1] / total, self._once[2] / total
        error = (
            self._twice[2] - 2 * mean * self._twice[1] + mean.square() * self._twice[0]
        ).clamp(min=0)
        return Marginals(
            guide_mean=self._centre + one,
            guide_sd=variance.clamp(min=0).sqrt(),
            guide_fourth=fourth,
            mean=self._centre + mean,
            mean_error=error.sqrt() / total,
            sd=(square - mean.square()).clamp(min=0).sqrt(),
            khat=self._khats(),
        )

    def covariances(self) -> tuple[Tensor, Tensor] | None:
        """Of the guide and of the posterior, once all draws are in; None if there are too many."""
        if self._products is None:
            return None
        guide, posterior = self._plain[0] / self._count, self._once[1] / self._once[0]
        return (
            self._products[0] / self._count - guide.outer(guide),
            self._products[1] / self._once[0] - posterior.outer(posterior),
        )

    def densities(self) -> tuple[Tensor, Tensor]:
        """In bins: of the guide and of the posterior, once all draws are in."""
        if not self.bins:
            nothing = torch.full((len(self._centre), BINS), math.nan)
            return nothing, nothing
        return self.bins.density(self._of_guide), self.bins.density(self._of_posterior)

    def _khats(self) -> Tensor:
        """Of the squared deviations times the weights: mean and sd need both."""
        if not self.bins:
            return torch.full_like(self._centre, math.nan)
        logs = self._tails.T - self._tails.amax(0)[:, None]
        logs = logs.sort(-1).values
        # the cut is the smallest that is kept
        found = pareto.fit(logs[:, 1:].exp() - logs[:, :1].exp())[0]
        return torch.where(logs[:, 0] < 0, found, 0.0)


@dataclass(frozen=True)
class Marginals:
    """Of each element of the latents; tensors of shape (elements,).

    Attributes:
        guide_mean: of the guide.
        guide_sd: of the guide.
        guide_fourth: of the guide, the fourth central moment.
        mean: of the posterior, by the weights.
        mean_error: its standard error.
        sd: of the posterior, by the weights.
        khat: of the tail of the weights times squared deviations; nan where it is not known.
    """

    guide_mean: Tensor
    guide_sd: Tensor
    guide_fourth: Tensor
    mean: Tensor
    mean_error: Tensor
    sd: Tensor
    khat: Tensor


def _largest(logs: Tensor, count: int) -> Tensor:
    """The largest of each column."""
    return torch.topk(logs, min(count, len(logs)), dim=0, sorted=False).values
