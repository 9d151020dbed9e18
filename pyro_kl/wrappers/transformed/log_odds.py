"""Normals that are mapped to (0, 1) or to the simplex, against a Beta or a Dirichlet.

The sigmoid and stick breaking are undone on both sides: a Normal is compared with the log odds of
a Beta, and a product of Normals with those of the sticks that a Dirichlet breaks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Beta, Dirichlet, Independent, Normal
from torch.distributions.transforms import SigmoidTransform, StickBreakingTransform

from ...numerics.autograd.fused import FusedFormula
from ...numerics.dtypes import Parameters, in_float64, promoted
from ...numerics.quadrature.integrate import Integral, requested_tolerance
from ...numerics.quadrature.rule import ROUNDING
from ...numerics.special.log_odds import NUM_NODES, kl_normal_log_odds
from ...registry.integrate import report
from ...registry.provenance import home_of, mark
from ...registry.shapes import broadcast_batch
from ...registry.subclasses import class_of, is_a
from .maps import TRANSFORMED


def by_log_odds(p: Any, q: Any) -> Tensor | None:
    """A Normal under the sigmoid against a Beta, or under stick breaking against a Dirichlet."""
    prior = class_of(q)
    if prior not in (Beta, Dirichlet) or type(p) not in TRANSFORMED or len(p.transforms) != 1:
        return None
    base, transform, normal = p.base_dist, p.transforms[0], p.base_dist
    if prior is Dirichlet and is_a(base, Independent):
        normal = base.base_dist
    transform_class = SigmoidTransform if prior is Beta else StickBreakingTransform
    if class_of(normal) is not Normal or not is_a(transform, transform_class):
        return None
    shape = broadcast_batch(p, q)
    if prior is Dirichlet:
        value = kl_of_sticks(normal.loc, normal.scale, q.concentration)
    else:
        value = _kl(
            {"loc": normal.loc, "scale": normal.scale},
            {"concentration1": q.concentration1, "concentration0": q.concentration0},
            "TransformedDistribution(Normal) || Beta",
        )
    return value if value.shape == shape else value.expand(shape)


def kl_of_sticks(loc: Tensor, scale: Tensor, concentration: Tensor) -> Tensor:
    """KL of Normals that stick breaking maps to the simplex, and a Dirichlet."""
    a, rest, shift = sticks(in_float64(concentration))
    each = _kl(
        {"loc": loc, "scale": scale},
        {"concentration1": a, "concentration0": rest, "shift": shift},
        "LogisticNormal || Dirichlet",
    )
    return each.sum(-1).to(promoted((loc, scale, concentration)))


def sticks(concentration: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Stick breaking of a Dirichlet with K parts: Betas, and log(K - k), which the map adds.

    The k-th part takes a fraction v_k ~ Beta(a_k, sum_{j>k} a_j) of what is left of 1. The map's
    argument u_k is logit v_k + log(K - k).
    """
    rest = concentration.flip(-1).cumsum(-1).flip(-1)[..., 1:]
    count = torch.arange(rest.shape[-1], 0, -1, dtype=rest.dtype, device=rest.device)
    return concentration[..., :-1], rest, count.log()


def _formula(p: Parameters, q: Parameters) -> Tensor:
    mean = p["loc"] - q["shift"] if "shift" in q else p["loc"]
    return kl_normal_log_odds(mean, p["scale"], q["concentration1"], q["concentration0"])


_on_parameters = FusedFormula(_formula)


def _kl(p: Parameters, q: Parameters, pair: str) -> Tensor:
    """The KL of Normals and log odds of Betas, one by one; its error is noted."""
    value = _on_parameters(p, q)
    if mark():  # somebody wants to know the error
        error = _error(value.detach(), p, q)
        found = Integral(value, error, NUM_NODES)
        report(pair, home_of(__name__), found, requested_tolerance())
    return value


def _error(value: Tensor, p: Parameters, q: Parameters) -> Tensor:
    """That of rounding: the rules leave less.

    The largest terms are (a + b) f'(c) (y - c), at most min(a, b) |y - c|, and log scale.
    """
    loc, scale, a, b, *shift = [in_float64(x).detach() for x in (*p.values(), *q.values())]
    distance = (loc - sum(shift) - torch.log(a / b)).abs() + scale
    size = value + torch.minimum(a, b) * distance + scale.log().abs() + 1
    return ROUNDING * size
