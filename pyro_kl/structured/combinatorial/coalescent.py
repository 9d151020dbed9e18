"""CoalescentTimes and CoalescentTimesWithRate: when lineages meet, backwards in time."""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from pyro.distributions import CoalescentTimes, CoalescentTimesWithRate
from torch import Tensor
from torch.distributions import constraints

from ...numerics.dtypes import in_float64, promoted
from ...numerics.special.alpha_divergences import renyi_of_sum, renyi_terms
from ...numerics.special.divergences import kl_div
from ...registry.entropy import entropy_formula
from ...registry.pair import Case
from ...registry.renyi import renyi_formula
from ...registry.shapes import broadcast_batch
from ...registry.structured_family import StructuredFamily, register_each

Coalescent: TypeAlias = "CoalescentTimes | CoalescentTimesWithRate"
_NO_SAMPLES = "Pyro's sampler ignores the rate, or there is none"
CONSTANT_RATE = StructuredFamily(
    CoalescentTimes, {"rate": constraints.positive}, samples=_NO_SAMPLES
)
VARYING_RATE = StructuredFamily(
    CoalescentTimesWithRate,
    {"rate_grid": constraints.independent(constraints.positive, 1)},
    samples=_NO_SAMPLES,
)
_LEAVES = {"leaf_times": [0.0, 0.4, 2.5, 3.1]}
_AHEAD = {"leaf_times": [0.9, 0.4, 2.75, 3.5]}
_CONSTANT, _FASTER = {"rate": 0.7, **_LEAVES}, {"rate": 1.3, **_LEAVES}
_VARYING = {"rate_grid": [0.5, 1.5, 0.8], **_LEAVES}
_SLOWING = {"rate_grid": [1.0, 0.6], **_LEAVES}
_CONSTANT_CASES = [
    Case(_CONSTANT, _FASTER, 0.7143109462099013867),
    Case(_CONSTANT, {**_FASTER, **_AHEAD}, 2.5105892757811442528),
]
_TO_CONSTANT = Case(_VARYING, {**_CONSTANT, **_AHEAD}, 1.1351393249167848173)


@register_each(
    (CONSTANT_RATE, CONSTANT_RATE, _CONSTANT_CASES),
    (CONSTANT_RATE, VARYING_RATE, [Case(_CONSTANT, _VARYING, 0.25709154765977371187)]),
    (VARYING_RATE, CONSTANT_RATE, [_TO_CONSTANT]),
    (VARYING_RATE, VARYING_RATE, [Case(_VARYING, _SLOWING, 0.83673306521071137525)]),
    finite="each of q's leaves but the latest is no earlier than p's, in order",
    reference="Kingman (1982), the coalescent; Liptser & Shiryaev (2001), ch. 19: likelihood "
    "ratios of point processes; derived in the docstring",
)
def kl_coalescents(p: Coalescent, q: Coalescent) -> Tensor:
    r"""KL of two coalescents, whatever their leaf times and rates.

    Backwards in time k lineages meet at the rate l_k = r(t) k (k-1) / 2, and leaves join. For two
    such processes with intensities l under p and m under q

        KL = E_p integral of [l log(l / m) - l + m] dt,

    where q's number of lineages is p's plus the number of leaves that q's are ahead of p's.
    Between leaves and changes of the rate the intensities are constant in time, and p's number of
    lineages is a death process: the expected time in each state is a matrix exponential. The KL is
    +inf where p can have fewer lineages than q needs. For equal leaf times and constant rates it
    is (n - 1) (r_q / r_p - 1 - log(r_q / r_p)).
    """
    shape = broadcast_batch(p, q)
    time, joins, own, other = _intensities(p, q)
    spent, _ = _time_in_states(time, joins, own, own)
    both = (own > 0) & (other > 0)
    local = kl_div(torch.where(both, own, 1.0), torch.where(both, other, 1.0))
    local = torch.where(both, local, torch.where(own > 0, 0.0, other))
    impossible = (spent > 0) & (own > 0) & (other <= 0)
    value = torch.where(impossible.any(-1).any(-1), math.inf, (spent * local).sum((-1, -2)))
    return value.to(promoted((_grid(p), _grid(q)))).expand(shape)


