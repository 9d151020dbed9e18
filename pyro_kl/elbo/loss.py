"""From the terms of all particles to one loss and its surrogate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from pyro.infer.util import MultiFrameTensor
from pyro.util import ignore_jit_warnings
from torch import Tensor

from .baselines import Baselines
from .collect import Collected
from .control_variate import ControlVariate
from .counting import count
from .counting import weighed as weigh
from .guides.plan import Plan
from .objective import Objective, Weighed
from .terms import Term
from .traces import Trace


class Particle:
    """The terms of one pair of traces, with the plan behind them."""

    def __init__(
        self, collected: Collected, plan: Plan, model_trace: Trace, guide_trace: Trace
    ) -> None:
        self.collected, self.plan = collected, plan
        self.model_trace, self.guide_trace = model_trace, guide_trace

    @property
    def terms(self) -> list[Term]:
        """All of them."""
        return self.collected.terms

    @property
    def has_scores(self) -> bool:
        """Whether any site is not reparametrised."""
        return any(term.score is not None for term in self.collected.single)

    @property
    def infinite(self) -> list[str]:
        """The sites with an exact KL of +inf."""
        with ignore_jit_warnings():
            return [t.name for t in self.terms if t.is_exact and bool(t.value.isinf().any())]

    @property
    def trainable(self) -> bool:
        """Whether model or guide have asked Pyro for parameters."""
        return any(
            site["type"] == "param"
            for trace in (self.model_trace, self.guide_trace)
            for site in trace.nodes.values()
        )

    def weights(self, weighed: Weighed) -> dict[str, Any]:
        """Site -> d penalty / d KL of its group, for each KL that is counted."""
        return {name: weighed.weights.get(group, 0.0) for name, group in self.plan.groups.items()}


class ElboTerms:
    """Loss, surrogate, weights."""

    def __init__(
        self,
        loss: Any,
        surrogate: Any,
        weighed: Weighed,
        particles: Sequence[Particle],
        num_particles: int,
    ) -> None:
        self.loss = loss
        self.surrogate = surrogate
        self.weights = weighed.weights
        self.particles, self.num_particles = particles, num_particles
        self._weighed = weighed

    @property
    def infinite(self) -> list[str]:
        """The sites whose exact KL has made the loss infinite."""
        if math.isfinite(self.loss):
            return []
        return list(dict.fromkeys(n for particle in self.particles for n in particle.infinite))

    @property
    def trainable(self) -> bool:
        """Whether there are parameters to train."""
        return any(particle.trainable for particle in self.particles)

    def with_control(self, control: ControlVariate | None) -> Any:
        """The surrogate with the control variate, if there is one."""
        if control is None:
            return self.surrogate
        extra: Any = 0.0
        for particle in self.particles:
            extra = extra + control.of(
                particle.plan,
                particle.model_trace,
                particle.guide_trace,
                particle.terms,
                {
                    name: weight.mean() if isinstance(weight, Tensor) else weight
                    for name, weight in particle.weights(self._weighed).items()
                },
            )
        extra = extra / self.num_particles
        if not isinstance(extra, Tensor):
            return self.surrogate
        return self.surrogate + control.learn(self.surrogate, extra) * extra


def _times(weight: Any, value: Any) -> Any:
    """The product, without a multiplication by one."""
    return value if not isinstance(weight, Tensor) and weight == 1.0 else weight * value


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


def _may_be_infinite(loss: Any) -> bool:
    """Whether a loss is not finite, or not known while a function is traced."""
    if torch._C._get_tracing_state():
        return True
    return not math.isfinite(loss)


def _score_function_part(
    terms: Sequence[Term], guide_trace: Trace, baselines: Baselines | None
) -> Any:
    """Sum over sites that are not reparametrised of score function times downstream cost.

    The cost is log likelihood minus KLs, which come weighed; an exact KL of the site itself is no
    cost of its samples and left out.
    """
    scores = [term for term in terms if term.score is not None]
    total: Any = 0.0
    for scored in scores:
        cost = MultiFrameTensor()
        for term in terms:
            if term is scored and not term.own_cost:
                continue
            value = term.value.detach()
            cost.add((term.frames, value if term.kind == "likelihood" else -value))
        at_site = cost.sum_to(scored.score_frames)
        options = guide_trace.nodes.get(scored.name, {}).get("infer", {}).get("baseline")
        if options and baselines is not None and isinstance(at_site, Tensor):
            baseline, own_loss = baselines.of(scored.name, options, at_site)
            at_site, total = at_site - baseline, total - own_loss
        total = total + (at_site * scored.score).sum()
    return total


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
    if beta is not None and not any(particle.has_scores for particle in particles):
        combined = _loss_alike(particles, beta, num_particles)
        if not _may_be_infinite(combined.loss):
            return combined
    groups = {name: g for particle in particles for name, g in particle.plan.groups.items()}
    every = [term for particle in particles for term in particle.terms]
    kls = count(every, groups, objective.per, plate, num_particles)
    weighed = objective.weigh(kls, levels)
    likelihood: Any = sum(t.value.detach().sum() for t in every if t.kind == "likelihood")
    loss = weighed.penalty - likelihood / num_particles
    infinite = _may_be_infinite(loss)
    surrogate: Any = 0.0
    for particle in particles:
        weights = particle.weights(weighed)
        terms = [
            term
            if term.kind == "likelihood"
            else weigh(
                _finite_part(term) if infinite else term,
                weights[term.name],
                kls[groups[term.name]].per,
            )
            for term in particle.terms
        ]
        for term in terms:
            if term.kind == "likelihood":
                surrogate = surrogate - term.surrogate.sum()
            else:
                surrogate = surrogate + term.surrogate.sum()
        surrogate = surrogate - _score_function_part(terms, particle.guide_trace, baselines)
    surrogate = surrogate / num_particles
    return ElboTerms(loss, surrogate, weighed, particles, num_particles)


def _loss_alike(particles: Sequence[Particle], beta: Any, num_particles: int) -> ElboTerms:
    """The same where all KLs weigh alike and no score function needs them one by one."""
    likelihood: Any = 0.0
    kl: Any = 0.0
    value: Any = 0.0
    for particle in particles:
        for term in particle.collected.single:
            total = term.surrogate.sum()
            if term.kind == "likelihood":
                likelihood = likelihood + total
            else:
                kl = kl + total
            if term.surrogate is not term.value:
                value = value + (term.value - term.surrogate).detach().sum()
        for batch in particle.collected.batches:
            kl = kl + batch.flat.sum()
    surrogate = (_times(beta, kl) - likelihood) / num_particles
    loss = surrogate.detach() if isinstance(surrogate, Tensor) else surrogate
    groups = {group for particle in particles for group in particle.plan.groups.values()}
    weighed = Weighed(math.nan, dict.fromkeys(groups, beta))
    loss = loss + _times(beta, value) / num_particles
    return ElboTerms(loss, surrogate, weighed, particles, num_particles)
