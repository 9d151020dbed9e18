"""Rows of a batch of univariate distributions: some of them as a batch, and those with a nan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.distributions import FoldedDistribution
from torch import Tensor
from torch.distributions import Categorical, Distribution, MixtureSameFamily

from ...registry.register import family_of
from ...registry.shapes import nan_rows
from ...registry.subclasses import class_of
from ...registry.tensors import is_foreign, made_of, tensors_in
from ...wrappers.transformed.rules import base_and_transforms, mapped
from ..found import Found


def as_declared(distribution: Any) -> Any:
    """The declared class in place of a subclass of it with the same density."""
    family = family_of(type(distribution))
    if family is None or family.distribution is class_of(distribution):
        return distribution
    build: Callable[..., Distribution] = family.distribution
    return build(**family.of(distribution), validate_args=False)


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


def in_groups(
    p: Distribution,
    q: Distribution,
    groups: Sequence[Tensor],
    elsewhere: Tensor,
    of_group: Callable[[Distribution, Distribution], Found | None],
) -> Found | None:
    """What is found of each group of rows by itself; None if rows cannot be taken out.

    Args:
        p: the first distribution.
        q: the second one.
        groups: masks of the rows of each.
        elsewhere: the values of the rows in no group.
        of_group: finds values and errors of the rows of one group.
    """
    shape, found = elsewhere.shape, None
    value, error, nodes = (
        elsewhere.reshape(-1),
        torch.zeros(elsewhere.numel(), dtype=torch.float64),
        0,
    )
    for group in groups:
        index = torch.nonzero(group.reshape(-1))[:, 0]
        if not index.numel():
            continue
        some = rows_of(p, shape, index), rows_of(q, shape, index)
        if some[0] is None or some[1] is None:
            return None
        found = of_group(some[0], some[1])
        if found is None:
            return None
        own = torch.zeros_like(found.value) if found.error is None else found.error
        value = value.index_put((index,), found.value.to(value.dtype))
        error, nodes = error.index_put((index,), own), max(nodes, found.nodes)
    return found and found._replace(
        value=value.reshape(shape), error=error.reshape(shape), nodes=nodes
    )


def with_rows(
    found: Found,
    rows: Tensor,
    p: Distribution,
    q: Distribution,
    of_rows: Callable[[Distribution, Distribution], Found | None],
) -> Found | None:
    """What is found, with some rows found in another way; None if they cannot be taken out.

    Args:
        found: of all rows, with an error.
        rows: those that are replaced.
        p: the first distribution.
        q: the second one.
        of_rows: finds values and errors of these rows.
    """
    if not bool(rows.any()):
        return found
    assert found.error is not None
    rest = in_groups(p, q, [rows], found.value, of_rows)
    if rest is None:
        return None
    assert rest.error is not None
    error = torch.where(rows, rest.error, found.error)
    return rest._replace(error=error, nodes=max(found.nodes, rest.nodes))
