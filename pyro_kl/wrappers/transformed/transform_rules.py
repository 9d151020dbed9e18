"""Transforms of the line: the image of a point, the direction, and what becomes of a tail.

In floating point sigmoid(40) is 1, but the density of a Beta there depends on 1 - sigmoid(40). A
`Point` therefore keeps the logarithms of its distances from the ends of its support, and the rule
of a transform computes those of the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

from ...messages import see
from ...numerics.concrete import holds_everywhere
from ...registry.line import Point, exp_or_inf
from ...registry.subclasses import is_a
from ...registry.user_classes import called
from .supports import bounds

End = Tensor | float


@dataclass(frozen=True)
class TransformRule:
    """What is known of a class of transforms.

    Args:
        image: `image(transform, point)`, the image of a point, with log dx/dy.
        preimage: the same for the inverse; None if the inverse transform has to be called.
        slope: of an instance, what has the sign of its slope; None if all of them increase.
        ends: where the image of the whole line ends; None if it is mapped onto itself.
        rates: at the lower and the upper end, r if the distance there (the image's from a finite
            end, or its size) changes like exp(r |x|); 0 if it changes like |x|.
    """

    image: Callable[[Any, Point], Point]
    preimage: Callable[[Any, Point], Point] | None = None
    slope: Callable[[Any], Any] | None = None
    ends: tuple[float, float] | None = None
    rates: tuple[float, float] = (1.0, 1.0)


def rule_of(transform: Transform) -> TransformRule | None:
    """The rule of a transform that is not an inverse; None if it is not in the table."""
    return next((rule for cls, rule in _RULES.items() if is_a(transform, cls)), None)


def image_of(maps: Sequence[Transform], point: Point) -> Point:
    """The image of a point under the maps, with log dx/dy for the y that it came from."""
    for transform in maps:
        point = _image_rule(transform)(transform, point)
    return point


def preimage_of(maps: Sequence[Transform], x: Tensor) -> Tensor:
    """The x whose image under the maps this is; nan where there is none."""
    for transform in reversed(maps):
        x = called(transform.inv, x)
    return x


def direction(transform: Transform) -> int:
    """1 of an increasing map, -1 of a decreasing one, 0 if that is not known."""
    if isinstance(transform, _InverseTransform):
        return direction(transform.inv)
    rule = rule_of(transform)
    if rule is None or rule.slope is None:
        return int(rule is not None)
    slope = rule.slope(transform)
    increases, decreases = (holds_everywhere(slope, of) for of in (_is_positive, _is_negative))
    return int(increases) - int(decreases)


def is_univariate(transform: Transform) -> bool:
    """Whether it maps every number by itself, and different numbers to different images."""
    alone = transform.domain.event_dim == 0 and transform.codomain.event_dim == 0
    return alone and transform.bijective


def is_in_table(transform: Transform) -> bool:
    """Whether its points are mapped by a rule, and not by a call of its own code."""
    return _image_rule(transform) is not _called_image


def _image_rule(transform: Transform) -> Callable[[Any, Point], Point]:
    inverse = isinstance(transform, _InverseTransform)
    rule = rule_of(transform.inv if inverse else transform)
    if rule is None:
        return _called_image
    return (rule.preimage or _called_image) if inverse else rule.image


def _is_positive(x: Any) -> Any:
    return x > 0


def _is_negative(x: Any) -> Any:
    return x < 0


# --- ends ---------------------------------------------------------------------------------------


def _is_unbounded(end: End) -> bool:
    return not isinstance(end, Tensor) and math.isinf(end)


def _exact(end: End) -> Tensor:
    return end if isinstance(end, Tensor) else torch.tensor(end, dtype=torch.float64)


def _like(x: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(x, dtype=like.dtype, device=like.device)


def _end(end: End, image: Callable[[Tensor], Tensor], limit: float) -> End:
    """The image of an end; its limit where the end is at infinity."""
    return limit if _is_unbounded(end) else image(_exact(end))


def _end_from(end: End, edge: float, image: Callable[[Tensor], Tensor]) -> End:
    """The image of an end; infinite, with the edge's sign, where it is the edge of the domain."""
    if not isinstance(end, Tensor) and end == edge:
        return -math.inf if edge <= 0.0 else math.inf
    return image(_exact(end))


