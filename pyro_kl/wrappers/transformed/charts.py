"""Points of the line, carried through maps with their distances from the ends of the image.

sigmoid(40) is 1 in floating point, and the density of a Beta there depends on what is left to 1.
A `Point` keeps the logarithm of that, and here is how every map makes it from its argument's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions.transforms as pyro_transforms
import torch
from torch import Tensor
from torch.distributions.transforms import (
    AffineTransform,
    ExpTransform,
    PowerTransform,
    SigmoidTransform,
    SoftplusTransform,
    TanhTransform,
    Transform,
    _InverseTransform,
)
from torch.nn.functional import logsigmoid, softplus

from ...numerics.concrete import holds_everywhere
from ...registry.line import Point, exp_or_inf
from ...registry.user_classes import called
from .maps import bounds

Carrier = Callable[[Any, Point], Point]


def carried(maps: Sequence[Transform], y: Tensor) -> Point:
    """Where the maps take y of the line, with log dx/dy."""
    return carried_on(maps, Point(y, torch.zeros_like(y)))


def carried_on(maps: Sequence[Transform], point: Point) -> Point:
    """Where the maps take a point, with log dx/dy for the y that it came from."""
    for transform in maps:
        point = _carrier(transform)(transform, point)
    return point


def taken_back(maps: Sequence[Transform], x: Tensor) -> Tensor:
    """Where x comes from; nan where it has no origin."""
    for transform in reversed(maps):
        x = called(transform.inv, x)
    return x


def is_univariate(transform: Transform) -> bool:
    """Whether it maps number by number, and one number to one only."""
    alone = transform.domain.event_dim == 0 and transform.codomain.event_dim == 0
    return alone and transform.bijective


def is_known(transform: Transform) -> bool:
    """Whether it is a map that is written down here, and not its own code that is called."""
    return _carrier(transform) is not _other


def _carrier(transform: Transform) -> Carrier:
    if isinstance(transform, _InverseTransform):
        return _INVERSE.get(type(transform.inv), _other)
    return _FORWARD.get(type(transform), _other)


def _unbounded(end: Tensor | float) -> bool:
    return not isinstance(end, Tensor) and math.isinf(end)


def _end(end: Tensor | float, image: Callable[[Tensor], Tensor], limit: float) -> Tensor | float:
    """The image of an end; what it tends to where the end is at infinity."""
    return limit if _unbounded(end) else image(torch.as_tensor(end))


def _from(end: Tensor | float, edge: float, image: Callable[[Tensor], Tensor]) -> Tensor | float:
    """The image of an end; at infinity, on its side, where it is the domain's edge."""
    if not isinstance(end, Tensor) and end == edge:
        return -math.inf if edge <= 0.0 else math.inf
    return image(torch.as_tensor(end))


def _exp(_: Any, p: Point) -> Point:
    return Point(
        exp_or_inf(p.x),
        p.log_slope + p.x,
        low=_end(p.low, torch.exp, 0.0),
        log_above=p.x if _unbounded(p.low) else None,
        high=_end(p.high, torch.exp, math.inf),
        log_size=p.x,
    )


def _log(_: Any, p: Point) -> Point:
    log_x = p.log_over(0.0)
    at_zero = not isinstance(p.low, Tensor) and p.low == 0
    low = -math.inf if at_zero else torch.log(torch.as_tensor(p.low))
    return Point(log_x, p.log_slope - log_x, low=low, high=_end(p.high, torch.log, math.inf))


def _sigmoid(_: Any, p: Point) -> Point:
    up, down = logsigmoid(p.x), logsigmoid(-p.x)
    return Point(
        torch.sigmoid(p.x),
        p.log_slope + up + down,
        low=_end(p.low, torch.sigmoid, 0.0),
        log_above=up if _unbounded(p.low) else None,
        high=_end(p.high, torch.sigmoid, 1.0),
        log_below=down if _unbounded(p.high) else None,
    )


def _logit(_: Any, p: Point) -> Point:
    log_x, log_rest = p.log_unit()
    low, high = _from(p.low, 0.0, torch.logit), _from(p.high, 1.0, torch.logit)
    return Point(log_x - log_rest, p.log_slope - log_x - log_rest, low=low, high=high)


def _tanh(_: Any, p: Point) -> Point:
    up, down = logsigmoid(2 * p.x), logsigmoid(-2 * p.x)
    log2 = math.log(2)
    return Point(
        torch.tanh(p.x),
        p.log_slope + up + down + 2 * log2,
        low=_end(p.low, torch.tanh, -1.0),
        log_above=up + log2 if _unbounded(p.low) else None,
        high=_end(p.high, torch.tanh, 1.0),
        log_below=down + log2 if _unbounded(p.high) else None,
    )


def _atanh(_: Any, p: Point) -> Point:
    log_above, log_below = p.log_over(-1.0), p.log_under(1.0)
    low, high = _from(p.low, -1.0, torch.atanh), _from(p.high, 1.0, torch.atanh)
    x, slope = 0.5 * (log_above - log_below), p.log_slope - log_above - log_below
    return Point(x, slope, low=low, high=high)


