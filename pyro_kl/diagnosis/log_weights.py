"""The log weight of a draw: log p(data, latents) - log q(latents)."""

from __future__ import annotations

from typing import Any

from pyro import poutine
from torch import Tensor

from ..elbo.enumeration.plans import has_marks
from ..elbo.enumeration.trace_enum_kl_elbo import TraceEnumKL_ELBO
from ..elbo.guides.plan import Run
from ..elbo.trace_kl_elbo import TraceKL_ELBO
from ..elbo.traces import Traces


def elbo_of(run: Run, max_plate_nesting: float) -> TraceKL_ELBO:
    """The ELBO that runs model and guide: one with enumeration where a site is marked for it."""
    kind = TraceEnumKL_ELBO if has_marks(run) else TraceKL_ELBO
    return kind(max_plate_nesting=max_plate_nesting, strict_enumeration_warning=False)


def without_marks(run: Run) -> Run:
    """The guide draws all of its sites; the model's that it does not draw are summed out."""
    nothing: Any = {"enumerate": None}
    guide = poutine.infer_config(run.guide, lambda site: nothing)
    return Run(run.model, guide, run.args, run.kwargs)


def log_weight(traces: Traces, elbo: TraceKL_ELBO, guide: Any) -> list[Tensor]:
    """The terms of the log weight, with all sites of the guide in log q.

    Args:
        traces: of model and guide, made by `elbo`.
        elbo: with enumeration, if there are sites to be summed out.
        guide: the guide.
    """
    if isinstance(elbo, TraceEnumKL_ELBO):
        return _with_sums(traces, elbo, guide)
    terms = []
    both: Any = traces
    for trace, sign in zip(both, (1, -1), strict=True):
        trace.compute_log_prob()
        nodes = [node for node in trace.nodes.values() if node["type"] == "sample"]
        terms += [sign * node["log_prob"] for node in nodes]
    return terms


def _with_sums(traces: Traces, elbo: TraceEnumKL_ELBO, guide: Any) -> list[Tensor]:
    """The terms of an ELBO without exact KLs."""
    sampled = TraceEnumKL_ELBO(
        num_particles=elbo.num_particles,
        max_plate_nesting=elbo.max_plate_nesting,
        vectorize_particles=elbo.vectorize_particles,
        mean_field="never",
        strict_enumeration_warning=False,
    )
    particle = sampled._particle(traces, guide, False, sampled.objective.levels(0))
    return [
        term.value if term.kind == "likelihood" else -term.value
        for term in particle.collected.terms
    ]
