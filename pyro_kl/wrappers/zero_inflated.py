"""ZeroInflatedDistribution: any law on the counts, with an extra atom at 0."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions.zero_inflated import ZeroInflatedDistribution
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from ..reduction import no_formula, reduction
from ..shapes import broadcast_batch
from ..special import in_float64
from ..zero_inflation import Gates, kl_inflated, log_gates, read_gate


@reduction
def by_opening(p: Distribution, q: Distribution) -> Tensor | None:
    """Whether it is 0, and then how large: the bases' KL beyond 0 (zero_inflation.py).

    A law without inflation has a gate that is always open. Bases that put a count's mass at 0 are
    compared; a continuous base has none, so that the two gates are compared by themselves.
    """
    if not isinstance(p, ZeroInflatedDistribution) and not isinstance(q, ZeroInflatedDistribution):
        return None
    p_base, p_gates = _opened(p)
    q_base, q_gates = _opened(q)
    if not (_counts(p_base) and _counts(q_base)):
        raise no_formula(p, q)
    shape = broadcast_batch(p, q)
    kl = kl_divergence(p_base, q_base)
    log_b, log_c = _log_mass_at_0(p_base), _log_mass_at_0(q_base)
    value = kl_inflated(in_float64(kl), log_b, log_c, p_gates, q_gates)
    return value.to(kl.dtype).expand(shape)


def _opened(law: Any) -> tuple[Distribution, Gates]:
    """The base, and log of gate and of 1 - gate."""
    if isinstance(law, ZeroInflatedDistribution):
        gates = {name: in_float64(x) for name, x in read_gate(law).items()}
        return law.base_dist, log_gates(**gates)
    shut = torch.full((), -torch.inf, dtype=torch.float64)
    return law, (shut, torch.zeros_like(shut))


def _counts(law: Distribution) -> bool:
    support = law.support
    low = getattr(support, "lower_bound", 0)
    return support is not None and bool(support.is_discrete) and low == 0 and not law.event_shape


def _log_mass_at_0(law: Distribution) -> Tensor:
    like = next(x for x in vars(law).values() if isinstance(x, Tensor))
    zero = torch.zeros((), dtype=like.dtype, device=like.device)
    return in_float64(law.log_prob(zero))
