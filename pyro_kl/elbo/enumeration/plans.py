"""Which latent is computed how, in a model with enumeration.

Beside the rules of every plan: a site of the model that is summed out is no latent; a site of the
guide that takes all its values is summed over them where it has no exact KL; and there is no exact
KL inside of a sum. In log sum_k p(k) p(z | k) p(x | z, k) the prior of z cannot be taken out,
since it depends on k: its KL is sampled. That is read from the dims of the prior in each run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ...numerics.dtypes import common_shape
from ..guides.dependence import Layout
from ..guides.mean_field import OwnDistribution
from ..guides.plan import Decision, Plan, Plans, Run
from ..traces import Traces
from .dims import is_enumerated, is_summed_out, summed_symbols


class EnumerationPlans(Plans):
    """All plans of an ELBO with enumeration."""

    def get(
        self,
        traces: Traces,
        guide: Any,
        sampled: Mapping[str, str] = MappingProxyType({}),
        anew: bool = False,
    ) -> tuple[Plan, bool]:
        """As `Plans.get`, for traces whose dims have symbols."""
        inside = {
            name: f"its prior depends on {', '.join(sites)}, which the model sums out"
            for name, sites in priors_inside(traces, self._latents(traces)).items()
        }
        plan, made = super().get(traces, guide, {**sampled, **inside}, anew)
        for name in inside:  # no order of the guide and no formula would help: a report says why
            plan.decisions[name].warns = False
        if made:
            for name, how in plan.decisions.items():
                if how.method == "monte carlo" and isinstance(how.site, OwnDistribution):
                    if is_enumerated(traces.guide.nodes[name]):
                        plan.decisions[name] = _by_densities(how)
        return plan, made

    def _latents(self, traces: Traces) -> list[str]:
        return [name for name in super()._latents(traces) if not is_summed_out(name, traces)]

    def _structure(self, traces: Traces) -> tuple[Any, ...]:
        enumerated = [
            name
            for trace, marked in ((traces.model, False), (traces.guide, True))
            for name, node in trace.nodes.items()
            if node["type"] == "sample"
            and (is_enumerated(node) if marked else is_summed_out(name, traces))
        ]
        return (*super()._structure(traces), None, *enumerated)

    def _plan(
        self,
        layout: Layout,
        traces: Traces,
        dependent: Mapping[str, list[str]],
        unseen: bool,
    ) -> Plan:
        plan = super()._plan(layout, traces, dependent, unseen)
        summed_out = [
            name
            for name, node in traces.model.nodes.items()
            if node["type"] == "sample" and is_summed_out(name, traces)
        ]
        groups = {**plan.groups, **{name: name for name in summed_out}}
        return replace(plan, groups=groups, enumerated=[], summed_out=summed_out)


def _by_densities(how: Decision) -> Decision:
    """A site that takes all its values needs no draws where its KL is not known exactly."""
    reason = f"{how.reason}: summed over its values, with the guide's probabilities"
    return replace(how, method="enumerated", reason=reason, warns=False)


def priors_inside(traces: Traces, names: list[str]) -> dict[str, list[str]]:
    """Latents of the guide whose prior is inside of a sum -> the sites that it depends on.

    Args:
        traces: of model and guide, with symbols for their dims.
        names: of the latents.
    """
    symbols = summed_symbols(traces)
    found: dict[str, list[str]] = {}
    if not symbols:
        return found
    for name in names:
        node = traces.model.nodes[name]
        shapes = [node["fn"].batch_shape]
        shapes += [x.shape for x in (node["mask"], node["scale"]) if isinstance(x, Tensor)]
        shape = common_shape(*shapes)
        dim_to_symbol = node["infer"]["_dim_to_symbol"]
        dims = [dim_to_symbol.get(i - len(shape)) for i, size in enumerate(shape) if size > 1]
        sites = [symbols[dim] for dim in dims if dim in symbols]
        if sites:
            found[name] = sites
    return found


def has_marks(run: Run) -> bool:
    """Whether model or guide marks a site for enumeration."""
    if isinstance(poutine.unwrap(run.guide), poutine.messenger.Messenger):
        return False
    with poutine.block(), torch.random.fork_rng(), torch.no_grad():
        guide = poutine.trace(run.guide).get_trace(*run.args, **run.kwargs)
        replayed = poutine.replay(run.model, trace=guide)
        model = poutine.trace(replayed).get_trace(*run.args, **run.kwargs)
    nodes: list[Any] = [*model.nodes.values(), *guide.nodes.values()]
    return any(node["type"] == "sample" and node["infer"].get("enumerate") for node in nodes)
