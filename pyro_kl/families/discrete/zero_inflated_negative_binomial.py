"""ZeroInflatedNegativeBinomial(total_count, probs or logits, gate or gate_logits)."""

from __future__ import annotations

from dataclasses import replace

from pyro.distributions import ZeroInflatedNegativeBinomial
from torch import Tensor

from ...numerics.dtypes import Parameters
from ...numerics.special.bernoulli import log_masses
from ...numerics.special.zero_inflation import log_gates, log_mass_inflated
from ...registry.family import COUNTS, Family, read_gate
from ...registry.integrate_counts import NegativeBinomialCount
from ...registry.register import declare
from . import negative_binomial


def read(p: ZeroInflatedNegativeBinomial) -> Parameters:
    """The parameters that the user gave: Pyro clamps the other forms."""
    return {**negative_binomial.read(p.base_dist), **read_gate(p)}


def log_mass(
    k: Tensor,
    total_count: Tensor,
    gate: Tensor | None = None,
    gate_logits: Tensor | None = None,
    **probs_or_logits: Tensor,
) -> Tensor:
    log_gate, log_open = (x.unsqueeze(-1) for x in log_gates(gate, gate_logits))
    log_base = negative_binomial.log_mass(k, total_count, **probs_or_logits)
    log_base_zero = (total_count * log_masses(**probs_or_logits)[1]).unsqueeze(-1)
    return log_mass_inflated(k, log_base, log_base_zero, (log_gate, log_open))


def count(
    total_count: Tensor,
    gate: Tensor | None = None,
    gate_logits: Tensor | None = None,
    **probs_or_logits: Tensor,
) -> NegativeBinomialCount:
    return replace(
        negative_binomial.count(total_count, **probs_or_logits), gates=log_gates(gate, gate_logits)
    )


zero_inflated_negative_binomial = declare(
    Family(
        ZeroInflatedNegativeBinomial,
        parameters=("total_count", "probs", "logits", "gate", "gate_logits"),
        support=COUNTS,
        density="gate * KroneckerDelta(k, 0) + (1 - gate) * gamma(total_count + k) / "
        "(gamma(total_count) * factorial(k)) * probs**k * (1 - probs)**total_count",
        examples=(
            {"total_count": 3.0, "probs": 0.4, "gate": 0.3},
            {"total_count": 0.5, "logits": 1.0, "gate_logits": -2.0},
            {"total_count": 3.0, "probs": 0.4, "gate": 1.0},
        ),
        reference="Greene (1994), Accounting for excess zeros in Poisson and negative binomial "
        "regression",
        log_mass=log_mass,
        read=read,
        count=count,
    )
)
