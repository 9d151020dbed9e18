"""The sampled KL as a control variate for the exact one.

An exact KL takes noise out of the loss, but near the optimum the sampled `log q - log p` cancels
noise of the likelihood, and without it the gradient is noisier. KL_sampled - KL_exact has mean
zero, so that any multiple of it that is fixed before the draw leaves the gradient unbiased. The
multiple that minimises the sum of variances is -E<g, h> / E<h, h>, with g the gradient and h that
of the difference; running means estimate it.

Reference: Geffner & Domke (2018), Using Large Ensembles of Control Variates for Variational
Inference, sec. 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .guides.plan import Plan
from .terms import Term
from .traces import Traces, has_score_function


class ControlVariate:
    """The difference of sampled and exact KLs, with a coefficient that is learnt.

    Args:
        memory: weight of the past in the running means.

    Attributes:
        coefficient: the factor of the difference at the next step.
    """

    def __init__(self, memory: float = 0.95) -> None:
        self.memory = memory
        self.coefficient = 0.0
        self._cross = self._square = 0.0

    def of(
        self,
        plan: Plan,
        traces: Traces,
        terms: Sequence[Term],
        weights: Mapping[str, Any],
    ) -> Any:
        """Weighted sum of KL_sampled - KL_exact over the exact sites of one pair of traces."""
        total: Any = 0.0
        for term in terms:
            decision = plan.decisions.get(term.name)
            if decision is None or term.dims is None:
                continue
            if has_score_function(traces.guide.nodes[term.name]["fn"]):
                continue  # the difference would need a score function of its own
            log_q = decision.site.scaled_log_q(traces.guide)
            sampled = log_q - traces.model.nodes[term.name]["log_prob"]
            gap = (sampled - term.value).masked_fill(term.value.isinf(), 0.0)
            total = total + weights[term.name] * gap.sum()
        return total

    def learn(self, surrogate: Any, extra: Tensor) -> float:
        """The coefficient that past steps have fixed for this one, which then changes the next."""
        coefficient = self.coefficient
        if isinstance(surrogate, Tensor) and surrogate.requires_grad and extra.requires_grad:
            leaves = _leaves(surrogate)
            g = torch.autograd.grad(surrogate, leaves, retain_graph=True, allow_unused=True)
            h = torch.autograd.grad(extra, leaves, retain_graph=True, allow_unused=True)
            pairs = [(a, b) for a, b in zip(g, h, strict=True) if a is not None and b is not None]
            squares = [b.square().sum() for b in h if b is not None]
            cross = float(sum((a * b).sum() for a, b in pairs))
            self._cross = self.memory * self._cross + (1 - self.memory) * cross
            self._square = self.memory * self._square + (1 - self.memory) * float(sum(squares))
            if self._square > 0:
                self.coefficient = -self._cross / self._square
        return coefficient


def _leaves(tensor: Tensor) -> list[Tensor]:
    """The parameters that a tensor was computed from."""
    found: dict[int, Tensor] = {}
    seen, todo = set(), [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found[id(node.variable)] = node.variable
        todo += [parent for parent, _ in node.next_functions]
    return list(found.values())
