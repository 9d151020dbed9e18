r"""Expectations of a log ratio on the line: the rule, its nodes, its error, its gradient.

    KL = integral of p(z) [log p(z) - log q(z)] dz

A law p on the line, shifted and scaled such that its mass is near 0 and about 1 wide, is
integrated by the trapezoidal rule in t, z = sinh(t), which converges geometrically for what is
smooth (Takahasi & Mori 1974; Trefethen & Weideman 2014). Where q is much narrower than p or has a
kink, the line is cut there and every piece gets nodes that crowd at the cuts.

The nodes are constants: the gradient is that of the sum. The sums over every second and every
fourth node say how far off the value is; the number of nodes is doubled until that is below the
tolerance, for the rows of a batch that need it.

How to use it, for laws that no family declares (`kl_of_normal` for a p that is Normal on the
line, `kl_of_law` for any other):

    kl_of_normal(loc, scale, log_q, parameters)

integrates KL(Normal(loc, scale) || q) for `log_q(y, *parameters)`, q's log density with respect
to y on the line, which is log q(x(y)) + log dx/dy; differentiable by loc, scale and parameters.
All tensors broadcast to one batch shape B, and y has shape (nodes, rows): `log_q` is elementwise.
The answer is an `Integral` of shape B; `integrals.tell` notes it for whoever records.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .nodes import split_nodes, whole_nodes
from .recorded import Integrand, Recorded, Sweep
from .sweep import Nodes, look, prepare

__all__ = [
    "Integral",
    "Integrand",
    "asked_tolerance",
    "integrate",
    "integrate_laws",
    "kl_of_law",
    "kl_of_normal",
    "short_of",
    "tolerance",
]

Cuts = Sequence[Tensor] | Callable[[], Sequence[Tensor]]

#: Nodes of a piece: the first attempt, and the last one without and with cuts.
FIRST, LAST_WHOLE, LAST_SPLIT = 73, 577, 1153
#: For the usual tolerance nodes need not go as far as there are digits, unless many are wanted.
USUAL, NEARER, LAST_NEAR = 1e-7, 0.78, 73
#: A reach, in widths, of a tail that falls like exp(-exp(z)).
DOUBLE = 4.0
#: A law with less reach, in widths, has a tail lighter than any exponential.
LIGHT = 10.0
#: Where nothing may depend on values (vmap, compile, jit): one rule for all.
TRACED_WHOLE, TRACED_SPLIT = 513, 257
#: Elements of one block of nodes times rows: bounds the memory of a large batch.
BLOCK = 1 << 19
#: The same where the integrand is recorded: what a core's cache holds a dozen of.
CACHED = 1 << 14
#: Below this difference between the integral of q and 1, q has its mass where the nodes are.
COVERED = 1e-13

_EPS = 2.0**-52
_asked: list[float] = [1e-6]


@contextmanager
def tolerance(relative: float) -> Iterator[None]:
    """Ask all integrals inside the block for this relative error."""
    _asked.append(relative)
    try:
        yield
    finally:
        _asked.pop()


def asked_tolerance() -> float:
    """The relative error that integrals aim at."""
    return _asked[-1]


@dataclass(frozen=True)
class Integral:
    """A KL by quadrature.

    Args:
        value: nats.
        error: the estimate of its absolute error, same shape, without a gradient.
        nodes: the largest number of nodes that a row took.
        reason: empty, or what is short of the tolerance.
    """

    value: Tensor
    error: Tensor
    nodes: int
    reason: str = ""


def traced() -> bool:
    """Whether somebody records what is done here: nothing may depend on values then."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined]
        or torch._C._are_functorch_transforms_active()
    )


