"""SineBivariateVonMises and SineSkewed, two angles each, by a rule on the torus."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import SineBivariateVonMises, SineSkewed
from torch import Tensor
from torch.distributions import Distribution, Independent, VonMises, constraints

from ...numerics.dtypes import in_float64
from ...numerics.quadrature.fixed import kl_at_nodes
from ...registry.at_points import AtPoints, at_nodes, check_size
from ...registry.pair import Case
from ...registry.provenance import Use, home_of, note
from ...registry.reduction import no_formula, reduction
from ...registry.shapes import broadcast_batch
from ...registry.structured_family import StructuredFamily, register_each
from ...registry.tensors import promoted

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
)

SKEWED = StructuredFamily(
    SineSkewed,
    {**_ANGLES, "skewness": constraints.independent(constraints.interval(-0.5, 0.5), 1)},
    make=lambda skewness, **angles: SineSkewed(SineBivariateVonMises(**angles), skewness),
    samples=SINE.samples,
)


def _parameters(
    phi_loc: float, psi_loc: float, phi: float, psi: float, correlation: float
) -> dict[str, float]:
    concentrations = {"phi_concentration": phi, "psi_concentration": psi}
    return {"phi_loc": phi_loc, "psi_loc": psi_loc, **concentrations, "correlation": correlation}


_ONE = _parameters(0.5, -1.0, 3.0, 2.0, 1.0)
_OTHER = _parameters(0.0, 0.5, 1.0, 4.0, -0.5)
_TIGHT = _parameters(0.5, -1.0, 900.0, 500.0, 100.0)
_ONE_SKEWED = {**_ONE, "skewness": [0.3, -0.4]}

#: Points for each angle: enough for concentrations up to 300; above that they crowd at the centre.
_POINTS = 128
_RESOLVED = 300.0


def _is_known(distribution: Any) -> bool:
    if isinstance(distribution, SineSkewed):
        return _is_known(distribution.base_dist)
    if isinstance(distribution, Independent):
        return isinstance(distribution.base_dist, VonMises) and distribution.event_shape == (2,)
    return isinstance(distribution, SineBivariateVonMises)


def _angles(distribution: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Location and concentration of the two angles, (..., 2), and their correlation, (...)."""
    if isinstance(distribution, SineSkewed):
        return _angles(distribution.base_dist)
    if isinstance(distribution, Independent):
        loc = in_float64(distribution.base_dist.loc)
        return loc, in_float64(distribution.base_dist.concentration), torch.zeros_like(loc[..., 0])
    loc = torch.stack([in_float64(x) for x in (distribution.phi_loc, distribution.psi_loc)], -1)
    given = distribution.phi_concentration, distribution.psi_concentration
    concentration = torch.stack([in_float64(x) for x in given], -1)
    return loc, concentration, in_float64(distribution.correlation)


def _log_density(distribution: Any, x: Tensor) -> Tensor:
    """At angles x of shape (..., points, 2), with the constant by the rule around the own centre.

    A skew leaves the constant as it is. Pyro's series for the constant stops after 50 terms.
    """
    if isinstance(distribution, SineSkewed):
        turn = torch.sin(x - _angles(distribution)[0].unsqueeze(-2))
        tilt = (in_float64(distribution.skewness).unsqueeze(-2) * turn).sum(-1)
        return _log_density(distribution.base_dist, x) + torch.log1p(tilt)
    own, log_weight = _points(distribution)
    constant = torch.logsumexp(_log_kernel(distribution, own) + log_weight, -1)
    return _log_kernel(distribution, x) - constant.unsqueeze(-1)


def _log_kernel(distribution: Any, x: Tensor) -> Tensor:
    """The log density without its constant, and 0 at the centre."""
    loc, concentration, correlation = _angles(distribution)
    turn = x - loc.unsqueeze(-2)
    # cos(turn) - 1, so that the exponential of a large concentration stays in range
    bent = -2 * torch.sin(0.5 * turn).square()
    together = torch.sin(turn).prod(-1) * correlation.unsqueeze(-1)
    return (concentration.unsqueeze(-2) * bent).sum(-1) + together


