"""Quadrature pairs: every two continuous families that say how they look on the line.

Whether a KL is finite is decided before anything is integrated, from the supports, the tails of p
and the growth of -log q; what is integrated is q's log density at p's nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from ..numerics.concrete import is_traced
from ..numerics.dtypes import Parameters
from ..numerics.quadrature.integrand import Integrand, Recorded
from ..numerics.quadrature.integrate import (
    Integral,
    asked_tolerance,
    common_shape,
    excess_of,
    integrate,
    short_of,
)
from .family import Family, end_at
from .lift import Kernel, derived_pair
from .line import LARGEST, Line, Point, from_line, half_line
from .pair import Pair
from .provenance import Use, note
from .register import derivation_rule
from .shapes import nan_in
from .slow_tails import SlowTails, is_slow, slow_tails
from .warnings import warn_once

#: Of a ratio index / (index - growth): beyond, a tail is too slow for any window.
_SLOWEST = 1e3


def integral(p: Family, q: Family) -> Pair | None:
    """Both families have a line: an integral over p's."""
    if p.line is None or q.line is None:
        return None
    if _never_finite(p, q, p.line, q.line):
        return derived_pair(
            p,
            q,
            _infinite,
            method="infinite",
            finite="never",
            reference="p's tail is as heavy as -log q grows",
        )
    return derived_pair(
        p,
        q,
        _integrated(p, q, p.line, q.line),
        method="quadrature",
        finite=_in_words(p, q),
        reference="the definition, integrated (Takahasi & Mori 1974)",
    )


def _never_finite(p: Family, q: Family, p_line: Line, q_line: Line) -> bool:
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


def _infinite(p: Parameters, q: Parameters) -> Tensor:
    """+inf for all parameters, as a constant: it has no gradient."""
    anchor = next(iter(p.values()))
    return torch.full((), math.inf, dtype=anchor.dtype, device=anchor.device)


def _in_words(p: Family, q: Family) -> str:
    words = []
    if any(p.support.inside(q.support)):
        words.append("p's support is inside q's")
    assert p.line is not None
    assert q.line is not None
    for i, end in enumerate(("lower", "upper")):
        light = p.line.index[i] == math.inf
        if not light and q.line.growth[i] != 0:
            words.append(f"p's {end} tail is lighter than q's log density grows")
        if (q.line.exponential[i] != 0) and (not light or p.line.rate[i] != math.inf):
            words.append(f"p's {end} tail is lighter than q's log density grows")
    return " and ".join(dict.fromkeys(words)) or "always"


def tell(pair: str, source: str, found: Integral, asked: float | None = None) -> None:
    """Note what was integrated; warn once per pair if it is short of the tolerance."""
    reason = found.reason
    if asked is not None and not is_traced():
        reason = short_of(found.value, found.error, asked)
    excess = None
    if torch.jit.is_tracing() and found.error.numel():  # type: ignore[attr-defined]
        excess = excess_of(found.value, found.error, asked or asked_tolerance())
    note(Use("quadrature", source, found.error, found.nodes, reason, pair, excess))
    if reason:
        warn_once(f"short {pair}", f"KL({pair}): {reason}.")


def _integrated(p: Family, q: Family, p_line: Line, q_line: Line) -> Kernel:
    name = f"{p.name} || {q.name}"
    source = ", ".join(dict.fromkeys((p.home, q.home)))
    compare = p.support.inside(q.support)
    kinked = p_line.peaked or bool(p.kinks) or bool(q.kinks)

    def kl_integrated(a: Parameters, b: Parameters) -> Tensor:
        finite, stretch = _finiteness(p, q, a, b, compare)
        names = tuple(a), tuple(b)
        tensors = [*a.values(), *b.values()]
        shape = common_shape(tensors)
        # an infinite parameter of p leaves nothing to integrate
        unknown = nan_in([0.0 * x for x in a.values()]) | nan_in(b.values())
        finite = (~unknown if finite is None else finite & ~unknown).expand(shape)
        # what a row without an integral has
        without = torch.where(unknown, math.nan, math.inf).to(tensors[0]).expand(shape)
        some = None
        if is_traced():
            a, b = p.unless(~finite, a), q.unless(~finite, b)
            _, stretch = _finiteness(p, q, a, b, compare)
            tensors = [*a.values(), *b.values()]
        elif not bool(finite.all()):
            some = torch.nonzero(finite.reshape(-1)).squeeze(-1)
            tensors = [x.expand(shape).reshape(-1)[some] for x in tensors]
            stretch = _rows_of(stretch[0], shape, some), _rows_of(stretch[1], shape, some)
            if not some.numel():
                return without
        found = _integral_over(p_line, q, q_line, names, tensors, stretch, kinked)
        tell(name, source, found if some is None else _spread(found, some, shape))
        if some is not None:
            return without.reshape(-1).index_put((some,), found.value).reshape(shape)
        return torch.where(finite, found.value, without) if is_traced() else found.value

    kl_integrated.__doc__ = (
        f"E_p [log p - log q] over the line of {p.name}, with an estimate of its error."
    )
    return kl_integrated