def kl_of_normal(
    loc: Tensor,
    scale: Tensor,
    log_q: Callable[..., Tensor],
    parameters: Sequence[Tensor] = (),
    cuts: Sequence[Tensor] = (),
) -> Integral:
    """KL(Normal(loc, scale) || q), q given on the line.

    Args:
        loc: of p; batch shape.
        scale: of p.
        log_q: `log_q(y, *parameters)`, elementwise: q's log density with respect to y.
        parameters: the tensors that `log_q` depends on, to be differentiated by.
        cuts: places y where q has a kink, or is so peaked that it wants nodes of its own.

    Returns:
        Nats of the broadcast batch shape, with an error estimate.
    """
    half_log_tau = 0.5 * math.log(2 * math.pi)

    def integrand(z: Tensor, m: Tensor, s: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        log_p = -0.5 * z * z - half_log_tau
        return log_p, log_q(m + s * z, *rest) + torch.log(s) - log_p

    at = [((c - loc) / scale).detach() for c in cuts]
    return integrate(integrand, (loc, scale, *parameters), (9.0, 9.0), at)


def kl_of_law(
    log_p: Callable[..., Tensor],
    log_q: Callable[..., Tensor],
    parameters: Sequence[Tensor],
    centre: Tensor,
    width: Tensor,
    reach: tuple[float, float] = (40.0, 40.0),
    cuts: Sequence[Tensor] = (),
) -> Integral:
    """KL(p || q) of two laws on the line with log densities `log(y, *parameters)`.

    Args:
        log_p: elementwise log density of p with respect to y.
        log_q: the same of q.
        parameters: the tensors that they depend on, to be differentiated by.
        centre: where p's mass is; no gradient goes through it.
        width: how wide it is.
        reach: how many widths below and above the centre all of p's mass lies.
        cuts: places y where p or q has a kink.

    Returns:
        Nats of the broadcast batch shape, with an error estimate.
    """
    centre, width = centre.detach(), width.detach()

    def integrand(z: Tensor, c: Tensor, w: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        y = c + w * z
        log_density = log_p(y, *rest)
        return log_density + torch.log(w), log_q(y, *rest) - log_density

    at = [((c - centre) / width).detach() for c in cuts]
    return integrate(integrand, (centre, width, *parameters), reach, at)


# --- the rule -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """What is to be integrated: a function, and for each row of a batch its parameters."""

    integrand: Integrand
    low: Tensor  # reach below 0, rows or ()
    high: Tensor
    cuts: tuple[Tensor, ...]  # rows each
    kinked: bool
    is_density: bool = True
    narrow: Tensor | None = None  # rows: 1 where q changes as a kink would, else 0
    key: tuple[Any, ...] | None = None  # of nodes that are the same for all rows
    heavy: tuple[bool, bool] = (True, True)
    nearer: bool = False  # whether the nodes need not go as far as there are digits

    def nodes(self, count: int, *, split: bool) -> tuple[Tensor, Tensor]:
        """Z and weights, of shape (pieces, count, rows or 1)."""
        if split:
            return split_nodes(self.low, self.high, self.cuts, count)
        low, high = self.low, self.high
        if self.nearer and count <= LAST_NEAR:
            low, high = (_nearer(end) for end in (low, high))
        return whole_nodes(low, high, count, self.heavy)

    def take(self, rows: Tensor | slice) -> _Rows:
        low, high = (x[rows] if x.dim() else x for x in (self.low, self.high))
        narrow = None if self.narrow is None else self.narrow[rows]
        cuts = tuple(c[rows] for c in self.cuts)
        return replace(self, low=low, high=high, cuts=cuts, narrow=narrow)

    def kink(self, *, split: bool) -> Tensor | None:
        """How much of a kink's error there may be under what converges."""
        return None if self.narrow is None else self.narrow / (12.0 if split else 3.0)

    def prepared(self, sweep: Sweep, count: int, *, split: bool) -> Nodes:
        """What a look at the nodes needs; kept if they are the same for all rows."""
        key = None if split or self.key is None else (*self.key, count, self.nearer)
        found = sweep.nodes.get(key)
        if found is None:
            with torch.inference_mode(mode=False), torch.no_grad():
                found = prepare(sweep, *self.nodes(count, split=split), self.low, self.high)
            if key is not None:
                sweep.nodes[key] = found
        return found


@dataclass
class _Sums:
    """The rule with all nodes, and what the sums over some of them say of it.

    Args:
        value: all nodes.
        half: how far the sum over every second node is off.
        quarter: the most that one of the four sums over every fourth node is off. Those are a
            quarter of a period apart, so that not all are right by chance; `half` may be.
        eighth: the same of the eight sums over every eighth node.
        size: the sum of the absolute values.
        noise: what rounding leaves.
        ends: what is beyond the outermost nodes.
        kink: of each row, how much of a kink's error there may be under what converges, or None.
    """

    value: Tensor
    half: Tensor
    quarter: Tensor
    eighth: Tensor
    size: Tensor
    noise: Tensor
    ends: Tensor
    kink: Tensor | None = None

    def error(self) -> Tensor:
        """Halving the step squares the relative error of a smooth integrand.

        Of the quarter rule that would make its fourth power: one squaring is left for safety.
        Next to a kink, where the error only falls by 4, `half` may vanish for where the nodes
        happen to be: it is taken for no less than what geometric convergence makes of the others.
        """
        rate = (self.quarter / self.eighth.clamp(min=1e-300)).clamp(max=1.0)
        half = torch.maximum(self.half, 2 * self.quarter * rate * rate)
        ratio = (half / self.quarter.clamp(min=1e-300)).clamp(max=0.25)
        by_half = 8 * half * ratio
        by_quarter = self.quarter * (self.quarter / self.size.clamp(min=1e-300)).clamp(max=1.0)
        error = torch.maximum(by_half, by_quarter)
        if self.kink is not None:
            # it would show itself only where all else has converged
            error = torch.maximum(error, self.kink * torch.maximum(8 * half, self.quarter))
        return error + self.noise + self.ends


def _sums(rows: _Rows, parameters: Sequence[Tensor], count: int, *, split: bool) -> _Sums:
    z, weight = rows.nodes(count, split=split)
    pieces, n, width = z.shape
    log_p, d = rows.integrand(z.reshape(pieces * n, width), *parameters)
    p = torch.exp(log_p)
    mass = weight.reshape(pieces * n, width) * p
    # where nothing is left of p, log q may be -inf
    terms = -mass * torch.where(mass > 0, d, 0.0)
    by_piece = terms.reshape(pieces, n, -1)
    value = by_piece.sum((0, 1))
    with torch.no_grad():
        eighths = torch.stack([by_piece[:, k::8].sum((0, 1)) for k in range(8)])
        fourths = eighths[:4] + eighths[4:]
        half = (2 * (fourths[0] + fourths[2]) - value).abs()
        quarter = (4 * fourths - value).abs().amax(0)
        eighth = (8 * eighths - value).abs().amax(0)
        size = terms.abs().sum(0)
        ends = _left_over(rows, by_piece, log_p.reshape(pieces, n, -1), weight, split=split)
    kink = rows.kink(split=split)
    if not rows.is_density:
        return _Sums(value, half, quarter, eighth, size, 4 * _EPS * size, ends, kink)
    shift = (mass * torch.expm1(d.clamp(max=60.0))).sum(0)
    near = (shift.detach().abs() <= COVERED) & (value.detach() < 1e-3)
    with torch.no_grad():
        # p's own integral tells what rounding and too few nodes do to its density
        off = 16 * _EPS + (mass.sum(0) - 1).abs()
        noise = torch.where(near, off * size, 16 * _EPS + off * (1 + size))
    value = value + torch.where(near, shift, 0.0)
    return _Sums(value, half, quarter, eighth, size, noise, ends, kink)


def _left_over(
    rows: _Rows, terms: Tensor, log_p: Tensor, weight: Tensor, *, split: bool
) -> Tensor:
    """What an exponential tail leaves beyond the outermost nodes.

    At 0 the density is of the order of 1: what it has fallen by since is its rate times the reach.
    Where log q grows as fast as the density falls, the integrand falls more slowly.
    """
    total = torch.zeros_like(terms[0, 0])
    heights = terms.abs() / weight.clamp(min=1e-300)
    for piece, end, reach in ((0, -1 if split else 0, rows.low), (-1, -1, rows.high)):
        size = heights[piece, end]
        fallen = torch.log(heights.amax((0, 1)) / size.clamp(min=1e-300)).clamp(min=0.01)
        if rows.is_density:
            fallen = torch.minimum(fallen, (-1 - log_p[piece, end]).clamp(min=1.0))
        else:
            fallen = fallen.clamp(max=10.0)
        total = total + 3 * size * reach / fallen
    return total


def integrate(
    integrand: Integrand,
    parameters: Sequence[Tensor],
    reach: tuple[float | Tensor, float | Tensor],
    cuts: Cuts = (),
    kinked: bool = False,
    is_density: bool = True,
    moving: int = 0,
    narrow: Tensor | None = None,
) -> Integral:
    """The integral of p (log p - log q) over the line, in p's own scale.

    Args:
        integrand: `integrand(z, *parameters)` returns log p(z), the density with respect to z,
            and log q - log p at z; elementwise, z of shape (nodes, rows).
        parameters: batch-shaped tensors.
        reach: how far below and above 0 p has mass.
        cuts: places z for the nodes to crowd at, if they must; or what computes them then.
        kinked: whether they must in any case.
        is_density: whether p is a density, so that its integral and q's are known to be 1.
        moving: how many of the parameters, the first ones, do nothing but place the nodes.
        narrow: of batch shape, 1 where q changes within less than p's width, else 0.

    Returns:
        Nats of the broadcast batch shape, with an error estimate.
    """
    shape = common_shape(parameters)
    if traced():
        places = [c.expand(shape).reshape(-1) for c in _given(cuts)]
        rows = _rows_of(integrand, parameters, shape, reach, places, kinked, is_density, narrow)
        count = TRACED_SPLIT if kinked else TRACED_WHOLE
        flat = [x.expand(shape).reshape(-1) for x in parameters]
        sums = _sums(rows, flat, count, split=kinked)
        return Integral(sums.value.reshape(shape), sums.error().reshape(shape), count)
    places = list(_given(cuts)) if kinked else []
    if narrow is not None and not narrow.any():
        narrow = None
    rows = _rows_of(integrand, parameters, shape, reach, (), kinked, is_density, narrow)
    solution = _Solution(rows, asked_tolerance(), shape, cuts)
    if torch.is_grad_enabled() and any(x.requires_grad for x in parameters):
        value = _Adaptive.apply(solution, len(places), moving, *places, *parameters)
    else:
        solution.place(places)
        value = solution.solve(parameters, [False] * len(parameters))[0]
    reason = "" if solution.settled else short_of(value, solution.error, solution.tolerance)
    return Integral(value, solution.error, solution.nodes, reason)


def common_shape(tensors: Sequence[Tensor]) -> torch.Size:
    """The shape that tensors broadcast to; torch's own function takes 10 us to say so."""
    first = tensors[0].shape
    if all([x.shape == first for x in tensors]):
        return first
    return torch.broadcast_shapes(*(x.shape for x in tensors))


def _given(cuts: Cuts) -> Sequence[Tensor]:
    return cuts() if callable(cuts) else cuts


def _rows_of(
    integrand: Integrand,
    parameters: Sequence[Tensor],
    shape: torch.Size,
    reach: tuple[float | Tensor, float | Tensor],
    cuts: Sequence[Tensor],
    kinked: bool,
    is_density: bool,
    narrow: Tensor | None,
) -> _Rows:
    like = parameters[0]
    low, high = (
        end.detach().expand(shape).reshape(-1)
        if isinstance(end, Tensor) and end.dim()
        else torch.as_tensor(end, dtype=like.dtype, device=like.device)
        for end in reach
    )
    key = None
    if not any(isinstance(end, Tensor) for end in reach):
        key = (*reach, like.dtype, like.device)
    heavy = not _is_light(reach[0]), not _is_light(reach[1])
    nearer = asked_tolerance() >= USUAL
    if narrow is not None:
        narrow = narrow.expand(shape).reshape(-1)
    return _Rows(integrand, low, high, tuple(cuts), kinked, is_density, narrow, key, heavy, nearer)


def _nearer(reach: Tensor) -> Tensor:
    """As far as 1e-10 of the mass."""
    return torch.where(reach < DOUBLE, reach - 0.3, NEARER * reach)


def _is_light(reach: float | Tensor) -> bool:
    """Whether a law that has nothing left so near falls faster than an exponential."""
    return not isinstance(reach, Tensor) and reach <= LIGHT


def integrate_laws(
    log_p: Callable[[Tensor], Tensor],
    log_q: Callable[[Tensor], Tensor],
    centre: Tensor,
    width: Tensor,
    reach: tuple[Tensor, Tensor],
    cuts: Sequence[Tensor],
) -> Integral:
    """The same for two log densities that keep their parameters to themselves.

    Args:
        log_p: log density of p at y of shape (nodes, *batch).
        log_q: the same of q.
        centre: batch-shaped, where p's mode is.
        width: how wide it is.
        reach: how far below and above p has mass, in widths.
        cuts: where else the nodes must crowd, in widths from the centre.

    Returns:
        Nats of the batch shape; the graph is that of the log densities.
    """
    shape = centre.shape

    def integrand(z: Tensor) -> tuple[Tensor, Tensor]:
        y = centre + width * z.reshape(-1, *shape)
        a = log_p(y).to(torch.float64)
        d = log_q(y) - a
        d = torch.where(a == -math.inf, 0.0, d)
        return tuple(x.reshape(z.shape) for x in (a + torch.log(width), d))  # type: ignore

    low, high = (x.reshape(-1) for x in reach)
    rows = _Rows(integrand, low, high, tuple(c.reshape(-1) for c in cuts), kinked=True)
    asked = asked_tolerance()
    count = FIRST
    with torch.no_grad():
        while True:
            sums = _sums(rows, (), count, split=True)
            value, error = sums.value, sums.error()
            if count >= LAST_SPLIT or not short_of(value, error, asked):
                break
            count = 2 * count - 1
    if torch.is_grad_enabled():
        value = _sums(rows, (), count, split=True).value
    reason = short_of(value.detach(), error, asked)
    pieces = 2 + len(cuts)
    return Integral(value.reshape(shape), error.reshape(shape), count * pieces, reason)


def short_of(value: Tensor, error: Tensor, tolerance: float) -> str:
    """In words, what is missing to the tolerance; no digits can be asked of rounding."""
    short = ~(error <= tolerance * value.abs() + 64 * _EPS) & (value != math.inf)
    if not bool(short.any()):
        return ""
    worst = (error / value.abs().clamp(min=1e-300))[short].max().item()
    return (
        f"tolerance {tolerance:g} not reached in {int(short.sum())} of {short.numel()}: "
        f"relative error up to {worst:.1g}"
    )


#: A slope has fewer digits than its value, whose error alone decides when to stop.
_WITH_SLOPES = 1e-7


class _Solution:
    """Doubles the nodes, block by block of rows, until every row is as exact as it was asked."""

    def __init__(self, rows: _Rows, tolerance: float, shape: torch.Size, cuts: Cuts) -> None:
        self.rows, self.tolerance, self.shape, self._cuts = rows, tolerance, shape, cuts
        self.error = torch.empty(0)
        self.nodes = 0
        self.level = FIRST, rows.kinked
        self.settled = False
        self.aim = tolerance

    def place(self, cuts: Sequence[Tensor]) -> None:
        """Let the nodes crowd at these places."""
        self.rows = replace(
            self.rows, cuts=tuple(c.detach().expand(self.shape).reshape(-1) for c in cuts)
        )

    def _wanted(self, value: Tensor) -> Tensor:
        """The absolute error that is small enough; no digits can be asked of rounding."""
        return value.abs() * self.aim + 64 * _EPS

    def solve(self, parameters: Sequence[Tensor], asked: Sequence[bool]) -> list[Tensor]:
        """The value, and the derivatives by the parameters that ask for them."""
        if True in asked:
            self.aim = min(self.tolerance, _WITH_SLOPES)
        flat = [x.detach() for x in parameters]
        if self.shape != flat[0].shape or len(self.shape) != 1:
            flat = [x.expand(self.shape).reshape(-1) for x in flat]
        best: list[Tensor] = []
        rows: Tensor | None = None
        for count, split in self._levels():
            if split and not self.rows.kinked and not self.rows.cuts:
                self.place(_given(self._cuts))
                if not self.rows.cuts:
                    break
            pieces = 2 + len(self.rows.cuts) if split else 1
            self.settled, found = self._look_at(rows, flat, asked, count, pieces, split)
            self.nodes, self.level = count * pieces, (count, split)
            best = found if rows is None else self._improved(best, found, rows)
            if self.settled:
                break
            best[1].nan_to_num_(nan=math.inf)
            short = best[1] > self._wanted(best[0])
            if not short.any():
                self.settled = True
                break
            rows = torch.nonzero(short)[:, 0]
        self.error = best[1].reshape(self.shape)
        return [best[0].reshape(self.shape), *(x.reshape(self.shape) for x in best[2:])]

    def _improved(self, best: list[Tensor], found: list[Tensor], rows: Tensor) -> list[Tensor]:
        better = found[1] <= best[1][rows]
        best = [x.reshape(-1) for x in best]
        for old, new in zip(best, found, strict=True):
            old[rows] = torch.where(better, new.reshape(-1), old[rows])
        return best

    def _levels(self) -> Iterator[tuple[int, bool]]:
        for split in (False, True):
            count = FIRST if self.rows.kinked or not split else 2 * FIRST - 1
            while count <= (LAST_SPLIT if split else LAST_WHOLE) and split >= self.rows.kinked:
                yield count, split
                count = 2 * count - 1

    def _look_at(
        self,
        rows: Tensor | None,
        parameters: Sequence[Tensor],
        asked: Sequence[bool],
        count: int,
        pieces: int,
        split: bool,
    ) -> tuple[bool, list[Tensor]]:
        """Value, error and derivatives of some rows, or of all; whether they are settled."""
        sweep = None
        if isinstance(self.rows.integrand, Recorded):
            sweep = self.rows.integrand.sweep(tuple(asked))
        size = parameters[0].shape[0] if rows is None else rows.shape[0]
        step = max(1, (BLOCK if sweep is None else CACHED) // (count * pieces))
        whole: list[Tensor] = []
        settled = sweep is not None
        for start in range(0, size, step):
            if rows is None:
                block: Tensor | slice | None = slice(start, start + step) if size > step else None
            else:
                block = rows[start : start + step]
            some = parameters if block is None else [x[block] for x in parameters]
            its = self.rows if block is None else self.rows.take(block)
            if sweep is None:
                found = _by_autograd(its, some, asked, count, split=split)
            else:
                nodes = its.prepared(sweep, count, split=split)
                is_settled, found = look(sweep, nodes, some, self.aim, its.kink(split=split))
                settled = settled and is_settled
                if not is_settled and not found[1].isfinite().all():
                    _mend(found, its, some, asked, count, split=split)
            if size <= step:
                return settled, found
            whole = whole or [x.new_empty(size) for x in found]
            for all_rows, x in zip(whole, found, strict=True):
                all_rows[start : start + step] = x.reshape(-1)
        return settled, whole


def _mend(
    found: list[Tensor],
    rows: _Rows,
    parameters: Sequence[Tensor],
    asked: Sequence[bool],
    count: int,
    *,
    split: bool,
) -> None:
    """Where nothing is left of p, a program has multiplied 0 by inf."""
    broken = torch.nonzero(~found[1].isfinite())[:, 0]
    some = [x[broken] for x in parameters]
    mended = _by_autograd(rows.take(broken), some, asked, count, split=split)
    for i, new in enumerate(mended):
        found[i] = found[i].reshape(-1).index_put((broken,), new)


def _by_autograd(
    rows: _Rows, parameters: Sequence[Tensor], asked: Sequence[bool], count: int, *, split: bool
) -> list[Tensor]:
    """The same of an integrand that cannot be recorded."""
    some = [x.detach().requires_grad_(a) for x, a in zip(parameters, asked, strict=True)]
    with torch.set_grad_enabled(any(asked)):
        sums = _sums(rows, some, count, split=split)
        total = sums.value.sum()
    leaves = [x for x in some if x.requires_grad]
    slopes: Sequence[Tensor] = ()
    if leaves:
        slopes = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    return [sums.value.detach(), sums.error(), *slopes]


class _Adaptive(torch.autograd.Function):
    """The adaptive rule as one node of autograd's graph, whose memory is a block's.

    Its inputs are the cuts, the `moving` parameters that place nodes, and the others. An integral
    does not depend on where its nodes are, so the slope by the first two is zero. The slope by the
    others jumps at a kink: its own derivative does depend on where the pieces end, which is why
    the cuts are inputs.
    """

    @staticmethod
    def forward(
        ctx: Any, solution: _Solution, cuts: int, moving: int, *places_and_parameters: Tensor
    ) -> Tensor:
        given = places_and_parameters[cuts:]
        asked = list(ctx.needs_input_grad[3 + cuts :])
        asked[:moving] = [False] * moving
        if cuts:
            solution.place(places_and_parameters[:cuts])
        value, *partials = solution.solve(given, asked)
        ctx.solution, ctx.asked, ctx.cuts = solution, asked, cuts
        ctx.save_for_backward(*places_and_parameters, *partials)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved, grad = ctx.saved_tensors, grads[0]
        inputs = saved[: ctx.cuts + len(ctx.asked)]
        if torch.is_grad_enabled():  # somebody may want a second derivative
            found = iter(_differentiable_slopes(ctx, inputs, grad))
        else:
            slopes = iter(saved[len(inputs) :])
            found = iter(
                [
                    _summed_to(grad * next(slopes), x)
                    for x, a in zip(inputs[ctx.cuts :], ctx.asked, strict=True)
                    if a
                ]
            )
        nothing = (None,) * (3 + ctx.cuts)
        return (*nothing, *(next(found) if a else None for a in ctx.asked))


def _summed_to(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient if gradient.shape == x.shape else gradient.sum_to_size(x.shape)


def _differentiable_slopes(ctx: Any, inputs: Sequence[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    """The slopes again, with a graph that knows how the ends of the pieces move."""
    # two parameters may be one tensor, whose two derivatives are to be told apart
    solution, inputs = ctx.solution, [x.view_as(x) for x in inputs]
    flat = [x.expand(solution.shape).reshape(-1) for x in inputs]
    rows = solution.rows
    if ctx.cuts:
        rows = replace(rows, cuts=tuple(flat[: ctx.cuts]))
    count, split = solution.level
    value = _sums(rows, flat[ctx.cuts :], count, split=split).value.reshape(solution.shape)
    wanted = [x for x, a in zip(inputs[ctx.cuts :], ctx.asked, strict=True) if a]
    return torch.autograd.grad(
        value, wanted, grad, create_graph=True, allow_unused=True, materialize_grads=True
    )
