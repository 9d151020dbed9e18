"""From a pair of traces with enumeration to the terms of the ELBO."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

from pyro.infer.traceenum_elbo import (
    _check_model_guide_enumeration_constraint,
    _get_common_scale,
)
from pyro.ops import packed
from pyro.util import ignore_jit_warnings
from torch import Tensor

from ...messages import see
from ...numerics.concrete import is_recorded, is_step_recorded
from ..collect import (
    Collected,
    auxiliary,
    check,
    compute_densities,
    latent,
    likelihood,
    plain_pair,
)
from ..draws import DrawsBehind
from ..guides.guide_site import FromPrior
from ..guides.plan import Decision, Plan
from ..objective import Objective
from ..settings import lends_mask
from ..site_batches import PairAndMember, in_batches
from ..terms import SUMMED_OUT, Term
from ..traces import Site, Traces, compute_guide, compute_model
from ..weights_in_sums import weight_inside, weight_of_sum
from .dims import Ordinal, is_enumerated, ordinal_of, pack, summed_symbols, without_enumeration
from .summed_out import Factor, SummedOut, components, sum_of
from .weights import Cost, Weighted, Weights


def collect(
    plan: Plan, traces: Traces, objective: Objective, levels: Any, nesting: float
) -> Collected:
    """The terms of one pair of traces, as expectations over the enumerated values.

    Args:
        plan: as made for traces of this structure.
        traces: of model and guide, with symbols for their dims.
        objective: has the weights of the KLs whose priors are inside of a sum.
        levels: its numbers at this step.
        nesting: how many rightmost dims belong to plates.

    Raises:
        ValueError: an option of the objective has no meaning for these sites; or what Pyro's
            TraceEnum_ELBO raises.
    """
    return _Collector(plan, traces, objective, levels, nesting).collected()


#: A term, and its cost at one value of the discrete draws.
_Entry = tuple[Term, Cost]


class _Sum(NamedTuple):
    """A sum over the values of the model's discrete sites.

    Attributes:
        cost: its logarithm, times scale and weight.
        factors: of the sum.
        scale: of all its sites.
        beta: the weight of their KL.
    """

    cost: Cost
    factors: list[Factor]
    scale: Any
    beta: Any


class _Collector:
    """The work on one pair of traces."""

    def __init__(
        self, plan: Plan, traces: Traces, objective: Objective, levels: Any, nesting: float
    ) -> None:
        self.plan, self.traces = plan, traces
        self.objective, self.levels, self.nesting = objective, levels, nesting
        tracing = is_recorded()
        with ignore_jit_warnings() if tracing else nullcontext():
            check(plan, traces, tracing)
        compute_densities(plan, traces, every_density=False)
        self._compute_more()
        model: Any = traces.model
        guide: Any = traces.guide
        self.symbol_to_dim = {**guide.symbol_to_dim, **model.symbol_to_dim}
        self.symbols = summed_symbols(traces)
        self.weights = Weights(guide, self.symbol_to_dim, nesting)
        self.draws = DrawsBehind(plan, traces, self.weights.drawn)
        self.ordinals: dict[str, Ordinal] = {
            name: ordinal_of(trace, site)
            for trace in (model, guide)
            for name, site in trace.nodes.items()
            if site["type"] == "sample"
        }
        #: whether KLs need no weights, so that those of many sites are computed at once
        self.may_batch = self.weights.are_plain and objective.kl_balance is None
        self.may_batch &= not tracing or is_step_recorded()
        self.factors: list[Factor] = []

    def _compute_more(self) -> None:
        """The densities that only an enumeration needs."""
        compute_model(self.traces.model, self.plan.summed_out)
        nodes = self.traces.guide.nodes
        marked = [
            name
            for name, node in nodes.items()
            if node["type"] == "sample" and node["infer"].get("enumerate")
        ]
        if marked:
            compute_guide(self.traces.guide, marked)

    # --- terms ----------------------------------------------------------------------------------

    def collected(self) -> Collected:
        """All terms."""
        entries: list[_Entry] = []
        for name in self.plan.observed:
            node = self.traces.model.nodes[name]
            if self._is_inside(node):
                self._add_factor(node)
            else:
                term = likelihood(node)
                entries.append((term, self._cost(term, node)))
        pairs: list[PairAndMember] = []
        for name, how in self.plan.decisions.items():
            pair = plain_pair(how, self.traces) if self.may_batch else None
            if pair is not None:
                pairs.append(pair)
            else:
                entries.append(self._latent(name, how))
        batches, alone = in_batches(pairs)
        for name in self.plan.auxiliary:
            node = self.traces.guide.nodes[name]
            term = auxiliary(node)
            # a factor may be a term of the loss for its own sake, as in TraceEnum_ELBO
            pathwise = is_enumerated(node) or node["is_observed"]
            entries.append((term, self._cost(term, node, pathwise)))
        self.draws.learn([term for term, _ in entries])
        sums = self._sums()
        costs = [cost for _, cost in entries] + [one.cost for one in sums]
        weighted = self.weights.of(costs)
        terms = [
            _weighted(term, cost, one, self.symbol_to_dim)
            for (term, cost), one in zip(entries, weighted, strict=False)
        ]
        terms += map(self._sum, sums, weighted[len(entries) :])
        return Collected(terms + alone, batches)

    def _latent(self, name: str, how: Decision) -> _Entry:
        """A latent of the guide: its KL, or log q where its prior is inside of a sum."""
        node = self.traces.model.nodes[name]
        share = None
        if self.objective.kl_balance is not None:
            share = self.objective.balance(name)
        inside = not how.exact and self._is_inside(node)
        if share is not None and (inside or not self.weights.are_plain):
            raise ValueError(
                f"kl_balance stops gradients of parameters, and {name} depends on sites that are "
                "enumerated or have a score function, whose probabilities cannot be taken apart. "
                "Give kl_balance={site: ...} for the other sites." + see("kl-balance")
            )
        if inside:
            return self._inside(name, how)
        term = latent(how, self.traces, share)
        mask_dims = term.mask.dim() if isinstance(term.mask, Tensor) else 0
        if mask_dims > self.nesting and self.objective.per(name) != "site":
            raise ValueError(
                f"The KL of {name} cannot be counted per {self.objective.per(name)}: its mask "
                'depends on an enumerated site. Count it per "site".' + see("option")
            )
        return term, self._cost(term, node, how.method == "enumerated")

    def _cost(self, term: Term, node: Site, pathwise: bool = False) -> Cost:
        """The cost of a term, whose log density has no pathwise gradient where a draw has none."""
        value = term.value
        if term.surrogate is not value and not pathwise:
            value = value.detach() + (term.surrogate - term.surrogate.detach())
        return Cost(value, node, self.ordinals[term.name], self.draws.of(term))

    def _inside(self, name: str, how: Decision) -> _Entry:
        """Log q of a latent whose log p is inside of a sum."""
        node = self.traces.model.nodes[name]
        self._add_factor(node, weight_inside(self.objective, name, self.levels))
        if isinstance(how.site, FromPrior):
            log_q = node["log_prob"].new_zeros(())
        else:
            mask = node["mask"] if lends_mask(how.site, self.traces) else True
            log_q = how.site.scaled_log_q(self.traces.guide, mask)
        term = Term.of(node, "latent", log_q, method=how.method, reason=how.reason)
        draws = self.draws.of_guide(how.site.parts)
        return term, Cost(log_q, node, self.ordinals[name], draws)

    # --- sums over the model's sites ------------------------------------------------------------

    def _is_inside(self, node: Site) -> bool:
        """Whether a density of the model depends on a site that is summed out."""
        if not self.symbols:
            return False
        shape, dim_to_symbol = node["log_prob"].shape, node["infer"]["_dim_to_symbol"]
        return any(
            size > 1 and dim_to_symbol.get(i - len(shape)) in self.symbols
            for i, size in enumerate(shape)
        )

    def _add_factor(self, node: Site, weight: Any = 1.0) -> None:
        """Put a density inside of a sum: its mask is inside too, its scale outside."""
        value = pack(node["unscaled_log_prob"], node)
        summed = node["name"] in self.plan.summed_out
        if not summed:
            value = packed.scale_and_mask(value, mask=pack(node["mask"], node))
        ordinal = self.ordinals[node["name"]]
        self.factors.append(Factor(node, value, ordinal, summed, weight))

    def _sums(self) -> list[_Sum]:
        """All sums."""
        if not self.plan.summed_out:
            return []
        nodes = self.traces.model.nodes
        of_sites: dict[Ordinal, list[Site]] = {
            self.ordinals[name]: [] for name in self.plan.summed_out
        }
        _check_model_guide_enumeration_constraint(of_sites, self.traces.guide)
        for name in self.plan.summed_out:
            self._add_factor(nodes[name])
        scale = _get_common_scale([factor.site["scale"] for factor in self.factors])
        sums = []
        for factors in components(self.factors, self.symbols):
            summed = [factor.site["name"] for factor in factors if factor.is_summed]
            beta = weight_of_sum(self.objective, summed, self.levels)
            factors = [factor.tempered(beta) for factor in factors]
            ordinal, total = sum_of(factors, self.symbols)
            total = packed.scale_and_mask(total, scale=scale * beta)
            draws = self.draws.of_model(factor.site["name"] for factor in factors)
            sums.append(_Sum(Cost(total, factors[0].site, ordinal, draws), factors, scale, beta))
        return sums

    def _sum(self, of: _Sum, weighted: Weighted) -> Term:
        """The term of a sum, which a report shows as those of its sites."""
        first = next(factor.site for factor in of.factors if factor.is_summed)
        term = Term.of(first, "likelihood", weighted.value, method=SUMMED_OUT)
        if not is_recorded():  # derivatives inside of a traced function are not traced
            parts = SummedOut(
                [factor.detached() for factor in of.factors],
                self.symbols, self.symbol_to_dim, weighted.weights,
                of.scale * weighted.number, of.beta, weighted.value.detach(),
            )  # fmt: skip
            term.shown_as = parts.terms
        return term


def _weighted(
    term: Term, cost: Cost, weighted: Weighted, symbol_to_dim: Mapping[str, int]
) -> Term:
    """A term as an expectation."""
    value, dims = weighted.value, term.dims
    if value is term.value:
        if term.surrogate is value and term.score is None:
            return term
        return replace(term, surrogate=value, score=None)
    if dims is not None and cost.value.dim() + cost.site["fn"].event_dim > dims.dim():
        dims = None  # scale or mask have the dim of an enumerated site, and the KL has not
    if dims is not None and value is not cost.value:
        dims = _expected_dims(dims, cost.value, weighted, symbol_to_dim)
    return replace(
        term, value=value, surrogate=value, score=None, dims=dims, total=None,
        shape=without_enumeration(term.shape, cost.site, value),
    )  # fmt: skip


def _expected_dims(
    dims: Tensor, kl: Tensor, weighted: Weighted, symbol_to_dim: Mapping[str, int]
) -> Tensor:
    """A KL per element of the event as an expectation.

    Args:
        dims: of the KL's batch and event shape.
        kl: of its batch shape.
        weighted: the same as an expectation.
        symbol_to_dim: of both traces.
    """
    event = dims.shape[kl.dim() :]
    if weighted.weights is not None:
        weights = weighted.weights.detach()[...]
        weights._pyro_dims = weighted.weights._pyro_dims  # type: ignore[attr-defined]
        weights = packed.unpack(weights, symbol_to_dim)[(..., *[None] * len(event))]
        dims = weights * dims.masked_fill(weights == 0, 0.0)
    return weighted.number * dims.sum_to_size((*weighted.value.shape, *event))