def _rows_of(x: Tensor | float, shape: torch.Size, rows: Tensor) -> Tensor | float:
    return x.expand(shape).reshape(-1)[rows] if isinstance(x, Tensor) else x


def _spread(found: Integral, rows: Tensor, shape: torch.Size) -> Integral:
    error = torch.zeros(shape.numel(), dtype=found.error.dtype, device=found.error.device)
    error = error.index_put((rows,), found.error).reshape(shape)
    return Integral(found.value, error, found.nodes, found.reason)


# --- finiteness ---------------------------------------------------------------------------------


def _number(x: object, parameters: Parameters, like: Tensor) -> Tensor:
    if callable(x):
        return x(**parameters).detach()
    return torch.full((), float(x), dtype=like.dtype, device=like.device)  # type: ignore[arg-type]


def _finiteness(
    p: Family, q: Family, a: Parameters, b: Parameters, compare: tuple[bool, bool]
) -> tuple[Tensor | None, tuple[Tensor | float, Tensor | float]]:
    """Where the KL is finite (None: everywhere), and how much wider the window has to be."""
    masks: list[Tensor] = []
    low, other_low = end_at(p.support.low, a), end_at(q.support.low, b)
    high, other_high = end_at(p.support.high, a), end_at(q.support.high, b)
    anchor = next(iter(a.values()))
    if compare[0]:
        masks.append(torch.as_tensor(other_low <= low, device=anchor.device))
    if compare[1]:
        masks.append(torch.as_tensor(high <= other_high, device=anchor.device))
    stretch: list[Tensor | float] = []
    assert p.line is not None
    assert q.line is not None
    for i, touches in enumerate((low == other_low, high == other_high)):
        wider: Tensor | float = 1.0
        for tail, growth in (
            (p.line.index[i], q.line.growth[i]),
            (p.line.rate[i], q.line.exponential[i]),
        ):
            if tail == math.inf or growth == 0.0 or touches is False:
                continue
            mine, theirs = _number(tail, a, anchor), _number(growth, b, anchor)
            apart = torch.as_tensor(touches, device=anchor.device).logical_not()
            ok = mine > theirs
            masks.append(ok | apart)
            ratio = mine / (mine - theirs)
            ratio = torch.where(torch.isfinite(ratio), ratio, 1.0).clamp(1.0, _SLOWEST)
            wider = wider * torch.where(ok & ~apart, ratio, 1.0)
        if q.line.exponential[i] != 0.0 and p.line.index[i] != math.inf and touches is not False:
            # a power tail against an exponential growth
            masks.append(torch.as_tensor(touches, device=anchor.device).logical_not())
        stretch.append(wider)
    finite: Tensor | None = None
    for mask in masks:
        finite = mask if finite is None else finite & mask
    return finite, (stretch[0], stretch[1])


# --- the integrand ------------------------------------------------------------------------------


def _integral_over(
    line: Line,
    q: Family,
    q_line: Line,
    names: tuple[tuple[str, ...], tuple[str, ...]],
    tensors: Sequence[Tensor],
    stretch: tuple[Tensor | float, Tensor | float],
    kinked: bool,
) -> Integral:
    a, b = _split(names, [x.detach() for x in tensors])
    centre, width = line.centre(**a), line.width(**a)
    tails, share = slow_tails(line, q_line), torch.zeros_like(centre)
    if tails is not None:
        share = is_slow(stretch).to(centre)
        stretch = _where(share, 1.0, stretch[0]), _where(share, 1.0, stretch[1])
    tilts = _tilts(line, q_line, a, b, centre, width)
    reach, unseen = _reach(line, a, centre, width, stretch, tilts)
    if kinked:  # a second derivative depends on how the ends of the pieces move
        a, b = _split(names, tensors)
        centre, width = line.centre(**a), line.width(**a)
    bends, narrow = _bends(line, q_line, a, b, centre, width)

    def cuts() -> list[Tensor]:
        kinks = [_place(line, x, a) for x in q.kinks(**b)] if q.kinks else []
        place, *own = bends()
        at_kinks = [torch.where(inside, (y - centre) / width, place) for y, inside in kinks]
        return [*(at_kinks or [place]), *own]

    given = [*tensors] if line.standard is not None else [centre, width, *tensors]
    if tails is not None:
        given = [share, *given]
    moving = len(given) - len(tensors)
    integrand = (_integrand if is_traced() else _recorded)(line, q_line, names)
    far = _distance_from_zero(line, q_line, a, b, centre, width)
    found = integrate(integrand, given, reach, cuts, kinked, moving=moving, narrow=narrow, far=far)
    if unseen is not None:  # most of the integral may be where floats do not go
        found = _judged(replace(found, error=torch.where(unseen, math.inf, found.error)))
    if tails is None:
        return found
    value = found.value + share * tails.mean(*_split(names, tensors))
    return _judged(replace(found, value=value))


