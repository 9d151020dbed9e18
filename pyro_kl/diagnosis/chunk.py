"""Some draws of a guide, with their weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .rows import Rows


@dataclass(frozen=True)
class Chunk:
    """Some draws; every tensor is float64, and the draws are its first dimension.

    Where each row of a plate has weights of its own, the rows are the second dimension of all but
    the values.

    Attributes:
        log_weights: log p(data, latents) - log q(latents).
        log_ratios: log density of the wider guide minus log q(latents).
        elbo: log likelihood minus the KL of each site, exact where it can be; 0 for draws of the
            wider guide.
        kls: latent -> its KL to its prior; empty for draws of the wider guide.
        values: latent -> its values.
    """

    log_weights: Tensor
    log_ratios: Tensor
    elbo: Tensor
    kls: dict[str, Tensor]
    values: dict[str, Tensor]

    def row(self, rows: Rows, i: int) -> Chunk:
        """The draws of one row of a plate."""
        return Chunk(
            self.log_weights[:, i],
            self.log_ratios[:, i],
            self.elbo[:, i],
            {name: x[:, i] for name, x in self.kls.items()},
            {name: rows.of(x, name, i) for name, x in self.values.items()},
        )

    def __len__(self) -> int:
        return len(self.log_weights)


def together(chunks: list[Chunk]) -> Chunk:
    """One chunk of several."""
    first = chunks[0]
    if len(chunks) == 1:
        return first
    return Chunk(
        log_weights=torch.cat([x.log_weights for x in chunks]),
        log_ratios=torch.cat([x.log_ratios for x in chunks]),
        elbo=torch.cat([x.elbo for x in chunks]),
        kls={name: torch.cat([x.kls[name] for x in chunks]) for name in first.kls},
        values={name: torch.cat([x.values[name] for x in chunks]) for name in first.values},
    )
