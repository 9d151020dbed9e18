"""ZeroInflatedPoisson(rate, gate or gate_logits): 0 with probability gate, else a Poisson."""

from __future__ import annotations

import torch
from pyro.distributions import ZeroInflatedPoisson
from torch import Tensor

from ...numerics.dtypes import Parameters
from ...numerics.special.counts import log_poisson_mass
from ...numerics.special.zero_inflation import kl_inflated, log_gates, log_mass_inflated
from ...registry.family import COUNTS, Family, read_gate
from ...registry.integrate_counts import PoissonCount
from ...registry.pair import Case
from ...registry.register import declare, formula
from .poisson import kl_poisson_poisson, poisson


def read(p: ZeroInflatedPoisson) -> Parameters:
    """The rate, and the form of the gate that the user gave: Pyro clamps the other one."""
    return {"rate": p.rate, **read_gate(p)}


def log_mass(
    k: Tensor, rate: Tensor, gate: Tensor | None = None, gate_logits: Tensor | None = None
) -> Tensor:
    log_gate, log_open = (x.unsqueeze(-1) for x in log_gates(gate, gate_logits))
    rate = rate.unsqueeze(-1)
    return log_mass_inflated(k, log_poisson_mass(k, rate), -rate, (log_gate, log_open))


def count(
    rate: Tensor, gate: Tensor | None = None, gate_logits: Tensor | None = None
) -> PoissonCount:
    return PoissonCount(rate, gates=log_gates(gate, gate_logits))


zero_inflated_poisson = declare(
    Family(
        ZeroInflatedPoisson,
        parameters=("rate", "gate", "gate_logits"),
        support=COUNTS,
        density="gate * KroneckerDelta(k, 0) + (1 - gate) * rate**k * exp(-rate) / factorial(k)",
        examples=(
            {"rate": 2.0, "gate": 0.3},
            {"rate": 0.4, "gate": 0.0},
            {"rate": 15.0, "gate_logits": -2.0},
            {"rate": 3.0, "gate": 1.0},
        ),
        reference="Lambert (1992), Zero-inflated Poisson regression",
        log_mass=log_mass,
        read=read,
        count=count,
    )
)

_REFERENCE = "chain rule: is it zero, and then how large; see zero_inflation.py"
_FINITE = "q has mass wherever p has"


@formula(
    zero_inflated_poisson,
    zero_inflated_poisson,
    masked=True,
    cases=[
        Case({"rate": 2.0, "gate": 0.3}, {"rate": 3.0, "gate": 0.1}, 0.2813432547519951306839),
        Case(
            {"rate": 2.0, "gate": 0.3},
            {"rate": 2.0078125, "gate": 0.3},
            8.459166748300272436605e-6,
        ),
        Case({"rate": 2.0, "gate": 1.0}, {"rate": 3.0, "gate": 0.1}, 1.932344055317351508479),
    ],
    finite=_FINITE,
    reference=_REFERENCE,
)
def kl_zero_inflated_poissons(p: Parameters, q: Parameters) -> Tensor:
    """KL of two zero-inflated Poissons."""
    return _kl(p, q, _gates(p), _gates(q))


@formula(
    zero_inflated_poisson,
    poisson,
    masked=True,
    cases=[
        Case({"rate": 2.0, "gate": 0.3}, {"rate": 3.0}, 0.6390130376272821626108),
        Case({"rate": 2.0, "gate": 1.0}, {"rate": 3.0}, 3.0),
    ],
    finite=_FINITE,
    reference=_REFERENCE,
)
def kl_zero_inflated_poisson_poisson(p: Parameters, q: Parameters) -> Tensor:
    """KL to a Poisson, which is zero-inflated with gate 0."""
    return _kl(p, q, _gates(p), log_gates(torch.zeros_like(q["rate"])))


@formula(
    poisson,
    zero_inflated_poisson,
    masked=True,
    cases=[
        Case({"rate": 2.0}, {"rate": 3.0, "gate": 0.1}, 0.1356797845401105278565),
        Case({"rate": 0.5}, {"rate": 3.0, "gate": 0.75}, 0.4944974283339177690345),
    ],
    finite=_FINITE,
    reference=_REFERENCE,
)
def kl_poisson_zero_inflated_poisson(p: Parameters, q: Parameters) -> Tensor:
    """KL of a Poisson, which is zero-inflated with gate 0."""
    return _kl(p, q, log_gates(torch.zeros_like(p["rate"])), _gates(q))


def _gates(parameters: Parameters) -> tuple[Tensor, Tensor]:
    return log_gates(parameters.get("gate"), parameters.get("gate_logits"))


def _kl(
    p: Parameters, q: Parameters, p_gates: tuple[Tensor, Tensor], q_gates: tuple[Tensor, Tensor]
) -> Tensor:
    a, b = {"rate": p["rate"]}, {"rate": q["rate"]}
    return kl_inflated(kl_poisson_poisson(a, b), -a["rate"], -b["rate"], p_gates, q_gates)
