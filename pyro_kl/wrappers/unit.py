"""Unit: the distribution of a `pyro.factor`, whose only point has no coordinates."""

from __future__ import annotations

from pyro.distributions import Unit
from torch import Tensor

from ..registry.pair import Case
from ..registry.register import register
from ..registry.shapes import broadcast_batch


@register(
    Unit,
    Unit,
    cases=[Case({"log_factor": 2.0}, {"log_factor": -1.0}, 3.0)],
    reference="the definition: log p - log q at the only point",
    method="point density",
)
def kl_unit_unit(p: Unit, q: Unit) -> Tensor:
    """KL(Unit(a) || Unit(b)) = a - b: factors are not normalised."""
    return (p.log_factor - q.log_factor).expand(broadcast_batch(p, q))
