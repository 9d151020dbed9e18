"""NegativeBinomial(total_count, probs or logits): successes before total_count failures.

torch's `probs` belongs to the outcome that is counted, so that the mean is
total_count probs / (1 - probs); SciPy's p is 1 - probs. The KL has a closed form for equal
total_count only.
"""

from __future__ import annotations

from torch import Tensor
from torch.distributions import NegativeBinomial

from ...numerics.dtypes import Parameters
from ...numerics.special.bernoulli import log_masses
from ...numerics.special.counts import log_negative_binomial_mass
from ...registry.family import COUNTS, Family, probs_or_logits
from ...registry.integrate_counts import NegativeBinomialCount
from ...registry.register import declare


def read(p: NegativeBinomial) -> Parameters:
    """total_count, and the parameter that the user gave."""
    return {"total_count": p.total_count, **probs_or_logits(p)}


def log_mass(
    k: Tensor, total_count: Tensor, probs: Tensor | None = None, logits: Tensor | None = None
) -> Tensor:
    log_p1, log_p0 = (x.unsqueeze(-1) for x in log_masses(probs, logits))
    return log_negative_binomial_mass(k, total_count.unsqueeze(-1), log_p1, log_p0)


def count(
    total_count: Tensor, probs: Tensor | None = None, logits: Tensor | None = None
) -> NegativeBinomialCount:
    return NegativeBinomialCount(total_count, *log_masses(probs, logits))


negative_binomial = declare(
    Family(
        NegativeBinomial,
        parameters=("total_count", "probs", "logits"),
        support=COUNTS,
        density="gamma(total_count + k) / (gamma(total_count) * factorial(k)) * probs**k * (1 -"
        " probs)**total_count",
        examples=(
            {"total_count": 3.0, "probs": 0.4},
            {"total_count": 0.5, "probs": 0.8},
            {"total_count": 20.0, "logits": -1.0},
            {"total_count": 2.0, "probs": 0.0},
        ),
        reference="Johnson, Kemp & Kotz (2005), ch. 5",
        log_mass=log_mass,
        read=read,
        count=count,
    )
)