def _onto(
    p: Point,
    function: Callable[[Tensor], Tensor],
    log_slope: Tensor,
    ends: tuple[float, float],
    log_above: Tensor,
    log_below: Tensor | None = None,
    log_size: Tensor | None = None,
) -> Point:
    """The image under an increasing function from the whole line onto an interval."""
    return Point(
        function(p.x),
        p.log_slope + log_slope,
        low=_end(p.low, function, ends[0]),
        log_above=log_above if _is_unbounded(p.low) else None,
        high=_end(p.high, function, ends[1]),
        log_below=log_below if _is_unbounded(p.high) else None,
        log_size=log_size,
    )


# --- images of points ---------------------------------------------------------------------------


def _exp(_: Any, p: Point) -> Point:
    return _onto(p, exp_or_inf, p.x, (0.0, math.inf), log_above=p.x, log_size=p.x)


def _log(_: Any, p: Point) -> Point:
    log_x = p.log_over(0.0)
    low, high = _end_from(p.low, 0.0, torch.log), _end(p.high, torch.log, math.inf)
    return Point(log_x, p.log_slope - log_x, low=low, high=high)


def _sigmoid(_: Any, p: Point) -> Point:
    up, down = logsigmoid(p.x), logsigmoid(-p.x)
    return _onto(p, torch.sigmoid, up + down, (0.0, 1.0), log_above=up, log_below=down)


def _logit(_: Any, p: Point) -> Point:
    log_x, log_rest = p.log_unit()
    low, high = _end_from(p.low, 0.0, torch.logit), _end_from(p.high, 1.0, torch.logit)
    return Point(log_x - log_rest, p.log_slope - log_x - log_rest, low=low, high=high)


def _tanh(_: Any, p: Point) -> Point:
    log2 = math.log(2)
    up, down = logsigmoid(2 * p.x) + log2, logsigmoid(-2 * p.x) + log2
    return _onto(p, torch.tanh, up + down, (-1.0, 1.0), log_above=up, log_below=down)


def _atanh(_: Any, p: Point) -> Point:
    log_above, log_below = p.log_over(-1.0), p.log_under(1.0)
    low, high = _end_from(p.low, -1.0, torch.atanh), _end_from(p.high, 1.0, torch.atanh)
    x, slope = 0.5 * (log_above - log_below), p.log_slope - log_above - log_below
    return Point(x, slope, low=low, high=high)


def _softplus(_: Any, p: Point) -> Point:
    far = p.x < -37.0  # exp(x) is below the last digit of 1 there
    log_value = torch.where(far, p.x, torch.log(softplus(torch.where(far, 0.0, p.x))))
    slope, ends = logsigmoid(p.x), (0.0, math.inf)
    return _onto(p, softplus, slope, ends, log_above=log_value, log_size=p.log_size)


def _affine(t: AffineTransform, p: Point) -> Point:
    loc, scale = t.loc, t.scale
    log_scale = torch.log(_like(scale, p.x).abs())
    over = p.x.isinf()  # such a node has no slope: that by the scale would be 0 times inf
    x = loc + scale * torch.where(over, 0.0, p.x)
    x = torch.where(over, p.x.detach() * _like(scale, p.x).detach().sign(), x)
    slope = p.log_slope + log_scale
    size = None if p.log_size is None else p.log_size + log_scale
    if _is_unbounded(p.low) and _is_unbounded(p.high):
        return Point(x, slope, log_size=size)
    ends = [(p.low, p.log_above), (p.high, p.log_below)]
    if not holds_everywhere(scale, _is_positive):
        if not holds_everywhere(scale, _is_negative):
            raise NotImplementedError(
                "the sign of a scale is not the same or not known here" + see("no-integral")
            )
        ends.reverse()
    (low, log_above), (high, log_below) = ends
    return Point(
        x,
        slope,
        low=-math.inf if _is_unbounded(low) else loc + scale * low,
        log_above=None if log_above is None else log_above + log_scale,
        high=math.inf if _is_unbounded(high) else loc + scale * high,
        log_below=None if log_below is None else log_below + log_scale,
        log_size=size,
    )


