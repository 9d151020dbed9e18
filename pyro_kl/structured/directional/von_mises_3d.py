"""VonMises3D: directions in space."""

from __future__ import annotations

import math

import torch
from pyro.distributions import VonMises3D
from torch import Tensor
from torch.distributions import constraints

from ...numerics.dtypes import in_float64, promoted
from ...numerics.special.log_sinhc import bregman_log_sinhc, log_sinhc_bounded, log_sinhc_slope
from ...registry.entropy import entropy_formula
from ...registry.pair import Case
from ...registry.renyi import geometric_mixture
from ...registry.shapes import broadcast_batch
from ...registry.structured_family import StructuredFamily, register_each

VON_MISES_3D = StructuredFamily(
    VonMises3D,
    {"concentration": constraints.real_vector},
    samples="the class has no sampler",
)


@geometric_mixture(VonMises3D)
def mixture(p: VonMises3D, q: VonMises3D, alpha: float) -> tuple[VonMises3D, Tensor]:
    """The concentration is the natural parameter: any vector."""
    a, b = in_float64(p.concentration), in_float64(q.concentration)
    middle = VonMises3D(b + alpha * (a - b), validate_args=False)
    return middle, torch.ones((), dtype=torch.bool, device=a.device)


@entropy_formula(VonMises3D)
def entropy_of_von_mises_3d(p: VonMises3D) -> Tensor:
    """log 4 pi + log(sinh k / k) - k coth k + 1, without terms that grow with k."""
    k = length(in_float64(p.concentration))
    positive = k > 0
    safe = torch.where(positive, k, 1.0)
    # k coth k - k = 2 k / (exp(2 k) - 1)
    beyond = torch.where(positive, -2 * safe * torch.exp(-2 * safe) / torch.expm1(-2 * safe), 1.0)
    return math.log(4 * math.pi) + log_sinhc_bounded(2 * k) + 1 - beyond


_CASES = [
    Case({"concentration": list(p)}, {"concentration": list(q)}, kl)
    for p, q, kl in (
        ((1.0, 0.5, -2.0), (0.0, 3.0, 0.5), 1.6860475728972841582),
        ((0.0, 0.0, 800.0), (0.0, 30.0, 750.0), 0.6009993522639374401),
        ((0.0, 0.0, 0.0), (0.0, 1e-3, 2e-3), 8.3333319444448857083e-7),
    )
]


@register_each(
    (VON_MISES_3D, VON_MISES_3D, _CASES),
    reference="Mardia & Jupp (2000), sec. 9.3.2; split derived in the docstring",
)
def kl_von_mises_3d(p: VonMises3D, q: VonMises3D) -> Tensor:
    r"""KL of two distributions with density proportional to exp(c' x) on the sphere.

    With k = |c_p|, l = |c_q|, S(k) = log(sinh k / k) and A = S' = coth k - 1/k,

        KL = [S(l) - S(k) - (l - k) A(k)] + A(k) (k l - c_p' c_q) / k

    and k l - c_p' c_q = |c_p x (c_q - c_p)|^2 / (k l + c_p' c_q) where the two are close.
    """
    shape = broadcast_batch(p, q)
    a, b = in_float64(p.concentration), in_float64(q.concentration)
    k, l = length(a), length(b)  # noqa: E741
    # S(k) = L(2 k) for the library's L(x) = log(sinh(x/2) / (x/2))
    lengths = bregman_log_sinhc(2 * k, 2 * l, 2 * (l - k))
    across = torch.linalg.cross(*torch.broadcast_tensors(a, b - a)).square().sum(-1)
    along = (a * b).sum(-1)
    # k l - a'b = |a x b|^2 / (k l + a'b), or k l - a'b itself where the two point apart
    apart = along <= 0
    angle = torch.where(apart, k * l - along, across / torch.where(apart, 1.0, k * l + along))
    slope = 2 * log_sinhc_slope(2 * k)
    positive = k > 0
    ratio = torch.where(positive, slope / torch.where(positive, k, 1.0), 1 / 3)
    kl = lengths + ratio * angle
    return kl.to(promoted((p.concentration, q.concentration))).expand(shape)


def length(x: Tensor) -> Tensor:
    """The norm, with a zero gradient at 0 instead of nan."""
    square = x.square().sum(-1)
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)
