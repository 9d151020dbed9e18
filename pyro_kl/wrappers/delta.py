"""Delta: a density at a point, which is what an autoguide's site is."""

from __future__ import annotations

from functools import partial

from pyro.distributions import Delta
from pyro.distributions import Distribution as PyroDistribution
from torch import Tensor
from torch.distributions import Distribution, Normal

from ..registry.pair import Case
from ..registry.reduction import canonicalise
from ..registry.register import register
from ..registry.shapes import broadcast_batch
from .log_prob import log_prob_anywhere
from .masked import by_mask, unmasked

_of_point = partial(
    register,
    cases=[Case({"v": 1.0, "log_density": 2.0}, {"loc": 0.0, "scale": 1.0}, 3.4189385332046727)],
    finite="q has mass at v",
    reference="Pyro's convention: a Delta has density exp(log_density) at v",
    method="point density",
    replaces="Pyro drops log_density, where autoguides keep the Jacobian of a constrained site",
    make_q=Normal,
)


@_of_point(Delta, PyroDistribution)
@_of_point(Delta, Distribution)  # torch's classes are not Pyro's
def kl_delta(p: Delta, q: Distribution) -> Tensor:
    """log_density - log q(v), as if p had the density exp(log_density) at its only point.

    It is what an autoguide's site contributes to the ELBO; +inf where v is outside q's support.
    """
    shape = broadcast_batch(p, q)
    q = canonicalise(q)
    if unmasked(q)[1] is not True:
        value = by_mask(p, q)
        assert value is not None
        return value
    return (p.log_density - log_prob_anywhere(q, p.v)).expand(shape)
