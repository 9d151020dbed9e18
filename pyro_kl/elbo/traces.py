"""Traces of guide and model, in which only the log densities that are needed are computed.

Pyro's own function computes the log density of every site; an exact KL needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

import torch
from pyro import poutine
from pyro.distributions import Distribution as PyroDistribution
from pyro.distributions import Unit
from pyro.infer.util import is_validation_enabled
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace as PyroTrace
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_if_enumerated, check_model_guide_match, check_site_shape
from torch.distributions import Distribution

from ..numerics.concrete import is_recorded
from .guides.validity import Watch

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
    watch: Watch | None = None,
) -> Traces:
    """Run the guide, and the model on its values; no log density is computed.

    Args:
        model: the model.
        guide: the guide.
        args: of both.
        kwargs: of both.
        max_plate_nesting: for Pyro's checks of shapes, which are made if validation is on.
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
            guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        rows = _Rows()
        replayed = poutine.replay(rows(model), trace=guide_trace)
        with watch.model() if watch else nullcontext():
            model_trace = poutine.trace(replayed).get_trace(*args, **kwargs)
        rows.check(model_trace)
    validate = is_validation_enabled()
    if validate:
        check_model_guide_match(model_trace, guide_trace, max_plate_nesting)
    model_trace = prune_subsample_sites(model_trace)
    guide_trace = prune_subsample_sites(guide_trace)
    if watch and not guides_itself:
        guide_trace.__dict__["pyro_kl_watch"] = watch
    if validate:
        check_if_enumerated(guide_trace)
        for trace in (model_trace, guide_trace):
            _check_shapes(trace, max_plate_nesting)
    return Traces(model_trace, guide_trace)


class _Rows(Messenger):
    """Records the rows that the model's plates are given, before the guide's replace them."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, Any] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if msg["value"] is not None and type(msg["fn"]).__name__ == "_Subsample":
            self.given[msg["name"]] = msg["value"]

    def check(self, model_trace: Trace) -> None:
        """Raise ValueError if the model has run on other rows than it was given."""
        if is_recorded():  # the run before it was checked
            return
        for name, given in self.given.items():
            got = model_trace.nodes[name]["value"]
            if got is given:
                continue
            given = torch.as_tensor(given).to(got.device)
            if given.shape != got.shape or not torch.equal(given, got):
                raise ValueError(
                    f"The model's plate {name!r} was given subsample={_few(given)}, but Pyro runs "
                    f"it on the guide's rows {_few(got)}, which the guide has drawn itself: data "
                    "and latents would not belong together. Give the guide the same rows: an "
                    "autoguide by AutoNormal(model, create_plates=lambda *args: pyro.plate("
                    f"{name!r}, size, subsample=...)), a guide by hand in its own plate."
                )


def _few(rows: torch.Tensor) -> str:
    """The first rows of a subsample."""
    first = ", ".join(str(row) for row in rows.reshape(-1)[:5].tolist())
    return f"[{first}{', ...' if rows.numel() > 5 else ''}]"


def _check_shapes(trace: Trace, max_plate_nesting: float) -> None:
    """Pyro's check of plates against batch shapes, which needs no log density here."""
    for site in trace.nodes.values():
        if site["type"] == "sample":
            distribution = site["fn"]
            batch = site["value"].shape[: site["value"].dim() - distribution.event_dim]
            shape = torch.broadcast_shapes(distribution.batch_shape, batch)
            stand_in: Any = {**site, "log_prob": SimpleNamespace(shape=shape)}
            nesting: Any = max_plate_nesting  # may be inf
            check_site_shape(stand_in, nesting)


def is_deterministic(node: Site) -> bool:
    """Whether a site is a pyro.deterministic statement."""
    return bool(node["infer"].get("_deterministic"))


def is_factor(node: Site) -> bool:
    """Whether a site is a pyro.factor statement."""
    return type(node["fn"]) is Unit


def compute_model(trace: Any, names: Collection[str]) -> None:
    """Compute `log_prob` of some sites of the model, scaled and masked, as Pyro does."""
    trace.compute_log_prob(lambda name, site: name in names)


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
