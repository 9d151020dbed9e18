"""Where the integral of p^a q^(1 - a) is finite: from supports and tails, for any order a.

For 0 < a < 1 it is at most 1. For a > 1 it is infinite where p has mass and q has none, and where
q's tail is lighter than p's by too much. At an end of both supports a tail is on one of four
levels; let t be the distance from the middle, or 1 over that from a finite end:

    0   a power of t, of tail index i           finite where a i_p + (1 - a) i_q > 0
    1   exp(-c (log t)^2)                       finite where a c_p + (1 - a) c_q > 0
    2   exp(-c t^g)                             as above for equal g, else where g_p > g_q
    3   exp(-c exp(g t))                        as above for equal g, else where g_p > g_q

On different levels it is finite where p's is the higher one. At an end of p's inside of q's
support, q has the index 1. On the boundary, a null set, it is
called infinite.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..messages import see
from ..numerics.dtypes import Parameters
from .family import Family, end_at
from .finiteness import number
from .line import Line

_POWER, _LOG_SQUARE, _STRETCHED, _DOUBLE = range(4)


def powers_are_finite(
    p: Family, q: Family, a: Parameters, b: Parameters, alpha: float
) -> Tensor | bool:
    """Where the integral of p^alpha q^(1 - alpha) is finite, for alpha > 1.

    Args:
        p: p's family, with a line.
        q: q's family, with a line.
        a: p's parameters.
        b: q's parameters.
        alpha: the order, above 1.

    Raises:
        NotImplementedError: both tails are of one kind, and how fast one of them falls is not
            declared.
    """
    if p.support.never_inside(q.support):
        return False
    assert p.line is not None
    assert q.line is not None
    lows = end_at(p.support.low, a), end_at(q.support.low, b)
    highs = end_at(p.support.high, a), end_at(q.support.high, b)
    compare_low, compare_high = p.support.inside(q.support)
    finite: Tensor | bool = True
    if compare_low:
        finite = finite & torch.as_tensor(lows[1] <= lows[0])
    if compare_high:
        finite = finite & torch.as_tensor(highs[0] <= highs[1])
    for i, (mine, theirs) in enumerate((lows, highs)):
        apart = torch.as_tensor(mine == theirs).logical_not()
        if bool(apart.any()):
            finite = finite & (apart.logical_not() | _end_is_finite(p.line, i, a, alpha))
        if not bool(apart.all()):
            finite = finite & (apart | _tail_is_finite(p.line, q.line, i, a, b, alpha))
    return finite


def _level(line: Line, i: int) -> int:
    if line.exponential[i] != 0.0:
        return _DOUBLE
    if line.growth[i] != 0.0:
        return _STRETCHED
    return _LOG_SQUARE if line.index[i] == math.inf else _POWER


def _end_is_finite(line: Line, i: int, a: Parameters, alpha: float) -> Tensor | bool:
    """Whether p^alpha is integrable at an end of p's inside of q's support.

    There q is as good as constant, of the index 1.
    """
    if _level(line, i) != _POWER:
        return True
    return alpha * number(line.index[i], a, next(iter(a.values()))) + (1 - alpha) > 0


def _tail_is_finite(
    line: Line, q_line: Line, i: int, a: Parameters, b: Parameters, alpha: float
) -> Tensor | bool:
    mine, theirs = _level(line, i), _level(q_line, i)
    anchor = next(iter(a.values()))
    own, other = number(line.index[i], a, anchor), number(q_line.index[i], b, anchor)
    for level, index in ((mine, own), (theirs, other)):
        if level == _POWER and bool(index.isinf().any()):  # a GeneralizedPareto without a power
            raise _unknown()
    if mine != theirs:
        return mine > theirs
    if mine == _POWER:
        return alpha * own + (1 - alpha) * other > 0
    if mine == _DOUBLE:
        powers = (line.exponential[i], a), (q_line.exponential[i], b)
    else:
        powers = (line.growth[i], a), (q_line.growth[i], b)
    own, other = (number(x, parameters, anchor) for x, parameters in powers)
    known = line.decay[i], q_line.decay[i]
    if known[0] is None or known[1] is None:
        if bool((own == other).any()):
            raise _unknown()
        return own > other
    c, d = number(known[0], a, anchor), number(known[1], b, anchor)
    if mine == _DOUBLE:  # the logarithms are declared
        lighter = math.log(alpha) + c > math.log(alpha - 1) + d
    else:
        lighter = alpha * c + (1 - alpha) * d > 0
    return torch.where(own == other, lighter, own > other)


def _unknown() -> NotImplementedError:
    return NotImplementedError(
        "whether the integral of p^alpha q^(1 - alpha) is finite is not known: the families do "
        "not declare how fast their tails fall" + see("no-integral")
    )
