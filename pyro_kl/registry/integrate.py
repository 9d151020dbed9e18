"""Quadrature pairs: every two continuous families that declare a line.

Whether a KL is finite is decided before anything is integrated (`finiteness`), then where p's mass
is (`window`); what is integrated is q's log density at p's nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, reduce

import torch
from torch import Tensor

from ..messages import see
from ..numerics.autograd.fused import Kernel
from ..numerics.concrete import is_recorded, is_step_recorded, is_traced
from ..numerics.dtypes import Parameters, common_shape
from ..numerics.quadrature.integrand import Integrand, Recorded
from ..numerics.quadrature.integrate import (
    Integral,
    excess_of,
    integrate,
    requested_tolerance,
    short_of,
)
from .family import Family
from .finiteness import (
    TailStretch,
    always_infinite,
    finiteness_of,
    in_words,
    is_never_finite,
)
from .lift import derived_pair
from .line import Line, Point
from .pair import Pair
from .provenance import Use, note
from .register import derivation_rule
from .shapes import nan_in
from .slow_tails import slow_tails
from .warnings import warn_once
from .window import bends, distance_from_zero, kinks_of, window_of

_Names = tuple[tuple[str, ...], tuple[str, ...]]


def integral(p: Family, q: Family) -> Pair | None:
    """Both families have a line: an integral over p's."""
    if p.line is None or q.line is None:
        return None
    if is_never_finite(p, q, p.line, q.line):
        return derived_pair(
            p,
            q,
            always_infinite,
            method="infinite",
            finite="never",
            reference="p's tail is as heavy as -log q grows",
        )
    return derived_pair(
        p,
        q,
        _integrated(p, q, p.line, q.line),
        method="quadrature",
        finite=in_words(p, q, p.line, q.line),
        reference="the definition, integrated (Takahasi & Mori 1974)",
    )


def report(pair: str, source: str, found: Integral, requested: float | None = None) -> None:
    """Note what was integrated; warn once per pair if it is short of the tolerance.

    Args:
        pair: the names of p and q.
        source: where a reader finds the integrand.
        found: the integral.
        requested: the tolerance, if `found.reason` is still to be set.
    """
    reason = found.reason
    if requested is not None and not is_traced():
        reason = short_of(found.value, found.error, requested)
    excess = None
    if is_recorded() and not torch.compiler.is_compiling() and found.error.numel():
        excess = excess_of(found.value, found.error, requested or requested_tolerance())
    note(Use("quadrature", source, found.error, found.nodes, reason, pair, excess))
    if reason:
        warn_once(f"short {pair}", f"KL({pair}): {reason}." + see("integral-short-of-tolerance"))


def _integrated(p: Family, q: Family, line: Line, q_line: Line) -> Kernel:
    name = f"{p.name} || {q.name}"
    source = ", ".join(dict.fromkeys((p.home, q.home)))
    finiteness = finiteness_of(p, q, line, q_line)
    everywhere: TailStretch = 1.0, 1.0

    def kl_integrated(a: Parameters, b: Parameters) -> Tensor:
        names = tuple(a), tuple(b)
        tensors = [*a.values(), *b.values()]
        shape = common_shape(*[x.shape for x in tensors])
        finite, stretch = (None, everywhere) if finiteness is None else finiteness.at(a, b)
        traced = is_traced()

        def of_all_rows() -> Tensor:
            found = _integral_over(p, q, names, tensors, stretch, shape)
            report(name, source, found)
            return found.value

        if finite is None and not traced and _are_finite(tensors):
            return of_all_rows()
        # the KL is nan where a parameter of p is infinite
        unknown = nan_in([*[0.0 * x for x in a.values()], *b.values()])
        finite = (~unknown if finite is None else finite & ~unknown).expand(shape)
        if not traced and bool(finite.all()):
            return of_all_rows()
        otherwise = torch.where(unknown, math.nan, math.inf).to(tensors[0]).expand(shape)
        if traced:
            a, b = p.unless(~finite, a), q.unless(~finite, b)
            if finiteness is not None:
                stretch = finiteness.at(a, b)[1]
            tensors = [*a.values(), *b.values()]
            found = _integral_over(p, q, names, tensors, stretch, shape)
            report(name, source, found)
            return torch.where(finite, found.value, otherwise)
        rows = torch.nonzero(finite.reshape(-1)).squeeze(-1)
        if not rows.numel():
            return otherwise
        tensors = [x.expand(shape).reshape(-1)[rows] for x in tensors]
        stretch = _rows_of(stretch[0], shape, rows), _rows_of(stretch[1], shape, rows)
        found = _integral_over(p, q, names, tensors, stretch, rows.shape)
        error = torch.zeros_like(otherwise).reshape(-1).index_put((rows,), found.error)
        report(name, source, replace(found, error=error.reshape(shape)))
        return otherwise.reshape(-1).index_put((rows,), found.value).reshape(shape)

    kl_integrated.__doc__ = (
        f"E_p [log p - log q] over the line of {p.name}, with an estimate of its error."
    )
    return kl_integrated


