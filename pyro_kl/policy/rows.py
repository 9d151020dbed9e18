"""KL(p || q) of a few rows of logits and its gradients, in buffers that stay in the cache.

p and q are chunks of logits of shape ``(..., V)``. With d = p - q elementwise (exact in floating
point where the two are close), m = E_p[d] and u = m - d,

    KL = log(1 + E_p[exp(u) - 1 - u]),   dKL/dp_v = -p_v u_v,   dKL/dq_v = q_v - p_v.

Logits may have any constant added. Where that of p - q is large, it is subtracted from d together
with the rounding error of p - q.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..numerics.special.divergences import kl_div_of_logs

#: Numbers per chunk on a CPU: the buffers stay in a second-level cache.
_CPU_CHUNK = 2**17
#: Elsewhere a chunk is large enough to fill the device, and at most this part of the logits.
_DEVICE_CHUNK, _DEVICE_PART = 2**24, 256
#: Above this u the formula in float64 is used: p_v, by which exp(u) is multiplied, may have
#: underflowed, or u may be infinite.
_FAR = 20.0
#: Up to this |u| the series is used.
_NEAR = 0.5
#: From this KL on, exp(u) - 1 - u is accurate enough, although its absolute error is eps.
_ENOUGH = 1e-2
#: Below this KL / m^2 the rounding of d is more than 1e-5, or 1e-10, of the KL.
_OFFSET = {torch.float32: 3e-4, torch.float64: 1e-11}


#: Numbers that `forward` returns for each row: the largest logit of p, called top; the sum over v
#: of exp(p_v - top); the constant subtracted from d; m without it; and E_p[exp(u) - 1 - u].
NUMBERS = 5


class Rows(NamedTuple):
    """The numbers of all rows that the gradient needs, shape ``(...)`` each.

    Attributes:
        kl: KL(p || q), in nats.
        top: the largest logit of p.
        log_total: log sum_v exp(p_v - top).
        shift: the constant subtracted from d.
        mean: E_p[d] without it.
        scale: the factor from the slope that `forward` wrote to dKL/dp.
    """

    kl: Tensor
    top: Tensor
    log_total: Tensor
    shift: Tensor
    mean: Tensor
    scale: Tensor


def finish(numbers: Tensor) -> Rows:
    """From the numbers of `forward` to `Rows`, all rows at once, in float64."""
    top, total, shift, mean, excess = numbers.double().unbind(-1)
    return Rows(torch.log1p(excess), top, total.log(), shift, mean, -1 / total)


class Workspace:
    """Three buffers of one chunk each."""

    def __init__(self, logits: Tensor, dtype: torch.dtype) -> None:
        size, width = logits.numel(), logits.shape[-1]
        on_cpu = logits.device.type == "cpu"
        limit = _CPU_CHUNK if on_cpu else min(_DEVICE_CHUNK, size // _DEVICE_PART)
        self.limit = max(limit, width)
        self.dtype = dtype
        self._buffers = torch.empty((3, min(self.limit, size)), dtype=dtype, device=logits.device)

    def like(self, chunk: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The three buffers in the shape of the chunk; their contents may be anything."""
        first, second, third = self._buffers[:, : chunk.numel()].view(3, *chunk.shape)
        return first, second, third

    def column(self, x: Tensor) -> Tensor:
        """One number per row, ready to be broadcast over the vocabulary."""
        return x.unsqueeze(-1).to(self.dtype)


