"""From the terms of all particles to one loss and its surrogate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyro.util import ignore_jit_warnings
from torch import Tensor

from ..numerics.concrete import is_recorded, is_step_recorded
from .baselines import Baselines
from .collect import Collected
from .control_variate import ControlVariate
from .free_bits import count, weighted_term
from .guides.plan import Plan
from .objective import Objective, Weighted
from .score_functions import score_function_part
from .terms import Term
from .traces import Traces


@dataclass
class Particle:
    """The terms of one pair of traces, with the plan behind them."""

    collected: Collected
    plan: Plan
    traces: Traces

    @property
    def infinite(self) -> list[str]:
        """The sites with an exact KL of +inf."""
        with ignore_jit_warnings():
            return [
                term.name
                for term in self.collected.terms
                if term.is_exact and bool(term.value.isinf().any())
            ]

    def weights(self, weighted: Weighted) -> dict[str, Any]:
        """Site -> d penalty / d KL of its group, for each KL that is counted."""
        return {name: weighted.weights.get(group, 0.0) for name, group in self.plan.groups.items()}


@dataclass
class ElboTerms:
    """Loss and surrogate from the terms of all particles.

    Attributes:
        loss: nats.
        surrogate: what is differentiated in its place.
        weighted: the weight of each KL.
        particles: pairs of traces.
        num_particles: what sums over particles are divided by.
    """

    loss: Any
    surrogate: Any
    weighted: Weighted
    particles: Sequence[Particle]
    num_particles: int

    @property
    def infinite(self) -> list[str]:
        """The sites whose exact KL has made the loss infinite."""
        return list(dict.fromkeys(n for particle in self.particles for n in particle.infinite))

    def backward(self, retain_graph: bool | None, control: ControlVariate | None = None) -> None:
        """Add the gradient to the `.grad` of the parameters, if the trace has any."""
        surrogate = self.surrogate if control is None else self.with_control(control)
        if not getattr(surrogate, "requires_grad", False):
            return
        for particle in self.particles:
            for trace in reversed(particle.traces):  # the guide's has most parameters
                for node in trace.nodes.values():
                    if node["type"] == "param":
                        surrogate.backward(retain_graph=retain_graph)
                        return

    def with_control(self, control: ControlVariate | None) -> Any:
        """The surrogate with the control variate, if there is one."""
        if control is None:
            return self.surrogate
        extra: Any = 0.0
        for particle in self.particles:
            extra = extra + control.of(
                particle.plan,
                particle.traces,
                particle.collected.terms,
                {
                    name: weight.mean() if isinstance(weight, Tensor) else weight
                    for name, weight in particle.weights(self.weighted).items()
                },
            )
        extra = extra / self.num_particles
        if not isinstance(extra, Tensor):
            return self.surrogate
        return self.surrogate + control.learn(self.surrogate, extra) * extra


def loss_of(
    particles: Sequence[Particle],
    objective: Objective,
    levels: Any,
    num_particles: int,
    plate: int = 0,
    baselines: Baselines | None = None,
) -> ElboTerms:
    """Average the KLs, weigh them, and put loss and surrogate together.

    Where an exact KL is +inf, so is the loss; the gradient is that of all other terms.

    Args:
        particles: pairs of traces, one or all of them.
        objective: what weighs the KLs.
        levels: its numbers at this step.
        num_particles: what sums over particles are divided by.
        plate: place of the particles' dim, 0 if they come one by one.
        baselines: of score functions.
    """
    beta = objective.one_weight(levels)
    if beta is not None:
        alike = _with_one_weight(particles, beta, num_particles)
        if alike is not None:
            return alike
    groups = {name: g for particle in particles for name, g in particle.plan.groups.items()}
    every = [term for particle in particles for term in particle.collected.terms]
    kls = count(every, groups, objective.per, plate, num_particles)
    weighted = objective.weigh(kls, levels)
    likelihood: Any = sum(t.value.detach().sum() for t in every if t.kind == "likelihood")
    loss = weighted.penalty - likelihood / num_particles
    infinite = _may_be_infinite(loss)
    surrogate: Any = 0.0
    for particle in particles:
        weights = particle.weights(weighted)
        terms: list[Term] = []
        for term in particle.collected.terms:
            if term.kind == "likelihood":
                surrogate = surrogate - term.surrogate.sum()
            else:
                finite = _finite_part(term) if infinite else term
                term = weighted_term(finite, weights[term.name], kls[groups[term.name]].per)
                surrogate = surrogate + term.surrogate.sum()
            terms.append(term)
        surrogate = surrogate - score_function_part(
            terms, particle.plan, particle.traces, baselines
        )
    return ElboTerms(loss, surrogate / num_particles, weighted, particles, num_particles)


def _with_one_weight(
    particles: Sequence[Particle], beta: Any, num_particles: int
) -> ElboTerms | None:
    """The same where all KLs have one weight; None where a term has to be looked at by itself.

    A sum that starts from a number, a factor of 1 and a sum of one number would each be an
    operation with a gradient of its own.
    """
    likelihoods: list[Tensor] = []
    kls: list[Tensor] = []
    value: Any = 0.0
    weights: dict[str, Any] = {}
    for particle in particles:
        weights.update(dict.fromkeys(particle.plan.groups.values(), beta))
        for term in particle.collected.single:
            if term.score is not None:
                return None
            if term.kind == "likelihood":
                likelihoods.append(_total(term.surrogate) if term.total is None else term.total)
            else:
                kls.append(_total(term.surrogate))
            if term.surrogate is not term.value:
                value = value + (term.value - term.surrogate).detach().sum()
        kls += [batch.flat.sum() for batch in particle.collected.batches]
    kl, likelihood = _sum(kls), _sum(likelihoods)
    if isinstance(beta, Tensor) or beta != 1.0:
        kl, value = beta * kl, beta * value
    surrogate = kl - likelihood if likelihoods else kl
    if num_particles != 1:
        surrogate, value = surrogate / num_particles, value / num_particles
    loss = surrogate.detach() if isinstance(surrogate, Tensor) else surrogate
    if isinstance(value, Tensor):
        loss = loss + value
    if _may_be_infinite(loss):
        return None
    return ElboTerms(loss, surrogate, Weighted(math.nan, weights), particles, num_particles)


def _total(x: Tensor) -> Tensor:
    return x.sum() if x.dim() else x


def _sum(numbers: Sequence[Tensor]) -> Any:
    return sum(numbers[1:], start=numbers[0]) if numbers else 0.0


def _may_be_infinite(loss: Any) -> bool:
    """Whether a loss is not finite, or not known while a function is traced."""
    if is_step_recorded():
        return False  # a step with an infinite loss is not taken by its record
    return is_recorded() or not math.isfinite(loss)


def _finite_part(term: Term) -> Term:
    """A term without the elements whose exact KL is +inf: no draw and no gradient changes them."""
    if not term.is_exact:
        return term
    value = term.value.masked_fill(term.value.isinf(), 0.0)
    surrogate = value
    if term.surrogate is not term.value:
        surrogate = term.surrogate.masked_fill(term.value.isinf(), 0.0)
    dims = None if term.dims is None else term.dims.masked_fill(term.dims.isinf(), 0.0)
    return replace(term, value=value, surrogate=surrogate, dims=dims)