def _are_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether a sum of parameters is finite, so that all of them are."""
    return bool(reduce(torch.add, [x.detach() for x in tensors]).isfinite().all())


def _rows_of(x: Tensor | float, shape: torch.Size, rows: Tensor) -> Tensor | float:
    return x.expand(shape).reshape(-1)[rows] if isinstance(x, Tensor) else x


def _integral_over(
    p: Family,
    q: Family,
    names: _Names,
    tensors: Sequence[Tensor],
    tail_stretch: TailStretch,
    shape: torch.Size,
) -> Integral:
    """The integral over the line of p, of rows where it is finite."""
    line, q_line = p.line, q.line
    assert line is not None
    assert q_line is not None
    a, b = _split(names, [x.detach() for x in tensors])
    tails = slow_tails(line, q_line)
    window = window_of(line, q_line, a, b, tail_stretch, tails)
    centre, width = window.centre, window.width
    narrow, places = bends(line, q_line, a, b, window, shape)
    distance = distance_from_zero(line, q_line, a, b, centre, width)
    has_breakpoints = line.peaked or bool(p.kinks) or bool(q.kinks)
    if has_breakpoints:  # a second derivative depends on how the ends of the pieces move
        a, b = _split(names, tensors)
        centre, width = line.centre(**a), line.width(**a)

    def breakpoints() -> list[Tensor]:
        place, *own = places()
        kinks = kinks_of(q, line, a, b, centre, width)
        return [*([torch.where(inside, y, place) for y, inside in kinks] or [place]), *own]

    given = [*tensors] if line.standard is not None else [centre, width, *tensors]
    if window.subtracted_tail is not None:
        given = [window.subtracted_tail, *given]
    found = integrate(
        (_integrand if is_traced() and not is_step_recorded() else _recorded)(line, q_line, names),
        given,
        (window.low, window.high),
        breakpoints,
        has_breakpoints,
        num_placing=len(given) - len(tensors),
        narrow=narrow,
        distance=distance,
    )
    if window.beyond_floats is not None:
        error = torch.where(window.beyond_floats, math.inf, found.error)
        found = _with_reason(replace(found, error=error))
    if tails is None or window.subtracted_tail is None:
        return found
    value = found.value + window.subtracted_tail * tails.mean(*_split(names, tensors))
    return _with_reason(replace(found, value=value))


def _with_reason(found: Integral) -> Integral:
    """The integral with the reason that its value and error give; none while values are traced."""
    if is_traced():
        return replace(found, reason="")
    reason = short_of(found.value.detach(), found.error, requested_tolerance())
    return replace(found, reason=reason)


def _split(names: _Names, tensors: Sequence[Tensor]) -> tuple[Parameters, Parameters]:
    n = len(names[0])
    a, b = zip(names[0], tensors[:n], strict=True), zip(names[1], tensors[n:], strict=True)
    return dict(a), dict(b)


@cache
def _recorded(line: Line, q_line: Line, names: _Names) -> Recorded:
    """The recorded integrand of a pair of families, kept with its programs."""
    return Recorded(_integrand(line, q_line, names))


def _integrand(line: Line, q_line: Line, names: _Names) -> Integrand:
    """Log p and log q - log p in p's own scale, of z and the parameters.

    Its arguments, in order: z; the share of the slow tails, if the pair has any; centre and width,
    if the nodes are constants; the parameters of p and of q.
    """
    tails = slow_tails(line, q_line)

    def log_q(point: Point, a: Parameters, b: Parameters, share: Tensor | None) -> Tensor:
        value = q_line.log_density(point, **b)
        return value if tails is None or share is None else value + share * tails.of(point, a, b)

    def with_moving_nodes(
        z: Tensor, share: Tensor | None, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The nodes move with p's parameters, their masses are constants."""
        a, b = _split(names, tensors)
        unit = {name: torch.full_like(z, x) for name, x in (line.standard or {}).items()}
        at_unit = line.at(z, **unit)
        log_p = line.log_density(at_unit, **unit) + at_unit.log_slope
        width = line.width(**a)
        point = line.at(line.centre(**a) + width * z, **a)
        log_density = log_q(point, a, b, share) + point.log_slope
        return log_p, log_density + torch.log(width) - log_p

    def with_fixed_nodes(
        z: Tensor, share: Tensor | None, centre: Tensor, width: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The nodes stay, p's masses there change with its parameters."""
        a, b = _split(names, tensors)
        point = line.at(centre + width * z, **a)
        log_p = line.log_density(point, **a)
        ratio = log_q(point, a, b, share) - log_p
        return log_p + point.log_slope + torch.log(width), ratio

    whole = with_fixed_nodes if line.standard is None else with_moving_nodes
    return whole if tails is not None else lambda z, *tensors: whole(z, None, *tensors)


derivation_rule(integral)
