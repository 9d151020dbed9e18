"""The prior that an estimator's parameters declare, and which of its scales are learnt."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...messages import see
from .prior import NormalPrior, Prior
from .scale_equation import ScaledPrior
from .shrinkage import HorseshoePrior, LaplacePrior, StudentTPrior

PRIORS: dict[str, Callable[[Tensor], Prior]] = {
    "normal": NormalPrior,
    "laplace": LaplacePrior,
    "studentt": StudentTPrior,
    "horseshoe": HorseshoePrior,
}
#: In the place of a scale.
LEARN = "learn"
#: Where the search for a scale starts: features are of the size of 1.
_FIRST = 1.0


def declared_prior(
    prior: str, prior_scale: Any, groups: Any, bias_scale: float, num_features: int
) -> ScaledPrior:
    """Return the prior of all coefficients, the bias first.

    Args:
        prior: a name of `PRIORS`.
        prior_scale: a number, "learn", one number for each feature, or a dict from a label of
            ``groups`` to a number or "learn".
        groups: one label for each feature, or None.
        bias_scale: of the bias.
        num_features: the number of features.

    Raises:
        ValueError: they do not fit together; one line that says why.
    """
    if prior not in PRIORS:
        raise ValueError(
            f"prior must be one of {', '.join(PRIORS)}, got {prior!r}" + see("option")
        )
    labels = None if groups is None else _labels(groups, num_features)
    if isinstance(prior_scale, Mapping):
        if labels is None:
            raise ValueError(
                "prior_scale is a dict, but groups, a label for each feature, is None"
                + see("prior-scale")
            )
        each = _of_groups(prior_scale, labels)
    elif isinstance(prior_scale, str):
        if prior_scale != LEARN:
            raise ValueError(
                f"prior_scale must be numbers or {LEARN!r}, got {prior_scale!r}"
                + see("prior-scale")
            )
        each = [LEARN] * num_features
    elif labels is not None:
        raise ValueError(
            f"groups share learnt scales: pass prior_scale={LEARN!r}, or a dict from each label "
            "to a scale" + see("prior-scale")
        )
    else:
        each = _numbers(prior_scale, num_features)
    names = labels or ["the weights"] * num_features
    learnt = list(dict.fromkeys(name for name, s in zip(names, each, strict=True) if s == LEARN))
    group = [learnt.index(n) if s == LEARN else -1 for n, s in zip(names, each, strict=True)]
    scale = [_FIRST if s == LEARN else s for s in each]
    return ScaledPrior(
        PRIORS[prior](torch.tensor([float(bias_scale), *scale], dtype=torch.float64)),
        torch.tensor([-1, *group]),
        torch.zeros(len(learnt), dtype=torch.float64),
        tuple(str(name) for name in learnt),
    )


def _labels(groups: Any, num_features: int) -> list[Any]:
    labels = np.asarray(groups, dtype=object).tolist()
    if not isinstance(labels, list) or len(labels) != num_features:
        raise ValueError(
            f"groups must have a label for each of {num_features} features, got "
            f"{len(labels) if isinstance(labels, list) else groups!r}" + see("prior-scale")
        )
    return labels


def _of_groups(scales: Mapping[Any, Any], labels: list[Any]) -> list[Any]:
    if set(scales) != set(labels):
        odd = sorted(map(str, set(scales) ^ set(labels)))
        raise ValueError(
            f"prior_scale needs a scale for each label of groups, and no others: {odd[0]}"
            + see("prior-scale")
        )
    checked = {
        label: LEARN if scale == LEARN else _positive(scale) for label, scale in scales.items()
    }
    return [checked[label] for label in labels]


def _numbers(prior_scale: Any, num_features: int) -> list[float]:
    scale = np.asarray(prior_scale)
    if scale.ndim == 0:
        return [_positive(prior_scale)] * num_features
    if scale.shape != (num_features,):
        raise ValueError(
            f"prior_scale must be a number or one for each of {num_features} features, got "
            f"shape {scale.shape}" + see("prior-scale")
        )
    return [_positive(value) for value in scale.tolist()]


def _positive(scale: Any) -> float:
    value = scale.item() if hasattr(scale, "item") else scale
    if not (isinstance(value, numbers.Real) and 0.0 < float(value) < math.inf):
        raise ValueError(
            f"prior_scale must be positive numbers or {LEARN!r}, got {value!r}"
            + see("prior-scale")
        )
    return float(value)


def scales_by_name(prior: Any, groups: Any) -> Any:
    """Return the scales of the weights: one number, a dict by group, or one for each feature."""
    scale = prior.scale[1:].numpy()
    if groups is not None:
        labels = np.asarray(groups, dtype=object).tolist()
        return dict(zip(labels, scale.tolist(), strict=True))
    return float(scale[0]) if len(scale) and (scale == scale[0]).all() else scale