def _judged(found: Integral) -> Integral:
    """With the reason that its value and error give; while values are traced, there is none."""
    if is_traced():
        return replace(found, reason="")
    return replace(found, reason=short_of(found.value.detach(), found.error, asked_tolerance()))


@torch.no_grad()
def _distance_from_zero(
    line: Line, q_line: Line, a: Parameters, b: Parameters, centre: Tensor, width: Tensor
) -> Tensor:
    """In p's widths, of its centre: by so much x and y lose relative digits next to it.

    Where p and q live on the same half-line or unit interval, both know x by its distances from
    the ends, which keep their digits. Else the width in x is that between a width below and above
    the centre, and no less than one rounding of x: next to an end of an interval x stands still
    where y goes on.
    """
    on_line = centre.abs() / width
    points = [line.at(y, **a) for y in (centre, centre - width, centre + width)]
    other = q_line.at(q_line.centre(**b), **b)
    ends = [(point.low, point.high) for point in (points[0], other)]
    if not any(isinstance(end, Tensor) for each in ends for end in each):
        if ends[0] == ends[1] and ends[0][0] != -math.inf:
            return on_line.detach()
    x, below, above = (point.x for point in points)
    rounding = torch.finfo(x.dtype).eps * x.abs()
    on_support = (x.abs() / (0.5 * (above - below).abs()).maximum(rounding)).nan_to_num(0.0)
    return (on_support + on_line).detach()


@cache
def _recorded(
    line: Line, q_line: Line, names: tuple[tuple[str, ...], tuple[str, ...]]
) -> Recorded:
    """One for each pair of families: it keeps its programs."""
    return Recorded(_integrand(line, q_line, names))


