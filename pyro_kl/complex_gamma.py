"""The gamma function next to the real axis: how Gamma(a + i y) shrinks and turns with y."""

from __future__ import annotations

import torch
from torch import Tensor

from .special import STIRLING

__all__ = ["gamma_turn"]

#: log Gamma(z) = (z - 1/2) log z - z + log(2 pi)/2 + sum_k c_k z^(1 - 2k); with |z| >= 8 nine
#: terms leave 1e-16.
_TERMS = (*STIRLING, 43867 / 244188)
_SHIFT = 8


def gamma_turn(a: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """log |Gamma(a + i y) / Gamma(a)| and the angle of Gamma(a + i y), with their digits at 0.

    The recurrence moves a up by 8. There the two values of Stirling's series are subtracted term
    by term, w = 1/z from 1/(a + 8).

    Args:
        a: positive.
        y: any real; the angle is continuous in it.
    """
    top = a + _SHIFT
    slope = y / top
    log_length, turn = 0.5 * torch.log1p(slope * slope), torch.atan(slope)
    size = (top - 0.5) * log_length - y * turn
    angle = (top - 0.5) * turn + y * (torch.log(top) + log_length) - y
    for k in range(_SHIFT):
        step = y / (a + k)
        size = size - 0.5 * torch.log1p(step * step)
        angle = angle - torch.atan(step)
    series = _series_difference(1 / top, slope)
    return size + series[0], angle + series[1]


def _series_difference(w: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Stirling's series at w/(1 + i t) less that at w, real and imaginary part.

    With D_n = [w/(1 + i t)]^n - w^n, D_(n+2) = [w/(1 + i t)]^2 D_n + w^n D_2.
    """
    norm = 1 + t * t
    square = w * w
    ratio = square * (1 - t * t) / norm**2, square * -2 * t / norm**2
    second = square * -(3 + t * t) * t * t / norm**2, ratio[1]
    d = w * -t * t / norm, w * -t / norm
    power = w
    total = _TERMS[0] * d[0], _TERMS[0] * d[1]
    for c in _TERMS[1:]:
        d = (
            ratio[0] * d[0] - ratio[1] * d[1] + power * second[0],
            ratio[0] * d[1] + ratio[1] * d[0] + power * second[1],
        )
        power = power * square
        total = total[0] + c * d[0], total[1] + c * d[1]
    return total
