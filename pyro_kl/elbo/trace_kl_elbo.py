"""TraceKL_ELBO: the KL penalty of every site, exact where it can be."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pyro.ops.jit
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.util import MultiFrameTensor, torch_item
from pyro.util import warn_if_nan
from torch import Tensor

from .collect import Collected, collect
from .control_variate import ControlVariate
from .objective import Levels, Objective, Weighed
from .plan import Plan, Run, make_plan, structure_of, warn_of, warn_of_settings
from .report import KLReport
from .snapshot import Snapshot
from .terms import Term
from .traces import Trace, paired_traces

__all__ = ["JitTraceKL_ELBO", "TraceKL_ELBO"]

_MODES = ("check", "assume", "never")


class TraceKL_ELBO(Trace_ELBO):
    """An ELBO whose KL terms are exact wherever they can be, and which says where they are.

    The loss is `-E_q[log likelihood] + penalty(KL of each site)`, in nats. Each latent's KL is, in
    this order, a closed form, an exact sum, a quadrature, or a sample of `log q - log p`. An
    autoguide's auxiliary Normal and its Delta count as the one law that they are; joint Gaussian
    autoguides are taken apart by the chain rule. A drop-in for every ELBO of Pyro's that does
    not enumerate: latents that are not reparametrised get score-function gradients.

    A KL is exact only if that is valid (no parent of the site in the model descends from it in
    the guide) and if model and guide agree on scale and mask; else the site is sampled, with a
    warning that names it. Whether the exact KL also lowers the variance of the gradient depends
    on the model: see `docs/elbo_variance.md`.

    Args:
        beta: weight of the KL: a number, a schedule (`LinearWarmup`, `Cyclical`, `Constant`, or
            any function of the step), or `{site: number or schedule}`.
        free_bits: nats of each site's KL that are not penalised; a number or `{site: number}`.
        capacity: the KL that is aimed at instead of 0; a number, a schedule, or `{site: ...}`.
        mean_field: "check" tests validity and samples the sites that fail; "assume" takes every
            exact KL to be valid; "never" samples all of them.
        control_variate: whether to add a running multiple of (sampled - exact KL), whose mean is
            zero, to lower the gradient's variance where the sampled KL would be the better one.
        **kwargs: as for `pyro.infer.Trace_ELBO`: num_particles, vectorize_particles,
            max_plate_nesting, retain_graph, ...

    Attributes:
        step_count: gradients taken so far: where schedules are.

    Example:
        >>> def model():
        ...     pyro.sample("z", pyro.distributions.Gamma(2.0, 1.0))
        >>> guide = pyro.infer.autoguide.AutoDelta(model)
        >>> elbo = pyro_kl.TraceKL_ELBO()
        >>> svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), elbo)
        >>> loss = svi.step()
        >>> elbo.report["z"].method
        'point density'
    """

    def __init__(
        self,
        *,
        beta: Levels = 1.0,
        free_bits: Levels = 0.0,
        capacity: Levels | None = None,
        mean_field: str = "check",
        control_variate: bool = False,
        **kwargs: Any,
    ) -> None:
        if mean_field not in _MODES:
            raise ValueError(f"mean_field must be one of {', '.join(_MODES)}, got {mean_field!r}")
        super().__init__(**kwargs)
        self.objective = Objective(beta, free_bits, capacity)
        self.mean_field = mean_field
        self.control_variate = ControlVariate() if control_variate else None
        self.step_count = 0
        self._plans: dict[Any, Plan] = {}
        self._told: set[str] = set()
        self._snapshot: Snapshot | None = None

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.update(_plans={}, _snapshot=None)  # they know the guide
        return state

    # --- traces and terms ---------------------------------------------------------------------

    def _get_trace(
        self, model: Any, guide: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Trace, Trace]:
        return paired_traces(model, guide, args, kwargs, self.max_plate_nesting)

    def _particles(self, run: Run, every_density: bool = False) -> Iterator[_Particle]:
        """The terms of each pair of traces."""
        for model_trace, guide_trace in self._get_traces(
            run.model, run.guide, run.args, run.kwargs
        ):
            plan = self._plan_for(model_trace, guide_trace, run)
            try:
                collected = collect(plan, model_trace, guide_trace, every_density)
            except NotImplementedError:  # same types, other laws: look again
                plan = self._plan_for(model_trace, guide_trace, run, anew=True)
                collected = collect(plan, model_trace, guide_trace, every_density)
            if not all(plan.agrees.values()):
                warn_of_settings(plan, self._told)
            yield _Particle(collected, plan, model_trace, guide_trace)

    def _plan_for(
        self, model_trace: Trace, guide_trace: Trace, run: Run, anew: bool = False
    ) -> Plan:
        key = structure_of(model_trace, guide_trace)
        plan = None if anew else self._plans.get(key)
        if plan is None:
            plan = make_plan(model_trace, guide_trace, run, self.mean_field)
            self.objective.check_sites(plan.groups)
            self._plans[key] = plan
            warn_of(plan, self._told)
        return plan

    @property
    def _vectorized(self) -> bool:
        return bool(self.vectorize_particles) and self.num_particles > 1

    # --- losses -------------------------------------------------------------------------------

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The loss in nats, without gradients and without a step of the schedules.

        Args:
            model: the model.
            guide: the guide.
            *args: of model and guide.
            **kwargs: of model and guide.
        """
        with torch.no_grad():
            loss = self._evaluate(Run(model, guide, args, kwargs)).loss
        value: Any = torch_item(loss)
        warn_if_nan(value, "loss")
        return value

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        """The loss in nats, to be differentiated by the caller.

        Args:
            model: the model.
            guide: the guide.
            *args: of model and guide.
            **kwargs: of model and guide.
        """
        result = self._evaluate(Run(model, guide, args, kwargs))
        if torch.is_grad_enabled():
            self.step_count += 1
        surrogate = result.with_control(self.control_variate)
        warn_if_nan(surrogate, "loss")
        if not isinstance(surrogate, Tensor):
            return result.loss + 0.0 * surrogate
        return result.controlled_loss + (surrogate - surrogate.detach())

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The loss in nats; the gradient is added to the parameters' `.grad`.

        Args:
            model: the model.
            guide: the guide.
            *args: of model and guide.
            **kwargs: of model and guide.
        """
        run = Run(model, guide, args, kwargs)
        if self.objective.is_linear and self.control_variate is None and not self._vectorized:
            loss: Any = self._particle_by_particle(run)
        else:
            result = self._evaluate(run)
            surrogate = result.with_control(self.control_variate)
            loss = torch_item(result.controlled_loss)
            if result.trainable and getattr(surrogate, "requires_grad", False):
                surrogate.backward(retain_graph=self.retain_graph)
        self.step_count += 1
        warn_if_nan(loss, "loss")
        return loss

    def _particle_by_particle(self, run: Run) -> float:
        """Loss and gradient with the memory of one particle: for a penalty that is a sum."""
        levels = self.objective.levels(self.step_count)
        loss: Any = 0.0
        snapshot = Snapshot.empty(self, levels)
        for particle in self._particles(run):
            result = self._combine([particle], levels)
            snapshot.add(particle.collected, particle.plan, result.weights)
            loss = loss + torch_item(result.loss)
            if result.trainable and getattr(result.surrogate, "requires_grad", False):
                result.surrogate.backward(retain_graph=self.retain_graph)
        self._snapshot = snapshot
        return loss

    def _evaluate(
        self, run: Run, levels: Any = None, every_density: bool | None = None
    ) -> _Result:
        """All particles, and what they come to."""
        levels = self.objective.levels(self.step_count) if levels is None else levels
        if every_density is None:
            every_density = self.control_variate is not None
        particles = list(self._particles(run, every_density))
        result = self._combine(particles, levels)
        snapshot = Snapshot.empty(self, levels)
        for particle in particles:
            snapshot.add(particle.collected, particle.plan, result.weights)
        self._snapshot = snapshot
        return result

    def _combine(self, particles: list[_Particle], levels: Any) -> _Result:
        """Average the KLs, weigh them, and put loss and surrogate together."""
        beta = self.objective.one_weight(levels)
        if beta is not None and not any(particle.has_scores for particle in particles):
            return self._combine_alike(particles, beta)
        kls: dict[str, Tensor] = {}
        for particle in particles:
            particle.add_kls(kls, self.num_particles)
        bendable = {name for particle in particles for name in particle.latent_groups()}
        weighed = self.objective.weigh(kls, levels, bendable)
        likelihood: Any = 0.0
        surrogate: Any = 0.0
        for particle in particles:
            weights = particle.weights(weighed)
            for term in particle.terms:
                if term.kind == "likelihood":
                    likelihood = likelihood + term.value.detach().sum()
                    surrogate = surrogate - term.surrogate.sum()
                else:
                    surrogate = surrogate + _times(weights[term.name], term.surrogate.sum())
            surrogate = surrogate - _score_function_part(particle.terms, weights)
        loss = weighed.penalty - likelihood / self.num_particles
        surrogate = surrogate / self.num_particles
        return _Result(loss, surrogate, weighed, particles, self.num_particles)

    def _combine_alike(self, particles: list[_Particle], beta: Any) -> _Result:
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
            for bundle in particle.collected.bundles:
                kl = kl + bundle.flat.sum()
        surrogate = (_times(beta, kl) - likelihood) / self.num_particles
        loss = surrogate.detach() if isinstance(surrogate, Tensor) else surrogate
        groups = {group for particle in particles for group in particle.plan.groups.values()}
        weighed = Weighed(math.nan, dict.fromkeys(groups, beta))
        loss = loss + _times(beta, value) / self.num_particles
        return _Result(loss, surrogate, weighed, particles, self.num_particles)

    # --- what was computed --------------------------------------------------------------------

    @property
    def report(self) -> KLReport:
        """Every term of the last evaluation: KL per site, method, true ELBO, objective.

        Raises:
            RuntimeError: nothing has been evaluated yet.
        """
        if self._snapshot is None:
            raise RuntimeError("No report yet: evaluate the loss, or call elbo.evaluate(...).")
        return self._snapshot.report()

    def evaluate(
        self, model: Any, guide: Any, *args: Any, num_particles: int = 100, **kwargs: Any
    ) -> KLReport:
        """Every term of the ELBO over fresh particles, with standard errors; no gradients.

        Args:
            model: the model.
            guide: the guide.
            *args: of model and guide.
            num_particles: how many draws from the guide.
            **kwargs: of model and guide.

        Returns:
            The report; `elbo.report` is it, too.
        """
        other = self._with_particles(num_particles)
        with torch.no_grad():
            other._evaluate(Run(model, guide, args, kwargs))
        self._snapshot = other._snapshot
        return self.report

    def _with_particles(self, num_particles: int) -> TraceKL_ELBO:
        """A copy with another number of particles, which shares plans and warnings."""
        other = copy.copy(self)
        had_plate, has_plate = self._vectorized, self.vectorize_particles and num_particles > 1
        other.max_plate_nesting = self.max_plate_nesting + int(has_plate) - int(had_plate)
        other.num_particles = num_particles
        other._plans, other._told = self._plans, self._told
        return other


class _Particle:
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

    def add_kls(self, kls: dict[str, Tensor], num_particles: int) -> None:
        """Add each group's KL, divided by the number of particles."""
        for term in self.terms:
            if term.kind != "likelihood":
                share = term.value.detach().sum() / num_particles
                group = self.plan.groups[term.name]
                kls[group] = kls[group] + share if group in kls else share

    @property
    def trainable(self) -> bool:
        """Whether model or guide have asked Pyro for parameters."""
        return any(
            site["type"] == "param"
            for trace in (self.model_trace, self.guide_trace)
            for site in trace.nodes.values()
        )

    def latent_groups(self) -> set[str]:
        """Groups with a latent in them."""
        return {self.plan.groups[term.name] for term in self.terms if term.kind == "latent"}

    def weights(self, weighed: Weighed) -> dict[str, Any]:
        """Site -> d penalty / d KL of its group."""
        return {name: weighed.weights.get(group, 0.0) for name, group in self.plan.groups.items()}


