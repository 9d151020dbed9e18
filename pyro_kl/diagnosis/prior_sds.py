"""The sd of each latent under the model's prior, by draws."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ..divergence.standard_error import Terms
from .draws import Draws

#: So many draws; the sd of a Normal then has a relative error of 1.6 %.
_MANY, _ONE_BY_ONE = 2000, 200


def prior_sds(draws: Draws) -> dict[str, Tensor]:
    """Latent -> the sd of each element; nan where draws do not tell, or where it is infinite."""
    shapes = draws.shapes
    unknown = {name: torch.full(shape, math.nan).double() for name, shape in shapes.items()}
    sums: dict[str, Terms] = {}
    finite = dict.fromkeys(shapes, True)
    try:
        for size, trace in _traces(draws):
            for name, shape in shapes.items():
                node = trace.nodes[name]
                new = Terms.of(node["value"].double().cpu().reshape(size, *shape), None)
                sums[name] = sums[name].merged(new) if name in sums else new
                finite[name] &= _has_variance(node["fn"])
    except NotImplementedError:  # an improper prior
        return unknown
    return {
        name: torch.where(
            x.rests_on_one | (not finite[name]), math.nan, (x.variance * x.count).sqrt()
        )
        for name, x in sums.items()
    }


def _traces(draws: Draws) -> Any:
    """Runs of the model, with the number of draws in each."""
    run = draws.run
    if draws.at_once == 1:
        for _ in range(_ONE_BY_ONE):
            yield 1, poutine.trace(run.model).get_trace(*run.args, **run.kwargs)
        return
    size = min(_MANY, draws.at_once)
    for _ in range(math.ceil(_MANY / size)):
        yield size, poutine.trace(draws.many(run.model, size)).get_trace(*run.args, **run.kwargs)


def _has_variance(distribution: Any) -> bool:
    """Whether the variance given the sites before is finite, as far as the class says."""
    try:
        return bool(distribution.variance.isfinite().all())
    except (NotImplementedError, AttributeError):
        return True
