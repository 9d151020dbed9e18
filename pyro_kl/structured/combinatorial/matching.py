"""OneOneMatching and OneTwoMatching: random assignments of sources to destinations."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TypeAlias

import torch
from pyro.distributions import OneOneMatching, OneTwoMatching
from torch import Tensor
from torch.distributions import constraints

from ...messages import see
from ...numerics.dtypes import in_float64, promoted
from ...numerics.special.divergences import kl_div_of_logs
from ...registry.at_points import AtPoints, at_atoms, check_size
from ...registry.entropy import entropy_formula
from ...registry.pair import Case
from ...registry.renyi import geometric_mixture
from ...registry.shapes import broadcast_batch
from ...registry.structured_family import StructuredFamily, register_each

_MATRIX = constraints.independent(constraints.real, 2)
ONE_ONE, ONE_TWO = (
    StructuredFamily(cls, {"logits": _MATRIX}, batched=False)
    for cls in (OneOneMatching, OneTwoMatching)
)
_THREE = Case(
    {"logits": [[0.5, -1.0, 0.25], [0.0, 1.5, -0.5], [0.3, 0.1, -0.7]]},
    {"logits": [[0.0, 0.5, 1.0], [-0.75, 0.25, 0.5], [1.2, -0.3, 0.4]]},
    0.46982358194890556646,
)
_FOUR_TO_TWO = Case(
    {"logits": [[0.5, -1.0], [0.25, 0.0], [1.5, -0.5], [0.3, 0.1]]},
    {"logits": [[0.0, 0.5], [1.0, -0.75], [0.25, 0.5], [1.2, -0.3]]},
    1.998472292058044317,
)


Matching: TypeAlias = "OneOneMatching | OneTwoMatching"


def _is_exact(distribution: Matching) -> bool:
    return distribution.bp_iters is None


@register_each(
    (ONE_ONE, ONE_ONE, [_THREE]),
    (ONE_TWO, ONE_TWO, [_FOUR_TO_TWO]),
    reference="the definition, summed over partial matchings (Bellman 1962); derived in the "
    "docstring",
    method="exact sum",
)
def kl_matchings(p: Matching, q: Matching) -> Tensor:
    r"""KL of two distributions on matchings, exact.

    Sources choose their destinations one after the other. The free places of the destinations are
    a Markov chain, so that by the chain rule

        KL = sum over sources and states of P(state) KL(choice of p || choice of q),

    with 2^N states for N destinations of one place each and 3^N for two places each. Pyro's
    normaliser sums over N! and (2N)! / 2^N matchings.
    """
    broadcast_batch(p, q)
    for distribution in (p, q):
        if not _is_exact(distribution):
            raise NotImplementedError(
                f"KL({type(p).__name__} || {type(q).__name__}): with "
                f"bp_iters={distribution.bp_iters} the densities are normalised only "
                "approximately (Bethe), and a KL of them would be neither exact nor a bound. "
                "Construct both with bp_iters=None." + see("approximate-density")
            )
    a, b = in_float64(p.logits), in_float64(q.logits)
    places = a.shape[0] // a.shape[1]
    levels = _levels(a.shape[1], places)
    log_p, log_q = _choices(a, levels), _choices(b, levels)
    reached = a.new_zeros(1)
    total = a.new_zeros(())
    for (target, free), p_choice, q_choice in zip(levels, log_p, log_q, strict=True):
        terms = torch.where(free, kl_div_of_logs(p_choice, q_choice), 0.0)
        total = total + (reached.exp().unsqueeze(-1) * terms).sum()
        reached = _arrivals(reached.unsqueeze(-1) + p_choice, target, free)
    return total.to(promoted((p.logits, q.logits)))


def _choices(logits: Tensor, levels: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """log P(next source's destination | state) for all sources, (states, destinations)."""
    after = logits.new_zeros(1)
    choices: list[Tensor] = []
    for row, (target, free) in zip(reversed(logits.unbind(0)), reversed(levels), strict=True):
        weights = torch.where(free, row + after[target], -torch.inf)
        after = weights.logsumexp(-1)
        choices.append(weights - after.unsqueeze(-1))
    return choices[::-1]


def _arrivals(log_flow: Tensor, target: Tensor, free: Tensor) -> Tensor:
    """log P(state) one source later, from the log flows along all choices."""
    flow = torch.where(free, log_flow, -torch.inf)
    size = int(target.max()) + 1
    top = flow.detach().amax()
    mass = flow.new_zeros(size).index_add(0, target.flatten(), (flow - top).exp().flatten())
    return mass.log() + top


@lru_cache(maxsize=32)
def _levels(destinations: int, places: int) -> list[tuple[Tensor, Tensor]]:
    """For each source and each state before it: the state after each choice, and which are free.

    A state is the number of taken places of each destination. Before source s, s places are taken.
    """
    states = torch.zeros(1, destinations, dtype=torch.long)
    levels = []
    for _ in range(destinations * places):
        free = states < places
        after = states.unsqueeze(1) + torch.eye(destinations, dtype=torch.long)
        found, index = after[free].unique(dim=0, return_inverse=True)
        target = torch.zeros(free.shape, dtype=torch.long)
        target[free] = index
        levels.append((target, free))
        states = found
    return levels


# --- entropy, and what the other divergences need -----------------------------------------------


@entropy_formula(OneOneMatching, OneTwoMatching, method="exact sum")
def entropy_of_matching(p: Matching) -> Tensor | None:
    """The sum over sources and states of P(state) H(choice), as in the KL."""
    if not _is_exact(p):
        return None
    logits = in_float64(p.logits)
    levels = _levels(logits.shape[1], logits.shape[0] // logits.shape[1])
    reached, total = logits.new_zeros(1), logits.new_zeros(())
    for (target, free), choice in zip(levels, _choices(logits, levels), strict=True):
        log_choice = torch.where(free, choice, 0.0)
        terms = torch.where(free, -log_choice.exp() * log_choice, 0.0)
        total = total + (reached.exp().unsqueeze(-1) * terms).sum()
        reached = _arrivals(reached.unsqueeze(-1) + choice, target, free)
    return total


def _mixture(p: Matching, q: Matching, alpha: float) -> tuple[Matching, Tensor] | None:
    """The logits are natural parameters: any matrix."""
    if not (_is_exact(p) and _is_exact(q)):
        return None
    a, b = in_float64(p.logits), in_float64(q.logits)
    everywhere = torch.ones((), dtype=torch.bool, device=a.device)
    return type(p)(b + alpha * (a - b), validate_args=False), everywhere


def _all_matchings(p: Matching, q: Matching) -> AtPoints | None:
    """All N! or (2 N)! / 2^N matchings."""
    if not (_is_exact(p) and _is_exact(q)):
        return None
    sources, destinations = p.logits.shape
    places = sources // destinations
    check_size(math.factorial(sources) // math.factorial(places) ** destinations * sources)
    matchings = p.enumerate_support().to(p.logits.device)
    log_p, log_q = (
        x[torch.arange(sources, device=x.device), matchings].sum(-1)
        for x in (in_float64(p.logits), in_float64(q.logits))
    )
    return AtPoints(log_p - log_p.logsumexp(-1), log_q - log_q.logsumexp(-1))


for _cls in (OneOneMatching, OneTwoMatching):
    geometric_mixture(_cls)(_mixture)
    at_atoms([_cls], [_cls])(_all_matchings)
