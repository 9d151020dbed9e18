"""RelaxedOneHotCategorical, the concrete distribution, and its straight-through form."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import RelaxedOneHotCategorical, constraints

from ...numerics.concrete import is_traced
from ...numerics.dtypes import in_float64, promoted
from ...numerics.quadrature.fixed import equal_steps
from ...numerics.special.gamma import EULER_GAMMA
from ...numerics.special.logarithms import expm1mx, log1pmx
from ...registry.pair import Case
from ...registry.shapes import broadcast_batch
from ...registry.structured_family import StructuredFamily, register_each

# the temperature is mostly a constant, so it is no parameter that the checks move
RELAXED_ONE_HOT = StructuredFamily(RelaxedOneHotCategorical, {"logits": constraints.real_vector})

#: Nodes of the outer integral over log t, and of the inner one.
_OUTER, _INNER = 320, 256


_CASES = [
    Case({"temperature": a, "logits": list(p)}, {"temperature": b, "logits": list(q)}, kl)
    for a, p, b, q, kl in (
        (0.7, (0.0, 1.0, -0.5), 0.7, (0.3, -1.0, 0.6), 1.5276488157375569787),
        (0.7, (0.0, 1.0, -0.5), 0.7, (9.0, -11.0, 0.6), 24.408789898677643746),
        (0.7, (0.0, 1.0), 1.4, (0.3, -1.0), 1.5358449079673936812),
        (2.0, (0.0, 1.0), 0.5, (0.3, 1.5), 1.030928867291533013),
    )
]


@register_each(
    (RELAXED_ONE_HOT, RELAXED_ONE_HOT, _CASES),
    reference="the density: Maddison, Mnih & Teh (2017), eq. 10; derived in the docstring",
    method="quadrature",
)
def kl_relaxed_one_hot(p: RelaxedOneHotCategorical, q: RelaxedOneHotCategorical) -> Tensor:
    r"""KL of two concrete distributions, from exponential variables E_k and Frullani's integral.

    With d = l_q - l_p, w = exp(d) shifted so that the d sum to zero, and equal temperatures,

        KL = K [E log sum_k w_k E_k - E log sum_k E_k]
           = K int_0^inf (1 + t)^-K [1 - exp(-S(t))] dt/t,
        S(t) = sum_k log[(1 + w_k t) / (1 + t)] - d_k t/(1 + t)

    whose integrand is of second order in d. The closed form by divided differences has no digits
    where two of the w_k are close. For other temperatures see `_of_ratio`.
    """
    shape = broadcast_batch(p, q)
    own, other = in_float64(p.logits), in_float64(q.logits)
    equal = _equal_temperatures(other - own)
    heat, cool = (_temperature(distribution) for distribution in (p, q))
    if not _surely_equal(heat, cool):
        # the difference is exactly 0 where they are equal, with the right gradient
        ratio = cool / heat
        changed = _of_ratio(own, other, ratio) - _of_ratio(own, other, torch.ones_like(ratio))
        equal = equal + changed
    return equal.to(promoted((p.logits, q.logits))).expand(shape)


def _temperature(distribution: RelaxedOneHotCategorical) -> Tensor:
    """In the batch's shape: torch's examples write a scalar temperature as one element."""
    t = in_float64(torch.as_tensor(distribution.temperature, device=distribution.logits.device))
    return t.squeeze(-1) if t.dim() > len(distribution.batch_shape) and t.shape[-1] == 1 else t


def _surely_equal(heat: Tensor, cool: Tensor) -> bool:
    """Whether both are the same constants, as far as that can be seen without the values."""
    if heat.requires_grad or cool.requires_grad:
        return False
    return heat is cool if is_traced() else bool((heat == cool).all())


def _equal_temperatures(d: Tensor) -> Tensor:
    d = d - d.mean(-1, keepdim=True)
    k = d.shape[-1]
    u, step = equal_steps(-38.0 - d.amax(-1).clamp(min=0.0), 38.0 / k, _OUTER)
    share = torch.sigmoid(u).unsqueeze(-1)
    excess = _cumulant(d.unsqueeze(-2), share, u.unsqueeze(-1)).sum(-1)
    weight = torch.exp(-k * torch.nn.functional.softplus(u))
    return k * step * (weight * -torch.expm1(-excess)).sum(-1)


def _cumulant(d: Tensor, share: Tensor, u: Tensor) -> Tensor:
    """log(1 - s + s exp(d)) - s d for s = sigmoid(u): of second order in d."""
    near = d.abs() < 1
    small = torch.where(near, d, 0.0)
    close = log1pmx(share * torch.expm1(small)) + share * expm1mx(small)
    softplus = torch.nn.functional.softplus
    far = softplus(u + d) - softplus(u) - share * d
    return torch.where(near, close, far)


def _of_ratio(own: Tensor, other: Tensor, ratio: Tensor) -> Tensor:
    r"""The KL for r = tau_q / tau_p, up to the rounding of its large terms:

    -(K - 1) log r - K gamma (1 - r) - K psi(K) - sum_k (l_q - r l_p)_k
        + K int_0^inf [exp(-t) - prod_k Lambda_r(v_k t)] dt/t

    with v = exp(l_q - r l_p) and Lambda_r(s) = E exp(-s E^r) of an exponential variable E.
    """
    k = own.shape[-1]
    log_v = other - ratio.unsqueeze(-1) * own
    shift = log_v.mean(-1, keepdim=True)
    log_v = log_v - shift
    low = -38.0 - log_v.amax(-1).clamp(min=0.0)
    # Lambda_r(s) falls like s^(-1/r)
    high = 4.0 + 38.0 * ratio / k - log_v.amin(-1).clamp(max=0.0)
    u, step = equal_steps(low, high, _OUTER)
    log_laplace = _log_laplace(log_v.unsqueeze(-2) + u.unsqueeze(-1), ratio).sum(-1)
    integrand = torch.expm1(-torch.exp(u)) - torch.expm1(log_laplace)
    mean_log = k * (step * integrand.sum(-1) + shift.squeeze(-1))
    constants = -(k - 1) * ratio.log() - k * EULER_GAMMA * (1 - ratio)
    psi = torch.digamma(torch.tensor(float(k), dtype=own.dtype, device=own.device))
    return constants - k * psi - (log_v + shift).sum(-1) + mean_log


def _log_laplace(log_s: Tensor, ratio: Tensor) -> Tensor:
    """Log of E exp(-s E^r), by the trapezoidal rule in y = log E."""
    r = ratio.unsqueeze(-1).unsqueeze(-1)
    # the density of y ends at 4; where s is large the other factor ends near y = -log(s)/r
    small, centre = log_s < 0, -log_s / r
    high = torch.where(small, 4.0, (centre + 4.0 / r).clamp(max=4.0))
    y, step = equal_steps(centre.clamp(max=0.0) - 38.0, high, _INNER)
    log_density = y - torch.exp(y)
    inside = log_s.unsqueeze(-1) + r.unsqueeze(-1) * y
    missing = -(torch.exp(log_density) * torch.expm1(-torch.exp(inside))).sum(-1) * step
    left = torch.logsumexp(log_density - torch.exp(inside), -1) + step.log()
    return torch.where(small, torch.log1p(-torch.where(small, missing, 0.0)), left)