def _points(distribution: Any, count: int = _POINTS) -> tuple[Tensor, Tensor]:
    """Angles (..., count^2, 2) around the centre, and log weights, both without gradient."""
    centre, concentration, _ = (x.detach() for x in _angles(distribution))
    t = torch.arange(count, dtype=centre.dtype, device=centre.device) * (2 * math.pi / count)
    half = 0.5 * (t - math.pi)
    # theta = 2 atan(k tan(t/2)) gathers the points around 0 for k < 1
    k = torch.sqrt(_RESOLVED / concentration).clamp(max=1.0).unsqueeze(-1)
    angles = 2 * torch.atan2(k * torch.sin(half), torch.cos(half)) + centre.unsqueeze(-1)
    slope = k / (torch.cos(half).square() + (k * torch.sin(half)).square())
    log_weight = torch.log(slope * (2 * math.pi / count))
    phi, psi = angles[..., 0, :].unsqueeze(-1), angles[..., 1, :].unsqueeze(-2)
    x = torch.stack(torch.broadcast_tensors(phi, psi), -1).flatten(-3, -2)
    both = log_weight[..., 0, :].unsqueeze(-1) + log_weight[..., 1, :].unsqueeze(-2)
    return x, both.flatten(-2)


_CASES = [Case(_ONE, _OTHER, 3.0547908836067812109), Case(_TIGHT, _OTHER, 8.608881508127579277)]
_ON_TORUS = (SineBivariateVonMises, SineSkewed, Independent)
_OTHER_SKEWED = {**_OTHER, "skewness": [0.3, -0.4]}
_LESS_SKEWED = {**_OTHER, "skewness": [0.0, 0.2]}


@register_each(
    (SKEWED, SKEWED, [Case(_ONE_SKEWED, _LESS_SKEWED, 3.7068361187923760571)]),
    (SKEWED, SINE, [Case(_ONE_SKEWED, _OTHER, 3.5539324518549437698)]),
    (SINE, SKEWED, [Case(_ONE, _OTHER_SKEWED, 2.741257880510079556)]),
    reference="the densities: Ameijeiras-Alonso & Ley (2022), eq. 2.1",
    method="quadrature",
)
@register_each(
    (SINE, SINE, _CASES),
    reference="the density: Singh, Hnizdo & Demchuk (2002)",
    method="quadrature",
)
def kl_torus(p: Distribution, q: Distribution) -> Tensor:
    """The trapezoidal rule over both angles, which converges exponentially: all is periodic."""
    shape = broadcast_batch(p, q)
    if not (_is_known(p) and _is_known(q)):
        raise no_formula(p, q)
    at = on_torus(p, q)
    kl = kl_at_nodes(torch.exp(at.log_p) * at.weight, at.log_p - at.log_q)
    return kl.to(promoted((p, q))).expand(shape)


def on_torus(p: Distribution, q: Distribution, fineness: int = 1) -> AtPoints:
    """The nodes that resolve p."""
    x, log_weight = _points(p, fineness * _POINTS)
    return AtPoints(_log_density(p, x), _log_density(q, x), log_weight)


@at_nodes(_ON_TORUS)
def _finer(p: Distribution, q: Distribution, fineness: int) -> AtPoints | None:
    if not (_is_known(p) and _is_known(q)):
        return None
    check_size((fineness * _POINTS) ** 2 * broadcast_batch(p, q).numel())
    return on_torus(p, q, fineness)


@reduction
def by_torus(p: Distribution, q: Distribution) -> Tensor | None:
    """A product of two VonMises against a distribution on the torus, in both directions."""
    on_torus = [isinstance(side, SineBivariateVonMises | SineSkewed) for side in (p, q)]
    if not any(on_torus) or not (_is_known(p) and _is_known(q)):
        return None
    note(Use("quadrature", home_of(__name__)))
    return kl_torus(p, q)
