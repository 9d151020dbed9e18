"""Univariate distributions as curves: where their mass lies, and their density there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..messages import see
from ..registry.reduction import describe
from ..registry.shapes import some_tensor
from ..wrappers.circle import ends_of
from ..wrappers.log_prob import log_prob_anywhere

#: The samples that show where the mass of a distribution lies.
_SAMPLES = 20_000
#: More atoms than this are drawn as a curve.
BARS = 60
#: The mass on either side that a picture may leave out.
_LEFT_OUT = 0.005
#: A heavy tail is left out from so many interquartile ranges on: of the first distribution of a
#: picture, and of the second.
_REACH = (5.0, 3.0)


def check_univariate(**distributions: Distribution) -> None:
    """Check that one picture can show these distributions.

    Raises:
        TypeError: one of them is not a distribution.
        ValueError: one of them has a batch or an event shape, or one is discrete and another not.
    """
    for name, distribution in distributions.items():
        if not isinstance(distribution, Distribution):
            raise TypeError(
                f"{name} must be a distribution, got {type(distribution).__name__}"
                + see("not-a-distribution")
            )
        if distribution.batch_shape or distribution.event_shape:
            raise ValueError(
                f"a picture shows one univariate distribution, but {name} ("
                f"{describe(distribution)}) has batch shape {tuple(distribution.batch_shape)} and "
                f"event shape {tuple(distribution.event_shape)}: pass one element of it"
                + see("picture")
            )
    if len({is_discrete(distribution) for distribution in distributions.values()}) > 1:
        kinds = ", ".join(f"{name} is {describe(d)}" for name, d in distributions.items())
        raise ValueError(
            f"one of the distributions is discrete and the other is not: {kinds}" + see("picture")
        )


def is_discrete(distribution: Distribution) -> bool:
    """Whether a distribution has masses, not a density."""
    try:
        support: Any = distribution.support
    except NotImplementedError:
        return False
    return support is not None and bool(support.is_discrete)


def samples_of(distribution: Distribution) -> Tensor:
    """Sorted samples in float64, always the same ones; torch's random state stays as it is.

    Raises:
        NotImplementedError: there is no sampler.
        ValueError: the samples are infinite or not a number, or nearly all are the same number
            though the distribution has a density.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.no_grad(), torch.random.fork_rng(devices), _own_dtype(distribution):
        torch.manual_seed(0)
        try:
            x = distribution.sample(torch.Size((_SAMPLES,)))
        except NotImplementedError:
            raise NotImplementedError(
                f"{describe(distribution)} has no sampler; a picture finds the range of x by "
                "samples" + see("picture")
            ) from None
    x = x.detach().double().cpu().sort().values
    low, high = _quantile(x, _LEFT_OUT), _quantile(x, 1 - _LEFT_OUT)
    if not x.isfinite().all() or (low == high and not is_discrete(distribution)):
        raise ValueError(
            f"{describe(distribution)} has no density that a picture could show: 99 % of its "
            f"samples lie from {low:g} to {high:g}" + see("picture")
        )
    return x


def log_density(distribution: Distribution, x: Tensor) -> Tensor:
    """The log density or log mass at points, -inf outside of the support; float64."""
    with torch.no_grad(), _own_dtype(distribution):
        x = x.to(some_tensor(distribution).device)
        return log_prob_anywhere(distribution, x).double().cpu()


