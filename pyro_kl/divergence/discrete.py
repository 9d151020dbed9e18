"""Discrete distributions of declared families, with more zeros, and mixtures of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from pyro.distributions import ZeroInflatedDistribution
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily, OneHotCategorical

from ..numerics.dtypes import Parameters, in_float64
from ..numerics.special.zero_inflation import Gates, log_gates, log_mass_inflated
from ..registry.compose import log_masses_of
from ..registry.family import Family, read_gate
from ..registry.integrate_counts import Count
from ..registry.reduction import canonicalise
from ..registry.register import family_of
from ..registry.renyi import in_float64_of
from ..registry.subclasses import is_a
from .mixtures import components

#: Of infinitely many atoms so many are looked at first, and as many again.
FEW = 64


class Discrete(NamedTuple):
    """A discrete distribution of a declared family, or a mixture of such.

    Args:
        family: that of the distribution, or of all components.
        parameters: those of the family; of a mixture, the last batch dimension is the component.
        log_weights: of the components of a mixture, along the last dimension.
    """

    family: Family
    parameters: Parameters
    log_weights: Tensor | None = None

    def log_masses(self, n: int) -> Tensor:
        """At 0, ..., n - 1, along a new last dimension."""
        return self._mixed(log_masses_of(self.family)(n, self.parameters))

    def log_mass(self, k: Tensor) -> Tensor:
        """At integers k, whose last dimension is that of the points."""
        assert self.family.log_mass is not None
        k = k if self.log_weights is None else k.unsqueeze(-2)
        return self._mixed(self.family.log_mass(k, **self.parameters))

    def _mixed(self, log_masses: Tensor) -> Tensor:
        """Of the mixture, from (..., components, points)."""
        if self.log_weights is None:
            return log_masses
        parts = self.log_weights.unsqueeze(-1) + log_masses
        gone = torch.isneginf(parts).all(-2)  # where logsumexp has a gradient of nan
        total = torch.where(gone.unsqueeze(-2), 0.0, parts).logsumexp(-2)
        return torch.where(gone, -torch.inf, total)

    @property
    def tensors(self) -> list[Tensor]:
        """All that it is made of."""
        weights = () if self.log_weights is None else (self.log_weights,)
        return [*self.parameters.values(), *weights]

    @property
    def shape(self) -> torch.Size:
        """The batch shape."""
        batches = [x.shape[: x.dim() - self._ndims(name)] for name, x in self.parameters.items()]
        if self.log_weights is not None:
            batches = [batch[:-1] for batch in (*batches, self.log_weights.shape)]
        return torch.broadcast_shapes(*batches)

    def _ndims(self, name: str) -> int:
        """The dimensions of a parameter's event."""
        return int(name in self.family.vectors)

    def rows(self, rows: Tensor, shape: torch.Size) -> Discrete:
        """Some rows of a batch."""

        def of(x: Tensor, event: torch.Size) -> Tensor:
            return x.expand(shape + event).reshape(-1, *event)[rows]

        inner = int(self.log_weights is not None)
        some = {
            name: of(x, x.shape[x.dim() - self._ndims(name) - inner :])
            for name, x in self.parameters.items()
        }
        weights = self.log_weights
        weights = weights if weights is None else of(weights, weights.shape[-1:])
        return self._replace(parameters=some, log_weights=weights)

    @property
    def num_atoms(self) -> int | None:
        """The number of atoms of all rows; None if it is infinite."""
        count = self.family.num_atoms
        return None if count is None else count(**self.parameters)

    @property
    def as_count(self) -> Count | None:
        """The Poisson or the NegativeBinomial that it is, perhaps with more zeros; or None."""
        if self.log_weights is not None or self.family.count is None:
            return None
        return self.family.count(**self.parameters)

    @property
    def width(self) -> int:
        """The number of masses of a row that are looked at first."""
        atoms = 2 * FEW if self.num_atoms is None else self.num_atoms
        return atoms if self.log_weights is None else atoms * self.log_weights.shape[-1]


def discrete(distribution: Distribution) -> Discrete | None:
    """The family and the parameters of a discrete distribution; None for another one."""
    if is_a(distribution, OneHotCategorical):
        distribution = distribution._categorical
    if is_a(distribution, MixtureSameFamily):
        return _mixture(distribution)
    if is_a(distribution, ZeroInflatedDistribution) and family_of(type(distribution)) is None:
        base = discrete(distribution.base_dist)
        return (
            None if base is None or base.log_weights is not None else _inflated(base, distribution)
        )
    family = family_of(type(distribution))
    if family is None or family.log_mass is None:
        return None
    return Discrete(family, in_float64_of(family, distribution))


def _mixture(distribution: MixtureSameFamily) -> Discrete | None:
    log_weights, parts = components(distribution)
    base = discrete(canonicalise(parts))
    if base is None or base.log_weights is not None:
        return None
    shape, vectors = parts.batch_shape, base.family.vectors
    parameters = {
        name: x.expand(shape + x.shape[x.dim() - (name in vectors) :])
        for name, x in base.parameters.items()
    }
    # weights in float32 do not sum to 1
    log_weights = in_float64(log_weights).log_softmax(-1)
    return Discrete(base.family, parameters, log_weights)


def _inflated(base: Discrete, distribution: ZeroInflatedDistribution) -> Discrete:
    """The base's family with an additional zero, whose gate is one more parameter."""
    family, names = base.family, tuple(read_gate(distribution))

    def opened(parameters: Parameters) -> tuple[Parameters, Gates]:
        rest = {name: x for name, x in parameters.items() if name not in names}
        return rest, log_gates(**{name: parameters[name] for name in names})

    def log_mass(k: Tensor, **parameters: Tensor) -> Tensor:
        rest, gates = opened(parameters)
        assert family.log_mass is not None
        log_base = family.log_mass(k, **rest)
        open_gates = gates[0].unsqueeze(-1), gates[1].unsqueeze(-1)
        return log_mass_inflated(k, log_base, log_base[..., :1], open_gates)

    def count(**parameters: Tensor) -> Any:
        rest, gates = opened(parameters)
        return None if family.count is None else replace(family.count(**rest), gates=gates)

    def num_atoms(**parameters: Tensor) -> int:
        assert family.num_atoms is not None
        return family.num_atoms(**opened(parameters)[0])

    inflated = replace(
        family,
        log_mass=log_mass,
        count=family.count and count,
        num_atoms=family.num_atoms and num_atoms,
    )
    gate = {name: in_float64(x) for name, x in read_gate(distribution).items()}
    return Discrete(inflated, {**base.parameters, **gate})
