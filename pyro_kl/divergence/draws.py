"""Draws of a distribution, and what can be wrong with them.

A draw that lies closer to an end of the support than numbers do rounds to that end, or to the
number next to it; its density is then that of another place. A Gamma of concentration 0.01 has
two draws of five below float32's least number.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from ..registry.reduction import canonicalise, describe
from ..registry.register import pair_of
from ..registry.structured_family import StructuredFamily
from ..registry.warnings import warn
from ..wrappers.circle import ends_of
from .estimate import Estimate

#: Draws that contribute less than this part of the standard error do not show.
_SHOWS = 0.1
#: If one of many draws has more than this part of the variance, most of it has not been seen.
_MOST, _MANY = 0.25, 1000


def draw(p: Distribution, n: int) -> tuple[Tensor, Tensor | None]:
    """n draws of p, moved off the ends of its support, and which of them had rounded there.

    Returns:
        Values of shape (n, *batch, *event), and a mask (n, *batch); None if it is all False.
    """
    with _asked(p, "no sampler: `sample` is not implemented"):
        x = p.sample(torch.Size((n,)))
    ends = (0.0, torch.inf) if _is_simplex(p) else ends_of(p)
    if ends is None or not x.is_floating_point():
        return x, None
    low, high = (torch.as_tensor(end, dtype=x.dtype, device=x.device) for end in ends)
    (least, near_low), (most, near_high) = _next_to(low, 1), _next_to(high, -1)
    at_end = (x <= near_low) | (x >= near_high)
    if not bool(at_end.any()):
        return x, None  # itself: a transform remembers where it comes from
    events = tuple(range(-len(p.event_shape), 0))
    inside = torch.minimum(torch.maximum(x, least), most)
    return inside, at_end.any(events) if events else at_end


def _is_simplex(p: Distribution) -> bool:
    try:
        return p.support is constraints.simplex
    except NotImplementedError:
        return False


def _next_to(end: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The last number inside of an end of a support, and how far in a sampler may have rounded.

    Next to 0 torch's samplers return the least normal number, and some divide it by a sum.
    """
    info = torch.finfo(end.dtype)
    inside = end + side * torch.where(end == 0, info.tiny, info.eps * end.abs())
    inside = torch.where(end.isinf(), -side / info.tiny, inside)
    near = torch.where(end == 0, inside / info.eps, inside)
    return inside, torch.where(end.isinf(), inside * info.eps, near)


def log_density(
    distribution: Distribution, x: Tensor, log_prob: Callable[[Distribution, Tensor], Tensor]
) -> Tensor:
    """The log density; that of an equal distribution where torch's raises, as |x| does."""
    with _asked(distribution, "no density at such points: `log_prob` is not implemented"):
        try:
            return log_prob(distribution, x)
        except NotImplementedError:
            plain = canonicalise(distribution)
            if plain is distribution:
                raise
            return log_prob(plain, x)


@contextmanager
def _asked(distribution: Distribution, lacks: str) -> Iterator[None]:
    """Say whose method is missing, and what else may be done."""
    try:
        yield
    except (NotImplementedError, KeyError) as missing:
        transforms = getattr(distribution, "transforms", None)
        if transforms:
            names = ", ".join(type(transform).__name__ for transform in transforms)
            lacks += f", or a transform has no inverse ({names})"
        raise NotImplementedError(
            f"{describe(distribution)} has {lacks}. A sampled KL(p || q) needs draws of "
            "p and both log densities there; give the class what it lacks, or take another one."
        ) from missing


# --- the mean of terms at draws, and how far it can be trusted ----------------------------------


