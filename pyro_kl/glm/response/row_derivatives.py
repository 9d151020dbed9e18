"""Higher derivatives of the rows' terms of an ELBO: how its gradient and curvature change."""

from __future__ import annotations

import torch
from torch import Tensor

from ...likelihoods.likelihood import Likelihood
from ..passes.rows import Chunk


def dense_rows(chunk: Chunk) -> Tensor:
    """Return the rows of a chunk after the bias's ones, shape ``(n, D + 1)``, float64."""
    features = chunk.features
    if not isinstance(features, Tensor):  # a sparse matrix of scipy
        features = torch.from_numpy(features.toarray())
    return torch.nn.functional.pad(features.double(), (1, 0), value=1.0)


def row_derivatives(
    likelihood: Likelihood, chunk: Chunk, mean: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return minus the second, the third and the fourth derivative of each row's term.

    They are derivatives with respect to the predictor's mean, times the row's weight. One with
    respect to its variance is half of a second one with respect to its mean (Price, 1958, A Useful
    Theorem for Nonlinear Devices).
    """
    target = chunk.target.double()
    curvature = likelihood.expected(target, mean, scale).curvature
    third, fourth = likelihood.higher(target, mean, scale)
    weight = torch.ones_like(target) if chunk.weight is None else chunk.weight.double()
    return curvature * weight, third * weight, fourth * weight
