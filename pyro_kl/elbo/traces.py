"""Traces of guide and model, in which only the log densities that are needed are computed.

Pyro's own function computes the log density of every site; an exact KL needs none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol

from pyro import poutine
from pyro.distributions import Distribution as PyroDistribution
from pyro.distributions import Unit
from pyro.distributions.util import scale_and_mask
from pyro.infer.util import is_validation_enabled
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace as PyroTrace
from pyro.poutine.util import prune_subsample_sites, site_is_subsample
from torch.distributions import Distribution

from ..numerics.concrete import is_recorded
from .guides.validity import Watch
from .recorder import Recorder, ReplayRecorder
from .trace_checks import TraceChecks

#: A node of a trace: Pyro's message.
Site = dict[str, Any]


class Trace(Protocol):
    """A trace of Pyro's: the sites of one run by name."""

    nodes: Any


class Traces(NamedTuple):
    """The traces of one run of the guide, and of the model on its values."""

    model: Trace
    guide: Trace


def paired_traces(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    max_plate_nesting: float,
    checks: TraceChecks,
    watch: Watch | None = None,
) -> Traces:
    """Run the guide, and the model on its values; no log density is computed.

    Args:
        model: the model.
        guide: the guide.
        args: of both.
        kwargs: of both.
        max_plate_nesting: for Pyro's checks of shapes.
        checks: these, which are made if validation is on.
        watch: follows what depends on what; it is kept with the guide's trace. A GuideMessenger
            is not watched.

    Returns:
        The traces of model and guide, without the sites that draw subsamples.

    Raises:
        ValueError: the guide has replaced the rows of a plate's `subsample` by its own.
    """
    inner: Any = poutine.unwrap(guide)
    guides_itself = isinstance(inner, Messenger)
    if guides_itself:  # a GuideMessenger runs the model itself
        guide(*args, **kwargs)
        model_trace, guide_trace = inner.get_traces()
    else:
        with watch.guide() if watch else nullcontext():
            guide_trace = Recorder().run(guide, args, kwargs)
        recorder = ReplayRecorder(guide_trace)
        with watch.model() if watch else nullcontext():
            model_trace = recorder.run(model, args, kwargs)
        recorder.check_rows()
    if is_validation_enabled():
        checks.check(model_trace, guide_trace, max_plate_nesting)
    if guides_itself:
        return Traces(prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace))
    for trace in (model_trace, guide_trace):
        for name in [name for name, site in trace.nodes.items() if site_is_subsample(site)]:
            trace.remove_node(name)
    if watch:
        guide_trace.__dict__["pyro_kl_watch"] = watch
    return Traces(model_trace, guide_trace)


def is_deterministic(node: Site) -> bool:
    """Whether a site is a pyro.deterministic statement."""
    return bool(node["infer"].get("_deterministic"))


def is_factor(node: Site) -> bool:
    """Whether a site is a pyro.factor statement."""
    return type(node["fn"]) is Unit


def compute_model(trace: Any, names: Iterable[str]) -> None:
    """Compute `log_prob` of some sites of the model, scaled and masked, as Pyro does.

    Pyro's own method runs where it raises an error, or warns of a sum that is not finite.
    """
    if is_recorded():
        wanted = set(names)
        trace.compute_log_prob(lambda name, site: name in wanted)
        return
    for name in names:
        if not _has_log_prob(trace.nodes[name]):
            trace.compute_log_prob(lambda other, site, name=name: other == name)


def _has_log_prob(node: Site) -> bool:
    """Compute a site's density, unless that fails; whether there is no more to do."""
    if "log_prob" in node:
        return True
    try:
        density = node["fn"].log_prob(node["value"], *node["args"], **node["kwargs"])
    except ValueError:
        return False
    scaled = scale_and_mask(density, node["scale"], node["mask"])
    total = scaled.sum()
    if is_validation_enabled() and not math.isfinite(total.item()):
        return False
    node.update(unscaled_log_prob=density, log_prob=scaled, log_prob_sum=total)
    return True


def compute_guide(trace: Trace, names: Collection[str]) -> None:
    """Compute `score_parts` and `log_prob` of some sites of the guide, as Pyro does."""
    part: Any = PyroTrace()
    part.nodes.update((name, trace.nodes[name]) for name in names)
    part.compute_score_parts()


def compute_all(traces: Traces) -> None:
    """Compute all densities of both traces, as Pyro's own ELBOs do."""
    model_trace: Any = traces.model
    guide_trace: Any = traces.guide
    model_trace.compute_log_prob()
    guide_trace.compute_score_parts()


def has_score_function(distribution: Distribution) -> bool:
    """Whether gradients of expectations under `distribution` have a part that is not pathwise."""
    if not distribution.has_rsample:
        return True
    inner: Any = distribution
    while hasattr(inner, "base_dist"):
        inner = inner.base_dist
    return getattr(type(inner), "score_parts", None) not in (None, PyroDistribution.score_parts)
