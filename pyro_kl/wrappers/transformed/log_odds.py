"""Images of Normals against a Beta, a Dirichlet or an LKJCholesky, as AutoNormal has them.

The sigmoid, stick breaking and the map to correlations are undone on both sides: each Normal is
compared with the log odds of a Beta, of the sticks that a Dirichlet breaks, or of the partial
correlations of an LKJCholesky.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Beta, Dirichlet, Independent, LKJCholesky, Normal
from torch.distributions.transforms import (
    CorrCholeskyTransform,
    SigmoidTransform,
    StickBreakingTransform,
)

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
    """A Normal under the map that `biject_to` has for the support of q."""
    way = _WAYS.get(class_of(q))
    if way is None or type(p) not in TRANSFORMED or len(p.transforms) != 1:
        return None
    transform_class, kl = way
    normal = p.base_dist.base_dist if is_a(p.base_dist, Independent) else p.base_dist
    if class_of(normal) is not Normal or not is_a(p.transforms[0], transform_class):
        return None
    value, shape = kl(normal.loc, normal.scale, q), broadcast_batch(p, q)
    return value if value.shape == shape else value.expand(shape)


def _of_beta(loc: Tensor, scale: Tensor, q: Beta) -> Tensor:
    theirs = {"concentration1": q.concentration1, "concentration0": q.concentration0}
    return _kl({"loc": loc, "scale": scale}, theirs, "TransformedDistribution(Normal) || Beta")


def _of_correlations(loc: Tensor, scale: Tensor, q: LKJCholesky) -> Tensor:
    """atanh(2 v - 1) is half of logit(v)."""
    b = partial_correlations(q.dim, in_float64(q.concentration))
    each = _kl(
        {"loc": 2 * loc, "scale": 2 * scale},
        {"concentration1": b, "concentration0": b},
        "TransformedDistribution(Normal) || LKJCholesky",
    )
    return each.sum(-1).to(promoted((loc, scale, q.concentration)))


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


def partial_correlations(dim: int, concentration: Tensor) -> Tensor:
    """b, such that (1 + tanh u_ij) / 2 ~ Beta(b, b) for j < i: eta + (d - 2 - j) / 2.

    Source:
        Lewandowski, Kurowicka & Joe (2009), sec. 2.4.
    """
    column = torch.tril_indices(dim, dim, -1, device=concentration.device)[1]
    return concentration.unsqueeze(-1) + 0.5 * (dim - 2 - column).to(concentration.dtype)


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


#: Class of q -> the map of p, and the KL by loc and scale of the Normal.
_WAYS: dict[type, tuple[type, Callable[[Tensor, Tensor, Any], Tensor]]] = {
    Beta: (SigmoidTransform, _of_beta),
    Dirichlet: (
        StickBreakingTransform,
        lambda loc, scale, q: kl_of_sticks(loc, scale, q.concentration),
    ),
    LKJCholesky: (CorrCholeskyTransform, _of_correlations),
}
