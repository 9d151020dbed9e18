"""AffineBeta || AffineBeta: on one interval the KL of two Betas, otherwise an integral."""

from __future__ import annotations

from pyro.distributions import AffineBeta
from torch import Tensor
from torch.distributions import kl_divergence

from ...numerics.concrete import is_same
from ...registry.integrate import integral
from ...registry.pair import Case
from ...registry.register import register
from ...registry.shapes import broadcast_batch
from ..continuous.affine_beta import affine_beta

_integral = integral(affine_beta, affine_beta)
assert _integral is not None
_by_integral = _integral.formula


@register(
    AffineBeta,
    AffineBeta,
    cases=[
        Case(
            {"concentration1": 3.0, "concentration0": 2.0, "loc": -1.0, "scale": 4.0},
            {"concentration1": 1.0, "concentration0": 1.0, "loc": -1.0, "scale": 4.0},
            0.23490664978800031023,
        ),
        Case(
            {"concentration1": 3.0, "concentration0": 2.0, "loc": 0.0, "scale": 1.0},
            {"concentration1": 1.0, "concentration0": 1.0, "loc": -1.0, "scale": 4.0},
            1.621201010907890929064,
        ),
    ],
    finite="p's support is inside q's",
    reference="one interval: Penny (2001), as for Beta; others: the definition, integrated "
    "(Takahasi & Mori 1974)",
    method="quadrature",
)
def kl_affine_beta_affine_beta(p: AffineBeta, q: AffineBeta) -> Tensor:
    """The KL of two Betas if both are on one interval with constant ends; else the integral."""
    shape = broadcast_batch(p, q)
    if is_same(p.loc, q.loc) and is_same(p.scale, q.scale):
        return kl_divergence(p.base_dist, q.base_dist).expand(shape)
    return _by_integral(p, q)
