"""Expectations under a Normal that autograd differentiates twice, from rules for five of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..messages import see


def _zero(loc: Tensor) -> Tensor | float:
    return 0.0


@dataclass(frozen=True)
class Rule:
    """How E f(eta) and E of the derivatives of f are computed, eta ~ Normal(loc, scale^2).

    The derivatives of an expectation are expectations: in loc that of the next derivative, in
    scale that of the one after, times scale (Bonnet 1964, Price 1958).

    Args:
        first: from (loc, scale) to E f, E f' and E f''.
        higher: from (loc, scale) to E f''' and E f''''.
        subtracted: the derivative of what `first` has subtracted from E f, a function of loc.
    """

    first: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    higher: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    subtracted: Callable[[Tensor], Tensor | float] = _zero

    def __call__(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        """E f, E f' and E f''; autograd may differentiate E f twice."""
        if torch.is_grad_enabled() and (loc.requires_grad or scale.requires_grad):
            return _First.apply(self, loc, scale)
        return self.first(loc, scale)


class _First(torch.autograd.Function):
    """E f, E f', E f''. The backward pass is made of expectations, which autograd follows."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, loc: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.rule = rule
        ctx.save_for_backward(loc, scale)
        return rule.first(loc, scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        rule, (loc, scale) = ctx.rule, ctx.saved_tensors
        _, *expectations = rule(loc, scale)
        if any(g is not None for g in gradients[1:]):
            expectations += _Higher.apply(rule, loc, scale)
        by_loc, by_scale = torch.zeros_like(loc), torch.zeros_like(scale)
        for i, g in enumerate(gradients):
            if g is not None:
                by_loc = by_loc + g * (expectations[i] - (0.0 if i else rule.subtracted(loc)))
                by_scale = by_scale + g * scale * expectations[i + 1]
        return None, by_loc, by_scale


class _Higher(torch.autograd.Function):
    """E f''' and E f'''', where differentiation ends."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, loc: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        return rule.higher(loc, scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NotImplementedError(
            "an expected log likelihood is differentiable twice, in loc three times: a "
            "further derivative was asked for. `likelihood.higher` has four of them in loc."
            + see("expected-log-likelihood")
        )
