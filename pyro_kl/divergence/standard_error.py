"""Means of terms at samples, and whether their standard errors hold."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..messages import see
from ..registry.reduction import describe
from ..registry.register import pair_of
from ..registry.structured_family import StructuredFamily
from ..registry.warnings import warn
from .estimate import Estimate

#: Samples at the ends are reported if they contribute more than this part of the standard error.
_SHOWS = 0.1
#: The error does not hold if one of `_MANY` samples or more has this part of the variance.
_MOST, _MANY = 0.25, 1000


@dataclass
class Terms:
    """Mean and squared deviations of terms at samples, merged block by block.

    Attributes:
        count: the number of terms without the lost ones, where a density under- or overflowed.
        mean: the mean of these; inf if one of them is.
        squares: the sum of the squared deviations from the mean.
        largest: the largest of the squared deviations.
        at_end: the number of samples that were rounded to an end of the support, or are lost.
        at_end_total: the sum of the terms at samples that were rounded.
        lost: the number of lost terms.

    Reference:
        Chan, Golub & LeVeque (1983), "Algorithms for computing the sample variance".
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
        """The sums of one block of terms, samples along the first dimension."""
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
        """The sums of two blocks together."""
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
        """The variance of the mean."""
        return self.squares / (self.count - 1).clamp(min=1) / self.count.clamp(min=1)

    @property
    def from_ends(self) -> Tensor:
        """The part of the mean from samples at the ends; inf if these are more than half."""
        kept = self.at_end - self.lost
        moved = (self.at_end_total - kept * self.mean).abs() / self.count.clamp(min=1)
        moved = torch.where(self.mean.isinf(), 0.0, moved)
        return torch.where(2 * self.at_end > self.count, torch.inf, moved)

    @property
    def rests_on_one(self) -> Tensor:
        """Whether one sample has much of the variance."""
        return (self.count >= _MANY) & (self.largest > _MOST * self.squares)


def estimate_of(
    p: Distribution,
    q: Distribution,
    parts: Sequence[tuple[Tensor, Terms]],
    num_samples: int,
    method: str,
    reason: str,
) -> Estimate:
    """The weighted sum of means, with a warning where its standard error does not hold.

    Args:
        p: the distribution that was sampled.
        q: the distribution that it is compared with.
        parts: weights and terms.
        num_samples: the number of samples of all parts together.
        method: as in `Estimate`.
        reason: as in `Estimate`.
    """
    used = [(w, t) for w, t in parts if bool((w > 0).any())]
    value = _added(torch.where(w > 0, w * t.mean, 0.0) for w, t in used)
    error = _added(w * w * t.variance for w, t in used).sqrt()
    unreliable, doubt = _doubts(used, error)
    if wrong := _wrong_sampler(p):
        unreliable, doubt = torch.ones_like(error, dtype=torch.bool), wrong
    if doubt:
        reason = f"{reason}; {doubt}"
        warn(f"KL({describe(p)} || {describe(q)}): {reason}." + see("unreliable-samples"))
    return Estimate(
        value=value,
        standard_error=torch.where(value.isfinite(), error, math.inf),
        method=method,
        num_samples=num_samples,
        reason=reason,
        unreliable=unreliable,
    )


def _wrong_sampler(p: Distribution) -> str:
    """Why the class's samples, or its density at them, are wrong; "" if not."""
    pair = pair_of(type(p), type(p))
    side = None if pair is None else pair.make_p
    if isinstance(side, StructuredFamily) and side.samples:
        return f"{describe(p)}: {side.samples}"
    base = getattr(p, "base_dist", None)
    return _wrong_sampler(base) if isinstance(base, Distribution) else ""


def _added(tensors: Iterable[Tensor]) -> Tensor:
    return functools.reduce(torch.add, tensors)


def _doubts(parts: Sequence[tuple[Tensor, Terms]], error: Tensor) -> tuple[Tensor | None, str]:
    """The elements of a weighted sum of means whose standard error does not hold, and why."""
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
