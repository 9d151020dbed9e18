"""The tail of importance weights: its generalised Pareto distribution, k-hat and smoothing.

Reference: Vehtari, Simpson, Gelman, Yao & Gabry (2024), "Pareto smoothed importance sampling",
JMLR 25(72); the fit is that of Zhang & Stephens (2009), with the weak prior of appendix C. All
numbers are those of `arviz.psislw`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: The prior of the fit: 1 / (this times the first quartile) is where the scale is looked for.
_PRIOR_SCALE = 3
#: The prior of the shape: as many observations with a shape of 1/2.
_PRIOR_COUNT = 10
#: A fit needs more observations than this.
_FEWEST = 4
#: So many numbers of a batch of fits are in memory at a time.
_AT_A_TIME = 2**22


@dataclass(frozen=True)
class Smoothed:
    """Importance weights whose largest are replaced by quantiles of their fitted tail.

    Attributes:
        shape: k-hat; inf where the tail is too short to be fitted.
        scale: of the fitted distribution, of the weights relative to the largest one.
        cut: the log weight above which the tail begins, relative to the largest one.
        largest: the largest log weight.
        order: the places of the tail's draws, by their weights.
        quantiles: log weights in their place, relative to the largest one, not truncated.
    """

    shape: float
    scale: float
    cut: float
    largest: float
    order: Tensor
    quantiles: Tensor

    def log_weights(self, raw: Tensor, truncated: bool = True) -> Tensor:
        """The log weights with the tail smoothed.

        Args:
            raw: the log weights.
            truncated: whether no weight may be larger than the largest one that was drawn.
        """
        found = raw.clone()
        tail = self.quantiles.clamp(max=0.0) if truncated else self.quantiles
        found[self.order] = tail + self.largest
        return found

    def log_tail_mean(self) -> float:
        """The log of the mean of the fitted tail, whose shape has to be below 1."""
        return self.largest + math.log(math.exp(self.cut) + self.scale / (1 - self.shape))


def tail_length(count: int) -> int:
    """The number of draws that are taken to be the tail."""
    return math.ceil(min(count / 5, 3 * math.sqrt(count)))


def smooth(log_weights: Tensor) -> Smoothed:
    """Fit the tail of log weights.

    Args:
        log_weights: float64, of shape (draws,); -inf for a weight of zero.
    """
    largest = float(log_weights.max())
    length = tail_length(len(log_weights))
    top = torch.topk(log_weights, min(length + 1, len(log_weights)), sorted=True)
    logs, order = (top.values - largest).flip(0), top.indices.flip(0)
    cut = max(float(logs[0]), math.log(torch.finfo(torch.float64).tiny))
    above = logs > cut
    logs, order = logs[above], order[above]
    shape, scale = fit(logs.exp()[None] - math.exp(cut))
    if not math.isfinite(float(shape)):
        return Smoothed(float(shape), math.nan, cut, largest, order, logs)
    at = torch.arange(0.5, len(logs), dtype=torch.float64) / len(logs)
    quantiles = (_quantile(at, float(shape), float(scale)) + math.exp(cut)).log()
    return Smoothed(float(shape), float(scale), cut, largest, order, quantiles)


def fit(excesses: Tensor) -> tuple[Tensor, Tensor]:
    """Shape and scale of generalised Pareto distributions.

    Args:
        excesses: over the cut, of shape (batch, observations), each row in rising order.

    Returns:
        Two tensors of shape (batch,); the shape is inf where there are too few observations.
    """
    batch, count = excesses.shape
    if count <= _FEWEST:
        return torch.full((batch,), math.inf), torch.full((batch,), math.nan)
    points = 30 + math.isqrt(count)
    rows = max(1, _AT_A_TIME // (points * count))
    parts = [_fit(part, points) for part in excesses.split(rows)]
    shape, scale = (torch.cat(found) for found in zip(*parts, strict=True))
    return shape, scale


def _fit(excesses: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """The posterior mean of b = -shape / scale over some points, and what follows from it."""
    count = excesses.shape[-1]
    quartile = excesses[:, int(count / 4 + 0.5) - 1, None]
    grid = torch.arange(1, points + 1, dtype=torch.float64) - 0.5
    b = (1 - (points / grid).sqrt()) / (_PRIOR_SCALE * quartile) + 1 / excesses[:, -1:]
    shape = torch.log1p(-b[..., None] * excesses[:, None]).mean(-1)
    log_likelihood = count * ((-b / shape).log() - shape - 1)
    weight = torch.softmax(log_likelihood, -1)
    weight = torch.where(weight >= 10 * torch.finfo(torch.float64).eps, weight, 0.0)
    b = (b * weight).sum(-1) / weight.sum(-1)
    shape = torch.log1p(-b[:, None] * excesses).mean(-1)
    scale = -shape / b
    return (count * shape + _PRIOR_COUNT * 0.5) / (count + _PRIOR_COUNT), scale


def _quantile(at: Tensor, shape: float, scale: float) -> Tensor:
    """Quantiles of a generalised Pareto distribution."""
    exponential = -torch.log1p(-at)
    if abs(shape) < torch.finfo(torch.float64).eps:
        return scale * exponential
    return scale * torch.expm1(shape * exponential) / shape


def threshold(count: int) -> float:
    """The largest k-hat at which this number of draws is enough (Vehtari and others, sec. 3.2)."""
    return min(0.7, 1 - 1 / math.log10(count)) if count > 10 else -math.inf


def enough_draws(shape: float) -> float:
    """The number of draws that is enough at a k-hat; inf from 0.7 on."""
    return 10 ** (1 / (1 - max(0.0, shape))) if shape < 0.7 else math.inf


def error_factor(shape: float, count: int) -> float:
    """How many times larger the error of a mean is than 1 / sqrt(count) says.

    The standard deviation of a mean of draws whose largest weights are Pareto falls more slowly
    than 1 / sqrt(count) from a shape of about 1/3 on. The factor is count ** ((1 - rate) / 2),
    where the rate is the "convergence rate" of Vehtari and others (2024), sec. 3.3.
    """
    if shape <= 0:
        return 1.0
    if shape >= 1:
        return math.inf
    if abs(shape - 0.5) < 1e-6:
        rate = (count * (math.log(count) - 1) + 1) / (math.log(count) * (count - 1))
    else:
        power = count ** (2 * shape)
        rate = (2 * (shape - 1) * count * power + (1 - 2 * shape) * power + count**2) / (
            (count - 1) * (count - power)
        )
    return float(count ** ((1 - max(0.0, rate)) / 2))
