"""Sums over the atoms of two discrete distributions: Renyi, Jensen and Shannon, entropy."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor

from ..messages import see
from ..numerics.special.alpha_divergences import jensen_shannon_terms, renyi_of_sum, renyi_terms
from ..registry.integrate_counts import PoissonCount
from .discrete import FEW, Discrete

#: Log of the mass that may be left out, of one distribution or of p^alpha q^(1 - alpha).
_NOTHING = -80.0
P = ParamSpec("P")

#: A sum has at most so many terms, of the rows that are summed together.
_MOST = 1 << 24
#: Rows of so many terms are summed together.
_CHUNK = 1 << 21
#: From this mean on, the first terms of a series give a Poisson's entropy to the last digit.
_WIDE = 1e4
#: From this log of the sum of p^alpha q^(1 - alpha) on, up and down, it is summed itself.
_FAR = 0.5


def common_length(
    p: Discrete, q: Discrete, log_term: Callable[[Tensor, Tensor], Tensor], most: int = _MOST
) -> int:
    """So many atoms that the terms beyond them are negligible.

    Raises:
        NotImplementedError: these are too many.
    """
    counts = p.num_atoms, q.num_atoms
    if counts[0] is not None and counts[1] is not None:
        return max(counts[0], counts[1])
    n = max(FEW, *(count or 0 for count in counts))
    rows = torch.broadcast_shapes(p.shape, q.shape).numel()
    while True:
        if 2 * n * rows > most:
            raise NotImplementedError(
                f"a sum over {n:,} atoms and more: the distributions are too wide to be summed"
                + see("no-integral")
            )
        log_p = p.log_masses(2 * n)
        log_p, log_q = torch.broadcast_tensors(log_p, log_p if p is q else q.log_masses(2 * n))
        terms = log_term(log_p, log_q).detach()
        top = terms.amax(-1)
        settled = (terms[..., n:] < (top + _NOTHING).unsqueeze(-1)).all(-1)
        falls = (terms[..., -1] < terms[..., n]) | torch.isneginf(terms[..., -1])
        if bool(((settled & falls) | top.isnan()).all()):
            return n
        n *= 2


def both_masses(p: Discrete, q: Discrete, alpha: float = 0.5) -> tuple[Tensor, Tensor]:
    """The log masses of both at all atoms where one of them or the product of powers counts."""

    def largest(log_p: Tensor, log_q: Tensor) -> Tensor:
        larger = torch.maximum(log_p, log_q)
        return torch.maximum(larger, log_power(log_p, log_q, alpha)) if alpha > 1 else larger

    n = common_length(p, q, largest)
    log_p, log_q = torch.broadcast_tensors(p.log_masses(n), q.log_masses(n))
    return log_p, log_q


def log_power(log_p: Tensor, log_q: Tensor, alpha: float) -> Tensor:
    """Log of p^alpha q^(1 - alpha): -inf where p = 0, +inf where only q = 0 and alpha > 1."""
    no_p, no_q = torch.isneginf(log_p), torch.isneginf(log_q)
    inside = ~(no_p | no_q)
    lp, lq = torch.where(inside, log_p, 0.0), torch.where(inside, log_q, 0.0)
    missing = torch.where(no_p, -math.inf, math.inf if alpha > 1 else -math.inf)
    return torch.where(inside, alpha * lp + (1 - alpha) * lq, missing)


def _in_chunks(sum_of: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """A sum for large batches, a part of the rows at a time."""

    @wraps(sum_of)
    def chunked(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        sides = [x for x in args if isinstance(x, Discrete)]
        shape = torch.broadcast_shapes(*(x.shape for x in sides))
        most = max(1, _CHUNK // max(x.width for x in sides))
        if shape.numel() <= most:
            return sum_of(*args, **kwargs)
        device = next(iter(sides[0].parameters.values())).device
        parts = []
        for rows in torch.arange(shape.numel(), device=device).split(most):
            some: Any = [x.rows(rows, shape) if isinstance(x, Discrete) else x for x in args]
            parts.append(sum_of(*some, **kwargs))
        return torch.cat(parts).reshape(shape)

    return chunked


def _filled(value: Tensor, mask: Tensor, sum_of: Callable[[Tensor], Tensor]) -> Tensor:
    """The value, with sums in the rows where the mask holds."""
    rows = torch.nonzero(mask.expand(value.shape).reshape(-1))[:, 0]
    if not rows.numel():
        return value
    return value.reshape(-1).index_put((rows,), sum_of(rows)).reshape(value.shape)


@_in_chunks
def renyi_sum(p: Discrete, q: Discrete, alpha: float) -> Tensor:
    """Renyi's divergence of order alpha in [1/2, inf) without 1, by a sum over the atoms."""
    infinite = _diverges(p, q, alpha)
    if bool(infinite.any()):
        shape = torch.broadcast_shapes(p.shape, q.shape)
        value = torch.full(shape, math.inf, dtype=torch.float64, device=infinite.device)
        return _filled(
            value,
            ~infinite,
            lambda rows: renyi_sum(p.rows(rows, shape), q.rows(rows, shape), alpha),
        )
    log_p, log_q = both_masses(p, q, alpha)
    log_total = log_power(log_p, log_q, alpha).logsumexp(-1)
    near = log_total.detach().abs() < _FAR
    lack = renyi_terms(log_p, log_q, alpha).sum(-1)
    close = renyi_of_sum(torch.where(near, lack, 0.0), alpha)
    return torch.where(near, close, log_total / (alpha - 1))


