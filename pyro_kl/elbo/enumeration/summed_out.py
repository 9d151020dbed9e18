"""The sums over the values of the model's discrete sites, and what each site has to do with them.

With p(k) the prior of the sites that are summed out and f the densities that depend on them, the
ELBO contains

    log sum_k p(k) f(k) = E[log f(k)] - KL(q(k) || p(k)),    q(k) proportional to p(k) f(k):

the sum is the best that a guide for k could do, and q is the exact posterior of k, given the
other draws. A report shows both parts. The expectations are derivatives of the sum: that of log f
is sum_k q(k) log f(k), and q(k) is the derivative of the sum by log f(k). With the weight beta of
the KL, the best guide makes it beta log sum_k p(k) f(k)^(1/beta).

Reference: Obermeyer and others (2019), Tensor Variable Elimination for Plated Factor Graphs.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.einsum.adjoint import require_backward
from torch import Tensor

from ...messages import see
from ...results.by_site import shortened
from ..collect import likelihood
from ..terms import SUMMED_OUT, Term
from ..traces import Site
from .dims import Ordinal, without_enumeration
from .log_einsum import LogSums
from .sample_einsum import Draws


@dataclass(frozen=True)
class Factor:
    """One factor of a sum.

    Attributes:
        site: of the model.
        value: its log density, packed, masked and not scaled.
        ordinal: the plates around it.
        is_summed: whether the sum is over the values of this site.
        weight: its power in the sum: that of the KL of a latent of the guide, whose prior it is,
            over that of the sites that are summed out.
    """

    site: Site
    value: Tensor
    ordinal: Ordinal
    is_summed: bool
    weight: Any = 1.0

    def detached(self) -> Factor:
        """The same without its graph."""
        value: Any = self.value.detach()
        value._pyro_dims = _dims(self.value)
        return replace(self, value=value)

    def tempered(self, beta: Any) -> Factor:
        """The same where the KL of the sites that are summed out has the weight `beta`."""
        if self.is_summed or (not isinstance(beta, Tensor) and beta == 1.0):
            return self
        return replace(self, weight=self.weight / beta)

    def weighted(self, value: Any) -> Any:
        """A value of the density, times the weight."""
        if not isinstance(self.weight, Tensor) and self.weight == 1.0:
            return value
        weighted = self.weight * value
        weighted._pyro_dims = value._pyro_dims
        return weighted


def components(factors: Sequence[Factor], symbols: Mapping[str, str]) -> list[list[Factor]]:
    """The sets of factors that are tied together by the sites that are summed out.

    Args:
        factors: of all sums.
        symbols: those of the dims that are summed out.
    """
    found: list[tuple[set[str], list[Factor]]] = []
    for factor in factors:
        dims: set[str] = {dim for dim in _dims(factor.value) if dim in symbols}
        members = [factor]
        apart = []
        for other in found:
            if dims & other[0]:
                dims |= other[0]
                members = other[1] + members
            else:
                apart.append(other)
        found = [*apart, (dims, members)]
    return [members for _, members in found]


def sum_of(factors: Sequence[Factor], symbols: Mapping[str, str]) -> tuple[Ordinal, Tensor]:
    """The logarithm of one sum, packed, not scaled, and the plates around it."""
    return _contracted([factor.weighted(factor.value) for factor in factors], factors, symbols)


def draws_of(factors: Sequence[Factor], symbols: Mapping[str, str]) -> dict[str, Any]:
    """Site -> the place of a value among all its values, packed; those of one sum together.

    Raises:
        ValueError: no value has a density above 0.
    """
    factors = [factor.detached() for factor in factors]
    for factor in factors:
        if factor.is_summed:
            require_backward(factor.value)
    _, total = _contracted([factor.value for factor in factors], factors, symbols, Draws)
    if not bool(total.isfinite().all()):
        names = shortened([factor.site["name"] for factor in factors if factor.is_summed])
        given = shortened([factor.site["name"] for factor in factors if not factor.is_summed])
        raise ValueError(
            f"{names} cannot be drawn: at this draw of the guide the density of {given} is 0 or "
            "not a number under every value." + see("loss-not-finite")
        )
    total._pyro_backward()
    found = {}
    for factor in factors:
        if factor.is_summed:
            drawn: Any = factor.value
            places = drawn._pyro_backward_result
            symbol = factor.site["infer"]["_enumerate_symbol"]
            place = places[places._pyro_sample_dims.index(symbol)]
            place._pyro_dims = places._pyro_dims[1:]
            found[factor.site["name"]] = place
    return found


def _contracted(
    values: Sequence[Any],
    factors: Sequence[Factor],
    symbols: Mapping[str, str],
    ring: Any = LogSums,
) -> tuple[Ordinal, Any]:
    tree: OrderedDict[Ordinal, list[Tensor]] = OrderedDict()
    sizes: dict[str, int] = {}
    for value, factor in zip(values, factors, strict=True):
        tree.setdefault(factor.ordinal, []).append(value)
        sizes.update(zip(value._pyro_dims, value.shape, strict=True))
    summed = {dim for dim in sizes if dim in symbols}
    contracted = contract_tensor_tree(tree, summed, ring=ring(dim_to_size=sizes))
    ((ordinal, (total,)),) = contracted.items()
    return ordinal, total


@dataclass
class SummedOut:
    """One sum, which a report shows as the terms of its sites.

    Attributes:
        factors: of the sum.
        symbols: those of the dims that are summed out.
        symbol_to_dim: of both traces.
        weights: of the sum in the loss, packed; None if they are 1.
        scale: of all its sites, times the factor of the sum in the loss.
        beta: the weight of the KL of the sites that are summed out.
        total: the sum in the loss, of the shape of its plates.
    """

    factors: Sequence[Factor]
    symbols: Mapping[str, str]
    symbol_to_dim: Mapping[str, int]
    weights: Tensor | None
    scale: Any
    beta: Any
    total: Tensor

    def terms(self) -> list[Term]:
        """The expected log densities under the posterior, and the KL of the sites summed."""
        expected = self._expected()
        summed = [factor.site["name"] for factor in self.factors if factor.is_summed]
        names = shortened(summed)
        posterior = "exact posterior"
        if self.beta != 1.0:
            posterior = f"best posterior at beta = {float(self.beta):g}"
        found: list[Term] = []
        log_f: Any = torch.zeros_like(self.total)
        for factor, value in zip(self.factors, expected, strict=True):
            if factor.is_summed:
                continue
            log_f = log_f + factor.weight * value.sum_to_size(self.total.shape)
            node = factor.site
            if node["is_observed"]:
                term = likelihood(node)
                term.reason = f"expectation under the {posterior} of {names}"
                term.value = value
            else:
                term = Term.of(node, "latent", -value, method="monte carlo")
            term.shape = without_enumeration(term.shape, node, value)
            found.append(term)
        kl = log_f - self.total / self.beta
        kl = kl.masked_fill(log_f.isinf(), 0.0)  # impossible data are no fault of the prior
        first = next(factor.site for factor in self.factors if factor.is_summed)
        reason = f"the KL of its {posterior}, given the other draws"
        if len(summed) > 1:
            reason = f"the KL of the {posterior} of {names} together, given the other draws"
        term = Term.of(first, "latent", kl, method=SUMMED_OUT, reason=reason)
        term.shape, term.together = tuple(kl.shape), tuple(summed)
        found.append(term)
        return [term.detached() for term in found]

    def _expected(self) -> list[Tensor]:
        """The expectation of each log density, times scale and weights, of the plates' shape."""
        with torch.enable_grad():
            leaves: list[Any] = []
            for factor in self.factors:
                leaf: Any = factor.value.detach().clone().requires_grad_()
                leaf._pyro_dims = _dims(factor.value)
                leaves.append(leaf)
            weighted = [f.weighted(leaf) for f, leaf in zip(self.factors, leaves, strict=True)]
            _, total = _contracted(weighted, self.factors, self.symbols)
            if self.weights is not None:
                total, weights = packed.broadcast_all(total, self.weights)
                total = total * weights.detach()
            posteriors = torch.autograd.grad((total * self.scale).sum(), weighted)
        expected = []
        for posterior, leaf, factor in zip(posteriors, leaves, self.factors, strict=True):
            # what has no probability adds nothing
            value: Any = posterior * leaf.detach().masked_fill(posterior == 0, 0.0)
            dims = leaf._pyro_dims
            inner = [i for i, dim in enumerate(dims) if dim not in factor.ordinal]
            best = leaf.detach().amax(inner) if inner else leaf.detach()
            value = value.sum(inner) if inner else value
            value = value.masked_fill(best == -math.inf, -math.inf)  # impossible in any case
            value._pyro_dims = "".join(dim for dim in dims if dim in factor.ordinal)
            expected.append(packed.unpack(value, self.symbol_to_dim))
        return expected


def _dims(value: Any) -> str:
    dims: str = value._pyro_dims
    return dims
