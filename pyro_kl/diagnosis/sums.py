"""What is kept of all draws."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..divergence.standard_error import Terms
from ..messages import see
from . import pareto
from .chunk import Chunk
from .estimates import Estimates, LogWeights, estimate, log_mixture
from .moments import Moments


class Sums:
    """Sums over draws, and their log weights.

    Args:
        num_samples: draws of the guide.
        all_samples: with those of the wider guide.

    Attributes:
        terms: of the ELBO, of each chunk of the guide's draws.
        kls: latent -> the KL to its prior.
        moments: of all latents end to end; None before the first chunk.
    """

    def __init__(self, num_samples: int, all_samples: int) -> None:
        self._share = num_samples / all_samples
        self._keep = pareto.tail_length(all_samples) + 1
        self._weights: list[tuple[bool, LogWeights]] = []
        self.terms: list[Tensor] = []
        self.kls: dict[str, Terms] = {}
        self.moments: Moments | None = None

    def add(self, chunk: Chunk, of_guide: bool) -> None:
        """Take in some draws, of the guide or of the wider one."""
        self._weights.append((of_guide, LogWeights(chunk.log_weights, chunk.log_ratios)))
        if of_guide:
            self.terms.append(chunk.elbo)
        for name, kl in chunk.kls.items():
            new = Terms.of(kl, None)
            self.kls[name] = self.kls[name].merged(new) if name in self.kls else new
        values = torch.cat([x.reshape(len(chunk), -1) for x in chunk.values.values()], -1)
        if self.moments is None:
            self.moments = Moments(values, self._keep)
        mixture = log_mixture(chunk.log_ratios, self._share)
        self.moments.add(chunk.log_weights - mixture, values, of_guide)

    def estimate(self, rounding: float, wrong: str, discrete: Iterable[str]) -> Estimates:
        """What all draws say; arguments as for `estimates.estimate`.

        Raises:
            ValueError: a log weight is nan.
        """
        drawn, wider = self.weights(of_guide=True), self.weights(of_guide=False)
        _check_nan(torch.cat([drawn.weights, wider.weights]))
        return estimate(drawn, wider, torch.cat(self.terms), rounding, wrong, discrete)

    def weights(self, of_guide: bool) -> LogWeights:
        """All log weights of draws of one kind."""
        empty = torch.zeros(0, dtype=torch.float64)
        parts = [part for kind, part in self._weights if kind == of_guide]
        return LogWeights(
            torch.cat([empty, *(part.weights for part in parts)]),
            torch.cat([empty, *(part.ratios for part in parts)]),
        )


def _check_nan(log_weights: Tensor) -> None:
    bad = int((log_weights.isnan() | log_weights.isposinf()).sum())
    if bad:
        raise ValueError(
            f"The log weight of {bad:,} of {len(log_weights):,} draws is nan or +inf: a density "
            "of model or guide is not defined there." + see("loss-not-finite")
        )