def _integrand(
    line: Line, q_line: Line, names: tuple[tuple[str, ...], tuple[str, ...]]
) -> Integrand:
    tails = slow_tails(line, q_line)
    of = _of_shape if line.standard is None else _of_copies
    whole = of(line, _log_q(q_line, tails), names)
    if tails is not None:
        return whole

    def without_share(z: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        return whole(z, z, *tensors)

    return without_share


def _where(mask: Tensor, x: float, other: Tensor | float) -> Tensor:
    return torch.where(mask > 0, x, torch.as_tensor(other, dtype=mask.dtype, device=mask.device))


def _place(line: Line, x: Tensor, a: Parameters) -> tuple[Tensor, Tensor]:
    """Where a kink lies on p's line, and whether it does; outside of p's support, anywhere."""
    inside = torch.isfinite(line.place(x, **a).detach())
    middle = line.at(line.centre(**a), **a).x.detach()
    return line.place(torch.where(inside, x, middle), **a), inside


@torch.no_grad()
def _bends(
    line: Line, q_line: Line, a: Parameters, b: Parameters, centre: Tensor, width: Tensor
) -> tuple[Callable[[], list[Tensor]], Tensor]:
    """What finds where log q and log p bend, in p's scale; 1 if within a few nodes, else 0."""
    middle, half = q_line.bends(**b)
    shape = common_shape([*a.values(), *b.values()])
    y = torch.stack([x.expand(shape) for x in (middle - half, middle, middle + half)])
    if q_line.at is not line.at or line.at not in (from_line, half_line):  # else it is the same
        y = line.place(q_line.at(y, **b).x, **a)
    below, at, above = (y - centre) / width
    # steps grow outwards; nan where an end of q is outside of p's support
    narrow = torch.fmin(above - at, at - below) < 0.5 * torch.sqrt(1 + at**2)
    if line.at is not from_line:  # the map to p's support bends too, within 1
        narrow = narrow | (width > 2.0)
    own: list[Tensor] = []
    if line.bend is not None:
        middle, half = line.bend(**a)
        own = [((middle - centre) / width).expand(shape)]
        narrow = narrow | (half < 0.5 * width * torch.sqrt(1 + own[0] ** 2))

    def bends() -> list[Tensor]:
        place = at
        for other in (above, below, -centre / width):
            place = torch.where(torch.isfinite(place), place, other)
        return [x.detach() for x in (place, *own)]

    return bends, narrow.to(centre.dtype).detach()


def _split(
    names: tuple[tuple[str, ...], tuple[str, ...]], tensors: Sequence[Tensor]
) -> tuple[Parameters, Parameters]:
    n = len(names[0])
    return dict(zip(names[0], tensors[:n], strict=True)), dict(
        zip(names[1], tensors[n:], strict=True)
    )


def _tilts(
    line: Line, q_line: Line, a: Parameters, b: Parameters, centre: Tensor, width: Tensor
) -> tuple[Tensor | float, Tensor | float]:
    """How much further the window has to go for the powers of x and the exponents in log q."""
    found: list[Tensor | float] = [0.0, 0.0]
    if line.tilt is not None:
        tilt = line.tilt(**a)
        found = [0.0 if g == 0.0 else tilt * _number(g, b, tilt) for g in q_line.growth]
    for i, side in enumerate((-1, 1)):
        if q_line.exponential[i] == 0.0:
            continue
        end = line.at(centre + 20 * side * line.reach[i] * width, **a)
        has_end = (end.log_above if side < 0 else end.log_below) is not None
        if has_end:  # log q is finite there, but how large?
            size = torch.log1p(q_line.log_density(end, **b).abs().clamp(max=1e300))
            found[i] = found[i] + size * line.reach[i] / 40.0
    return found[0], found[1]


def _reach(
    line: Line,
    a: Parameters,
    centre: Tensor,
    width: Tensor,
    stretch: tuple[Tensor | float, Tensor | float],
    tilts: tuple[Tensor | float, Tensor | float],
) -> tuple[tuple[Tensor | float, Tensor | float], Tensor | None]:
    """In widths; not so far that x leaves the floats, where the map grows like an exponential.

    And where that cuts off the top of p x^k, or what is half of p's reach around it.
    """
    ends: list[Tensor | float] = []
    unseen: Tensor | None = None
    for side, reach, wider, tilt in zip((-1, 1), line.reach, stretch, tilts, strict=True):
        far: Tensor | float = reach + tilt
        if isinstance(wider, Tensor):
            far = far + torch.log(wider) if line.log_tail else far * wider
        if isinstance(far, Tensor) and not line.log_tail and _grows(line, a, centre):
            room = ((LARGEST - side * centre) / width).clamp(min=1.0)
            far = torch.minimum(far, room)
            if isinstance(tilt, Tensor):
                cut = room < tilt + 0.5 * reach
                unseen = cut if unseen is None else unseen | cut
        ends.append(far)
    return (ends[0], ends[1]), unseen


def _grows(line: Line, a: Parameters, centre: Tensor) -> bool:
    """Whether the map from the line grows like an exponential."""
    return line.at is not from_line and line.at(centre, **a).log_below is None


#: `log_q(point, a, b, share)`: share is 1 in the rows where something is taken out of log q.
_LogQ = Callable[[Point, Parameters, Parameters, Tensor], Tensor]


def _log_q(q_line: Line, tails: SlowTails | None) -> _LogQ:
    def log_q(point: Point, a: Parameters, b: Parameters, share: Tensor) -> Tensor:
        value = q_line.log_density(point, **b)
        return value if tails is None else value + share * tails.of(point, a, b)

    return log_q


def _of_copies(
    line: Line, log_q: _LogQ, names: tuple[tuple[str, ...], tuple[str, ...]]
) -> Integrand:
    """Z is p's own scale: the nodes move with p's parameters, their masses are constants."""
    assert line.standard is not None
    standard = line.standard

    def integrand(z: Tensor, share: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        a, b = _split(names, tensors)
        unit = {name: torch.full_like(z, x) for name, x in standard.items()}
        at_unit = line.at(z, **unit)
        log_p = line.log_density(at_unit, **unit) + at_unit.log_slope
        width = line.width(**a)
        point = line.at(line.centre(**a) + width * z, **a)
        log_density = log_q(point, a, b, share) + point.log_slope
        return log_p, log_density + torch.log(width) - log_p

    return integrand


def _of_shape(
    line: Line, log_q: _LogQ, names: tuple[tuple[str, ...], tuple[str, ...]]
) -> Integrand:
    """The nodes stay, p's masses there change with its parameters."""

    def integrand(
        z: Tensor, share: Tensor, centre: Tensor, width: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        a, b = _split(names, tensors)
        point = line.at(centre + width * z, **a)
        log_p = line.log_density(point, **a)
        d = log_q(point, a, b, share) - log_p
        return log_p + point.log_slope + torch.log(width), d

    return integrand


derivation_rule(integral)
