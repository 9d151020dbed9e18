"""KL between two categorical distributions given by their logits, without a copy of either.

A language model has a vocabulary of 10^5 tokens, and the logits of one batch are the largest
tensors of a training step. `torch.log_softmax` of both policies, their exponentials and their
product keep five more tensors of that size. Here a few rows are computed at a time, in buffers
that stay in the processor's cache, and a few numbers of each row are kept for the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..messages import see
from ..numerics.concrete import is_traced
from ..numerics.dtypes import in_float64
from ..numerics.special.divergences import kl_div_of_logs
from . import rows as _rows
from .checks import check_infinite, check_mask, check_vocabulary


def exact_kl(
    policy_logits: Tensor,
    reference_logits: Tensor,
    *,
    mask: Tensor | None = None,
    direction: str = "reverse",
) -> Tensor:
    r"""The exact KL of each token's distribution over the vocabulary, from logits.

    With d = log pi - log pi_0 up to a constant (the difference of the logits) and m = E_pi[d],

        KL(pi || pi_0) = log(1 + E_pi[exp(m - d) - 1 - (m - d)]),

    a sum of terms of one sign: nothing cancels where the two policies are close. The gradient, if
    required, is the only tensor of the logits' size that is allocated.

    Args:
        policy_logits: the policy pi, shape ``(..., V)``; need not be normalised; -inf is a token
            without mass. Log probabilities are logits too.
        reference_logits: the reference pi_0, of a shape that broadcasts with the policy's.
        mask: True where a token counts, of shape ``(...)``. Elsewhere the KL and its gradient are
            0, and the logits may hold anything.
        direction: "reverse" for KL(pi || pi_0), the penalty of the literature; "forward" for
            KL(pi_0 || pi), another objective with another optimum (see `forward_optimum`).

    Returns:
        Nats, shape ``(...)``: float64 for float64 logits, else float32 (half precision has too few
        digits for a sum over the tokens). Relative error 1e-5 (1e-10 in float64), whatever
        constants are added to the logits. Twice differentiable in both arguments.

    Raises:
        ValueError: vocabularies or batch shapes that differ; a mask that hides everything; a
            token that has mass under the first distribution and none under the second, where the
            KL is infinite (with its position); an unknown direction.

    Example:
        >>> policy = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        >>> pyro_kl.policy.exact_kl(policy, torch.zeros(2, 3))
        tensor([0.4330, 0.0000])
    """
    if direction not in ("reverse", "forward"):
        raise ValueError(
            f"direction must be 'reverse' or 'forward', got {direction!r}" + see("option")
        )
    check_vocabulary(policy_logits, reference_logits)
    shape = torch.broadcast_shapes(policy_logits.shape, reference_logits.shape)
    p, q = policy_logits.expand(shape), reference_logits.expand(shape)
    if direction == "forward":
        p, q = q, p
    if mask is not None:
        check_mask(mask, shape[:-1])
        mask = mask.expand(shape[:-1])
    if is_traced() or p.numel() == 0:
        return _composed(p, q, mask)
    value = _VocabularyKL.apply(p, q, mask, torch.is_grad_enabled())
    check_infinite(value, p, q, direction)
    return value


def _working_dtype(p: Tensor, q: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(p.dtype, q.dtype), torch.float32)


def _composed(p: Tensor, q: Tensor, mask: Tensor | None) -> Tensor:
    """The same by torch's operations, for second derivatives, `torch.compile`, `torch.func`."""
    if mask is not None:
        p, q = (torch.where(mask.unsqueeze(-1), x, 0.0) for x in (p, q))
    log_p, log_q = in_float64(p).log_softmax(-1), in_float64(q).log_softmax(-1)
    terms = kl_div_of_logs(log_p, log_q)  # of one sign, as below
    return terms.sum(-1).to(_working_dtype(p, q))


class _VocabularyKL(torch.autograd.Function):
    """KL(p || q) over the last dimension.

    The forward pass writes the gradient by p while its rows are in the cache; the backward pass
    scales it.
    """

    @staticmethod
    def forward(
        ctx: Any, p: Tensor, q: Tensor, mask: Tensor | None, differentiate: bool
    ) -> Tensor:
        work = _rows.Workspace(p, _working_dtype(p, q))
        slope = _gradient_like(p) if differentiate and ctx.needs_input_grad[0] else None
        numbers = torch.zeros((*p.shape[:-1], _rows.NUMBERS), dtype=work.dtype, device=p.device)
        refused = {}
        for i, at in enumerate(_rows.chunks(p.shape, work.limit)):
            here = None if slope is None else slope[at]
            row = _rows.forward(p[at], q[at], here, work)
            if row is None:
                refused[i] = at, _rows.definition(p[at], q[at], here)
            else:
                numbers[at] = row
        kept = _rows.finish(numbers)
        for at, rows in refused.values():
            for column, part in zip(kept, rows, strict=True):
                column[at] = part
        ctx.save_for_backward(p, q, mask, *kept)
        ctx.slope, ctx.refused = slope, set(refused)
        value = kept.kl if mask is None else kept.kl.masked_fill(~mask, 0.0)
        return value.to(work.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        p, q, mask, *columns = ctx.saved_tensors
        for_p, for_q, *_ = ctx.needs_input_grad
        slope, ctx.slope = ctx.slope, None
        # a second pass over the same graph, or one that will itself be differentiated
        if torch.is_grad_enabled() or (for_p and slope is None):
            wanted = [x for x, needed in ((p, for_p), (q, for_q)) if needed]
            slopes = iter(_plain_gradient(p, q, mask, wanted, grad))
            return next(slopes) if for_p else None, next(slopes) if for_q else None, None, None
        other = _gradient_like(q) if for_q else None
        work, kept = _rows.Workspace(p, grad.dtype), _rows.Rows(*columns)
        shifted = bool(kept.shift.any())
        factor_p, factor_q = work.column(grad * kept.scale), work.column(grad)
        for i, at in enumerate(_rows.chunks(p.shape, work.limit)):
            here = None if mask is None else mask[at]
            if slope is not None:
                _rows.rescale(slope[at], factor_p[at], here, work)
            if other is None:
                continue
            if i in ctx.refused:
                _rows.slope_of_q_by_definition(p[at], q[at], other[at])
            else:
                rows = _rows.Rows(*(column[at] for column in kept))
                _rows.slope_of_q(p[at], q[at], rows, other[at], work, shifted=shifted)
            _rows.rescale(other[at], factor_q[at], here, work)
        return slope, other, None, None


def _gradient_like(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _plain_gradient(
    p: Tensor, q: Tensor, mask: Tensor | None, wanted: list[Tensor], grad: Tensor
) -> tuple[Tensor, ...]:
    """The gradient through torch's operations, differentiable if gradients are enabled."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        value = _composed(p, q, mask)
        return torch.autograd.grad(value, wanted, grad, create_graph=again)
