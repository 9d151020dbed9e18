"""The exact posterior of the sites that a model sums out, given one draw of the guide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.ops import packed
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from ...messages import see
from ..guides.plan import Run
from ..traces import Traces, is_deterministic, is_factor
from .dims import ordinal_of, summed_symbols
from .messengers import Enumeration
from .summed_out import Factor, components, draws_of, sum_of


class Posterior(NamedTuple):
    """The sites that are summed out, given one draw of the guide.

    Attributes:
        draws: site -> a value; all values are drawn together.
        log_likelihood: observed site -> the log density of each row with these sites summed out.
            A site is left out if its rows are tied to each other, or to other observations.
        behind: observed site -> the sites that are summed out that its density depends on,
            directly or through other sites.
    """

    draws: dict[str, Tensor]
    log_likelihood: dict[str, Tensor]
    behind: dict[str, list[str]]


def posterior_of(run: Run, drawn: Any, nesting: float) -> Posterior:
    """Draw the sites that are summed out, and sum them out of the log likelihood.

    Args:
        run: the model with its arguments.
        drawn: a trace of the guide, in which nothing is enumerated.
        nesting: how many rightmost dims belong to plates.

    Raises:
        ValueError: a site has some draws in place of all its values, by `num_samples`.
    """
    enumerate_model = Enumeration(first_available_dim=-1 - int(nesting))
    with poutine.block():
        replayed: Any = poutine.replay(enumerate_model(run.model), trace=drawn)
        trace: Any = poutine.trace(replayed).get_trace(*run.args, **run.kwargs)
    trace = prune_subsample_sites(trace)
    trace.compute_log_prob()
    trace.pack_tensors()
    symbols = summed_symbols(Traces(trace, drawn))
    if not symbols:
        return Posterior({}, {}, {})
    for name in symbols.values():
        if trace.nodes[name]["infer"].get("num_samples") is not None:
            raise ValueError(
                f"{name} has num_samples: its values are drawn, and a posterior over them is not "
                "exact. Leave num_samples out." + see("enumerated-site")
            )
    sums = components(_factors(trace, symbols), symbols)
    return Posterior(_draws(trace, sums, symbols), *_log_likelihoods(trace, sums, symbols))


def _draws(
    trace: Any, sums: Sequence[Sequence[Factor]], symbols: Mapping[str, str]
) -> dict[str, Tensor]:
    """Site -> value."""
    places: dict[str, Any] = {}
    for factors in sums:
        places.update(draws_of(factors, symbols))
    found = {}
    for name in symbols.values():
        fn, frames = trace.nodes[name]["fn"], trace.nodes[name]["cond_indep_stack"]
        values = fn.enumerate_support(expand=False).reshape(-1, *fn.event_shape)
        depth = max((-frame.dim for frame in frames if frame.vectorized), default=0)
        shape = fn.batch_shape[len(fn.batch_shape) - depth :]  # the others are enumerated
        if name in places:
            place = packed.unpack(places[name], trace.symbol_to_dim)
        else:  # a site with one value has no dim in a packed tensor
            place = torch.zeros((), dtype=torch.long, device=values.device)
        found[name] = values[place.expand(shape)]
    return found


def _log_likelihoods(
    trace: Any, sums: Sequence[Sequence[Factor]], symbols: Mapping[str, str]
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """As the attributes of `Posterior`."""
    found: dict[str, Tensor] = {}
    behind: dict[str, list[str]] = {}
    for factors in sums:
        observed = [factor for factor in factors if factor.site["is_observed"]]
        summed = [factor.site["name"] for factor in factors if factor.is_summed]
        names = [factor.site["name"] for factor in observed if not is_factor(factor.site)]
        behind.update(dict.fromkeys(names, summed))
        if len(observed) != 1 or not names:
            continue
        ordinal, total = sum_of(factors, symbols)
        if ordinal != observed[0].ordinal:
            continue
        # p(x) = sum_k p(k, z) f(x | k, z) / sum_k p(k, z), with the guide's latents z
        others = [factor for factor in factors if factor is not observed[0]]
        value = packed.unpack(total, trace.symbol_to_dim)
        for part in components(others, symbols):
            value = value - packed.unpack(sum_of(part, symbols)[1], trace.symbol_to_dim)
        found[names[0]] = value
    return found, behind


def _factors(trace: Any, symbols: Mapping[str, str]) -> list[Factor]:
    """The log densities that depend on a site that is summed out, masked and not scaled."""
    factors = []
    for name, node in trace.nodes.items():
        if node["type"] != "sample" or is_deterministic(node):
            continue
        value = node["packed"]["unscaled_log_prob"]
        if name not in symbols.values():
            value = packed.scale_and_mask(value, mask=node["packed"]["mask"])
        if not symbols.keys().isdisjoint(value._pyro_dims):
            is_summed = name in symbols.values()
            factors.append(Factor(node, value, ordinal_of(trace, node), is_summed))
    return factors