@contextmanager
def _own_dtype(distribution: Distribution) -> Iterator[None]:
    """Make the dtype of a distribution the default one.

    torch's GeneralizedPareto mixes both, and raises where they differ.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(some_tensor(distribution).dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


@dataclass(frozen=True)
class Window:
    """The range of x that a picture shows.

    Attributes:
        low: its lower end.
        high: its upper end.
        logarithmic: whether the axis is one of log x. Densities are then those of log x, so that
            areas are still probabilities or nats.
    """

    low: float
    high: float
    logarithmic: bool = False

    def points(self, *distributions: Distribution) -> tuple[Tensor, Tensor]:
        """Points along the axis, and the slope of x there (dx / d log x if logarithmic).

        They are equally spaced, and some are samples, so that no narrow peak is left out.
        """
        if self.logarithmic:
            x = torch.linspace(math.log(self.low), math.log(self.high), 1201).double().exp()
        else:
            x = torch.linspace(self.low, self.high, 1201, dtype=torch.float64)
        samples = torch.cat([samples_of(distribution)[::50] for distribution in distributions])
        x = torch.cat([x, samples[self.has(samples)]]).unique()
        return x, x if self.logarithmic else torch.ones_like(x)

    def atoms(self) -> tuple[Tensor, int]:
        """Integers that are shown, and the step between them where there are very many."""
        low, high = math.ceil(self.low), math.floor(self.high)
        step = max(1, (high - low) // 2000)  # a picture has no room for more
        return torch.arange(low, high + 1, step, dtype=torch.float64), step

    def has(self, x: Tensor) -> Tensor:
        """Which points are shown."""
        return (x >= self.low) & (x <= self.high)

    def near_ends(self, x: Tensor, *distributions: Distribution) -> Tensor:
        """Which points are so near to the end of a support that a pole there is all one sees.

        A density of log x has no poles.
        """
        near = torch.zeros_like(x, dtype=torch.bool)
        if self.logarithmic:
            return near
        for distribution in distributions:
            for end in ends_of(distribution) or ():
                near |= (x - float(end)).abs() < 0.04 * (self.high - self.low)
        return near


def window_of(first: Distribution, second: Distribution, beyond: float) -> Window:
    """The range of x that a picture of two distributions shows.

    It has all but a percent of the mass of `first`, and of that of `second` what lies within
    `beyond` times the width of `first` on either side of it. The axis is logarithmic if both are
    distributions of positive numbers and `first` spans several powers of ten.
    """
    samples = [samples_of(first), samples_of(second)]
    logarithmic = not is_discrete(first) and _spans_decades(first, second, samples[0])
    if logarithmic:
        samples = [torch.log(x.clamp(min=1e-300)) for x in samples]
    (low, high), (other_low, other_high) = map(_bulk, samples, _REACH)
    reach = beyond * (high - low)
    low = min(low, max(other_low, low - reach))
    high = max(high, min(other_high, high + reach))
    margin = 0.04 * (high - low)
    if is_discrete(first):
        return Window(math.floor(low), math.ceil(high))
    if logarithmic:
        return Window(math.exp(low - margin), math.exp(high + margin), logarithmic=True)
    # An end of a support that is near is shown, and so is a little beyond it.
    ends = [float(end) for d in (first, second) for end in ends_of(d) or ()]
    near = 0.2 * (high - low)
    low = min([low, *(end for end in ends if 0 <= low - end < near)])
    high = max([high, *(end for end in ends if 0 <= end - high < near)])
    return Window(low - margin, high + margin)


def _spans_decades(first: Distribution, second: Distribution, samples: Tensor) -> bool:
    """Whether both are of positive numbers, and the larger half of the first spans decades."""
    ends = ends_of(first), ends_of(second)
    if any(e is None or float(e[0]) < 0 or math.isfinite(float(e[1])) for e in ends):
        return False
    return _quantile(samples, 1 - _LEFT_OUT) > 20 * _quantile(samples, 0.5)


def _quantile(samples: Tensor, share: float) -> float:
    return float(samples[int(share * (len(samples) - 1))])


def _bulk(samples: Tensor, most: float) -> tuple[float, float]:
    """Quantiles with nearly all of the mass between them, nearer where a tail is heavy."""
    low, quarter, middle, rest, high = (
        _quantile(samples, share) for share in (_LEFT_OUT, 0.25, 0.5, 0.75, 1 - _LEFT_OUT)
    )
    reach = most * max(rest - quarter, 0.01 * (high - low))
    return max(low, middle - reach), min(high, middle + reach)


def integration_points(distribution: Distribution) -> tuple[Tensor, Tensor]:
    """Points over the support of a distribution, and their weights in a sum or an integral.

    If a peak is narrower than the points are apart, they are samples instead, with the weights of
    Monte Carlo.
    """
    samples = samples_of(distribution)
    if is_discrete(distribution):
        low, high = int(samples[0]), int(samples[-1])
        spare = 2 * (high - low) + 10  # nothing is left beyond it
        atoms = torch.arange(low - spare, high + spare, dtype=torch.float64)
        return atoms, torch.ones_like(atoms)
    x, weight = _whole_line(distribution)
    mass = log_density(distribution, x).exp() * weight
    if abs(float(mass[mass.isfinite()].sum()) - 1.0) < 1e-3:
        return x, weight
    return samples, torch.exp(-log_density(distribution, samples)) / len(samples)


def _whole_line(distribution: Distribution) -> tuple[Tensor, Tensor]:
    """The points and weights of an integral over the support of a continuous distribution.

    The support is mapped to the line. Points are dense around the median there, and thin out
    exponentially, so that they reach power tails and poles at a finite end.
    """
    samples = samples_of(distribution)
    ends = ends_of(distribution) or (-math.inf, math.inf)
    low, high = (float(end) for end in ends)
    y = _to_line(samples, low, high)
    quarter, middle, rest = (_quantile(y, share) for share in (0.25, 0.5, 0.75))
    t = torch.linspace(-30.0, 30.0, 8001, dtype=torch.float64)
    width = max(rest - quarter, 1e-12)
    place = middle + width * torch.sinh(t)
    slope = width * torch.cosh(t) * (t[1] - t[0])
    seen = place.abs() < 600.0 if math.isfinite(low) or math.isfinite(high) else t == t
    place, slope = place[seen], slope[seen]
    if math.isfinite(low) and math.isfinite(high):
        x = low + (high - low) * torch.sigmoid(place)
        return x, slope * (high - low) * torch.sigmoid(place) * torch.sigmoid(-place)
    if math.isfinite(low):
        return low + torch.exp(place), slope * torch.exp(place)
    if math.isfinite(high):
        return high - torch.exp(-place), slope * torch.exp(-place)
    return place, slope


def _to_line(x: Tensor, low: float, high: float) -> Tensor:
    """The inverse of the map from the line in `_whole_line`."""
    tiny = torch.finfo(torch.float64).tiny
    above, below = (x - low).clamp(min=tiny), (high - x).clamp(min=tiny)
    if math.isfinite(low) and math.isfinite(high):
        return torch.log(above) - torch.log(below)
    if math.isfinite(low):
        return torch.log(above)
    if math.isfinite(high):
        return -torch.log(below)
    return x
