"""What the last evaluation has computed, kept without its graph until somebody asks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .bundle import Bundle
from .collect import Collected
from .objective import Objective
from .plan import Plan
from .report import KLReport, SiteReport, masked_fraction, mean_scale
from .terms import Term

__all__ = ["Snapshot", "per_particle"]


def per_particle(value: Tensor, plate: int, num_particles: int) -> Tensor:
    """Sum a term to one number for each particle.

    Args:
        value: of a site's batch shape.
        plate: distance from the right of the dim of a vectorized run's particles; 0 if there is
            none.
        num_particles: its size.
    """
    if not plate or value.dim() < plate or value.shape[-plate] != num_particles:
        return value.sum().reshape(1)
    return value.movedim(-plate, 0).reshape(num_particles, -1).sum(-1)


@dataclass
class Snapshot:
    """Terms of all particles, detached.

    Attributes:
        objective: how they were weighed.
        levels: its numbers.
        step: of its schedules.
        num_particles: draws from the guide.
        plate: place of the particles' dim, 0 if they came one by one.
        groups: site -> group.
        weights: group -> slope.
        known_totals: site -> nats, where a traced function has computed them.
    """

    objective: Objective
    levels: Any
    step: int
    num_particles: int
    plate: int
    groups: dict[str, str] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    known_totals: dict[str, Tensor] | None = None
    _terms: dict[str, list[Term]] = field(default_factory=dict)
    _bundles: list[Bundle] = field(default_factory=list)

    @classmethod
    def empty(cls, elbo: Any, levels: Any) -> Snapshot:
        """Nothing yet, of an ELBO at some step."""
        plate = int(elbo.max_plate_nesting) if elbo._vectorized else 0
        return cls(elbo.objective, levels, elbo.step_count, elbo.num_particles, plate)

    def add(self, collected: Collected, plan: Plan, weights: Mapping[str, Any]) -> None:
        """Take in the terms of one pair of traces; bundles are opened when somebody asks."""
        self.groups.update(plan.groups)
        self.weights.update(weights)
        self._bundles += [bundle.detached() for bundle in collected.bundles]
        for term in collected.single:
            self._keep(term)

    def _keep(self, term: Term) -> None:
        dims = None if term.dims is None else term.dims.detach()
        value = term.value.detach()
        kept = replace(term, value=value, surrogate=value, score=None, dims=dims)
        self._terms.setdefault(term.name, []).append(kept)

    @property
    def terms(self) -> dict[str, list[Term]]:
        """Site -> its term in each pair of traces: likelihood first, then as in the model."""
        for bundle in self._bundles:
            for term in bundle.terms():
                self._keep(term)
        self._bundles = []
        order = {name: i for i, name in enumerate(self.groups)}
        self._terms = dict(sorted(self._terms.items(), key=lambda item: order.get(item[0], -1)))
        return self._terms

    def totals(self) -> list[Tensor]:
        """Nats of each site, in the order of `terms`."""
        return [
            sum((term.value.sum() for term in terms), start=torch.zeros(())) / self.num_particles
            for terms in self.terms.values()
        ]

    def with_totals(self, values: Sequence[Tensor], levels: Any) -> Snapshot:
        """The same sites with the numbers of another run of the traced function."""
        known = dict(zip(self.terms, (value.detach() for value in values), strict=True))
        return replace(self, known_totals=known, levels=levels)

    # --- report -------------------------------------------------------------------------------

    def _particles(self, name: str) -> Tensor:
        """One number for each particle of a site, as far as they are known."""
        if self.known_totals is not None:
            return self.known_totals[name].reshape(1)
        parts = [
            per_particle(term.value, self.plate, self.num_particles) for term in self.terms[name]
        ]
        return torch.cat(parts).double()

    def _weights(self) -> dict[str, float]:
        """Group -> slope, computed anew if the numbers are those of a traced function."""
        if self.known_totals is None:
            return {name: float(weight) for name, weight in self.weights.items()}
        return {name: float(w) for name, w in self._weighed().weights.items()}

    def _weighed(self) -> Any:
        kls: dict[str, Tensor] = {}
        latent = set()
        for name, terms in self.terms.items():
            if terms[0].kind != "likelihood":
                group = self.groups[name]
                share = self._particles(name).sum() / self._count(name)
                kls[group] = kls[group] + share if group in kls else share
                latent |= {group} if terms[0].kind == "latent" else set()
        return self.objective.weigh(kls, self.levels, latent)

    def _count(self, name: str) -> int:
        """How many particles a site's numbers sum over."""
        return 1 if self.known_totals is not None else self.num_particles

    def report(self) -> KLReport:
        """Every term in nats."""
        weights = self._weights()
        rows = [self._row(name, weights) for name in self.terms]
        likelihood = sum(row.nats for row in rows if row.kind == "likelihood")
        kl = sum(row.nats for row in rows if row.kind != "likelihood")
        penalty = float(self._weighed().penalty)
        return KLReport(
            sites=tuple(rows),
            loss=penalty - likelihood,
            elbo=likelihood - kl,
            elbo_standard_error=self._elbo_error(),
            log_likelihood=likelihood,
            kl=kl,
            num_particles=self.num_particles,
            step=self.step,
            objective=self.objective.describe(self.levels),
        )

    def _elbo_error(self) -> float:
        signed = [
            self._particles(name) * (1 if terms[0].kind == "likelihood" else -1)
            for name, terms in self.terms.items()
        ]
        full = [x for x in signed if x.numel() == self.num_particles]
        return _standard_error(sum(full[1:], start=full[0])) if full else 0.0

    def _row(self, name: str, weights: Mapping[str, float]) -> SiteReport:
        term, values = self.terms[name][0], self._particles(name)
        nats = float(values.sum() / self._count(name))
        scale = mean_scale(term.scale)
        is_likelihood = term.kind == "likelihood"
        return SiteReport(
            site=name,
            kind=term.kind,
            nats=nats,
            raw=self._raw(name, nats),
            standard_error=_standard_error(values),
            method=term.method,
            reason=term.reason,
            source=term.source,
            weight=math.nan if is_likelihood else weights.get(self.groups[name], 1.0),
            scale=scale,
            masked=masked_fraction(term.mask),
            shape=self._shape(term),
            per_dimension=self._per_dimension(name),
        )

    def _raw(self, name: str, nats: float) -> float:
        """Nats without the scale of the site."""
        term = self.terms[name][0]
        if not isinstance(term.scale, Tensor) or self.known_totals is not None:
            return nats / mean_scale(term.scale)
        parts = [(term.value / term.scale).sum() for term in self.terms[name]]
        return float(sum(parts, start=torch.zeros(())) / self.num_particles)

    def _shape(self, term: Term) -> tuple[int, ...]:
        """Shape of the value without the particles' dim and what is left of it."""
        if not self.plate:
            return term.shape
        event_dim = len(term.shape) - term.value.dim()
        cut = len(term.shape) - event_dim - self.plate
        kept = list(term.shape[cut + 1 :] if cut >= 0 else term.shape)
        while kept and kept[0] == 1 and len(kept) > event_dim:
            kept.pop(0)
        return tuple(kept)

    def _per_dimension(self, name: str) -> Any:
        """KL of each element, averaged over the particles."""
        parts = []
        for term in self.terms[name]:
            if term.dims is None:
                return None
            event_dims = term.dims.dim() - term.value.dim()
            dims = term.dims
            place = dims.dim() - max(event_dims, 0) - self.plate
            if self.plate and place >= 0:
                dims = dims.mean(place)
            parts.append(dims)
        mean = sum(parts[1:], start=parts[0]) / len(parts)
        return mean.squeeze().tolist() if mean.dim() else float(mean)


def _standard_error(values: Tensor) -> float:
    """Standard error of the mean of values, nan for one value alone; rounding is no error."""
    if values.numel() < 2:
        return math.nan
    if bool((values == values[0]).all()):
        return 0.0
    return float(values.std() / math.sqrt(values.numel()))