class _Result:
    """Loss, surrogate, weights."""

    def __init__(
        self,
        loss: Any,
        surrogate: Any,
        weighed: Weighed,
        particles: list[_Particle],
        num_particles: int,
    ) -> None:
        self.loss = self.controlled_loss = loss
        self.surrogate = surrogate
        self.weights = weighed.weights
        self.particles, self.num_particles = particles, num_particles
        self._weighed = weighed

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
                particle.weights(self._weighed),
            )
        extra = extra / self.num_particles
        if not isinstance(extra, Tensor):
            return self.surrogate
        coefficient = control.learn(self.surrogate, extra)
        self.controlled_loss = self.loss + coefficient * extra.detach()
        return self.surrogate + coefficient * extra


def _times(weight: Any, value: Any) -> Any:
    """The product, without a multiplication by one."""
    return value if not isinstance(weight, Tensor) and weight == 1.0 else weight * value


def _score_function_part(terms: list[Term], weights: dict[str, Any]) -> Any:
    """Sum over sites that are not reparametrised of score function times downstream cost.

    The cost is log likelihood minus weighed KLs; an exact KL of the site itself is no cost of its
    samples and left out.
    """
    scores = [term for term in terms if term.score is not None]
    total: Any = 0.0
    for scored in scores:
        cost = MultiFrameTensor()
        for term in terms:
            if term is scored and not term.own_cost:
                continue
            value = term.value.detach()
            signed = value if term.kind == "likelihood" else -weights[term.name] * value
            cost.add((term.frames, signed))
        total = total + (cost.sum_to(scored.score_frames) * scored.score).sum()
    return total