def _intensities(p: Coalescent, q: Coalescent) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Times of all changes, p's joins, and the rates of leaving states 0..n under p and q."""
    leaves_p, leaves_q = in_float64(p.leaf_times), in_float64(q.leaf_times)
    grid_p, grid_q = in_float64(_grid(p)), in_float64(_grid(q))
    time, joins_p, joins_q = _events(leaves_p, leaves_q, grid_p, grid_q)
    states = torch.arange(leaves_p.shape[-1] + 1, dtype=time.dtype, device=time.device)
    ahead = (joins_q - joins_p).cumsum(-1).unsqueeze(-1)
    own = _rate(grid_p, time) * _pairs(states)
    return time, joins_p, own, _rate(grid_q, time) * _pairs(states + ahead)


def _grid(distribution: Coalescent) -> Tensor:
    """Rates in (-inf, 1], [1, 2], ..., [T - 1, inf)."""
    if isinstance(distribution, CoalescentTimes):
        return distribution.rate.unsqueeze(-1)
    return distribution.rate_grid


def _events(
    leaves_p: Tensor, leaves_q: Tensor, grid_p: Tensor, grid_q: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Times of all changes, latest first, and how many leaves of p and of q join at each."""
    steps = max(grid_p.shape[-1], grid_q.shape[-1])
    changes = torch.arange(1, steps, dtype=leaves_p.dtype, device=leaves_p.device)
    parts = (leaves_p, leaves_q, changes)
    batch = torch.broadcast_shapes(*(x.shape[:-1] for x in (leaves_p, leaves_q, grid_p, grid_q)))
    joined = torch.cat([x.expand(*batch, x.shape[-1]) for x in parts], -1)
    whose = [torch.full_like(x, i) for i, x in enumerate(parts)]
    owner = torch.cat([x.expand(*batch, x.shape[-1]) for x in whose], -1)
    time, order = joined.sort(-1, descending=True)
    owner = owner.gather(-1, order)
    return time, (owner == 0).to(time.dtype), (owner == 1).to(time.dtype)


def _rate(grid: Tensor, time: Tensor) -> Tensor:
    """The rate in the interval that begins, backwards, at each time, with a last dim of 1."""
    # a time that is an integer begins the interval below it
    index = (time.detach().ceil() - 1).clamp(0, grid.shape[-1] - 1).long()
    batch = torch.broadcast_shapes(grid.shape[:-1], time.shape[:-1])
    grid, index = grid.expand(*batch, -1), index.expand(*batch, -1)
    return grid.gather(-1, index).unsqueeze(-1)


def _pairs(count: Tensor) -> Tensor:
    return torch.where(count > 1, count * (count - 1) / 2, 0.0)


def _time_in_states(
    time: Tensor, joins: Tensor, leaving: Tensor, arriving: Tensor
) -> tuple[Tensor, Tensor]:
    """Expected time with each number of lineages, in the interval after each event.

    What leaves a state, in excess of what arrives in the one below it, is lost. The second value
    is what is not: the probability of one lineage in the end.

    Reference:
        Van Loan (1978), "Computing integrals involving the matrix exponential".
    """
    length = time[..., :-1] - time[..., 1:]
    n = leaving.shape[-1]
    generator = torch.diag_embed(-leaving) + torch.diag_embed(arriving[..., 1:], offset=-1)
    eye = torch.eye(n, dtype=leaving.dtype, device=leaving.device)
    scaled = generator[..., :-1, :, :] * length[..., None, None]
    width = length[..., None, None] * eye
    zero = torch.zeros_like(scaled)
    block = torch.cat((torch.cat((scaled, width), -1), torch.cat((zero, zero), -1)), -2)
    flow = torch.linalg.matrix_exp(block)
    first = leaving[..., 0, :]
    now = torch.cat((torch.ones_like(first[..., :1]), torch.zeros_like(first[..., 1:])), -1)
    spent = []
    for i in range(length.shape[-1]):
        now = _after_joining(now, joins[..., i : i + 1])
        moved = (now.unsqueeze(-2) @ flow[..., i, :n, :]).squeeze(-2)
        now, occupied = moved[..., :n], moved[..., n:]
        spent.append(occupied)
    now = _after_joining(now, joins[..., -1:])
    at_end, kept = _until_the_end(now, leaving[..., -1, :], arriving[..., -1, :])
    return torch.stack([*spent, at_end], -2), kept


def _after_joining(now: Tensor, joins: Tensor) -> Tensor:
    """One lineage more where a leaf joins."""
    more = torch.nn.functional.pad(now[..., :-1], (1, 0))
    return torch.where(joins > 0, more, now)


def _until_the_end(now: Tensor, leaving: Tensor, arriving: Tensor) -> tuple[Tensor, Tensor]:
    """Expected time with each number of lineages until one is left, after which nothing counts."""
    moving = leaving != 0
    time = torch.where(moving, 1 / torch.where(moving, leaving, 1.0), 0.0)
    flow, kept, states = torch.zeros_like(now[..., 0]), now.sum(-1), []
    for k in range(now.shape[-1] - 1, -1, -1):  # the process passes through every lower state
        flow = flow + now[..., k]
        states.append(flow * time[..., k])
        if k == 1:
            kept = flow
        flow = states[-1] * arriving[..., k]
    return torch.stack(states[::-1], -1), kept


@entropy_formula(CoalescentTimes, CoalescentTimesWithRate)
def entropy_of_coalescent(p: Coalescent) -> Tensor:
    """E integral of [l - l log l] dt, for the intensity l at which lineages meet."""
    time, joins, own, _ = _intensities(p, p)
    moving = own > 0
    rate = torch.where(moving, own, 1.0)
    local = torch.where(moving, rate - rate * rate.log(), 0.0)
    spent, _ = _time_in_states(time, joins, own, own)
    return (spent * local).sum((-1, -2)).expand(p.batch_shape)


@renyi_formula(CoalescentTimes, CoalescentTimes)
@renyi_formula(CoalescentTimes, CoalescentTimesWithRate)
@renyi_formula(CoalescentTimesWithRate, CoalescentTimes)
@renyi_formula(CoalescentTimesWithRate, CoalescentTimesWithRate)
def renyi_of_coalescents(p: Coalescent, q: Coalescent, alpha: float) -> Tensor | None:
    r"""By the process that moves at rate l^a m^(1 - a) and ends at rate c.

    p^a q^(1 - a) is the density of a process in which lineages meet at the rate l^a m^(1 - a),
    for the rates l and m of p and q, and which is lost at the rate

        c = a l + (1 - a) m - l^a m^(1 - a).

    Its mass rho is what is not lost: 1 - rho = sum over states of the expected time times c, whose
    terms are of second order where l is close to m. For a > 1 it grows, without end if
    a l + (1 - a) m <= 0 after the last change.
    """
    if alpha == math.inf:
        return None
    time, joins, own, other = _intensities(p, q)
    both = (own > 0) & (other > 0)
    log_own, log_other = (torch.log(torch.where(both, x, 1.0)) for x in (own, other))
    lost = torch.where(both, renyi_terms(log_own, log_other, alpha), 0.0)
    only_own = torch.where(other > 0, 0.0, own)
    lost = lost + torch.where(both, 0.0, other + alpha / (1 - alpha) * only_own)
    mixed = torch.where(both, torch.exp(alpha * log_own + (1 - alpha) * log_other), 0.0)
    leaving = mixed + (1 - alpha) * lost
    last = leaving[..., -1, :]
    endless = ((last <= 0) & (own[..., -1, :] > 0)).any(-1)
    leaving = torch.where(endless[..., None, None], own, leaving)
    spent, kept = _time_in_states(time, joins, leaving, mixed)
    if alpha > 1:
        endless = endless | ((spent > 0) & (own > 0) & (other <= 0)).any(-1).any(-1)
    lack = (spent * lost).sum((-1, -2))
    near = ((1 - alpha) * lack).detach().abs() < 0.5
    close = renyi_of_sum(torch.where(near, lack, 0.0), alpha)
    far = torch.log(torch.where(near, 1.0, kept)) / (alpha - 1)
    return torch.where(endless, math.inf, torch.where(near, close, far) + 0.0)  # no -0.0
