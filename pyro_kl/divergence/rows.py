"""Rows of a batch of univariate distributions: some of them as a batch, and those with a nan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import FoldedDistribution
from torch import Tensor
from torch.distributions import Categorical, Distribution, MixtureSameFamily

from ..registry.register import family_of
from ..registry.shapes import nan_rows
from ..registry.subclasses import class_of
from ..registry.tensors import is_foreign, made_of, tensors_in
from ..wrappers.transformed.rules import base_and_transforms, mapped


def rows_of(distribution: Any, shape: torch.Size, index: Tensor) -> Distribution | None:
    """Some rows, of the batch shape of the index; None of a class that is not known.

    Args:
        distribution: of a batch shape that broadcasts to `shape`.
        shape: the shape of the whole batch.
        index: into the flattened batch, of any shape.
    """

    def some(x: Tensor) -> Tensor:
        return x.expand(shape).reshape(-1)[index]

    family = family_of(class_of(distribution))
    if family is not None and family.distribution is class_of(distribution):
        build: Callable[..., Distribution] = family.distribution
        given = {name: some(x) for name, x in family.of(distribution).items()}
        return build(**given, validate_args=False)
    if is_foreign(distribution):
        return None
    if isinstance(distribution, FoldedDistribution):
        base = rows_of(distribution.base_dist, shape, index)
        return base and FoldedDistribution(base, validate_args=False)
    if isinstance(distribution, MixtureSameFamily):
        logits = distribution.mixture_distribution.logits
        count = logits.shape[-1]
        each = index.unsqueeze(-1) * count + torch.arange(count, device=index.device)
        parts = rows_of(distribution.component_distribution, torch.Size((*shape, count)), each)
        if parts is None:
            return None
        weights = Categorical(
            logits=logits.expand(*shape, count).reshape(-1)[each], validate_args=False
        )
        return MixtureSameFamily(weights, parts, validate_args=False)
    base, maps = base_and_transforms(distribution)
    some_base = rows_of(base, shape, index) if maps else None
    if some_base is None:
        return None
    return mapped(some_base, made_of(maps, iter([some(x) for x in tensors_in(maps)])))


def missing_rows(distribution: Any) -> Tensor:
    """The rows where a parameter of a distribution, of its base or of a component is nan."""
    if isinstance(distribution, MixtureSameFamily):
        weights = distribution.mixture_distribution.logits.detach().isnan()
        return (weights | missing_rows(distribution.component_distribution)).any(-1)
    if isinstance(distribution, FoldedDistribution):
        return missing_rows(distribution.base_dist)
    base, maps = base_and_transforms(distribution)
    rows = missing_rows(base) if maps else nan_rows(distribution)
    for x in tensors_in(maps):
        rows = rows | x.detach().isnan()
    return rows
