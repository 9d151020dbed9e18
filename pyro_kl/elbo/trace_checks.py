"""Pyro's checks of a pair of traces, made again only where what they look at has changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from pyro.distributions import Unit
from pyro.poutine.util import site_is_subsample
from pyro.util import check_model_guide_match, check_site_shape

from ..numerics.concrete import is_recorded


class TraceChecks:
    """The checks of names, flags, shapes and plates that Pyro makes where validation is on.

    Most steps have the sites and shapes of the step before, for which the checks would raise and
    warn of nothing again.
    """

    def __init__(self) -> None:
        self._passed: list[Any] | None = None

    def check(self, model_trace: Any, guide_trace: Any, max_plate_nesting: float) -> None:
        """Raise or warn as Pyro does.

        Args:
            model_trace: of the model.
            guide_trace: of the guide.
            max_plate_nesting: the most plates around a site; may be inf.
        """
        traces = model_trace, guide_trace
        looked_at = None if is_recorded() else _looked_at(traces, max_plate_nesting)
        if looked_at is not None and looked_at == self._passed:
            return
        self._check(model_trace, guide_trace, max_plate_nesting)
        self._passed = None if _differ(model_trace, guide_trace) else looked_at

    def _check(self, model_trace: Any, guide_trace: Any, max_plate_nesting: Any) -> None:
        check_model_guide_match(model_trace, guide_trace, max_plate_nesting)
        for trace in (model_trace, guide_trace):
            check_shapes(trace, max_plate_nesting)


def _looked_at(traces: Any, max_plate_nesting: float) -> list[Any] | None:
    """What the checks depend on; None where there is more."""
    found: list[Any] = [max_plate_nesting]
    for trace in traces:
        found.append(None)  # between the sites of the model and those of the guide
        for name, node in trace.nodes.items():
            if node["type"] != "sample":
                continue
            fn, infer = node["fn"], node["infer"]
            kind = type(fn)
            if infer:
                found += [infer.get(name) for name in _FLAGS]
            if node["args"] or node["kwargs"] or (kind is Unit and infer.get("is_auxiliary")):
                return None
            found += name, kind, node["is_observed"]
            if kind.__name__ == "_Subsample":
                continue
            found += fn.batch_shape, fn.event_shape, node["value"].shape
            for frame in node["cond_indep_stack"]:
                found += frame.name, frame.dim, frame.size, frame.counter
    return found


#: What the checks read of a site's `infer`.
_FLAGS = (
    "is_auxiliary", "enumerate", "num_samples", "_enumerate_dim", "_markov_depth", "_markov_scope",
)  # fmt: skip


def _differ(model_trace: Any, guide_trace: Any) -> bool:
    """Whether model and guide have other latents or plates, of which every check warns."""
    latents = {n for n, site in model_trace.nodes.items() if _is_latent(site)}
    drawn = {n for n, site in guide_trace.nodes.items() if _is_drawn(site)}
    auxiliary = {n for n in drawn if guide_trace.nodes[n]["infer"].get("is_auxiliary")}
    plates, of_guide = (
        {n for n, site in trace.nodes.items() if site_is_subsample(site)}
        for trace in (model_trace, guide_trace)
    )
    enumerated = {n for n in latents - drawn if _takes_all_values(model_trace.nodes[n])}
    return drawn - auxiliary != latents - enumerated or not of_guide <= plates


def _is_drawn(site: Any) -> bool:
    return site["type"] == "sample" and not site_is_subsample(site)


def _takes_all_values(site: Any) -> bool:
    return site["infer"].get("_enumerate_dim") is not None


def _is_latent(site: Any) -> bool:
    return _is_drawn(site) and not site["is_observed"]


def check_shapes(trace: Any, max_plate_nesting: float) -> None:
    """Pyro's check of plates against batch shapes, which needs no log density here."""
    for site in trace.nodes.values():
        if _is_drawn(site):
            distribution = site["fn"]
            batch = site["value"].shape[: site["value"].dim() - distribution.event_dim]
            try:
                shape = torch.broadcast_shapes(distribution.batch_shape, batch)
            except RuntimeError:  # Pyro's own error names the site and prints all shapes
                trace.compute_log_prob(lambda name, _, wanted=site["name"]: name == wanted)
                raise
            stand_in: Any = {**site, "log_prob": SimpleNamespace(shape=shape)}
            nesting: Any = max_plate_nesting
            check_site_shape(stand_in, nesting)
