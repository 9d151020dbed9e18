"""TraceEnumKL_ELBO: exact KLs together with the enumeration of discrete latents."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.infer.enum import iter_discrete_escape, iter_discrete_extend

from ...messages import see
from ..collect import Collected
from ..guides.plan import Plan, Plans
from ..trace_kl_elbo import TraceKL_ELBO
from ..traces import Traces
from ..warnings import BASELINE, warn_of_sites
from .checks import EnumerationChecks
from .collect import collect
from .dims import symbolise, with_baseline
from .messengers import Enumeration, ModelEnumeration
from .plans import EnumerationPlans


class TraceEnumKL_ELBO(TraceKL_ELBO, TraceEnum_ELBO):
    """`TraceKL_ELBO` with the enumeration of `pyro.infer.TraceEnum_ELBO`, which it can replace.

    Discrete sites that are marked for enumeration are summed out, as `TraceEnum_ELBO` does: in
    the guide, in parallel or in turn, with the guide's probabilities; in the model, by variable
    elimination, through `pyro.markov` and plates. All other latents have their exact KL wherever
    it is valid. A KL whose distributions depend on a site that the guide enumerates is computed
    for each value and averaged. A latent whose prior depends on a site that the model sums out
    has no exact KL inside of the sum: it is sampled, and the report says why.

    A report shows the sum over a site k of the model as what the best guide for k would have:
    the expected log likelihood under the exact posterior of k, and the KL of that posterior as
    the row of k, "summed out". `free_bits` and `capacity`, and a `beta` for all sites, are about
    the latents of the guide; `beta={"k": b}` gives the KL of k another weight than 1. The sum is
    then b log sum_k p(k) f(k)^(1/b), the best that a guide for k could do; a schedule that falls
    to 1 is deterministic annealing.

    Args:
        *args: as for `TraceKL_ELBO`.
        **kwargs: as for `TraceKL_ELBO`, without `control_variate` and `likelihood`;
            `strict_enumeration_warning` as for `pyro.infer.TraceEnum_ELBO`.

    Raises:
        ValueError: `control_variate` or `likelihood="exact"`, which average over draws, or what
            `TraceKL_ELBO` raises.

    Reference:
        Obermeyer and others (2019), Tensor Variable Elimination for Plated Factor Graphs;
        Foerster and others (2018), DiCE; Ueda & Nakano (1998), Deterministic Annealing EM
        Algorithm.

    Example:
        >>> @pyro.infer.config_enumerate
        ... def model(x):
        ...     prior = pyro.distributions.Normal(torch.zeros(2), 5.0).to_event(1)
        ...     loc = pyro.sample("loc", prior)
        ...     with pyro.plate("data", len(x)):
        ...         k = pyro.sample("k", pyro.distributions.Categorical(torch.ones(2)))
        ...         pyro.sample("x", pyro.distributions.Normal(loc[k], 1.0), obs=x)
        >>> guide = pyro.infer.autoguide.AutoNormal(pyro.poutine.block(model, hide=["k"]))
        >>> elbo = pyro_kl.TraceEnumKL_ELBO(max_plate_nesting=1)
        >>> report = elbo.evaluate(model, guide, torch.tensor([-3.0, 3.0]), num_particles=10)
        >>> report["loc"].method, report["k"].method
        ('closed form', 'summed out')
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.control_variate is not None:
            raise ValueError("TraceEnumKL_ELBO has no control_variate." + see("option"))
        if self.likelihood == "exact":
            raise ValueError(
                'TraceEnumKL_ELBO has no likelihood="exact"; use TraceKL_ELBO.' + see("option")
            )
        if self._has_hook:
            raise ValueError(
                f"{type(self).__name__} overrides _differentiable_loss_particle, which "
                "TraceEnumKL_ELBO does not call; derive from TraceKL_ELBO." + see("elbo-subclass")
            )
        if self.retain_graph is None:  # the traces of one particle may share a graph
            self.retain_graph = True
        self._checks = EnumerationChecks(self.strict_enumeration_warning)
        self._continues = False

    def __getstate__(self) -> dict[str, Any]:
        checks = EnumerationChecks(self.strict_enumeration_warning)
        return {**super().__getstate__(), "_checks": checks}

    def _no_plans(self) -> Plans:
        sampled = {name for name, exact in self.exact.items() if not exact}
        return EnumerationPlans(self.mean_field, sampled)

    # --- traces and terms ---------------------------------------------------------------------

    def _get_traces(
        self, model: Any, guide: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[Traces]:
        """The traces of all particles; several for one where the guide enumerates in turn."""
        if isinstance(poutine.unwrap(guide), poutine.messenger.Messenger):
            raise NotImplementedError(
                "TraceEnumKL_ELBO does not support a GuideMessenger, as TraceEnum_ELBO does not."
                + see("option")
            )
        if self.max_plate_nesting == float("inf"):
            self._guess_max_plate_nesting(model, guide, args, kwargs)
        if self.vectorize_particles:
            guide = self._vectorized_num_particles(guide)
            model = self._vectorized_num_particles(model)
        waiting: Any = queue.LifoQueue()
        # the model's dims of enumeration are to the left of the guide's
        first = -1 - int(self.max_plate_nesting)
        enumeration = Enumeration(first_available_dim=first)
        guide = poutine.queue(
            enumeration(guide),
            waiting,
            escape_fn=iter_discrete_escape,
            extend_fn=iter_discrete_extend,
        )
        model = ModelEnumeration(enumeration)(model)
        for _ in range(1 if self.vectorize_particles else self.num_particles):
            waiting.put(poutine.Trace())
            self._continues = False
            while not waiting.empty():
                yield self._get_trace(model, guide, args, kwargs)
                self._continues = True

    def _get_trace(
        self, model: Any, guide: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Traces:
        traces = super()._get_trace(model, guide, args, kwargs)
        symbolise(traces)
        return traces

    def _collect(self, plan: Plan, traces: Traces, every_density: bool, levels: Any) -> Collected:
        warn_of_sites(with_baseline(traces), self._warned, BASELINE)
        collected = collect(plan, traces, self.objective, levels, self.max_plate_nesting)
        collected.continues = self._continues
        return collected

    # --- the sites that are summed out ----------------------------------------------------------

    def compute_marginals(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        """The posterior of each site that the model sums out, as a distribution by its name.

        Args:
            model: the model.
            guide: the guide.
            *args: positional arguments of both.
            **kwargs: keyword arguments of both.

        Returns:
            Site -> distribution, as of `pyro.infer.TraceEnum_ELBO`.
        """
        return self._plain().compute_marginals(model, guide, *args, **kwargs)

    def sample_posterior(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        """What the model returns for a draw of all its sites that are summed out.

        Args:
            model: the model.
            guide: the guide.
            *args: positional arguments of both.
            **kwargs: keyword arguments of both.

        Returns:
            The model's result, as of `pyro.infer.TraceEnum_ELBO`.
        """
        return self._plain().sample_posterior(model, guide, *args, **kwargs)

    def _plain(self) -> TraceEnum_ELBO:
        """Pyro's ELBO with the same settings: it has all log densities of its traces."""
        nesting = self.max_plate_nesting - int(self._vectorized)
        return TraceEnum_ELBO(
            num_particles=self.num_particles,
            max_plate_nesting=nesting,
            vectorize_particles=self.vectorize_particles,
            strict_enumeration_warning=self.strict_enumeration_warning,
        )
