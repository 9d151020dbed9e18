"""GaussianScaleMixture: normals around 0 that differ in size and not in shape."""

from __future__ import annotations

import math

import torch
from pyro.distributions import GaussianScaleMixture
from torch import Tensor
from torch.distributions import constraints

from ...numerics.dtypes import in_float64, promoted
from ...numerics.quadrature.fixed import equal_steps, kl_at_nodes
from ...numerics.special.logarithms import HALF_LOG_TAU
from ...registry.at_points import AtPoints, at_nodes
from ...registry.pair import Case
from ...registry.reduction import no_formula
from ...registry.shapes import check_event_shapes
from ...registry.structured_family import StructuredFamily, register_each

# coord_scale must be the same on both sides, so it is no parameter that the checks may move
SCALE_MIXTURE = StructuredFamily(
    GaussianScaleMixture,
    {
        "component_logits": constraints.real_vector,
        "component_scale": constraints.independent(constraints.positive, 1),
    },
    batched=False,
    samples="Pyro's log_prob takes one value at a time",
)
_COORDINATES = {"coord_scale": [1.0, 0.5, 2.0]}
_TWO = {**_COORDINATES, "component_logits": [0.0, 1.0], "component_scale": [0.5, 2.0]}
_THREE = {
    **_COORDINATES,
    "component_logits": [0.0, 0.5, -1.0],
    "component_scale": [1.0, 0.3, 4.0],
}
_CASES = [Case(_TWO, _THREE, 0.74135336939036249866), Case(_THREE, _TWO, 0.79644925831856279145)]
_NODES = 640


@register_each(
    (SCALE_MIXTURE, SCALE_MIXTURE, _CASES),
    finite="always; p.coord_scale == q.coord_scale, or there is no formula",
    reference="the density: Jankowiak & Karaletsos (2018), arXiv:1806.01856; in the docstring",
    method="quadrature",
)
def kl_scale_mixture(p: GaussianScaleMixture, q: GaussianScaleMixture) -> Tensor:
    """One integral over y = log of the squared radius."""
    check_event_shapes(p, q)
    at = over_radius(p, q)
    if at is None:
        raise no_formula(p, q)
    kl = kl_at_nodes(torch.exp(at.log_p) * at.weight, at.log_p - at.log_q)
    return kl.to(promoted((p.component_scale, q.component_scale)))


@at_nodes([GaussianScaleMixture])
def over_radius(
    p: GaussianScaleMixture, q: GaussianScaleMixture, fineness: int = 1
) -> AtPoints | None:
    """Nodes in y = log of the squared radius, on which both densities depend alone.

    By symmetry the gradient by one coordinate's scale is 1/d of the gradient by a factor that all
    coordinates share. None if the scales of the coordinates differ.
    """
    if not torch.equal(p.coord_scale, q.coord_scale):
        return None
    d = p.dim
    common = torch.log(in_float64(p.coord_scale) / in_float64(q.coord_scale)).mean()
    log_s = torch.log(in_float64(p.component_scale)) + common
    log_t = torch.log(in_float64(q.component_scale))
    # below and above these ends less than 1e-16 of p's mass is left
    low = 2 * log_s.min() + math.log(d) - 9 * min(math.sqrt(2 / d), 3.0) - 76.0 / d
    high = 2 * log_s.max() + math.log(d + 80.0 + 13 * math.sqrt(d))
    y, step = equal_steps(low, high, fineness * _NODES)
    surface = 0.5 * d * y - 0.5 * d * math.log(2) - math.lgamma(0.5 * d)
    # of a density over the coordinates themselves, which have the volume element exp(surface - c)
    c = -d * HALF_LOG_TAU - in_float64(p.coord_scale).log().sum()
    log_weight = surface + step.log() - c
    return AtPoints(_log_mixture(p, log_s, y, d) + c, _log_mixture(q, log_t, y, d) + c, log_weight)


def _log_mixture(
    distribution: GaussianScaleMixture, log_scale: Tensor, y: Tensor, d: int
) -> Tensor:
    """Log of sum_k pi_k s_k^-d exp(-r^2 / (2 s_k^2)) at y = log r^2."""
    weights = torch.log_softmax(in_float64(distribution.component_logits), -1) - d * log_scale
    ratio = torch.exp(y.unsqueeze(-1) - 2 * log_scale)
    return torch.logsumexp(weights - 0.5 * ratio, -1)