@dataclass
class Terms:
    """Mean and squares of terms, merged block by block as Chan, Golub & LeVeque (1983) do.

    Attributes:
        count: of the terms that are not lost: those where a density has under- or overflowed.
        mean: of these; inf if one of them is.
        squares: the sum of the squared distances from the mean.
        largest: of the squares.
        at_end: how many draws had rounded to an end of the support, or are lost.
        at_end_total: the sum of the former's terms.
        lost: how many are lost.
    """

    count: Tensor
    mean: Tensor
    squares: Tensor
    largest: Tensor
    at_end: Tensor
    at_end_total: Tensor
    lost: Tensor

    @classmethod
    def of(cls, terms: Tensor, at_end: Tensor | None) -> Terms:
        """Of one block, draws along the first dimension."""
        lost = terms.isnan()
        finite = terms.isfinite()
        at_end = lost if at_end is None else at_end | lost
        count = (~lost).sum(0).to(terms.dtype)
        centre = torch.where(finite, terms, 0.0).sum(0) / finite.sum(0).clamp(min=1)
        squares = torch.where(finite, terms - centre, 0.0).square()
        mean = torch.where(torch.isposinf(terms).any(0), torch.inf, centre)
        return cls(
            count,
            torch.where(count > 0, mean, torch.nan),
            squares.sum(0),
            squares.amax(0),
            at_end.sum(0),
            torch.where(at_end & finite, terms, 0.0).sum(0),
            lost.sum(0),
        )

    def merged(self, other: Terms) -> Terms:
        """Both blocks together."""
        count = self.count + other.count
        weight = torch.where(count > 0, other.count / count.clamp(min=1), 0.0)
        step = torch.nan_to_num(other.mean - self.mean, posinf=0.0, neginf=0.0)
        finite = self.mean.isfinite() & other.mean.isfinite()
        mean = torch.where(finite, self.mean + step * weight, torch.fmax(self.mean, other.mean))
        return Terms(
            count,
            mean,
            self.squares + other.squares + step.square() * self.count * weight,
            torch.maximum(self.largest, other.largest),
            self.at_end + other.at_end,
            self.at_end_total + other.at_end_total,
            self.lost + other.lost,
        )

    @property
    def variance(self) -> Tensor:
        """Of the mean."""
        return self.squares / (self.count - 1).clamp(min=1) / self.count.clamp(min=1)

    @property
    def from_ends(self) -> Tensor:
        """How much of the mean is due to the draws at the ends; all of it if they are the half."""
        kept = self.at_end - self.lost
        moved = (self.at_end_total - kept * self.mean).abs() / self.count.clamp(min=1)
        moved = torch.where(self.mean.isinf(), 0.0, moved)
        return torch.where(2 * self.at_end > self.count, torch.inf, moved)

    @property
    def rests_on_one(self) -> Tensor:
        """Whether one draw makes up much of the variance."""
        return (self.count >= _MANY) & (self.largest > _MOST * self.squares)


def estimate_of(
    p: Distribution,
    q: Distribution,
    parts: Sequence[tuple[Tensor, Terms]],
    num_samples: int,
    method: str,
    reason: str,
) -> Estimate:
    """The weighted sum of means; it says, and warns, where its standard error does not hold.

    Args:
        p: the distribution that was sampled.
        q: the other one.
        parts: weights and terms.
        num_samples: of all parts together.
        method: as in `Estimate`.
        reason: likewise.
    """
    used = [(w, t) for w, t in parts if bool((w > 0).any())]
    value = _added(torch.where(w > 0, w * t.mean, 0.0) for w, t in used)
    error = _added(w * w * t.variance for w, t in used).sqrt()
    unreliable, doubt = _doubts(used, error)
    if sampler := _of_sampler(p):
        unreliable, doubt = torch.ones_like(error, dtype=torch.bool), sampler
    if doubt:
        reason = f"{reason}; {doubt}"
        warn(f"KL({describe(p)} || {describe(q)}): {reason}.")
    return Estimate(
        value=value,
        standard_error=torch.where(value.isfinite(), error, math.inf),
        method=method,
        num_samples=num_samples,
        reason=reason,
        unreliable=unreliable,
    )


def _of_sampler(p: Distribution) -> str:
    """Why p's samples, or its density at them, are not its own; "" if nothing is known."""
    pair = pair_of(type(p), type(p))
    side = None if pair is None else pair.make_p
    if isinstance(side, StructuredFamily) and side.samples:
        return f"{describe(p)}: {side.samples}"
    base = getattr(p, "base_dist", None)
    return _of_sampler(base) if isinstance(base, Distribution) else ""


def _added(tensors: Iterable[Tensor]) -> Tensor:
    return functools.reduce(torch.add, tensors)


def _doubts(parts: Sequence[tuple[Tensor, Terms]], error: Tensor) -> tuple[Tensor | None, str]:
    """Where a weighted sum of means has not the standard error that it seems to have, and why."""
    at_end, lost = _added(t.at_end for _, t in parts), _added(t.lost for _, t in parts)
    moved = _added(w * t.from_ends for w, t in parts)
    shows = (at_end > 0) & ((lost > 0) | (moved > _SHOWS * error))
    alone = _added((t.rests_on_one & (w > 0)).int() for w, t in parts) > 0
    unreliable = shows | alone
    if not bool(unreliable.any()):
        return None, ""
    up_to = "up to " if error.numel() > 1 else ""
    reasons = []
    for what, number in (
        ("rounded to an end of p's support", torch.where(shows, at_end - lost, 0).max()),
        ("left out, for a density under- or overflows there", lost.max()),
        ("makes up more than a quarter of the variance", alone.max()),
    ):
        if number:
            reasons.append(f"{up_to}{int(number):,} {what}")
    return unreliable, "; ".join([*reasons, "the standard error does not hold"])
