"""The posterior predictive of a fitted guide on held-out rows, against their labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Bernoulli

from models.data import Dataset
from pyro_kl.likelihoods import BERNOULLI_LOGIT

if TYPE_CHECKING:
    from models.logistic_regression import Guide


@dataclass(frozen=True)
class CalibrationBin:
    """Rows whose predicted probability falls into one bin.

    Attributes:
        lower: Lower edge of the bin.
        upper: Upper edge of the bin.
        count: Number of rows.
        probability: Mean predicted probability of label 1.
        frequency: Fraction of the rows with label 1.
    """

    lower: float
    upper: float
    count: int
    probability: float
    frequency: float


@dataclass(frozen=True)
class Prediction:
    """The posterior predictive on some rows, against their labels.

    Attributes:
        probability: Predicted probability of label 1, shape ``(N,)``.
        accuracy: Fraction of rows whose likelier label is right.
        log_loss: Mean of ``-log p(label)``, nats per row.
        base_log_loss: The log loss of predicting the rows' own base rate.
        calibration_error: Expected calibration error: mean over the rows of their bin's
            ``|frequency - probability|``.
        bins: The bins that hold rows.
    """

    probability: Tensor
    accuracy: float
    log_loss: float
    base_log_loss: float
    calibration_error: float
    bins: tuple[CalibrationBin, ...]


def predict(guide: Guide, data: Dataset, num_bins: int = 10) -> Prediction:
    """Return the posterior predictive of a fitted guide on labelled rows.

    The probability of a row averages the sigmoid over the guide, by quadrature.

    Source of the calibration error: Naeini, Cooper and Hauskrecht (2015), Obtaining Well
    Calibrated Probabilities Using Bayesian Binning.
    """
    with torch.no_grad():
        probability = BERNOULLI_LOGIT.predict(*guide.predictor(data.features))
    log_score = Bernoulli(probability).log_prob(data.labels)
    rate = float(data.labels.mean())
    base = -sum(r * math.log(r) for r in (rate, 1.0 - rate) if r > 0)
    bins = _calibration(probability, data.labels, num_bins)
    error = sum(b.count * abs(b.frequency - b.probability) for b in bins) / len(data)
    return Prediction(
        probability=probability,
        accuracy=float(((probability > 0.5) == (data.labels > 0.5)).double().mean()),
        log_loss=float(-log_score.mean()),
        base_log_loss=base,
        calibration_error=error,
        bins=bins,
    )


def _calibration(probability: Tensor, labels: Tensor, num_bins: int) -> tuple[CalibrationBin, ...]:
    """Return the occupied bins of equal width."""
    index = (probability * num_bins).long().clamp(max=num_bins - 1)
    bins = []
    for k in range(num_bins):
        inside = index == k
        if inside.any():
            bins.append(
                CalibrationBin(
                    lower=k / num_bins,
                    upper=(k + 1) / num_bins,
                    count=int(inside.sum()),
                    probability=float(probability[inside].mean()),
                    frequency=float(labels[inside].mean()),
                )
            )
    return tuple(bins)
