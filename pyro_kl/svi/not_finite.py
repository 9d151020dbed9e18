"""Which sites of a model and a guide have a density or a value that is not finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor


def sites_not_finite(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> list[str]:
    """Run guide and model once, and name the sites and parameters that are not finite.

    A site is named if a draw, or a log density, has an element that is nan or infinite.
    """
    with torch.no_grad(), pyro.validation_enabled(False):
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        replayed = poutine.replay(model, trace=guide_trace)
        model_trace = poutine.trace(replayed).get_trace(*args, **kwargs)
        names: list[str] = []
        for trace in (guide_trace, model_trace):
            trace.compute_log_prob()
            for name, node in trace.nodes.items():
                if not all(map(_is_finite, (node.get("value"), node.get("log_prob")))):
                    names.append(name)
    return list(dict.fromkeys(names))


def _is_finite(value: Any) -> bool:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return True
    return bool(value.isfinite().all())
