"""What the last evaluation has computed, kept without its graph until somebody asks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .collect import Collected
from .counting import Counted, count
from .guides.plan import Plan
from .objective import Objective
from .report import KLReport, SiteReport, masked_fraction, mean_scale
from .site_batches import SiteBatch
from .terms import Term


class _Key(NamedTuple):
    """Which term: a site's, on the side of the likelihood or not."""

    is_likelihood: bool
    site: str


def _key(term: Term) -> _Key:
    return _Key(term.kind == "likelihood", term.name)


def _detached(term: Term) -> Term:
    dims = None if term.dims is None else term.dims.detach()
    value = term.value.detach()
    return replace(term, value=value, surrogate=value, score=None, dims=dims)


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
        groups: latent or auxiliary site -> group.
        changed_by: the method of a subclass that has changed the loss, if any.
        changed_loss: what it has come to.
    """

    objective: Objective
    levels: Any
    step: int
    num_particles: int
    plate: int
    groups: dict[str, str] = field(default_factory=dict)
    changed_by: str = ""
    changed_loss: float = math.nan
    _terms: dict[_Key, list[Term]] = field(default_factory=dict)
    _bundles: list[SiteBatch] = field(default_factory=list)

    @classmethod
    def empty(cls, elbo: Any, levels: Any) -> Snapshot:
        """Nothing yet, of an ELBO at some step."""
        return cls(elbo.objective, levels, elbo.step_count, elbo.num_particles, elbo._plate)

    def add(self, collected: Collected, plan: Plan) -> None:
        """Take in the terms of one pair of traces; batches are opened when somebody asks."""
        self.groups.update(plan.groups)
        self._bundles += [batch.detached() for batch in collected.batches]
        for term in collected.single:
            self._keep(term)

    def _keep(self, term: Term) -> None:
        self._terms.setdefault(_key(term), []).append(_detached(term))

    @property
    def terms(self) -> dict[_Key, list[Term]]:
        """Likelihood or not and site -> its term in each pair of traces; as in the model.

        A guide may score data of its own under the name of the model's: both have a place.
        """
        for batch in self._bundles:
            for term in batch.terms():
                self._keep(term)
        self._bundles = []
        order = {name: i for i, name in enumerate(self.groups)}
        self._terms = dict(
            sorted(
                self._terms.items(),
                key=lambda item: -1 if item[0].is_likelihood else order[item[0].site],
            )
        )
        return self._terms

    def changed(self, by: str, loss: float) -> Snapshot | None:
        """The same with the loss that a subclass has made of it; None if it asked for no term."""
        known = self._terms or self._bundles
        return replace(self, changed_by=by, changed_loss=loss) if known else None

    # --- traced functions -----------------------------------------------------------------------

    def tensors(self) -> list[Tensor]:
        """All tensors of all terms, in a fixed order: what a traced function has to return."""
        return [
            tensor
            for terms in self.terms.values()
            for term in terms
            for tensor in (term.value, term.dims, term.scale, term.mask)
            if isinstance(tensor, Tensor)
        ]

    def with_tensors(self, tensors: Iterable[Tensor], step: int, levels: Any) -> Snapshot:
        """The same sites with the tensors of another run of the traced function."""
        fresh = iter(tensors)

        def renewed(old: Any) -> Any:
            return next(fresh).detach() if isinstance(old, Tensor) else old

        made: dict[_Key, list[Term]] = {key: [] for key in self.terms}
        for key, terms in self.terms.items():
            for term in terms:
                value, dims = renewed(term.value), renewed(term.dims)
                made[key].append(
                    replace(
                        term, value=value, surrogate=value, dims=dims,
                        scale=renewed(term.scale), mask=renewed(term.mask),
                        shape=(*value.shape, *term.shape[term.value.dim() :]),
                    )
                )  # fmt: skip
        return replace(self, step=step, levels=levels, _terms=made)

    # --- report -------------------------------------------------------------------------------

    def _particles(self, key: _Key) -> Tensor:
        """One number for each particle of a site, as far as they differ."""
        parts = [
            per_particle(term.value, self.plate, self.num_particles) for term in self.terms[key]
        ]
        return torch.cat(parts).double()

    def _nats(self, key: _Key) -> float:
        return float(self._particles(key).sum() / self.num_particles)

    def _counted(self) -> dict[str, Counted]:
        terms = [term for terms in self.terms.values() for term in terms]
        return count(terms, self.groups, self.objective.per, self.plate, self.num_particles)

    def report(self) -> KLReport:
        """Every term in nats."""
        kls = self._counted()
        weighed = self.objective.weigh(kls, self.levels)
        weights = {group: kls[group].mean(weight) for group, weight in weighed.weights.items()}
        rows = [self._row(key, weights) for key in self.terms]
        likelihood = sum(row.nats for row in rows if row.kind == "likelihood")
        kl = sum(row.nats for row in rows if row.kind != "likelihood")
        objective = self.objective.describe(self.levels)
        loss = float(weighed.penalty) - likelihood
        if self.changed_by:
            loss = self.changed_loss
            objective = ", ".join(filter(None, [objective, f"changed by {self.changed_by}"]))
        return KLReport(
            sites=tuple(rows),
            loss=loss,
            elbo=likelihood - kl,
            elbo_standard_error=self._elbo_error(),
            log_likelihood=likelihood,
            kl=kl,
            num_particles=self.num_particles,
            step=self.step,
            objective=objective,
        )

    def _elbo_error(self) -> float:
        signed = [self._particles(key) * (1 if key.is_likelihood else -1) for key in self.terms]
        full = [x for x in signed if x.numel() == self.num_particles]
        return _standard_error(sum(full[1:], start=full[0])) if full else 0.0

    def _row(self, key: _Key, weights: Mapping[str, float]) -> SiteReport:
        term, values = self.terms[key][0], self._particles(key)
        return SiteReport(
            site=key.site,
            kind=term.kind,
            nats=self._nats(key),
            raw=self._raw(key),
            standard_error=_standard_error(values),
            method=term.method,
            reason=term.reason,
            source=term.source,
            weight=math.nan if key.is_likelihood else weights[self.groups[key.site]],
            scale=mean_scale(term.scale),
            masked=masked_fraction(term.mask),
            shape=self._shape(term),
            per_dimension=self._per_dimension(key),
        )

    def _raw(self, key: _Key) -> float:
        """Nats without the scale of the site."""
        parts = [(term.value / term.scale).sum() for term in self.terms[key]]
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

    def _per_dimension(self, key: _Key) -> Any:
        """KL of each element, averaged over the particles."""
        parts = []
        for term in self.terms[key]:
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
