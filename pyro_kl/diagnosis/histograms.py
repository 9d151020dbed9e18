"""Densities of each element of the latents in bins, for pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: The number of bins. Half of them hold 99 % of the guide's draws, the others lie beside these.
BINS = 80


@dataclass(frozen=True)
class Histograms:
    """Densities of a site under its prior, the guide and the posterior.

    Attributes:
        edges: of the bins, which are the same for all three: the shape of the site and one
            dimension more, of 81.
        prior: the density in each bin, of 80 bins; nan where it is not known.
        guide: the same for the guide.
        posterior: the same by importance weights; nan where k-hat says that it is unknown.
    """

    edges: Tensor
    prior: Tensor
    guide: Tensor
    posterior: Tensor


@dataclass(frozen=True)
class Bins:
    """Bins of each element.

    Attributes:
        low: the lower end of the first bin, of shape (elements,).
        width: of a bin, of shape (elements,).
    """

    low: Tensor
    width: Tensor

    @staticmethod
    def of(values: Tensor) -> Bins:
        """Bins for draws of the guide, of shape (draws, elements)."""
        low, high = values.quantile(torch.tensor([0.005, 0.995], dtype=values.dtype), dim=0)
        reach = torch.where(high > low, high - low, 1.0)
        return Bins(low - reach / 2, 2 * reach / BINS)

    def sums(self, values: Tensor, weights: Tensor) -> Tensor:
        """The weights in each bin, with those below the first and above the last one.

        Args:
            values: of shape (draws, elements).
            weights: of shape (draws,).

        Returns:
            A tensor of shape (elements, BINS + 2).
        """
        index = ((values - self.low) / self.width).floor().clamp(-1, BINS).long() + 1
        zeros = torch.zeros(len(self.low), BINS + 2, dtype=torch.float64)
        return zeros.scatter_add_(1, index.T, weights.double().expand(len(self.low), -1))

    def density(self, sums: Tensor) -> Tensor:
        """The density in each bin, of shape (elements, BINS)."""
        return sums[:, 1:-1] / (sums.sum(-1) * self.width)[:, None]

    @property
    def edges(self) -> Tensor:
        """Of shape (elements, BINS + 1)."""
        return self.low[:, None] + self.width[:, None] * torch.arange(BINS + 1)
