"""Batch and event shapes of two distributions, and of their KL."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from torch.distributions.constraints import Constraint

from ..messages import see
from .subclasses import is_a


def check_event_shapes(p: Distribution, q: Distribution, name: str = "KL") -> None:
    """Refuse two distributions whose event shapes are not equal (to broadcast is not enough)."""
    if p.event_shape != q.event_shape:
        raise ValueError(
            f"{name}({type(p).__name__} || {type(q).__name__}): event shapes "
            f"{tuple(p.event_shape)} and {tuple(q.event_shape)} differ. Is a "
            "`.to_event(n)` or `.expand` missing on one side?" + see("event-shapes")
        )


def broadcast_batch(p: Distribution, q: Distribution, name: str = "KL") -> torch.Size:
    """The batch shape of a divergence; a ValueError that names both sides if there is none."""
    shape = p.batch_shape
    if p.event_shape != q.event_shape:
        check_event_shapes(p, q, name)
    if shape == q.batch_shape:
        return torch.Size(shape)  # that of a TruncatedPolyaGamma is a plain tuple
    try:
        return torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    except RuntimeError:
        raise ValueError(
            f"{name}({type(p).__name__} || {type(q).__name__}): batch shapes "
            f"{tuple(p.batch_shape)} and {tuple(q.batch_shape)} do not broadcast. From the right, "
            "two sizes have to be equal, or one of them 1." + see("batch-shapes")
        ) from None


def check_durations(p: Any, q: Any, function: str = "KL") -> None:
    """A homogeneous chain may have no fixed number of time steps, and a KL depends on it."""
    for side, distribution in (("p", p), ("q", q)):
        if getattr(distribution, "duration", 0) is None:
            raise ValueError(
                f"{function}({type(p).__name__} || {type(q).__name__}): {side} is homogeneous and "
                "has no number of time steps. Construct it with `duration=`." + see("hmm-duration")
            )


def nan_in(tensors: Iterable[Tensor]) -> Tensor:
    """Where one of several tensors is nan, or where two of them are +inf and -inf."""
    return functools.reduce(torch.add, [x.detach() for x in tensors]).isnan()


def nan_rows(distribution: Distribution) -> Tensor:
    """The rows of a batch in which a parameter given to the distribution is nan."""
    if isinstance(distribution, Independent):
        rows = nan_rows(distribution.base_dist).expand(distribution.base_dist.batch_shape)
        return any_of_last(rows, distribution.reinterpreted_batch_ndims)
    rows = torch.zeros((), dtype=torch.bool)
    for name, constraint in distribution.arg_constraints.items():
        given = vars(distribution).get(name)
        if isinstance(given, Tensor):
            # Pyro declares some vectors and matrices by the constraint of a number
            more = given.dim() - len(distribution.batch_shape)
            rows = rows | any_of_last(given.detach().isnan(), max(_event_dim(constraint), more))
    return rows


def _event_dim(constraint: Constraint) -> int:
    try:
        return int(constraint.event_dim)
    except NotImplementedError:  # that of a Delta depends on its parameters
        return 0


def any_of_last(mask: Tensor, ndims: int) -> Tensor:
    """Whether the mask holds anywhere along the last `ndims` dimensions."""
    return mask.flatten(-ndims).any(-1) if ndims else mask


def peel(distribution: Distribution, ndims: int) -> Distribution:
    """An Independent with `ndims` of its event dimensions turned back into batch dimensions."""
    if not is_a(distribution, Independent):
        return distribution
    left = distribution.reinterpreted_batch_ndims - ndims
    return (
        Independent(distribution.base_dist, left, validate_args=False)
        if left
        else distribution.base_dist
    )


def sum_events(kl: Tensor, batch_shape: torch.Size, event_shape: torch.Size) -> Tensor:
    """The sum of the KLs of independent coordinates, which may have to be expanded first."""
    if not event_shape:
        return kl.expand(batch_shape)
    return kl.expand(batch_shape + event_shape).sum(tuple(range(-len(event_shape), 0)))


def normals(loc: Any, scale: Any) -> Independent:
    """A product of Normals, for worked cases."""
    return Independent(Normal(loc, scale), 1)


def as_delta(distribution: Distribution) -> Delta | None:
    """An Independent over Deltas as one Delta with an event; None for anything else."""
    if not (is_a(distribution, Independent) and is_a(distribution.base_dist, Delta)):
        return None
    point, ndims = distribution.base_dist, distribution.reinterpreted_batch_ndims
    log_density = torch.as_tensor(point.log_density).expand(point.batch_shape)
    return Delta(
        point.v,
        log_density=sum_events(
            log_density, distribution.batch_shape, distribution.event_shape[:ndims]
        ),
        event_dim=point.event_dim + ndims,
        validate_args=False,
    )


def some_tensor(distribution: Distribution) -> Tensor:
    """Any floating-point tensor of a distribution, which has its dtype and its device."""
    inside = list(vars(distribution).values())
    for value in inside:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value
    distributions = [value for value in inside if isinstance(value, Distribution)]
    return some_tensor(distributions[0]) if distributions else torch.zeros(())
