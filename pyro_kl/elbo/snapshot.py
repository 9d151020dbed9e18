"""The terms of the last evaluation, without their graph, and the report that they make."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .collect import Collected
from .free_bits import count
from .guides.plan import Plan
from .objective import Objective
from .report import KLReport, SiteReport
from .site_batches import SiteBatch
from .terms import SUMMED_OUT, Term, merged
from .weights_in_sums import weight_of_sum


class _Key(NamedTuple):
    """Which term: a site's, on the side of the likelihood or not."""

    is_likelihood: bool
    site: str


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
        objective: how they were weighted.
        levels: its numbers.
        step: of its schedules.
        num_particles: draws from the guide.
        plate: place of the particles' dim, 0 if they came one by one.
        groups: latent or auxiliary site -> group.
        changed_by: the method of a subclass that has changed the loss, if any.
        changed_loss: the loss that it returned.
    """

    objective: Objective
    levels: Any
    step: int
    num_particles: int
    plate: int
    groups: dict[str, str] = field(default_factory=dict)
    changed_by: str = ""
    changed_loss: float = math.nan
    _single: list[list[Term]] = field(default_factory=list)
    _batches: list[SiteBatch] = field(default_factory=list)

    @classmethod
    def empty(cls, elbo: Any, levels: Any) -> Snapshot:
        """No terms yet, of an ELBO at some step."""
        return cls(elbo.objective, levels, elbo.step_count, elbo.num_particles, elbo._plate)

    def add(self, collected: Collected, plan: Plan) -> None:
        """Take in the terms of one pair of traces."""
        self.groups.update(plan.groups)
        for batch in collected.batches:
            self._batches.append(batch.detached())
        single = [term.detached() for term in collected.single]
        if collected.continues:
            self._single[-1] += single
        else:
            self._single.append(single)

    @property
    def terms(self) -> dict[_Key, list[Term]]:
        """A site's key -> its term in each pair of traces.

        Likelihoods come first, then the sites in the model's order. A guide may score data of its
        own under the name of one of the model's sites: both have a key.
        """
        self._single += [batch.terms() for batch in self._batches]
        self._batches = []
        found: dict[_Key, list[Term]] = {}
        for of_particle in self._single:
            for key, term in _by_key(of_particle).items():
                found.setdefault(key, []).append(term)
        order = {name: i for i, name in enumerate(self.groups)}
        keys = sorted(found, key=lambda key: -1 if key.is_likelihood else order[key.site])
        return {key: found[key] for key in keys}

    def changed(self, by: str, loss: float) -> Snapshot | None:
        """The same with the loss that a subclass has made of it; None if it has used no term."""
        known = self._single or self._batches
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

        made = []
        for terms in self.terms.values():
            for term in terms:
                value, dims = renewed(term.value), renewed(term.dims)
                made.append(
                    replace(
                        term, value=value, surrogate=value, dims=dims,
                        scale=renewed(term.scale), mask=renewed(term.mask),
                        shape=(*value.shape, *term.shape[term.value.dim() :]),
                    )
                )  # fmt: skip
        return replace(self, step=step, levels=levels, _single=[[term] for term in made])

    # --- report -------------------------------------------------------------------------------

    def report(self) -> KLReport:
        """Every term in nats."""
        terms = self.terms
        every = [term for of_site in terms.values() for term in of_site]
        weighed = [term for term in every if term.method != SUMMED_OUT]
        kls = count(weighed, self.groups, self.objective.per, self.plate, self.num_particles)
        weighted = self.objective.weigh(kls, self.levels)
        weights = {group: kls[group].mean(weight) for group, weight in weighted.weights.items()}
        for term in every:
            if term.method == SUMMED_OUT and term.kind == "latent":
                weights[term.name] = weight_of_sum(self.objective, [term.name], self.levels)
        values = {key: self._particles(of_site) for key, of_site in terms.items()}
        rows = [self._row(key, terms[key], values[key], weights) for key in terms]
        likelihood = sum(row.nats for row in rows if row.kind == "likelihood")
        kl = sum(row.nats for row in rows if row.kind != "likelihood")
        summed_out = sum(
            row.weight * row.nats
            for row in rows
            if row.method == SUMMED_OUT and row.kind == "latent"
        )
        signed = [x if key.is_likelihood else -x for key, x in values.items()]
        full = [x for x in signed if x.numel() == self.num_particles]
        objective = self.objective.describe(self.levels)
        loss = float(weighted.penalty) + summed_out - likelihood
        if self.changed_by:
            loss = self.changed_loss
            objective = ", ".join(filter(None, [objective, f"changed by {self.changed_by}"]))
        return KLReport(
            sites=tuple(rows),
            loss=loss,
            elbo=likelihood - kl,
            elbo_standard_error=_standard_error(sum(full[1:], start=full[0])) if full else 0.0,
            log_likelihood=likelihood,
            kl=kl,
            num_particles=self.num_particles,
            step=self.step,
            objective=objective,
            together=tuple(dict.fromkeys(x.together for x in every if len(x.together) > 1)),
        )

    def _particles(self, terms: list[Term]) -> Tensor:
        """One number for each particle of a site, or one for all if they do not differ."""
        parts = [per_particle(term.value, self.plate, self.num_particles) for term in terms]
        return torch.cat(parts).double()

    def _row(
        self, key: _Key, terms: list[Term], values: Tensor, weights: Mapping[str, float]
    ) -> SiteReport:
        term = terms[0]
        raw = sum(((x.value / x.scale).sum() for x in terms), start=torch.zeros(()))
        return SiteReport(
            site=key.site,
            kind=term.kind,
            nats=float(values.sum() / self.num_particles),
            raw=float(raw / self.num_particles),
            standard_error=_standard_error(values),
            method=term.method,
            reason=term.reason,
            source=term.source,
            weight=math.nan if key.is_likelihood else weights.get(self.groups[key.site], 1.0),
            scale=_mean_scale(term.scale),
            masked=_masked_fraction(term.mask),
            shape=self._shape(term),
            per_dimension=self._per_dimension(terms),
        )

    def _shape(self, term: Term) -> tuple[int, ...]:
        """Shape of the value without the particles' dim and the dims to the left of it."""
        if not self.plate:
            return term.shape
        event_dim = len(term.shape) - term.value.dim()
        cut = len(term.shape) - event_dim - self.plate
        kept = list(term.shape[cut + 1 :] if cut >= 0 else term.shape)
        while kept and kept[0] == 1 and len(kept) > event_dim:
            kept.pop(0)
        return tuple(kept)

    def _per_dimension(self, terms: list[Term]) -> Any:
        """KL of each element, averaged over the particles; None if one was sampled."""
        parts = []
        for term in terms:
            dims = term.dims
            if dims is None:
                return None
            place = dims.dim() - max(dims.dim() - term.value.dim(), 0) - self.plate
            if self.plate and place >= 0:
                dims = dims.mean(place)
            parts.append(dims)
        mean = sum(parts[1:], start=parts[0]) / len(parts)
        return mean.squeeze().tolist() if mean.dim() else float(mean)


def terms_shown(collected: Collected) -> list[Term]:
    """The terms of a pair of traces, as a report shows them."""
    return list(_by_key(collected.terms).values())


def _by_key(terms: Iterable[Term]) -> dict[_Key, Term]:
    """The terms of one particle that a report shows; a site's terms in several traces are one."""
    found: dict[_Key, Term] = {}
    for term in terms:
        for part in [term] if term.shown_as is None else term.shown_as():
            key = _Key(part.kind == "likelihood", part.name)
            found[key] = part if key not in found else merged(found[key], part)
    return found


def _standard_error(values: Tensor) -> float:
    """Standard error of the mean; nan for one value, 0 for equal values, whose sd may round up."""
    if values.numel() < 2:
        return math.nan
    if bool((values == values[0]).all()):
        return 0.0
    return float(values.std() / math.sqrt(values.numel()))


def _mean_scale(scale: Any) -> float:
    return float(scale.float().mean()) if isinstance(scale, Tensor) else float(scale)


def _masked_fraction(mask: Any) -> float:
    """The fraction of the elements that a mask leaves out."""
    if mask is None or mask is True:
        return 0.0
    return 1.0 if mask is False else 1.0 - float(mask.float().mean())