def _power(t: PowerTransform, p: Point) -> Point:
    k, log_x = t.exponent, p.log_over(0.0)
    log_image = k * log_x
    slope = p.log_slope + torch.log(_like(k, p.x).abs()) + log_image - log_x
    from_zero = not isinstance(p.low, Tensor) and p.low == 0
    if holds_everywhere(k, _is_positive):
        low = 0.0 if from_zero else _exact(p.low) ** k
        high = _end(p.high, lambda end: end**k, math.inf)
        starts_at_zero = from_zero
    elif holds_everywhere(k, _is_negative):
        low = _end(p.high, lambda end: end**k, 0.0)
        high = math.inf if from_zero else _exact(p.low) ** k
        starts_at_zero = _is_unbounded(p.high)
    else:
        raise NotImplementedError(
            "the sign of an exponent is not the same or not known here" + see("no-integral")
        )
    log_above = log_image if starts_at_zero else None
    x = exp_or_inf(log_image)
    return Point(x, slope, low=low, log_above=log_above, high=high, log_size=log_image)


def _called_image(t: Any, p: Point) -> Point:
    """The image under any other map, by calling it."""
    image = called(t, p.x)
    slope = p.log_slope + called(t.log_abs_det_jacobian, p.x, image)
    low, high = _called_ends(t, p, image)
    return Point(image, slope, low=low, high=high)


def _called_ends(t: Any, p: Point, image: Tensor) -> tuple[End, End]:
    """Where the image of an interval ends under a one-to-one map that is called."""
    domain, codomain = bounds(t.domain), bounds(t.codomain)
    if domain is None or codomain is None:
        raise NotImplementedError(
            f"{type(t).__name__} does not say which interval it maps where." + see("no-integral")
        )
    ends = [(p.low, domain[0]), (p.high, domain[1])]
    inner = [_like(end, p.x) for end, whole in ends if not _equal(end, whole)]
    inner = [called(t, end).detach() for end in inner]
    if not inner:
        return codomain
    if len(inner) == 2:
        return torch.minimum(*inner), torch.maximum(*inner)
    if holds_everywhere(image - inner[0], lambda gap: gap >= 0):
        return inner[0], codomain[1]
    if holds_everywhere(image - inner[0], lambda gap: gap <= 0):
        return codomain[0], inner[0]
    raise NotImplementedError(
        f"whether {type(t).__name__} increases is not known here" + see("no-integral")
    )


def _equal(end: End, other: End) -> bool:
    return end is other or holds_everywhere(end == other, lambda equal: equal)


# --- the table ----------------------------------------------------------------------------------

_SOFTPLUS = TransformRule(_softplus, ends=(0.0, math.inf), rates=(1.0, 0.0))
_RULES: dict[type[Transform], TransformRule] = {
    AffineTransform: TransformRule(_affine, slope=lambda t: t.scale),
    ExpTransform: TransformRule(_exp, _log, ends=(0.0, math.inf)),
    PowerTransform: TransformRule(_power, slope=lambda t: t.exponent),
    SigmoidTransform: TransformRule(_sigmoid, _logit, ends=(0.0, 1.0)),
    SoftplusTransform: _SOFTPLUS,
    pyro_transforms.SoftplusTransform: _SOFTPLUS,
    TanhTransform: TransformRule(_tanh, _atanh, ends=(-1.0, 1.0), rates=(2.0, 2.0)),
}
