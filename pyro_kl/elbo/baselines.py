"""Baselines of score functions, as declared by `infer={"baseline": {...}}`.

A number that does not depend on a site's own draw can be subtracted from the cost that multiplies
its score function: the gradient keeps its expectation and loses variance. The options are those of
`pyro.infer.TraceGraph_ELBO`.

Reference: Mnih & Gregor (2014), Neural Variational Inference and Learning in Belief Networks, sec.
2.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions.util import detach
from torch import Tensor

from ..messages import see
from ..numerics.concrete import is_recorded
from ..registry.warnings import warn

_OPTIONS = {
    "nn_baseline", "nn_baseline_input", "use_decaying_avg_baseline", "baseline_beta",
    "baseline_value",
}  # fmt: skip


class Baselines:
    """The baselines of all sites, with the running averages of their costs."""

    def __init__(self) -> None:
        self._averages: dict[tuple[str, torch.Size], Tensor] = {}

    def of(self, name: str, options: Mapping[str, Any], cost: Tensor) -> tuple[Any, Any]:
        """The baseline to subtract from the cost of a site, and the loss that trains it.

        Args:
            name: of the site.
            options: its `infer["baseline"]`.
            cost: the factor of its score function; detached.

        Raises:
            ValueError: an option is unknown, or a baseline has another shape than the cost.
        """
        unknown = sorted(set(options) - _OPTIONS)
        if unknown or ("nn_baseline" in options and "baseline_value" in options):
            raise ValueError(
                f"The baseline of {name} takes {', '.join(sorted(_OPTIONS))}, and not nn_baseline "
                f"beside baseline_value; it has {', '.join(sorted(options))}." + see("baseline")
            )
        baseline: Any = 0.0
        trained: Any = None
        if options.get("use_decaying_avg_baseline"):
            baseline = self._average(name, options.get("baseline_beta", 0.9), cost)
        if options.get("nn_baseline") is not None:
            trained = options["nn_baseline"](detach(options["nn_baseline_input"]))
        elif options.get("baseline_value") is not None:
            trained = options["baseline_value"]
        if trained is None:
            return baseline, 0.0
        if trained.shape != cost.shape:
            raise ValueError(
                f"The baseline of {name} has shape {tuple(trained.shape)}, the cost that it is "
                f"taken from {tuple(cost.shape)}." + see("baseline")
            )
        baseline = baseline + trained
        return baseline.detach(), (cost - baseline).square().sum()

    def _average(self, name: str, beta: float, cost: Tensor) -> Any:
        """The average of the earlier costs; this one is then added to it."""
        if is_recorded():
            warn(
                f"The decaying average of {name}'s costs stands still in a traced function and is "
                "left out: use TraceKL_ELBO, or a baseline with parameters." + see("baseline")
            )
            return 0.0
        key = name, cost.shape
        before = self._averages.get(key, torch.zeros_like(cost))
        if torch.is_grad_enabled():
            self._averages[key] = beta * before + (1 - beta) * cost
        return before
