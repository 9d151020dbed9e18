"""The KL of two univariate distributions, of which p may be mapped: an integral over p's line.

If p is the image of P under x = T(u), KL(p || q) is the integral of P (log P - log q(T(u)) -
log|T'(u)|) over the line of P.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.transforms import Transform

from ...messages import see
from ...numerics.concrete import is_traced
from ...numerics.dtypes import in_float64
from ...numerics.quadrature.integrand import Integrand, Recorded
from ...numerics.quadrature.integrate import Integral, integrate
from ...numerics.quadrature.peaks import peak_between
from ...numerics.quadrature.problem import LIGHT
from ...registry.integrate import report
from ...registry.line import Point
from ...registry.provenance import Use, home_of, note
from ...registry.reduction import describe, no_formula, out_of_reach
from ...registry.shapes import broadcast_batch, nan_in
from ...registry.tensors import is_foreign, kind_of, made_of, promoted, tensors_in
from ...registry.user_classes import callable_copy, check_pointwise
from .distribution_line import DistributionLine, Mass
from .finiteness import infinite_by_tails, is_always_outside, is_inside_of
from .line_of import line_and_maps, line_of
from .transform_rules import image_of, is_in_table, preimage_of
from .user_code import integral_of_calls

#: User code is evaluated some hundred times for each element of a batch: for more elements than
#: this, sampling, which evaluates it once, costs less.
_MOST = 64
#: Windows that are tried, in multiples of the first.
_WIDER = (1.0, 1.25, 1.5, 1.75, *(2.0**k for k in range(1, 7)))
#: Log of the largest part of the integral that may be left out beyond a window.
_NEGLIGIBLE = -34.0

Window = tuple[Tensor | float, Tensor | float]


def by_line(p: Distribution, q: Distribution) -> Tensor | None:
    """The KL of a distribution whose mass is known on a line, by an integral over that line."""
    if p.event_shape or q.event_shape:
        return None
    found = line_and_maps(p)
    if found is None or (is_traced() and not _is_traceable(*found)):
        return None
    other = line_of(q)
    if other is None or (is_traced() and other.is_opaque):
        return None
    integral = _LineIntegral(*found, other, broadcast_batch(p, q))
    return integral.value(p, q).to(promoted((p, q)))


def _is_traceable(line: DistributionLine, maps: list[Transform]) -> bool:
    """Whether the tails are so light that a KL is finite unless it leaves the floats.

    While values are traced, a decision cannot depend on them.
    """
    assert line.mass is not None
    light = all(isinstance(x, float) and x <= LIGHT for x in line.mass().window)
    return light and not is_foreign(maps)


@dataclass(frozen=True)
class _Terms:
    """The integrand, as a function of places z on p's line, in widths, and of tensors.

    Args:
        mass: of p on its line.
        log_p: p's log density at a point of the line.
        maps: from the line to p.
        log_q: q's log density at a point.
        num_own: how many of the tensors belong to p on its line.
        num_of_maps: how many belong to the maps; the others are q's.
    """

    mass: Mass
    log_p: Callable[..., Tensor]
    maps: Sequence[Transform]
    log_q: Callable[..., Tensor]
    num_own: int
    num_of_maps: int

    def __call__(self, z: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        """The log density of z under p, and log q - log p there.

        Args:
            z: places.
            given: the tensors, after centre and width if those are not p's parameters.
        """
        start, width, (own, maps, of_q) = self.start(z, given)
        return self.at(z, start, image_of(maps, start), width, own, of_q)

    def with_map_slopes(self, z: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        """The terms, and a weighted sum of the maps' log Jacobians.

        Where a Jacobian has a kink, derivatives by the parameters jump. The weights are 1, 2, ...,
        so that the Jacobians of a map and its inverse do not cancel, as they do in log q.
        """
        start, width, (own, maps, of_q) = self.start(z, given)
        point, slopes = start, torch.zeros_like(start.x)
        for k, transform in enumerate(maps):
            image = image_of([transform], point)
            slopes = slopes + (k + 1) * (image.log_slope - point.log_slope)
            point = image
        return (*self.at(z, start, point, width, own, of_q), slopes)

    def start(
        self, z: Tensor, given: Sequence[Tensor]
    ) -> tuple[Point, Tensor, tuple[Sequence[Tensor], Sequence[Transform], Sequence[Tensor]]]:
        """The point of p's line, the width, and the tensors by what they belong to."""
        tensors = given[2:] if self.mass.standard is None else given
        i, j = self.num_own, self.num_own + self.num_of_maps
        own, of_q = tensors[:i], tensors[j:]
        maps = made_of(self.maps, iter(tensors[i:j])) if i < j else self.maps
        centre, width = given[:2] if self.mass.standard is None else self.mass.scale(*own)
        return self.mass.at(centre + width * z, *own), width, (own, maps, of_q)

    def at(
        self,
        z: Tensor,
        start: Point,
        image: Point,
        width: Tensor,
        own: Sequence[Tensor],
        of_q: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor]:
        log_q = self.log_q(image, *of_q) + image.log_slope
        if self.mass.standard is not None:
            log_p = self.mass.standard(z)
            return log_p, log_q + torch.log(width) - log_p
        log_p = self.log_p(start, *own)
        return log_p + start.log_slope + torch.log(width), log_q - start.log_slope - log_p


