"""Where the KL of two families over a line is finite: from supports, tails and growths."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ..numerics.dtypes import Parameters
from .family import Family, end_at
from .line import Line, Number

#: Upper bound of index / (index - growth): a window is widened no further.
_SLOWEST = 1e3

#: By which factor a window has to be wider, below and above.
TailStretch: TypeAlias = tuple[Tensor | float, Tensor | float]


def always_infinite(p: Parameters, q: Parameters) -> Tensor:
    """+inf for all parameters, as a constant: it has no gradient."""
    anchor = next(iter(p.values()))
    return torch.full((), math.inf, dtype=anchor.dtype, device=anchor.device)


def is_never_finite(p: Family, q: Family, p_line: Line, q_line: Line) -> bool:
    """Whether p's tail is too heavy at an end that both share, whatever the parameters."""
    ends = ((p.support.low, q.support.low), (p.support.high, q.support.high))
    for (mine, theirs), index, growth, grows in zip(
        ends, p_line.index, q_line.growth, q_line.exponential, strict=True
    ):
        if callable(mine) or mine != theirs or callable(index) or index == math.inf:
            continue
        if grows != 0.0 or (not callable(growth) and 0 < growth and index <= growth):
            return True
    return False


def in_words(p: Family, q: Family, p_line: Line, q_line: Line) -> str:
    """The condition under which the KL is finite."""
    words = []
    if any(p.support.inside(q.support)):
        words.append("p's support is inside q's")
    for i, end in enumerate(("lower", "upper")):
        light = p_line.index[i] == math.inf
        heavy_rate = q_line.exponential[i] != 0 and (not light or p_line.rate[i] != math.inf)
        if (not light and q_line.growth[i] != 0) or heavy_rate:
            words.append(f"E_p log q converges in the {end} tail")
    return " and ".join(words) or "always"


@dataclass(frozen=True)
class Finiteness:
    """What has to be compared at given parameters.

    Args:
        p: the family of p.
        q: the family of q.
        inside: whether p's lower and upper end have to be compared with q's.
        tails: for each end, the tails of p and the growths of q that belong together.
        power_against_exponential: for each end, whether p's is a power and q's growth is not.
    """

    p: Family
    q: Family
    inside: tuple[bool, bool]
    tails: tuple[tuple[tuple[Number, Number], ...], ...]
    power_against_exponential: tuple[bool, bool]

    def at(self, a: Parameters, b: Parameters) -> tuple[Tensor | None, TailStretch]:
        """Where the KL is finite (None: everywhere), and the stretch of the window."""
        masks: list[Tensor] = []
        stretch: list[Tensor | float] = []
        anchor = next(iter(a.values()))
        p, q = self.p.support, self.q.support
        low, other_low = end_at(p.low, a), end_at(q.low, b)
        high, other_high = end_at(p.high, a), end_at(q.high, b)
        if self.inside[0]:
            masks.append(torch.as_tensor(other_low <= low, device=anchor.device))
        if self.inside[1]:
            masks.append(torch.as_tensor(high <= other_high, device=anchor.device))
        for touches, tails, diverges in zip(
            (low == other_low, high == other_high),
            self.tails,
            self.power_against_exponential,
            strict=True,
        ):
            wider: Tensor | float = 1.0
            apart = torch.as_tensor(touches, device=anchor.device).logical_not()
            for tail, growth in tails:
                mine, theirs = number(tail, a, anchor), number(growth, b, anchor)
                ok = mine > theirs
                masks.append(ok | apart)
                ratio = mine / (mine - theirs)
                ratio = torch.where(torch.isfinite(ratio), ratio, 1.0).clamp(1.0, _SLOWEST)
                wider = wider * torch.where(ok & ~apart, ratio, 1.0)
            if diverges:
                masks.append(apart)
            stretch.append(wider)
        finite: Tensor | None = None
        for mask in masks:
            finite = mask if finite is None else finite & mask
        return finite, (stretch[0], stretch[1])


def finiteness_of(p: Family, q: Family, p_line: Line, q_line: Line) -> Finiteness | None:
    """What has to be compared at given parameters; None if every KL is finite."""
    inside = p.support.inside(q.support)
    tails: list[tuple[tuple[Number, Number], ...]] = []
    diverges: list[bool] = []
    ends = ((p.support.low, q.support.low), (p.support.high, q.support.high))
    for i, (mine, theirs) in enumerate(ends):
        apart = not callable(mine) and not callable(theirs) and mine != theirs
        pairs = (
            (p_line.index[i], q_line.growth[i]),
            (p_line.rate[i], q_line.exponential[i]),
        )
        known = () if apart else pairs
        tails.append(tuple(x for x in known if x[0] != math.inf and x[1] != 0.0))
        power = p_line.index[i] != math.inf
        diverges.append(not apart and power and q_line.exponential[i] != 0.0)
    if not any(inside) and not any(tails) and not any(diverges):
        return None
    return Finiteness(p, q, inside, tuple(tails), (diverges[0], diverges[1]))


def number(x: Number, parameters: Parameters, like: Tensor) -> Tensor:
    """A number that may be a function of parameters, without a gradient."""
    if callable(x):
        return x(**parameters).detach()
    return torch.full((), float(x), dtype=like.dtype, device=like.device)