def _softplus(_: Any, p: Point) -> Point:
    far = p.x < -37.0  # exp(x) is below the last digit of 1 there
    log_value = torch.where(far, p.x, torch.log(softplus(torch.where(far, 0.0, p.x))))
    return Point(
        softplus(p.x),
        p.log_slope + logsigmoid(p.x),
        low=_end(p.low, softplus, 0.0),
        log_above=log_value if _unbounded(p.low) else None,
        high=_end(p.high, softplus, math.inf),
        log_size=p.log_size,
    )


def _affine(t: AffineTransform, p: Point) -> Point:
    loc, scale = t.loc, t.scale
    log_scale = torch.log(torch.as_tensor(scale, dtype=p.x.dtype, device=p.x.device).abs())
    over = p.x.isinf()  # such a node has no slope: that by the scale would be 0 times inf
    x = loc + scale * torch.where(over, 0.0, p.x)
    x = torch.where(over, p.x.detach() * torch.as_tensor(scale).detach().sign(), x)
    slope = p.log_slope + log_scale
    size = None if p.log_size is None else p.log_size + log_scale
    if _unbounded(p.low) and _unbounded(p.high):
        return Point(x, slope, log_size=size)
    ends = [(p.low, p.log_above), (p.high, p.log_below)]
    if not holds_everywhere(scale, lambda s: s > 0):
        if not holds_everywhere(scale, lambda s: s < 0):
            raise NotImplementedError("the sign of a scale is not the same or not known here")
        ends.reverse()
    (low, log_above), (high, log_below) = ends
    return Point(
        x,
        slope,
        low=-math.inf if _unbounded(low) else loc + scale * low,
        log_above=None if log_above is None else log_above + log_scale,
        high=math.inf if _unbounded(high) else loc + scale * high,
        log_below=None if log_below is None else log_below + log_scale,
        log_size=size,
    )


def _power(t: PowerTransform, p: Point) -> Point:
    k, log_x = t.exponent, p.log_over(0.0)
    log_image = k * log_x
    slope = p.log_slope + torch.log(torch.abs(torch.as_tensor(k))) + log_image - log_x
    from_zero = not isinstance(p.low, Tensor) and p.low == 0
    if holds_everywhere(k, lambda v: v > 0):
        low = 0.0 if from_zero else torch.as_tensor(p.low) ** k
        high = _end(p.high, lambda end: end**k, math.inf)
        tight = from_zero
    elif holds_everywhere(k, lambda v: v < 0):
        low = _end(p.high, lambda end: end**k, 0.0)
        high = math.inf if from_zero else torch.as_tensor(p.low) ** k
        tight = _unbounded(p.high)
    else:
        raise NotImplementedError("the sign of an exponent is not the same or not known here")
    return Point(
        exp_or_inf(log_image),
        slope,
        low=low,
        log_above=log_image if tight else None,
        high=high,
        log_size=log_image,
    )


def _other(t: Any, p: Point) -> Point:
    image = called(t, p.x)
    slope = p.log_slope + called(t.log_abs_det_jacobian, p.x, image)
    low, high = _image_ends(t, p, image)
    return Point(image, slope, low=low, high=high)


def _image_ends(t: Any, p: Point, image: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """Where the image of an interval ends, that of a one-to-one map which nothing is known of."""
    domain, codomain = bounds(t.domain), bounds(t.codomain)
    if domain is None or codomain is None:
        raise NotImplementedError(f"{type(t).__name__} does not say which interval it maps where.")
    ends = [(p.low, domain[0]), (p.high, domain[1])]
    inner = [torch.as_tensor(end).to(p.x) for end, whole in ends if not _equal(end, whole)]
    inner = [called(t, end).detach() for end in inner]
    if not inner:
        return codomain
    if len(inner) == 2:
        return torch.minimum(*inner), torch.maximum(*inner)
    if holds_everywhere(image - inner[0], lambda gap: gap >= 0):
        return inner[0], codomain[1]
    if holds_everywhere(image - inner[0], lambda gap: gap <= 0):
        return codomain[0], inner[0]
    raise NotImplementedError(f"whether {type(t).__name__} increases is not known here")


def _equal(end: Tensor | float, other: Tensor | float) -> bool:
    return end is other or holds_everywhere(end == other, lambda equal: equal)


_FORWARD: dict[type, Carrier] = {
    AffineTransform: _affine,
    ExpTransform: _exp,
    PowerTransform: _power,
    SigmoidTransform: _sigmoid,
    SoftplusTransform: _softplus,
    pyro_transforms.SoftplusTransform: _softplus,
    TanhTransform: _tanh,
}
_INVERSE: dict[type, Carrier] = {
    ExpTransform: _log,
    SigmoidTransform: _logit,
    TanhTransform: _atanh,
}