#: Recorded integrands with their programs, by everything of an integrand but its tensors.
_RECORDED: dict[Hashable, Recorded] = {}
_MOST_RECORDED = 256


def _recorded(key: Hashable, terms: _Terms) -> Recorded:
    found = _RECORDED.get(key)
    if found is None:
        if len(_RECORDED) >= _MOST_RECORDED:
            _RECORDED.pop(next(iter(_RECORDED)))  # the oldest
        # tensors with a graph would be kept as long as the program
        maps = made_of(terms.maps, iter([x.detach() for x in tensors_in(terms.maps)]))
        found = _RECORDED[key] = Recorded(replace(terms, maps=maps))
    return found


class _LineIntegral:
    """An integral over p's line, with the tensors that it is differentiated by."""

    def __init__(
        self, line: DistributionLine, maps: list[Transform], q: DistributionLine, shape: torch.Size
    ) -> None:
        assert line.mass is not None
        mass, is_user_code = line.mass(), is_foreign(maps)
        if maps and not mass.is_whole_line:
            # A second map of x = exp(y) may overflow, as may its derivatives. Fixed nodes need
            # only the derivatives of p's density.
            mass = replace(mass, standard=None)
        of_maps = [] if is_user_code else [in_float64(x) for x in tensors_in(maps)]
        exact = callable_copy(maps) if is_user_code else made_of(maps, iter(of_maps))
        counts = len(line.tensors), len(of_maps)
        self.terms = _Terms(mass, line.log_density, exact, q.log_density, *counts)
        self.is_opaque = q.is_opaque or is_user_code
        self.line, self.q, self.shape = line, q, shape
        tensors = [*line.tensors, *of_maps, *q.tensors]
        if mass.standard is None:
            tensors = [*(x.detach() for x in mass.scale(*line.tensors)), *tensors]
        self.given = [x.expand(shape) for x in tensors]

    def value(self, p: Distribution, q: Distribution) -> Tensor:
        """Nats, of the batch shape, in float64."""
        with torch.no_grad():
            if self.is_opaque:  # before anything else is computed by user code
                self._check_user_code(p, q)
            finite, otherwise = self._finiteness()
            rows = None
            if finite is not None and not is_traced() and not bool(finite.all()):
                rows = torch.nonzero(finite.reshape(-1)).squeeze(-1)
            if finite is None or (rows is not None and not rows.numel()):
                is_infinite = bool(otherwise.isinf().all()) and bool(otherwise.numel())
                note(Use("infinite" if is_infinite else "quadrature", home_of(__name__)))
                return otherwise
            window, converges = self._window(finite)
            if is_traced():
                finite = finite & converges
            elif bool((finite & ~converges).any()):
                raise no_formula(p, q) if self.is_opaque else out_of_reach(p, q)
        if self.is_opaque:
            found = self._by_user_code(p, q, window, finite)
        else:
            found = self._by_tensors(window, rows, otherwise)
            is_number = found.value > -math.inf  # not of nan
            if not is_traced() and bool((finite & ~is_number).any()):
                raise out_of_reach(p, q)
        report(f"{describe(p)} || {describe(q)}", home_of(__name__), found)
        return torch.where(finite, found.value, otherwise) if is_traced() else found.value

    def _finiteness(self) -> tuple[Tensor | None, Tensor]:
        """Where the KL may be finite (None: nowhere), and what it is elsewhere."""
        own = self.line.tensors
        centre = self.terms.mass.scale(*own)[0]
        start = self.terms.mass.at(centre.unsqueeze(0), *own)
        image = image_of(self.terms.maps, start)
        # the KL is nan where a parameter of p is infinite, or no parameter of its family
        log_p = self.line.log_density(start, *own)[0]
        missing = nan_in([*[0.0 * x for x in own], *self.given, log_p])
        otherwise = torch.where(missing, math.nan, math.inf).to(self.given[0])
        if is_always_outside(image, self.q):
            return None, otherwise
        finite = is_inside_of(image, self.q, centre).expand(self.shape) & ~missing
        if not is_traced() and self.line.tails is not None and bool(finite.any()):
            finite = finite & ~infinite_by_tails(self.line.tails, start, self.terms.maps, self.q)
        return finite, otherwise

    def _window(self, finite: Tensor) -> tuple[Window, Tensor]:
        """How far the nodes go below and above, and where nothing is left beyond."""
        first = self.terms.mass.window
        if not is_traced():
            enough = self._is_enough(first, _WIDER[:1])
            if bool((enough | ~finite).all()):
                return first, torch.ones_like(finite)
        enough = self._is_enough(first, _WIDER)
        factors = torch.tensor(_WIDER).to(self.given[0])
        narrowest = factors[enough.to(torch.int8).argmax(0)]
        low, high = (factor * end for factor, end in zip(narrowest, first, strict=True))
        return (low, high), enough.any(0).all(0)

    def _is_enough(self, window: Window, factors: Sequence[float]) -> Tensor:
        """Whether nothing is left beyond windows, of shape (factors, 2, *batch)."""
        like = self.given[0]
        ends = torch.stack([torch.as_tensor(x).to(like).expand(self.shape) for x in window])
        sides = torch.tensor([-1.0, 1.0]).to(like).reshape(2, *(1,) * len(self.shape))
        z = torch.stack([k * sides * ends for k in factors])
        log_p, ratio = self.terms(z.flatten(0, 1), *self.given)
        # a ratio that has overflowed may be that of an infinite KL
        size = torch.where(ratio.isnan(), math.inf, ratio.abs())
        enough = (log_p + torch.log1p(size) < _NEGLIGIBLE) | torch.isneginf(log_p)
        return enough.reshape(z.shape)

    # --- an integrand of tensors ----------------------------------------------------------------

    def _by_tensors(self, window: Window, rows: Tensor | None, otherwise: Tensor) -> Integral:
        """The integral in some rows, or in all."""

        def of_rows(x: Tensor | float) -> Any:
            if rows is None or not isinstance(x, Tensor):
                return x
            return x.expand(self.shape).reshape(-1)[rows]

        given = [of_rows(x) for x in self.given]
        found = integrate(
            self._integrand(),
            given,
            (of_rows(window[0]), of_rows(window[1])),
            lambda: [of_rows(self._place(x)) for x in self.q.breakpoints()],
            self.terms.mass.is_peaked or self.q.has_kinks,
            # the maps may bend anywhere
            narrow=None if self.terms.mass.standard else torch.ones_like(given[0]),
        )
        if rows is None:
            return found
        value, error = (
            rest.reshape(-1).index_put((rows,), x.to(rest)).reshape(self.shape)
            for x, rest in ((found.value, otherwise), (found.error, torch.zeros_like(otherwise)))
        )
        return replace(found, value=value, error=error)

    def _integrand(self) -> Integrand:
        """Recorded, unless a density or a map has code of its own."""
        maps = self.terms.maps
        kind = kind_of(maps) if all(is_in_table(t) for t in maps) else None
        if None in (self.line.key, self.q.key, kind) or is_traced():
            return self.terms
        return _recorded((self.line.key, self.q.key, kind), self.terms)

    def _place(self, x: Tensor) -> Tensor:
        """Where a point x lies on p's line, in widths; at infinity if p does not reach it."""
        mass, own, maps = self.terms.mass, self.line.tensors, self.terms.maps
        centre, width = mass.scale(*own)
        if mass.standard is None:
            centre, width = centre.detach(), width.detach()
        x = in_float64(x).expand(self.shape)
        with torch.no_grad():
            inside = mass.place(preimage_of(maps, x), *own).isfinite()
            middle = image_of(maps, mass.at(centre, *own)).x
        y = mass.place(preimage_of(maps, torch.where(inside, x, middle)), *own)
        return torch.where(inside, (y - centre) / width, math.inf)

    # --- an integrand of user code --------------------------------------------------------------

    def _check_user_code(self, p: Distribution, q: Distribution) -> None:
        """Raise unless the code can be called at a few hundred points for each element."""
        if self.shape.numel() > _MOST:
            raise NotImplementedError(
                f"KL({describe(p)} || {describe(q)}) would evaluate code that is not "
                f"pyro_kl's hundreds of times for each of {self.shape.numel()} elements: "
                "sample it, with pyro_kl.monte_carlo(p, q)." + see("no-integral")
            )
        z = torch.linspace(-2.0, 2.0, 5).to(self.given[0])
        z = z.reshape(-1, *(1,) * len(self.shape)).expand(5, *self.shape).contiguous()
        check_pointwise(lambda z: self.terms(z, *self.given)[1], z)

    def _by_user_code(
        self, p: Distribution, q: Distribution, window: Window, finite: Tensor
    ) -> Integral:
        """The integral of all rows, in the graph that its own operations make.

        log q may be narrow or have a kink anywhere. An integral that misses the tolerance is
        rejected, because sampling, the alternative, is unbiased.
        """

        def log_q(z: Tensor) -> Tensor:
            log_p, ratio = self.terms(z, *self.given)
            return log_p + ratio

        low, high = (torch.as_tensor(x).to(self.given[0]).expand(self.shape) for x in window)
        top = peak_between(log_q, -low, high)

        def terms(z: Tensor) -> tuple[Tensor, ...]:
            return self.terms.with_map_slopes(z, *self.given)

        found = integral_of_calls(terms, (low, high), top, torch.ones_like(top))
        if found.reason or not bool((finite & found.value.isfinite()).all()):
            reason = found.reason or "not all elements of the batch have a finite KL"
            raise NotImplementedError(
                f"KL({describe(p)} || {describe(q)}): {reason}." + see("no-integral")
            )
        return found
