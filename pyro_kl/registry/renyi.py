r"""Closed forms of Renyi's divergence: declared ones, and those of exponential families.

The densities p^a q^(1 - a) of two members of an exponential family are proportional to a third
member g, whose natural parameters lie on the straight line through theirs. A family declares how g
is made. Since log g = a log p + (1 - a) log q - log rho, with rho the integral of p^a q^(1 - a),

    -log rho = a KL(g || p) + (1 - a) KL(g || q),
    Renyi(p, q, a) = KL(g || q) + a / (1 - a) KL(g || p).

The log partition function is not needed: its difference would cancel where p is close to q, and
the KL of the family does not. For a = 1/2 it is twice Bhattacharyya's distance, and for a = 2
the logarithm of 1 plus the chi-squared divergence.

Reference: Nielsen & Nock (2011), arXiv:1105.3259; van Erven & Harremoes (2014), theorem 30.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from ..numerics.dtypes import Parameters, in_float64
from .family import Family
from .provenance import home_of
from .register import family_of
from .shapes import broadcast_batch
from .subclasses import is_a
from .tensors import promoted

#: Renyi's divergence of two distributions, `formula(p, q, alpha)`, for alpha from 0 to infinity
#: other than 1; None where it does not apply.
Formula = Callable[[Any, Any, float], "Tensor | None"]
#: `mixture(p, q, alpha)`: the member proportional to p^alpha q^(1 - alpha), and where it exists;
#: None where it is not known.
Mixture = Callable[[Any, Any, float], "tuple[Distribution, Tensor] | None"]
F = TypeVar("F", bound=Callable[..., Any])

_FORMULAS: dict[tuple[type[Distribution], type[Distribution]], tuple[Formula, str]] = {}
_MIXTURES: dict[type[Distribution], Mixture] = {}
_PRODUCTS: dict[
    tuple[type[Distribution], type[Distribution]],
    Callable[[Any, Any], tuple[Independent, Independent]],
] = {}


def renyi_formula(p: type[Any], q: type[Any], method: str = "closed form") -> Callable[[F], F]:
    """Declare the formula of two classes."""

    def decorate(formula: F) -> F:
        _FORMULAS[p, q] = formula, method
        return formula

    return decorate


def geometric_mixture(cls: type[Any]) -> Callable[[F], F]:
    """Declare the member proportional to p^alpha q^(1 - alpha) of an exponential family."""

    def decorate(mixture: F) -> F:
        _MIXTURES[cls] = mixture
        return mixture

    return decorate


def equal_products(p: type[Any], q: type[Any]) -> Callable[[F], F]:
    """Declare `products(p, q)`, two Independents that one map takes to p and to q."""

    def decorate(products: F) -> F:
        _PRODUCTS[p, q] = products
        return products

    return decorate


def products_of(p: Distribution, q: Distribution) -> tuple[Independent, Independent] | None:
    """Two products with the divergences of p and q; None for classes without a declaration."""
    for (left, right), products in _PRODUCTS.items():
        if is_a(p, left) and is_a(q, right):
            return products(p, q)
    return None


def structured_renyi(
    p: Distribution, q: Distribution, alpha: float
) -> tuple[Tensor, str, str] | None:
    """Renyi's divergence of two structured classes, as `closed_renyi`.

    Members of one exponential family have mass at the same places: for order 0 it is 0. For order
    infinity only the formulas of pairs answer.
    """
    for (left, right), (formula, method) in _FORMULAS.items():
        if is_a(p, left) and is_a(q, right):
            value = formula(p, q, alpha)
            if value is not None:
                value = value.expand(broadcast_batch(p, q)).to(promoted((p, q)))
                return value, method, home_of(formula.__module__)
    if alpha == math.inf:
        return None
    for cls, mixture in _MIXTURES.items():
        if is_a(p, cls) and is_a(q, cls):
            middle = mixture(p, q, alpha)
            if middle is not None:
                value = _by_mixture(p, q, *middle, alpha)
                if alpha == 0.0:
                    value = torch.where(value.isnan(), math.nan, 0.0).to(value)
                return value.to(promoted((p, q))), "closed form", home_of(mixture.__module__)
    return None


def closed_renyi(p: Distribution, q: Distribution, alpha: float) -> tuple[Tensor, str, str] | None:
    """Renyi's divergence of order alpha other than 1, its method, and where its formula is.

    None if there is no formula.
    """
    structured = structured_renyi(p, q, alpha)
    if structured is not None or not 0 < alpha < math.inf:
        return structured
    common = _in_one_family(p, q)
    if common is None:
        return None
    family, a, b = common
    if family.renyi is not None:
        value = family.renyi(a, b, alpha).expand(broadcast_batch(p, q))
    elif family.geometric_mixture is not None:
        value = _of_family(family, a, b, alpha).expand(broadcast_batch(p, q))
    else:
        return None
    return value.to(promoted((p, q))), "closed form", family.home


def _in_one_family(
    p: Distribution, q: Distribution
) -> tuple[Family, Parameters, Parameters] | None:
    """The family of both, or the wider one that both are special cases of; the parameters."""
    families = family_of(type(p)), family_of(type(q))
    if families[0] is None or families[1] is None:
        return None
    a, b = in_float64_of(families[0], p), in_float64_of(families[1], q)
    if families[0] is families[1]:
        return families[0], a, b
    (wider, of_p), (other, of_q) = (
        family.special_case_of or (family.distribution, dict) for family in families if family
    )
    family = family_of(wider)
    return (family, of_p(**a), of_q(**b)) if wider is other and family else None


def in_float64_of(family: Family, distribution: Distribution) -> Parameters:
    """The parameters of a member of a family, in float64."""
    return {name: in_float64(x) for name, x in family.of(distribution).items()}


def _of_family(family: Family, a: Parameters, b: Parameters, alpha: float) -> Tensor:
    assert family.geometric_mixture is not None
    middle = family.geometric_mixture(a, b, alpha)
    constraints: Any = family.distribution.arg_constraints
    inside = torch.ones((), dtype=torch.bool)
    for name, x in middle.items():
        # a nan is not outside: it stays, and makes its row nan
        inside = inside & (constraints[name].check(x.detach()) | x.detach().isnan())
    middle = family.unless(~inside, middle)
    p, q, g = (_member(family, x) for x in (a, b, middle))
    return _by_mixture(p, q, g, inside, alpha)


def _member(family: Family, parameters: Parameters) -> Distribution:
    build: Callable[..., Distribution] = family.distribution
    tensors = torch.broadcast_tensors(*parameters.values())
    return build(**dict(zip(parameters, tensors, strict=True)), validate_args=False)


def _by_mixture(
    p: Distribution, q: Distribution, middle: Distribution, inside: Tensor, alpha: float
) -> Tensor:
    of_p, of_q = kl_divergence(middle, p), kl_divergence(middle, q)
    return torch.where(inside, of_q + alpha / (1 - alpha) * of_p, math.inf)