def _diverges(p: Discrete, q: Discrete, alpha: float) -> Tensor:
    """Where the sum of p^alpha q^(1 - alpha) is infinite for its tail.

    A NegativeBinomial's mass falls like p1^k k^(r - 1), a Poisson's faster.
    """
    nowhere = torch.zeros((), dtype=torch.bool, device=next(iter(p.parameters.values())).device)
    if alpha < 1 or p.num_atoms is not None:
        return nowhere
    if q.num_atoms is not None:  # a count goes on beyond q's last atom, unless it is a constant
        return ~torch.isneginf(p.log_masses(q.num_atoms + 1)[..., -1].detach())
    if p.log_weights is not None or q.log_weights is not None:
        raise NotImplementedError(
            "it is not known whether the divergence of mixtures of infinitely many counts is "
            "finite for an order above 1" + see("no-integral")
        )
    a, b = p.as_count, q.as_count
    if a is None or b is None:
        return nowhere
    only_q = _is_zero(q)
    if isinstance(a, PoissonCount):
        heavier = nowhere
    elif isinstance(b, PoissonCount):
        heavier = ~nowhere
    else:
        rate = alpha * a.log_p1 + (1 - alpha) * torch.where(only_q, 0.0, b.log_p1)
        power = alpha * (a.size - 1) + (1 - alpha) * (b.size - 1)
        heavier = (rate > 0) | ((rate == 0) & (power >= -1))
    return ~_is_zero(p) & (only_q | heavier)


def _is_zero(p: Discrete) -> Tensor:
    """Where a count is the constant 0."""
    return torch.isneginf(p.log_masses(2)[..., 1].detach())


@_in_chunks
def jensen_shannon_sum(p: Discrete, q: Discrete) -> Tensor:
    """Jensen and Shannon's divergence by a sum over the atoms."""
    return jensen_shannon_terms(*both_masses(p, q)).sum(-1)


@_in_chunks
def entropy_sum(p: Discrete, most: int = _MOST) -> Tensor:
    """The entropy by a sum over the atoms, or by the series of a wide Poisson."""
    count = p.as_count
    if isinstance(count, PoissonCount):
        wide = count.mean.detach() > _WIDE
        if bool(wide.any()):
            shape, value = p.shape, _entropy_of_wide(count, wide).expand(p.shape)
            return _filled(value, ~wide, lambda rows: entropy_sum(p.rows(rows, shape), most))
    log_p = p.log_masses(common_length(p, p, lambda log_p, _: log_p, most))
    gone = torch.isneginf(log_p)
    known = torch.where(gone, 0.0, log_p)
    return torch.where(gone, 0.0, -torch.exp(known) * known).sum(-1)


def _entropy_of_wide(count: PoissonCount, wide: Tensor) -> Tensor:
    """The series of Evans, Boersma, Blachman & Jagers (1988), SIAM Review 30(2), 314-317."""
    mean = torch.where(wide, count.mean, _WIDE)
    rest = -(1 / 12 + (1 / 24 + 19 / 360 / mean) / mean) / mean
    value = 0.5 * (1 + math.log(2 * math.pi) + mean.log()) + rest
    if count.gates is None:
        return value
    # nothing of the Poisson is at 0
    of_gate = [torch.where(torch.isneginf(x), 0.0, -x.exp() * x) for x in count.gates]
    return of_gate[0] + of_gate[1] + count.gates[1].exp() * value


@_in_chunks
def zeroth_renyi_sum(p: Discrete, q: Discrete) -> Tensor:
    """-log of q's mass where p has mass."""
    log_p, log_q = both_masses(p, q)
    mass = torch.where(torch.isneginf(log_p), -math.inf, log_q).logsumexp(-1)
    return -mass.clamp(max=0.0) + 0.0  # which makes no -0.0
