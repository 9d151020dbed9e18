"""Expectations over the discrete draws of a guide, by the weights of DiCE.

Each site of the guide whose values are enumerated, or drawn without reparametrisation, has a
factor: the probability of its values, or 1 with the derivative of the score function. A cost is
multiplied by the factors of the sites whose plates are around the cost too, without those of the
draws that cannot change it, which would only add noise to the gradient; the product is summed
over the enumerated values.

Reference: Foerster and others (2018), DiCE: The Infinitely Differentiable Monte-Carlo Estimator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from pyro.distributions.score_parts import ScoreParts
from pyro.distributions.util import is_identically_zero
from pyro.infer.util import compute_site_dice_factor
from pyro.ops import packed
from pyro.ops.einsum.adjoint import require_backward
from pyro.ops.rings import MarginalRing
from torch import Tensor

from ...numerics.concrete import is_recorded
from ..draws import Draws
from ..traces import Site, Trace
from .dims import Ordinal, ordinal_of, pack


class Cost(NamedTuple):
    """What a site adds to the ELBO at one value of the discrete draws.

    Attributes:
        value: nats; of the batch shape of `site`, or packed.
        site: of model or guide, whose dims the value has.
        ordinal: the plates around it.
        draws: the sites, drawn without reparametrisation, that it may depend on.
    """

    value: Tensor
    site: Site
    ordinal: Ordinal
    draws: Draws


class Weighted(NamedTuple):
    """A cost times its weights.

    Attributes:
        value: summed over the enumerated values; its dims are those of the plates.
        number: factor that is the same for all elements.
        weights: the other factor, packed; None if it is 1.
    """

    value: Tensor
    number: float
    weights: Tensor | None


@dataclass
class _Factor:
    """The factor of one site of the guide.

    Attributes:
        value: its logarithm, a packed tensor or a number.
        ordinal: the plates around the site.
        drawn: the site if it has one value, drawn without reparametrisation; None if it has more.
    """

    value: Any
    ordinal: Ordinal
    drawn: str | None


class Weights:
    """The factors of all sites of a guide.

    Args:
        guide_trace: with the densities of the sites that have a factor, and symbols for its dims.
        symbol_to_dim: of both traces.
        nesting: how many rightmost dims belong to plates.
    """

    def __init__(
        self, guide_trace: Trace, symbol_to_dim: Mapping[str, int], nesting: float
    ) -> None:
        self._symbol_to_dim = symbol_to_dim
        self._nesting = nesting
        self._factors: list[_Factor] = []
        self._repeats: list[tuple[Ordinal, float]] = []
        for site in guide_trace.nodes.values():
            if site["type"] == "sample" and has_factor(site):
                self._add(site, ordinal_of(guide_trace, site))

    def _add(self, site: Site, ordinal: Ordinal) -> None:
        parts = site["score_parts"]
        site["packed"] = {
            "score_parts": ScoreParts(*(pack(part, site) for part in parts)),
            "log_prob": pack(site["log_prob"], site),
        }
        log_weight, log_repeats = compute_site_dice_factor(site)
        if not is_identically_zero(log_weight):
            drawn = None if site["infer"].get("enumerate") else site["name"]
            self._factors.append(_Factor(log_weight, ordinal, drawn))
        if log_repeats:
            self._repeats.append((ordinal, log_repeats))

    @property
    def drawn(self) -> list[str]:
        """The sites that are drawn without reparametrisation."""
        return [factor.drawn for factor in self._factors if factor.drawn is not None]

    @property
    def are_plain(self) -> bool:
        """Whether nothing of the guide is enumerated or drawn without reparametrisation."""
        return not self._factors and not self._repeats

    def of(self, costs: Sequence[Cost]) -> list[Weighted]:
        """Each cost times its weights, summed over the enumerated values."""
        groups: dict[tuple[Ordinal, tuple[int, ...]], list[int]] = {}
        for i, cost in enumerate(costs):
            groups.setdefault((cost.ordinal, self._chosen(cost)), []).append(i)
        found: dict[int, Weighted] = {}
        for (ordinal, chosen), members in groups.items():
            values = [self._factors[k].value for k in chosen]
            tensors = [value for value in values if isinstance(value, Tensor)]
            number = math.exp(
                sum(value for value in values if not isinstance(value, Tensor))
                - sum(log for above, log in self._repeats if not above <= ordinal)
            )
            of_group = [costs[i] for i in members]
            if tensors:
                weighted = self._marginals(tensors, ordinal, number, of_group)
            else:
                weighted = [self._alone(cost, number) for cost in of_group]
            found.update(zip(members, weighted, strict=True))
        return [found[i] for i in range(len(costs))]

    def _chosen(self, cost: Cost) -> tuple[int, ...]:
        """The factors that a cost is multiplied by."""
        return tuple(
            k
            for k, factor in enumerate(self._factors)
            if factor.ordinal <= cost.ordinal
            and (factor.drawn is None or factor.drawn in cost.draws)
        )

    def _alone(self, cost: Cost, number: float) -> Weighted:
        """A cost that no tensor of weights belongs to."""
        value = cost.value
        if hasattr(value, "_pyro_dims") or value.dim() > self._nesting:
            value = self._summed(_packed(cost), cost.ordinal)
        return Weighted(value if number == 1.0 else number * value, number, None)

    def _marginals(
        self,
        factors: list[Tensor],
        ordinal: Ordinal,
        number: float,
        costs: Sequence[Cost],
    ) -> list[Weighted]:
        """Costs of one ordinal times the marginals of the product of the same factors.

        The marginals for all sets of dims come from one contraction and its adjoint.
        """
        values = [_packed(cost) for cost in costs]
        asked: dict[frozenset[str], Tensor] = {}
        for factor in factors:
            asked.setdefault(frozenset(_dims(factor)), factor)
        terms = list(factors)
        for value in values:
            key = frozenset(_dims(value))
            if key not in asked:
                asked[key] = zeros = torch.zeros_like(value)
                zeros._pyro_dims = _dims(value)  # type: ignore[attr-defined]
                terms.append(zeros)
        wanted = dict.fromkeys(frozenset(_dims(value)) for value in values)
        queries: list[Any] = [asked[key] for key in wanted]
        for query in queries:
            require_backward(query)
        summed = {dim for term in terms for dim in _dims(term)} - ordinal
        MarginalRing().sumproduct(terms, summed)._pyro_backward()
        probabilities: dict[frozenset[str], Tensor] = {}
        for query in queries:
            probability = query._pyro_backward_result.exp()
            probability._pyro_dims = query._pyro_dims
            probabilities[frozenset(query._pyro_dims)] = probability
        return [
            self._times(value, probabilities[frozenset(_dims(value))], cost.ordinal, number)
            for value, cost in zip(values, costs, strict=True)
        ]

    def _times(
        self, value: Tensor, probability: Tensor, ordinal: Ordinal, number: float
    ) -> Weighted:
        value, probability = packed.broadcast_all(value, probability)
        dims = _dims(value)
        # a value of probability 0 adds nothing, however large its cost
        value, infinite = value.masked_fill(probability == 0, 0.0), None
        if not is_recorded() and bool(value.isinf().any()):
            infinite = value.isinf()  # has no gradient, and would leave nan in that of others
            value, at = value.masked_fill(infinite, 0.0), value.detach()
        product: Any = probability * value
        if infinite is not None:
            product = torch.where(infinite, at, product)
        product._pyro_dims = dims
        total = self._summed(product, ordinal)
        return Weighted(total if number == 1.0 else number * total, number, probability)

    def _summed(self, value: Tensor, ordinal: Ordinal) -> Tensor:
        """A packed tensor, summed over the dims that belong to no plate, with its own dims."""
        dims = _dims(value)
        inner = [i for i, dim in enumerate(dims) if dim not in ordinal]
        if inner:
            value = value.sum(inner)
            value._pyro_dims = "".join(d for d in dims if d in ordinal)  # type: ignore[attr-defined]
        return packed.unpack(value, self._symbol_to_dim)


def has_factor(site: Site) -> bool:
    """Whether the weights of costs depend on a site of the guide, whose density is computed."""
    if site["infer"].get("enumerate"):
        return True
    parts = site.get("score_parts")
    return parts is not None and not is_identically_zero(parts.score_function)


def _packed(cost: Cost) -> Tensor:
    return cost.value if hasattr(cost.value, "_pyro_dims") else pack(cost.value, cost.site)


def _dims(value: Any) -> str:
    dims: str = value._pyro_dims
    return dims
