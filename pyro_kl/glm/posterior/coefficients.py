"""A distribution over all coefficients, taken apart: into each of them, into bias and weights."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from torch.distributions import Distribution, Independent


def marginals(joint: Distribution) -> Any:
    """Return the distribution of each coefficient on its own, batch shape ``(D + 1,)``.

    Args:
        joint: a product of univariate distributions, or a Gaussian; event shape ``(D + 1,)``.
    """
    if isinstance(joint, Independent):
        return joint.base_dist
    return dist.Normal(joint.mean, joint.stddev)


def select(batch: Distribution, index: int | slice) -> Any:
    """Return some members of a batch of univariate distributions."""
    parameters = {name: getattr(batch, name)[index] for name in batch.arg_constraints}
    return type(batch)(**parameters)