class JitTraceKL_ELBO(TraceKL_ELBO):
    """`TraceKL_ELBO` whose gradient step is traced once by `pyro.ops.jit` and then replayed.

    The limits are those of `pyro.infer.JitTrace_ELBO`: static structure, all tensors in `*args`,
    everything else in `**kwargs`. Schedules go in as inputs of the traced function, so that they
    work; `report` holds the KLs of the last step without standard errors.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.control_variate is not None:
            raise ValueError("JitTraceKL_ELBO has no control_variate; use TraceKL_ELBO.")
        self._traced: dict[tuple[int, int], tuple[Any, Any, Callable[..., Any]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_traced": {}}

    def _compiled(self, model: Any, guide: Any) -> Callable[..., Any]:
        """The traced function for a model and a guide, which are kept alive with it."""
        key = id(model), id(guide)
        if key not in self._traced:
            weakself = weakref.ref(self)

            def loss_and_surrogate(levels: Tensor, *args: Any, **kwargs: Any) -> Any:
                elbo = weakself()
                assert elbo is not None
                result = elbo._evaluate(Run(model, guide, args, kwargs), levels)
                values = elbo._snapshot.totals() if elbo._snapshot else ()
                like = levels.new_zeros(())
                return (
                    like + result.loss,
                    like + result.surrogate,
                    *(like + value for value in values),
                )

            trace = pyro.ops.jit.trace(
                ignore_warnings=self.ignore_jit_warnings, jit_options=self.jit_options
            )
            self._traced[key] = model, guide, trace(loss_and_surrogate)
        return self._traced[key][2]

    def _run_traced(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        levels = self.objective.levels(self.step_count)
        inputs = torch.tensor(levels if levels else [1.0])
        loss, surrogate, *values = self._compiled(model, guide)(inputs, *args, **kwargs)
        if self._snapshot is not None:
            self._snapshot = self._snapshot.with_totals(values, levels)
        return loss, surrogate

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        """The loss in nats, to be differentiated by the caller.

        Args:
            model: the model.
            guide: the guide.
            *args: of model and guide; tensors.
            **kwargs: of model and guide; no tensors.
        """
        loss, surrogate = self._run_traced(model, guide, args, kwargs)
        self.step_count += 1
        warn_if_nan(loss, "loss")
        return loss + (surrogate - surrogate.detach())

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The loss in nats; the gradient is added to the parameters' `.grad`.

        Args:
            model: the model.
            guide: the guide.
            *args: of model and guide; tensors.
            **kwargs: of model and guide; no tensors.
        """
        loss, surrogate = self._run_traced(model, guide, args, kwargs)
        self.step_count += 1
        if surrogate.requires_grad:
            surrogate.backward(retain_graph=self.retain_graph)
        value = torch_item(loss)
        warn_if_nan(value, "loss")
        return value
