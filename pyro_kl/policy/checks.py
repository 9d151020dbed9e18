"""Errors for bad input; no value is read while a function is traced or mapped."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..messages import see
from ..numerics.concrete import is_traced


def first(bad: Tensor) -> tuple[int, ...]:
    """The index of the first True in a boolean tensor."""
    return tuple(bad.nonzero()[0].tolist())


def position(index: tuple[int, ...]) -> str:
    """An index in words."""
    return f"position {index[0]}" if len(index) == 1 else f"position {index}"


def check_vocabulary(policy: Tensor, reference: Tensor) -> None:
    """Raise unless both are logits over one vocabulary, with batch shapes that broadcast."""
    for name, logits in (("policy", policy), ("reference", reference)):
        if logits.dim() == 0 or logits.shape[-1] == 0:
            raise ValueError(
                f"the {name}'s logits need a last dimension, the vocabulary: shape "
                f"{tuple(logits.shape)}" + see("policy-logits")
            )
        if not logits.is_floating_point():
            raise ValueError(
                f"the {name}'s logits must be floating point, got {logits.dtype}"
                + see("policy-logits")
            )
    if policy.shape[-1] != reference.shape[-1]:
        raise ValueError(
            f"the policies have different vocabularies: {policy.shape[-1]} tokens against "
            f"{reference.shape[-1]} (shapes {tuple(policy.shape)} and {tuple(reference.shape)}); "
            "a KL needs the same tokens in the same order: cut or pad the logits to one vocabulary"
            + see("policy-shapes")
        )
    check_broadcast("policy's and reference's logits", policy.shape, reference.shape)


def check_broadcast(what: str, *shapes: Any) -> torch.Size:
    """The broadcast shape, or an error with the shapes that do not broadcast."""
    try:
        return torch.broadcast_shapes(*shapes)
    except RuntimeError:
        given = " and ".join(str(tuple(shape)) for shape in shapes)
        raise ValueError(
            f"the shapes of {what} do not broadcast: {given}" + see("policy-shapes")
        ) from None


def check_mask(mask: Tensor, shape: torch.Size) -> None:
    """Raise unless the mask is boolean, fits the shape, and is True somewhere."""
    if mask.dtype != torch.bool:
        raise ValueError(
            f"mask must be boolean, True where a token counts; got {mask.dtype}"
            + see("policy-shapes")
        )
    if mask.dim() > len(shape) or check_broadcast("mask and values", mask.shape, shape) != shape:
        raise ValueError(
            f"the mask's shape {tuple(mask.shape)} does not fit {tuple(shape)}"
            + see("policy-shapes")
        )
    if not is_traced() and mask.numel() and not bool(mask.any()):
        raise ValueError(
            f"the mask of shape {tuple(mask.shape)} hides everything: no token is left; True is "
            "what counts" + see("policy-shapes")
        )


def check_beta(beta: float | Tensor) -> None:
    """Raise unless a penalty's weight is finite and at least 0."""
    if isinstance(beta, Tensor) and is_traced():
        return
    values = torch.as_tensor(beta, dtype=torch.float64)
    if not bool(((values >= 0) & (values < math.inf)).all()):
        raise ValueError(
            f"beta must be finite and at least 0, got {beta}: a negative beta would pay for "
            "leaving the reference" + see("option")
        )


def check_infinite(value: Tensor, p: Tensor, q: Tensor, direction: str) -> None:
    """Raise if a token has mass under the sampled distribution and none under the other."""
    bad = ~value.isfinite()
    if not bool(bad.any()):
        return
    where = first(bad)
    row_p, row_q = p[where].detach(), q[where].detach()
    at = f" at {position(where)}" if where else ""
    for name, row in zip(_names(direction), (row_p, row_q), strict=True):
        if bool((row.isnan() | row.isposinf()).any()) or bool(row.isneginf().all()):
            raise ValueError(
                f"the {name}'s logits{at} are no distribution's: nan, +inf or all -inf"
                + see("policy-logits")
            )
    token = first(row_q.isneginf() & ~row_p.isneginf())[0]
    mine, other = _names(direction)
    raise ValueError(
        f"the KL{at} is infinite: the {mine} gives token {token} probability "
        f"{float(row_p.double().softmax(-1)[token]):.3g} and the {other} gives it 0; mask "
        f"that token in the {mine} too, or give it mass in the {other}" + see("infinite-penalty")
    )


def _names(direction: str) -> tuple[str, str]:
    return ("policy", "reference") if direction == "reverse" else ("reference", "policy")
