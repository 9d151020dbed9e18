"""ProjectedNormal: directions in the plane and in space, also against VonMises3D."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import ProjectedNormal, VonMises3D
from torch import Tensor
from torch.distributions import Distribution, constraints

from ...numerics.dtypes import in_float64, promoted
from ...numerics.quadrature.fixed import kl_at_nodes, panel
from ...numerics.special.log_sinhc import log_sinhc_bounded
from ...numerics.special.logarithms import HALF_LOG_TAU
from ...registry.at_points import AtPoints, at_nodes, check_size
from ...registry.pair import Case
from ...registry.reduction import no_formula
from ...registry.shapes import broadcast_batch
from ...registry.structured_family import StructuredFamily, register_each
from .von_mises_3d import VON_MISES_3D, length

PROJECTED_NORMAL = StructuredFamily(ProjectedNormal, {"concentration": constraints.real_vector})

#: Nodes on the circle; on the sphere along a meridian, by Gauss-Legendre, and as many along a
#: parallel.
_CIRCLE, _PARALLEL = 256, 64
#: Made once: torch.compile does not follow the computation of its nodes.
_MERIDIAN = panel(_PARALLEL)
_SPACE = {"concentration": [1.0, 0.5, -2.0]}
_OTHER = {"concentration": [0.0, 1.0, 0.5]}


def _log_ray(t: Tensor, d: int) -> Tensor:
    """Log of int_0^inf x^(d-1) exp(-(x - t)^2/2) dx, less t^2/2 where t < 0."""
    negative = t < 0
    s = torch.where(negative, -t, 0.0)
    far = s > 50
    big = torch.where(far, s, 50.0)
    r = 1 / big.square()
    s = torch.where(far, 0.0, s)
    mills = math.sqrt(math.pi / 2) * torch.special.erfcx(s / math.sqrt(2))
    up = torch.where(negative, 0.0, t)
    bell, mass = torch.exp(-0.5 * up.square()), math.sqrt(2 * math.pi) * torch.special.ndtr(up)
    if d == 2:
        behind, series = 1 - s * mills, r * (1 - r * (3 - r * (15 - 105 * r)))
        ahead = bell + up * mass
    else:
        behind = (1 + s.square()) * mills - s
        series = r / big * (2 - r * (12 - r * (90 - 840 * r)))
        ahead = up * bell + (1 + up.square()) * mass
    below = torch.log(torch.where(far, series, behind))
    return torch.where(negative, below, torch.log(ahead) + 0.5 * up.square())


def _log_density(distribution: Any, x: Tensor) -> Tensor:
    """At points x of shape (..., nodes, d)."""
    c = in_float64(distribution.concentration)
    t = (x * c.unsqueeze(-2)).sum(-1)
    if isinstance(distribution, VonMises3D):
        k = length(c)
        log_norm = log_sinhc_bounded(2 * k) + k + math.log(4 * math.pi)
        return t - log_norm.unsqueeze(-1)
    d = c.shape[-1]
    constant = -0.5 * c.square().sum(-1) - d * HALF_LOG_TAU
    return constant.unsqueeze(-1) + _log_ray(t, d)


def _points(c: Tensor, sharpness: Tensor, fineness: int) -> tuple[Tensor, Tensor]:
    """Points (..., nodes, d), denser towards c, and their weights, both without gradient."""
    c, sharpness = c.detach(), sharpness.detach().unsqueeze(-1)
    size = c.square().sum(-1, keepdim=True).sqrt()
    pole = torch.zeros_like(c)
    pole[..., 0] = 1.0
    e = torch.where(size > 0, c / torch.where(size > 0, size, 1.0), pole)
    if c.shape[-1] == 2:
        count = fineness * _CIRCLE
        angle = torch.arange(count, dtype=c.dtype, device=c.device) * (2 * math.pi / count)
        cos, sin = torch.cos(0.5 * angle), torch.sin(0.5 * angle)
        k = 1 / (1 + sharpness)
        square = cos**2 + (k * sin) ** 2
        along, across = (cos**2 - (k * sin) ** 2) / square, 2 * k * sin * cos / square
        turned = torch.stack((-e[..., 1], e[..., 0]), -1)
        x = along.unsqueeze(-1) * e.unsqueeze(-2) + across.unsqueeze(-1) * turned.unsqueeze(-2)
        return x, k / square * (2 * math.pi / count)
    count = fineness * _PARALLEL
    s, w = (x.to(c) for x in (_MERIDIAN if fineness == 1 else panel(count)))
    k = 1 / (1 + sharpness.square())
    bottom = 1 - s + k * s
    gap, weight = 2 * k * s / bottom, 2 * k * w / bottom.square()
    angle = torch.arange(count, dtype=c.dtype, device=c.device) * (2 * math.pi / count)
    ring = torch.sqrt(gap * (2 - gap)).unsqueeze(-1)
    shape = gap.shape + angle.shape
    first = (1 - gap).unsqueeze(-1).expand(shape)
    x = torch.stack((first, ring * torch.cos(angle), ring * torch.sin(angle)), -1).flatten(-3, -2)
    # the reflection that maps a pole to e: the further pole, so that e - pole keeps its digits
    flip = torch.where(e[..., :1] > 0, -1.0, 1.0).to(e.dtype)
    v = e - flip * pole
    x = x * flip.unsqueeze(-2)
    x = x - 2 * (x * v.unsqueeze(-2)).sum(-1, keepdim=True) * (
        v / v.square().sum(-1, keepdim=True)
    ).unsqueeze(-2)
    return x, (weight.unsqueeze(-1) * (2 * math.pi / count)).expand(shape).flatten(-2)


_CASES = [
    Case({"concentration": [1.0, -2.0]}, {"concentration": [0.0, 1.5]}, 3.4223905337416622211),
    Case({"concentration": [30.0, 0.0]}, {"concentration": [25.0, 4.0]}, 8.0206691606360571235),
    Case(_SPACE, _OTHER, 2.2653709811320422483),
]


_ON_SPHERE = (ProjectedNormal, VonMises3D)


@register_each(
    (PROJECTED_NORMAL, PROJECTED_NORMAL, _CASES),
    (PROJECTED_NORMAL, VON_MISES_3D, [Case(_SPACE, _OTHER, 1.7795309458566174019)]),
    (VON_MISES_3D, PROJECTED_NORMAL, [Case(_SPACE, _OTHER, 1.3354109069930429076)]),
    reference="the densities: Hernandez-Stumpfhauser, Breidt & van der Woerd (2017)",
    method="quadrature",
)
def kl_projected_normal(p: Distribution, q: Distribution) -> Tensor:
    """The integral over the circle, or over the sphere by latitude and longitude.

    In four and more dimensions a product rule takes too many points: there is no formula.
    """
    shape = broadcast_batch(p, q)
    at = on_sphere(p, q)
    if at is None:
        raise no_formula(p, q)
    kl = kl_at_nodes(at.weight * torch.exp(at.log_p), at.log_p - at.log_q)
    return kl.to(promoted((p.concentration, q.concentration))).expand(shape)  # type: ignore[attr-defined]


def on_sphere(p: Any, q: Any, fineness: int = 1) -> AtPoints | None:
    """The nodes that resolve p; None in four and more dimensions."""
    if p.event_shape[0] not in (2, 3):
        return None
    own = in_float64(p.concentration)
    size = length(own)
    x, weight = _points(own, size.sqrt() if isinstance(p, VonMises3D) else size, fineness)
    return AtPoints(_log_density(p, x), _log_density(q, x), weight.log())


@at_nodes(_ON_SPHERE)
def _finer(p: Any, q: Any, fineness: int) -> AtPoints | None:
    nodes = _CIRCLE * fineness if p.event_shape[0] == 2 else (_PARALLEL * fineness) ** 2
    check_size(nodes * broadcast_batch(p, q).numel())
    return on_sphere(p, q, fineness)
