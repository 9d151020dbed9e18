"""What free bits and a capacity count: whole sites, elements of their batch, or coordinates.

With K[b, j] the KL of coordinate j of the event at element b of the batch (the datum, in a plate
of data), before scale and mask, and s[b] the scale of b, 0 where it is masked out, a level bends

    per "site":     the sum over b and j of s[b] K[b, j], as it enters the ELBO;
    per "element":  for each b, s[b] times the sum over j of K[b, j], with s[b] times the level;
    per "batch":    for each j, the sum over b of s[b] K[b, j], with (sum of s[b]) times the level.

So a level per "element" is nats for each datum, and one per "batch" nats for each coordinate,
averaged over the minibatch (Kingma and others 2016, Improved Variational Inference with Inverse
Autoregressive Flow, eq. 15, each coordinate a group of its own). Where a KL is not a sum over
coordinates (it was sampled, or the event is tied together), its whole event is one group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask, sum_rightmost
from pyro.util import ignore_jit_warnings
from torch import Tensor

from ..messages import see
from .terms import Term

PER = ("site", "element", "batch")


@dataclass(frozen=True)
class Counted:
    """The KLs of a site to which free bits or a capacity apply one by one.

    Attributes:
        values: nats, scaled and masked, averaged over the particles.
        size: the factor of the level for each of them.
        per: what they are counted per, one of `PER`.
        bends: whether a level applies: whether there is a KL of a latent among them.
    """

    values: Tensor
    size: Tensor | float = 1.0
    per: str = "site"
    bends: bool = True

    def mean(self, weight: Any) -> float:
        """The mean of a weight for each of them, by size."""
        if not isinstance(weight, Tensor) or weight.dim() == 0:
            return float(weight)
        size = torch.as_tensor(self.size, dtype=weight.dtype).expand(weight.shape)
        return float((weight * size).sum() / size.sum())


def count(
    terms: Iterable[Term],
    groups: Mapping[str, str],
    per: Callable[[str], str],
    plate: int,
    num_particles: int,
) -> dict[str, Counted]:
    """The KLs of each group in all pairs of traces.

    Args:
        terms: of all sites in all pairs of traces; likelihoods are passed over.
        groups: latent or auxiliary site -> group.
        per: group -> one of `PER`.
        plate: place of the dim of a vectorized run's particles, 0 if there is none.
        num_particles: what sums over particles are divided by.
    """
    members: dict[str, list[Term]] = {}
    for term in terms:
        if term.kind != "likelihood":
            members.setdefault(groups[term.name], []).append(term)
    return {
        group: _count(found, per(group), plate, num_particles) for group, found in members.items()
    }


def _count(terms: Sequence[Term], per: str, plate: int, num_particles: int) -> Counted:
    """The KLs of one group."""
    bends = any(term.kind == "latent" and term.method != "prior" for term in terms)
    if per == "site" or not bends:
        total: Any = sum(term.value.detach().sum() for term in terms)
        return Counted(total / num_particles, bends=bends)
    parts = [_parts(term, per, plate) for term in terms]
    with ignore_jit_warnings():  # sizes are tensors while a function is traced
        shapes = {tuple(map(int, values.shape)) for values, _ in parts}
    if len(shapes) > 1:
        raise ValueError(
            f"{terms[0].name} has other shapes in other particles ({shapes}), so that its KL "
            'cannot be averaged for each element: count it per "site".' + see("joint-sites")
        )
    values: Any = sum(values for values, _ in parts)
    return Counted(values / num_particles, parts[0][1], per)


def _parts(term: Any, per: str, plate: int) -> tuple[Tensor, Tensor]:
    """KLs of one pair of traces, summed over the particles in it, and their sizes."""
    value = term.value.detach()
    size = scale_and_mask(torch.ones_like(value), scale=term.scale, mask=term.mask)
    has_plate = bool(plate) and value.dim() >= plate
    particles = value.shape[-plate] if has_plate else 1
    if per == "element":
        if has_plate:
            value, size = value.sum(-plate, keepdim=True), size.sum(-plate, keepdim=True)
    elif _event_dims(term):
        value = _scaled(term, term.dims.detach()).sum_to_size(term.dims.shape[value.dim() :])
        size = size.sum()
    else:
        value, size = value.sum(), size.sum()
    return value, size / particles


def _event_dims(term: Term) -> int:
    """How many dims of a KL are coordinates."""
    dims: Any = term.dims
    return 0 if dims is None else max(dims.dim() - term.value.dim(), 0)


def _scaled(term: Any, dims: Tensor) -> Tensor:
    """KLs of coordinates, scaled and masked."""
    wide = (...,) + (None,) * _event_dims(term)
    scale = term.scale[wide] if isinstance(term.scale, Tensor) else term.scale
    mask = term.mask[wide] if isinstance(term.mask, Tensor) else term.mask
    return scale_and_mask(dims, scale=scale, mask=mask)


def weighted_term(term: Any, weight: Any, per: str) -> Term:
    """A term times the slopes of the penalty.

    Args:
        term: of a latent or auxiliary site.
        weight: one number, or one for each of the KLs that `count` gives.
        per: what they are counted per.
    """
    if not isinstance(weight, Tensor) and weight == 1.0:
        return term
    if per == "batch" and isinstance(weight, Tensor) and weight.dim():
        dims = _scaled(term, weight * term.dims)
        surrogate = sum_rightmost(dims, _event_dims(term))
        return replace(term, value=surrogate.detach(), surrogate=surrogate)
    value = weight * term.value
    surrogate = value if term.surrogate is term.value else weight * term.surrogate
    return replace(term, value=value, surrogate=surrogate)