def chunks(shape: torch.Size, limit: int) -> list[tuple[int | slice, ...]]:
    """Indices that cut logits of a shape into pieces of at most `limit` numbers, or of a row.

    They index views whatever the strides are, so that nothing is copied.
    """
    if len(shape) == 1:
        return [()]
    block = math.prod(shape[1:])
    if block <= limit or len(shape) == 2:
        step = max(1, limit // max(1, block))
        return [(slice(start, start + step),) for start in range(0, shape[0], step)]
    inner = chunks(shape[1:], limit)
    return [(i, *rest) for i in range(shape[0]) for rest in inner]


def forward(p: Tensor, q: Tensor, slope: Tensor | None, work: Workspace) -> Tensor | None:
    """The numbers of every row; its gradient by p, up to `Rows.scale`, is written into `slope`.

    Returns:
        Shape ``(..., NUMBERS)``; None if u is large or infinite, where `definition` is to be used.
    """
    weight, u, spare = work.like(p)
    p_here = _in_precision(p, weight)
    top = p_here.amax(-1, keepdim=True)
    torch.sub(p_here, _in_precision(q, spare), out=u)
    torch.sub(p_here, top, out=weight).exp_()
    total = weight.sum(-1, keepdim=True)
    shift = torch.zeros_like(total)
    mean, largest, size = _centre(weight, u, spare, total)
    if not largest <= _FAR:  # nan is far, too
        return None
    excess = _mean_excess(weight, u, spare, total, size)
    if bool((excess < _OFFSET[work.dtype] * mean.square()).any()):
        shift = mean
        difference(p, q, shift, u)
        mean, _, size = _centre(weight, u, spare, total)
        excess = _mean_excess(weight, u, spare, total, size)
    if slope is not None:
        _multiply(weight, u, slope)
    return torch.cat((top, total, shift, mean, excess), -1)


def _centre(
    weight: Tensor, d: Tensor, spare: Tensor, total: Tensor
) -> tuple[Tensor, float, float]:
    """m, the largest u, and the largest |u|; u = m - d is written over d."""
    mean = torch.mul(weight, d, out=spare).sum(-1, keepdim=True) / total
    torch.sub(mean, d, out=d)
    low, high = float(d.amin()), float(d.amax())
    return mean, high, max(high, -low)


def difference(p: Tensor, q: Tensor, shift: Tensor, out: Tensor) -> None:
    """p - q - shift, with the rounding error of p - q added back (Knuth's two-sum)."""
    p, q = p.to(out.dtype), q.to(out.dtype)
    torch.sub(p, q, out=out)
    taken = out - p
    rest = (p - (out - taken)).sub_(taken.add_(q))
    out.sub_(shift).add_(rest)


def _in_precision(logits: Tensor, buffer: Tensor) -> Tensor:
    """The logits themselves, or a converted copy in the buffer: mixed arithmetic is slow."""
    return logits if logits.dtype == buffer.dtype else buffer.copy_(logits)


def _multiply(x: Tensor, y: Tensor, out: Tensor) -> None:
    if out.dtype == x.dtype:
        torch.mul(x, y, out=out)
    else:
        out.copy_(x.mul_(y))


def _mean_excess(weight: Tensor, u: Tensor, out: Tensor, total: Tensor, size: float) -> Tensor:
    """E_p[exp(u) - 1 - u], every term positive; relative error at most eps / sqrt(KL).

    By a series if all |u| are small, else by exp, whose error is eps, or by expm1, whose error is
    eps |u|, if the KL of a row is small.
    """
    if size > _NEAR:
        torch.exp(u, out=out).sub_(u).sub_(1)
        value = out.mul_(weight).sum(-1, keepdim=True) / total
        if float(value.amin()) >= _ENOUGH:
            return value
    # E_p[u] is 0 but for the rounding of m, which is not negligible beside small u
    u.sub_(torch.mul(weight, u, out=out).sum(-1, keepdim=True) / total)
    if size > _NEAR:
        torch.expm1(u, out=out).sub_(u)
    else:
        _excess_series(u, out, size)
    return out.mul_(weight).sum(-1, keepdim=True) / total


def _excess_series(u: Tensor, out: Tensor, size: float) -> None:
    """u^2/2 (1 + u/3 (1 + u/4 (...))), with as many terms as |u| <= size needs."""
    one = torch.ones((), dtype=u.dtype, device=u.device)
    terms, eps = 3, torch.finfo(u.dtype).eps
    while 2 * size ** (terms - 1) / math.factorial(terms + 1) > 0.1 * eps:
        terms += 1
    torch.add(one, u, alpha=1 / terms, out=out)
    for k in range(terms - 1, 2, -1):
        torch.addcmul(one, u, out, value=1 / k, out=out)
    out.mul_(u).mul_(u).mul_(0.5)


def definition(p: Tensor, q: Tensor, slope: Tensor | None) -> Rows:
    """The KL of rows for which `forward` returned None, by its definition in float64."""
    log_p, log_q = _normalised(p), _normalised(q)
    kl = kl_div_of_logs(log_p, log_q).sum(-1)
    if slope is not None:
        d = torch.where(torch.isneginf(log_p), 0.0, log_p - log_q)
        slope.copy_(log_p.exp() * (d - kl.unsqueeze(-1)))
    zero = torch.zeros_like(kl)  # the backward pass does not use the other numbers
    return Rows(kl, zero, zero, zero, zero, torch.ones_like(kl))


def _normalised(logits: Tensor) -> Tensor:
    return logits.double().log_softmax(-1)


def rescale(slope: Tensor, factor: Tensor, mask: Tensor | None, work: Workspace) -> None:
    """Multiply the rows of a slope in place; masked rows may be nan and become 0."""
    if slope.dtype == work.dtype:
        slope.mul_(factor)
    else:
        slope.copy_(work.like(slope)[0].copy_(slope).mul_(factor))
    if mask is not None and not bool(mask.all()):
        slope.masked_fill_(~mask.unsqueeze(-1), 0.0)


def slope_of_q(
    p: Tensor, q: Tensor, kept: Rows, out: Tensor, work: Workspace, *, shifted: bool
) -> None:
    """q_v - p_v = p_v (exp(u_v - KL) - 1), into `out`."""
    weight, gap, spare = work.like(p)
    p_here = _in_precision(p, weight)
    if shifted:
        difference(p, q, work.column(kept.shift), gap)
        gap.neg_()
    else:
        torch.sub(_in_precision(q, spare), p_here, out=gap)
    gap.add_(work.column(kept.mean - kept.kl)).expm1_()
    torch.sub(p_here, work.column(kept.top), out=weight)
    weight.sub_(work.column(kept.log_total)).exp_()
    _multiply(weight, gap, out)


def slope_of_q_by_definition(p: Tensor, q: Tensor, out: Tensor) -> None:
    """q_v - p_v in float64, for rows for which `forward` returned None."""
    out.copy_(_normalised(q).exp() - _normalised(p).exp())
