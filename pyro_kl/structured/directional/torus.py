"""Pairs of angles: SineBivariateVonMises and SineSkewed, by a rule on the torus."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import SineBivariateVonMises, SineSkewed
from torch import Tensor
from torch.distributions import Distribution, Independent, VonMises, constraints

from ...numerics.dtypes import in_float64
from ...numerics.special.logarithms import expm1mx
from ...registry.pair import Case
from ...registry.provenance import Use, note
from ...registry.reduction import no_formula, reduction
from ...registry.register import register
from ...registry.shapes import broadcast_batch
from ...registry.structured_family import StructuredFamily

_ANGLES = {
    "phi_loc": constraints.real,
    "psi_loc": constraints.real,
    "phi_concentration": constraints.positive,
    "psi_concentration": constraints.positive,
    "correlation": constraints.real,
}
SINE = StructuredFamily(
    SineBivariateVonMises,
    _ANGLES,
    samples="Pyro's sampler draws from another distribution: at concentrations 3 and 2, "
    "correlation 1, the mean of cos(phi - phi_loc) is 0.722 instead of 0.799",
    traces="the constructor branches on the concentrations",
)


def _skewed(skewness: Tensor, **angles: Tensor) -> SineSkewed:
    return SineSkewed(SineBivariateVonMises(**angles), skewness)


SKEWED = StructuredFamily(
    SineSkewed,
    {**_ANGLES, "skewness": constraints.independent(constraints.interval(-0.5, 0.5), 1)},
    make=_skewed,
    samples=SINE.samples,
    traces=SINE.traces,
)
_ONE = {
    "phi_loc": 0.5,
    "psi_loc": -1.0,
    "phi_concentration": 3.0,
    "psi_concentration": 2.0,
    "correlation": 1.0,
}
_OTHER = {
    "phi_loc": 0.0,
    "psi_loc": 0.5,
    "phi_concentration": 1.0,
    "psi_concentration": 4.0,
    "correlation": -0.5,
}
_TIGHT = {
    "phi_loc": 0.5,
    "psi_loc": -1.0,
    "phi_concentration": 900.0,
    "psi_concentration": 500.0,
    "correlation": 100.0,
}
_SKEW = {"skewness": [0.3, -0.4]}

#: Points in each direction: enough for concentrations up to 300, beyond which they move together.
_POINTS = 128
_RESOLVED = 300.0


def _log_kernel(distribution: Any, x: Tensor) -> Tensor:
    """The log density up to a constant, at angles x of shape (..., points, 2)."""
    if isinstance(distribution, SineSkewed):
        turn = torch.sin(x - _centre(distribution).unsqueeze(-2))
        tilt = (in_float64(distribution.skewness).unsqueeze(-2) * turn).sum(-1)
        return _log_kernel(distribution.base_dist, x) + torch.log1p(tilt)
    if isinstance(distribution, Independent):
        turn = x - in_float64(distribution.base_dist.loc).unsqueeze(-2)
        return (
            in_float64(distribution.base_dist.concentration).unsqueeze(-2) * torch.cos(turn)
        ).sum(-1)
    turn = x - _centre(distribution).unsqueeze(-2)
    k = _sharpness(distribution).unsqueeze(-2)
    together = torch.sin(turn).prod(-1) * in_float64(distribution.correlation).unsqueeze(-1)
    # cos - 1: the constant keeps an exponential of large concentrations in range
    return (-2 * k * torch.sin(0.5 * turn).square()).sum(-1) + together


def _centre(distribution: Any) -> Tensor:
    if isinstance(distribution, SineSkewed):
        return _centre(distribution.base_dist)
    if isinstance(distribution, Independent):
        return in_float64(distribution.base_dist.loc)
    return torch.stack((in_float64(distribution.phi_loc), in_float64(distribution.psi_loc)), -1)


def _sharpness(distribution: Any) -> Tensor:
    if isinstance(distribution, SineSkewed):
        return _sharpness(distribution.base_dist)
    if isinstance(distribution, Independent):
        return in_float64(distribution.base_dist.concentration)
    given = (distribution.phi_concentration, distribution.psi_concentration)
    return torch.stack([in_float64(k) for k in given], -1)


def _is_known(distribution: Any) -> bool:
    if isinstance(distribution, SineSkewed):
        return _is_known(distribution.base_dist)
    if isinstance(distribution, Independent):
        return isinstance(distribution.base_dist, VonMises) and distribution.event_shape == (2,)
    return isinstance(distribution, SineBivariateVonMises)


def _log_density(distribution: Any) -> Any:
    """The normalised log density: the constant by the same rule, around the distribution's own
    centre.

    A skew leaves the constant as it is; Pyro's series for it has 50 terms.
    """
    symmetric = distribution.base_dist if isinstance(distribution, SineSkewed) else distribution
    return lambda x: _log_kernel(distribution, x) - _log_constant(symmetric).unsqueeze(-1)


def _log_constant(distribution: Any) -> Tensor:
    x, log_weight = _points(distribution)
    return torch.logsumexp(_log_kernel(distribution, x) + log_weight, -1)


def _points(distribution: Any) -> tuple[Tensor, Tensor]:
    """Angles (..., points, 2) around the centre, and log weights; constants of the integral."""
    centre, sharpness = _centre(distribution).detach(), _sharpness(distribution).detach()
    t = torch.arange(_POINTS, dtype=centre.dtype, device=centre.device) * (2 * math.pi / _POINTS)
    half = 0.5 * (t - math.pi)
    # theta = 2 atan(k tan(t/2)) gathers the points around 0 for k < 1
    k = torch.sqrt(_RESOLVED / sharpness).clamp(max=1.0).unsqueeze(-1)
    angles = 2 * torch.atan2(k * torch.sin(half), torch.cos(half)) + centre.unsqueeze(-1)
    slope = k / (torch.cos(half).square() + (k * torch.sin(half)).square())
    log_weight = torch.log(slope * (2 * math.pi / _POINTS))
    phi, psi = angles[..., 0, :].unsqueeze(-1), angles[..., 1, :].unsqueeze(-2)
    x = torch.stack(torch.broadcast_tensors(phi, psi), -1).flatten(-3, -2)
    both = log_weight[..., 0, :].unsqueeze(-1) + log_weight[..., 1, :].unsqueeze(-2)
    return x, both.flatten(-2)


@register(
    SineBivariateVonMises,
    SineSkewed,
    cases=[Case(_ONE, {**_OTHER, **_SKEW}, 2.741257880510079556)],
    reference="the densities: Ameijeiras-Alonso & Ley (2022), eq. 2.1",
    method="quadrature",
    make_p=SINE,
    make_q=SKEWED,
)
@register(
    SineSkewed,
    SineBivariateVonMises,
    cases=[Case({**_ONE, **_SKEW}, _OTHER, 3.5539324518549437698)],
    reference="the densities: Ameijeiras-Alonso & Ley (2022), eq. 2.1",
    method="quadrature",
    make_p=SKEWED,
    make_q=SINE,
)
@register(
    SineSkewed,
    SineSkewed,
    cases=[Case({**_ONE, **_SKEW}, {**_OTHER, "skewness": [0.0, 0.2]}, 3.7068361187923760571)],
    reference="the densities: Ameijeiras-Alonso & Ley (2022), eq. 2.1",
    method="quadrature",
    make_p=SKEWED,
    make_q=SKEWED,
)
@register(
    SineBivariateVonMises,
    SineBivariateVonMises,
    cases=[Case(_ONE, _OTHER, 3.0547908836067812109), Case(_TIGHT, _OTHER, 8.608881508127579277)],
    reference="the density: Singh, Hnizdo & Demchuk (2002)",
    method="quadrature",
    make_p=SINE,
    make_q=SINE,
)
def kl_torus(p: Distribution, q: Distribution) -> Tensor:
    """The trapezoid over both angles, which converges exponentially for what is periodic."""
    shape = broadcast_batch(p, q)
    if not (_is_known(p) and _is_known(q)):
        raise no_formula(p, q)
    x, log_weight = _points(p)
    log_p, log_q = _log_density(p)(x), _log_density(q)(x)
    gap = log_p - log_q
    mass = torch.exp(log_p + log_weight)
    # close to each other: the points that resolve p resolve q, and adding q - p changes nothing
    is_near = gap.abs().amax(-1) < 1
    close = expm1mx(-torch.where(is_near.unsqueeze(-1), gap, 0.0))
    kl = (mass * torch.where(is_near.unsqueeze(-1), close, gap)).sum(-1)
    return kl.to(torch.promote_types(_dtype(p), _dtype(q))).expand(shape)


@reduction
def by_torus(p: Distribution, q: Distribution) -> Tensor | None:
    """A product of two VonMises against a distribution on the torus, in both directions."""
    on_torus = [
        isinstance(distribution, SineBivariateVonMises | SineSkewed) for distribution in (p, q)
    ]
    if not any(on_torus) or not (_is_known(p) and _is_known(q)):
        return None
    note(Use("quadrature", __name__))
    return kl_torus(p, q)


def _dtype(distribution: Any) -> torch.dtype:
    if isinstance(distribution, SineSkewed):
        return torch.promote_types(distribution.skewness.dtype, _dtype(distribution.base_dist))
    if isinstance(distribution, Independent):
        return distribution.base_dist.loc.dtype
    return distribution.phi_loc.dtype
