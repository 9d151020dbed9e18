"""TraceKL_ELBO: the KL penalty of every site, exact where it can be."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any

import torch
from pyro.infer import Trace_ELBO
from pyro.infer.util import torch_item
from pyro.util import warn_if_nan
from torch import Tensor

from ..messages import see
from ..numerics.concrete import is_recorded, is_step_recorded
from .baselines import Baselines
from .collect import Collected, collect
from .control_variate import ControlVariate
from .expected_likelihood import integrate_likelihoods
from .guides.plan import Plan, Plans, Run
from .guides.validity import Watch
from .loss import ElboTerms, Particle, loss_of
from .objective import Levels, Objective, check_names
from .particle_hook import hook_of
from .report import KLReport
from .snapshot import Snapshot
from .trace_checks import TraceChecks
from .traces import Traces, compute_all, paired_traces
from .warnings import DIFFER, INFINITE, warn_of, warn_of_likelihoods, warn_of_sites

_MODES = ("check", "assume", "never")


class TraceKL_ELBO(Trace_ELBO):
    """An ELBO whose KL terms are exact wherever they can be, with a report on every term.

    The loss is `-E_q[log likelihood] + penalty(KL of each site)`, in nats. Each latent's KL is, in
    this order, a closed form, an exact sum, a quadrature, or a sample of `log q - log p`. An
    autoguide's auxiliary Normal and its Delta are taken together as one distribution; joint
    Gaussian autoguides are split by the chain rule. It can replace every ELBO of Pyro's that does
    not enumerate: latents that are not reparametrised get score-function gradients, each draw
    judged by the terms that it can change; `TraceEnumKL_ELBO` enumerates.

    A KL is exact only if that is valid (no parent of the site in the model descends from it in
    the guide) and if model and guide agree on scale and mask; else the site is sampled, with a
    warning that names it. Whether the exact KL also lowers the variance of the gradient depends
    on the model: see `docs/explanations/elbo_variance.md`.

    Args:
        beta: weight of the KL: a number, a schedule (`LinearWarmup`, `Cyclical`, `Constant`, or
            any function of the step), or `{site: number or schedule}`.
        free_bits: nats of a KL that are not penalised: `max(KL, free_bits)` for each that is
            counted; a number or `{site: number}`.
        free_bits_per: which KL they apply to. "site": the KL of the site as it enters the ELBO,
            summed over plates and events, times its scale. "element": that of each element of the
            site's batch (each datum of a plate), its event summed, so that the level is nats for
            each datum. "batch": that of each coordinate of the event, averaged over the batch
            (Kingma and others 2016, eq. 15); the whole event where its KL is not a sum over
            coordinates. Masked elements do not count; scales multiply the level and the KL.
        capacity: the target of the KL instead of 0, in nats: `|KL - capacity|`; a number, a
            schedule, or `{site: ...}`.
        capacity_per: which KL it applies to, as for `free_bits_per`; None is the sum over all
            sites for one number, and "site" for `{site: ...}`.
        kl_balance: alpha of KL balancing (Hafner and others 2021, DreamerV2): the gradient is that
            of alpha KL(sg(q) || p) + (1 - alpha) KL(q || sg(p)), where no gradient reaches the
            parameters inside of sg, and the loss does not change. A number in [0, 1], or one for
            each of some sites; 0.8 trains the prior four times as fast as the guide, two weights
            a and b (DreamerV3) are beta = a + b and kl_balance = a / (a + b). None is the plain
            gradient; all sites have to be reparametrised.
        mean_field: "check" tests validity and samples the sites that fail; "assume" takes every
            exact KL to be valid; "never" samples all of them.
        exact: `{site: False}` samples the KL of a site even if there is a formula: an integral
            over a large site costs more than its draws. All other sites, and those with True,
            are exact wherever they can be.
        infinite: "keep" leaves a KL of +inf in the loss, with a warning that names the site; the
            gradient is that of all other terms. "sample" samples such a KL, as Trace_ELBO does,
            as long as it is infinite: for a guide of a scale, say, that leaves its prior's
            support with a probability too small for a draw to show it.
        control_variate: whether to add to the gradient a running multiple of the gradient of
            (sampled - exact KL), whose mean is zero: less variance for a second backward pass.
            The returned loss does not change.
        likelihood: "sampled" takes the log likelihood at the draw. "exact" takes its expectation
            wherever the guide's Normal draws enter a Bernoulli, Binomial, NegativeBinomial
            (by logits), Poisson (by the logarithm of its rate) or Normal linearly, as in a
            generalised linear model: value and gradient then have no noise. That the predictor is
            linear is read from autograd's graph, which shows neither `detach()` nor a branch of
            Python; where it is not, the site is sampled, with a warning that says why. The step
            multiplies the predictor's derivative by the factor of the guide's covariance.
        *args: as for `pyro.infer.Trace_ELBO`, in its order: num_particles, max_plate_nesting, ...
        **kwargs: as for `pyro.infer.Trace_ELBO`: vectorize_particles, retain_graph, ...

    Attributes:
        step_count: gradients taken so far, which is the step of the schedules.

    Raises:
        ValueError: an option has a value that is not allowed, or options contradict each other.

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
        *args: Any,
        beta: Levels = 1.0,
        free_bits: Levels = 0.0,
        capacity: Levels | None = None,
        free_bits_per: str = "site",
        capacity_per: str | None = None,
        kl_balance: float | Mapping[str, float] | None = None,
        mean_field: str = "check",
        exact: Mapping[str, bool] = MappingProxyType({}),
        infinite: str = "keep",
        control_variate: bool = False,
        likelihood: str = "sampled",
        **kwargs: Any,
    ) -> None:
        if mean_field not in _MODES:
            raise ValueError(
                f"mean_field must be one of {', '.join(_MODES)}, got {mean_field!r}"
                + see("option")
            )
        if not isinstance(exact, Mapping) or not all(isinstance(x, bool) for x in exact.values()):
            raise ValueError(
                f"exact must be {{site: False or True}}, got {exact!r}" + see("option")
            )
        if infinite not in ("keep", "sample"):
            raise ValueError(
                f"infinite must be one of keep, sample, got {infinite!r}" + see("option")
            )
        if likelihood not in ("sampled", "exact"):
            raise ValueError(
                f"likelihood must be one of sampled, exact, got {likelihood!r}" + see("option")
            )
        super().__init__(*args, **kwargs)
        self.likelihood = likelihood
        self.objective = Objective(
            beta, free_bits, capacity, free_bits_per, capacity_per, kl_balance
        )
        self.mean_field = mean_field
        self.exact = dict(exact)
        self.infinite = infinite
        self.control_variate = ControlVariate() if control_variate else None
        self.step_count = 0
        self._plans = self._no_plans()
        self._checks = TraceChecks()
        self._warned: set[str] = set()
        self._baselines = Baselines()
        self._snapshot: Snapshot | None = None
        self._taken_elsewhere: Run | None = None
        self._hooked: tuple[Any, Any, Snapshot] | None = None

    def _no_plans(self) -> Plans:
        return Plans(self.mean_field, {name for name, exact in self.exact.items() if not exact})

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        # they hold references to the guide, its classes and its tensors
        state.update(_plans=self._no_plans(), _checks=TraceChecks())
        state.update(_snapshot=None, _taken_elsewhere=None)
        return state

    # --- traces and terms ---------------------------------------------------------------------

    def _get_trace(
        self, model: Any, guide: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Traces:
        watch = Watch() if self._plans.watches else None
        nesting = self.max_plate_nesting
        with torch.enable_grad() if self.likelihood == "exact" else nullcontext():
            traces = paired_traces(model, guide, args, kwargs, nesting, self._checks, watch)
        if self._hooked is not None:  # a subclass may read any density
            compute_all(traces)
        return traces

    def _particles(
        self, run: Run, every_density: bool = False, levels: Any = None
    ) -> Iterator[Particle]:
        """The terms of each pair of traces."""
        levels = self.objective.levels(self.step_count) if levels is None else levels
        for traces in self._get_traces(run.model, run.guide, run.args, run.kwargs):
            yield self._particle(Traces(*traces), run.guide, every_density, levels)

    def _particle(self, traces: Traces, guide: Any, every_density: bool, levels: Any) -> Particle:
        """The terms of a pair of traces."""
        how = guide, every_density, levels
        try:
            particle = self._by_plan(traces, *how)
        except NotImplementedError:  # the plan was made for other distributions of these classes
            particle = self._by_plan(traces, *how, anew=True)
        if self.infinite == "sample" and not is_step_recorded():
            infinite = particle.infinite
            if infinite:
                why = 'its exact KL is infinite, and infinite="sample"'
                particle = self._by_plan(traces, *how, dict.fromkeys(infinite, why))
        if particle.plan.disagreeing:
            warn_of_sites(particle.plan.disagreeing, self._warned, DIFFER)
        return particle

    def _by_plan(
        self,
        traces: Traces,
        guide: Any,
        every_density: bool,
        levels: Any,
        sampled: Mapping[str, str] = MappingProxyType({}),
        anew: bool = False,
    ) -> Particle:
        """The terms of a pair of traces, as a plan has them."""
        plan, made = self._plans.get(traces, guide, sampled, anew)
        if made:
            self.objective.check_sites(plan.groups)
            check_names("exact", self.exact, plan.decisions)
            warn_of(plan, self._warned)
        if self.likelihood == "exact":
            refused = integrate_likelihoods(plan, traces, self._vectorized)
            warn_of_likelihoods(refused, self._warned)
        return Particle(self._collect(plan, traces, every_density, levels), plan, traces)

    def _collect(self, plan: Plan, traces: Traces, every_density: bool, levels: Any) -> Collected:
        """The terms of a pair of traces, before they are weighed."""
        return collect(plan, traces, every_density, self.objective)

    @property
    def _vectorized(self) -> bool:
        return bool(self.vectorize_particles) and self.num_particles > 1

    @property
    def _plate(self) -> int:
        """Place of the particles' dim, from the right; 0 if they come one by one."""
        return int(self.max_plate_nesting) if self._vectorized else 0

    # --- subclasses that change the loss of single particles ----------------------------------

    def _differentiable_loss_particle(self, model_trace: Any, guide_trace: Any) -> tuple[Any, Any]:
        """Loss and surrogate of one pair of traces, which subclasses may change.

        It is called only where a subclass overrides it (`contrib.cevae.TraceCausalEffect_ELBO`),
        with all densities of both traces at hand, as in `pyro.infer.Trace_ELBO`.
        """
        assert self._hooked is not None, "called by loss, loss_and_grads and differentiable_loss"
        guide, levels, snapshot = self._hooked
        particle = self._particle(Traces(model_trace, guide_trace), guide, False, levels)
        snapshot.add(particle.collected, particle.plan)
        result = loss_of([particle], self.objective, levels, 1, self._plate, self._baselines)
        return torch_item(result.loss), result.surrogate

    @property
    def not_recordable(self) -> str:
        """Why a step of this ELBO cannot be recorded and run again; empty if it can."""
        if self._has_hook:
            return f"{type(self).__name__} overrides _differentiable_loss_particle"
        if self.likelihood == "exact":
            return 'likelihood="exact" reads autograd\'s graph in each step'
        if self.control_variate is not None:
            return "control_variate=True decides in each step from the gradients before it"
        return ""

    @property
    def _has_hook(self) -> bool:
        ours = TraceKL_ELBO._differentiable_loss_particle
        return type(self)._differentiable_loss_particle is not ours

    def _by_hook(self, method: Callable[..., Any], run: Run) -> Any:
        """A method of `Trace_ELBO`, which takes the particles through the subclass one by one."""
        name = hook_of(self)
        levels = self.objective.levels(self.step_count)
        snapshot = Snapshot.empty(self, levels)
        self._hooked = run.guide, levels, snapshot
        try:
            loss = method(self, run.model, run.guide, *run.args, **run.kwargs)
        finally:
            self._hooked = None
        self._keep(snapshot.changed(name, torch_item(loss)))
        return loss

    # --- losses -------------------------------------------------------------------------------

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The loss in nats, without gradients and without a step of the schedules.

        Args:
            model: the model.
            guide: the guide.
            *args: positional arguments of both.
            **kwargs: keyword arguments of both.

        Returns:
            Nats.
        """
        run = Run(model, guide, args, kwargs)
        with torch.no_grad():
            if self._has_hook:
                loss = self._by_hook(Trace_ELBO.differentiable_loss, run)
            else:
                loss = self._evaluate(run).loss
        value: Any = torch_item(loss)
        warn_if_nan(value, "loss")
        return value

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        """The loss in nats, to be differentiated by the caller.

        Args:
            model: the model.
            guide: the guide.
            *args: positional arguments of both.
            **kwargs: keyword arguments of both.

        Returns:
            Nats; a scalar tensor, whose gradient is that of the objective.
        """
        run = Run(model, guide, args, kwargs)
        if self._has_hook:
            loss = self._by_hook(Trace_ELBO.differentiable_loss, run)
            self.step_count += int(torch.is_grad_enabled())
            return loss
        result = self._evaluate(run)
        if torch.is_grad_enabled():
            self.step_count += 1
        surrogate = result.with_control(self.control_variate)
        warn_if_nan(surrogate, "loss")
        if not isinstance(surrogate, Tensor):
            return result.loss + 0.0 * surrogate
        return result.loss + (surrogate - surrogate.detach())

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The loss in nats; the gradient is added to the parameters' `.grad`.

        Args:
            model: the model.
            guide: the guide.
            *args: positional arguments of both.
            **kwargs: keyword arguments of both.

        Returns:
            Nats.
        """
        run = Run(model, guide, args, kwargs)
        loss: Any
        if self._has_hook:
            loss = self._by_hook(Trace_ELBO.loss_and_grads, run)
        elif self.objective.is_linear and self.control_variate is None and not self._vectorized:
            loss = self._particle_by_particle(run)
        else:
            result = self._evaluate(run)
            loss = torch_item(result.loss)
            result.backward(self.retain_graph, self.control_variate)
        self.step_count += 1
        warn_if_nan(loss, "loss")
        return loss

    def _particle_by_particle(self, run: Run) -> float:
        """Loss and gradient with the memory of one particle: for a penalty that is a sum."""
        levels = self.objective.levels(self.step_count)
        loss: Any = 0.0
        snapshot = Snapshot.empty(self, levels)
        for particle in self._particles(run, levels=levels):
            result = loss_of(
                [particle], self.objective, levels, self.num_particles, 0, self._baselines
            )
            nats = torch_item(result.loss)
            if not math.isfinite(nats):
                self._warn_if_infinite(result)
            snapshot.add(particle.collected, particle.plan)
            loss = loss + nats
            result.backward(self.retain_graph)
        self._keep(snapshot)
        return loss

    def _evaluate(self, run: Run, levels: Any = None) -> ElboTerms:
        """The loss over all particles; their terms are kept for the report."""
        levels = self.objective.levels(self.step_count) if levels is None else levels
        result = self.terms(run, levels)
        if not is_recorded() and not math.isfinite(result.loss):
            self._warn_if_infinite(result)
        snapshot = Snapshot.empty(self, levels)
        for particle in result.particles:
            snapshot.add(particle.collected, particle.plan)
        self._keep(snapshot)
        return result

    def terms(self, run: Run, levels: Any) -> ElboTerms:
        """The loss over all particles, without a step of the schedules and without a report.

        Args:
            run: model and guide, with their arguments.
            levels: the numbers of the objective at a step, as a list or as a tensor.
        """
        every_density = self.control_variate is not None
        particles = list(self._particles(run, every_density, levels))
        return loss_of(
            particles, self.objective, levels, self.num_particles, self._plate, self._baselines
        )

    def _warn_if_infinite(self, result: ElboTerms) -> None:
        """Name the sites that have made a loss infinite, if any have."""
        warn_of_sites(result.infinite, self._warned, INFINITE)

    # --- what was computed --------------------------------------------------------------------

    @property
    def report(self) -> KLReport:
        """Every term of the last evaluation in nats: KL per site, method, ELBO, objective.

        Raises:
            RuntimeError: nothing has been evaluated yet.
        """
        if self._taken_elsewhere is not None:
            self._report_of(self._taken_elsewhere)
        if self._snapshot is None:
            raise RuntimeError(
                "No report yet: evaluate the loss, or call elbo.evaluate(...)." + see("no-report")
            )
        return self._snapshot.report()

    def steps_taken_elsewhere(self, count: int, run: Run) -> None:
        """Let the schedules go on, and the next report be that of `run`, evaluated on demand.

        Args:
            count: steps that were taken without this object.
            run: model and guide, with the arguments of the last of these steps.
        """
        self.step_count += count
        self._taken_elsewhere = run

    def _keep(self, snapshot: Snapshot | None) -> None:
        """Let the report be that of these terms."""
        self._snapshot, self._taken_elsewhere = snapshot, None

    def _report_of(self, run: Run) -> None:
        """Evaluate the last step again, with draws of its own."""
        levels = self.objective.levels(max(self.step_count - 1, 0))
        with torch.random.fork_rng(), torch.no_grad():
            self._evaluate(run, levels)

    def evaluate(
        self, model: Any, guide: Any, *args: Any, num_particles: int = 100, **kwargs: Any
    ) -> KLReport:
        """Every term of the ELBO over fresh particles, with standard errors; no gradients.

        Args:
            model: the model.
            guide: the guide.
            *args: positional arguments of both.
            num_particles: how many draws from the guide.
            **kwargs: keyword arguments of both.

        Returns:
            The report, in nats, which is also `elbo.report` until the next evaluation.
        """
        other = self._with_particles(num_particles)
        with torch.no_grad():
            other._evaluate(Run(model, guide, args, kwargs))
        self._keep(other._snapshot)
        return self.report

    def _with_particles(self, num_particles: int) -> TraceKL_ELBO:
        """A copy with another number of particles, which shares plans and warnings."""
        other = copy.copy(self)
        had_plate, has_plate = self._vectorized, self.vectorize_particles and num_particles > 1
        other.max_plate_nesting = self.max_plate_nesting + int(has_plate) - int(had_plate)
        other.num_particles = num_particles
        other._plans, other._warned = self._plans, self._warned
        return other
