"""Binomial(total_count, probs or logits)."""

from __future__ import annotations

import math

import torch
from pyro.distributions import ExtendedBinomial
from torch import Tensor
from torch.distributions import Binomial

from ...numerics.concrete import holds_everywhere
from ...numerics.dtypes import Parameters
from ...numerics.special.bernoulli import kl_bernoulli, log_masses
from ...numerics.special.counts import largest, log_choose, times
from ...registry.compose import kl_terms, log_masses_of
from ...registry.family import COUNTS, Family, atoms_up_to_total_count, counts_of, probs_or_logits
from ...registry.lift import lift
from ...registry.pair import Case
from ...registry.register import declare, register


def read(p: Binomial) -> Parameters:
    """total_count, and the parameter that the user gave."""
    n = counts_of(p) if isinstance(p, ExtendedBinomial) else p.total_count
    return {"total_count": _unexpanded(n), **probs_or_logits(p)}


def _unexpanded(count: Tensor) -> Tensor:
    """A number that was expanded over a batch, as one number again."""
    return count if any(count.stride()) or not count.numel() else count[(0,) * count.dim()]


def log_mass(
    k: Tensor, total_count: Tensor, probs: Tensor | None = None, logits: Tensor | None = None
) -> Tensor:
    log_p1, log_p0 = (x.unsqueeze(-1) for x in log_masses(probs, logits))
    n = total_count.unsqueeze(-1)
    inside = k <= n
    k = torch.where(inside, k, 0)
    value = log_choose(n, k) + times(k, log_p1) + times(n - k, log_p0)
    return torch.where(inside, value, -math.inf)


binomial = declare(
    Family(
        Binomial,
        parameters=("total_count", "probs", "logits"),
        support=COUNTS,
        density="binomial(total_count, k) * probs**k * (1 - probs)**(total_count - k)",
        examples=(
            {"total_count": 5.0, "probs": 0.5},
            {"total_count": 3.0, "probs": 0.2},
            {"total_count": 40.0, "logits": 1.5},
            {"total_count": 5.0, "probs": 0.0},
            {"total_count": 3.0, "probs": 1.0},
        ),
        reference="Johnson, Kemp & Kotz (2005), ch. 3",
        log_mass=log_mass,
        num_atoms=atoms_up_to_total_count,
        read=read,
    )
)
_log_masses = log_masses_of(binomial)


def kl_equal_total_count(p: Parameters, q: Parameters) -> Tensor:
    """total_count times the KL of one trial."""
    return times(p["total_count"], kl_bernoulli(_flip(p), _flip(q)))


def kl_of_counts(p: Parameters, q: Parameters) -> Tensor:
    """total_count times the KL of one trial where the counts are equal, else a sum over atoms.

    The sum is as long as the largest of the unequal counts; it is empty if there are none.
    """
    n, m = torch.broadcast_tensors(p["total_count"], q["total_count"])
    unequal = torch.where(n == m, -1.0, torch.maximum(n, m))
    count = largest(unequal) + 1
    summed = kl_terms(_log_masses(count, p), _log_masses(count, q)).sum(-1)
    return torch.where(n == m, kl_equal_total_count(p, q), summed)


def _flip(parameters: Parameters) -> dict[str, Tensor]:
    return {name: x for name, x in parameters.items() if name != "total_count"}


_of_equal_counts = lift(kl_equal_total_count, binomial, binomial, masked=True)
_of_counts = lift(kl_of_counts, binomial, binomial, masked=True, fused=False)


@register(
    Binomial,
    Binomial,
    cases=[
        Case(
            {"total_count": 5.0, "probs": 1.0},
            {"total_count": 5.0, "probs": 0.5},
            3.465735902799726547086,
        ),
        Case(
            {"total_count": 3.0, "probs": 0.5},
            {"total_count": 5.0, "probs": 0.5},
            0.4554218139611624048966,
        ),
        Case(
            {"total_count": 5.0, "probs": 0.0},
            {"total_count": 3.0, "probs": 0.5},
            2.079441541679835928252,
        ),
        Case(
            {"total_count": 100.0, "probs": 0.5},
            {"total_count": 100.0, "probs": 0.500001},
            2.000000000119022658067e-10,
        ),
        Case(
            {"total_count": 5.0, "probs": 0.5},
            {"total_count": 5.0, "probs": 1e-9},
            48.34242869206630118886,
        ),
    ],
    finite="q has mass wherever p has",
    reference="chain rule over the trials; the definition, summed, for unequal counts",
    method="exact sum",
    replaces="torch raises for p.total_count < q.total_count, gives -inf or nan for probs 1, "
    "clamps probs below 1.2e-7 (float32)",
)
def kl_binomial_binomial(p: Binomial, q: Binomial) -> Tensor:
    """Closed form if the counts can be read here and are all equal, else `kl_of_counts`."""
    m = _unexpanded(q.total_count)
    equal = holds_everywhere(_unexpanded(p.total_count), lambda n: n == m)
    return _of_equal_counts(p, q) if equal else _of_counts(p, q)
