r"""Expectations of a log ratio on the line: the rule, its nodes, its error, its gradient.

    KL = integral of p(z) [log p(z) - log q(z)] dz

A distribution p on the line, shifted and scaled such that its mass is near 0 and about 1 wide, is
integrated by the trapezoidal rule in t, z = sinh(t), which converges geometrically for what is
smooth (Takahasi & Mori 1974; Trefethen & Weideman 2014). Where q is much narrower than p or has a
kink, the line is cut there and every piece gets nodes that crowd at the cuts.

The nodes are constants: the gradient is that of the sum. Sums over some of them say how far off
the value is (`trapezoid`); their number is doubled until that is below the tolerance, for the
rows of a batch that need it (`adaptive`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Real

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..concrete import is_traced
from .adaptive import BLOCK, Adaptive, Cuts, Solution, given
from .integrand import Integrand
from .panels import first_panels, halved, nodes_of
from .rule import Rows, sums_over
from .sweep import COVERED, NEAR, ROUNDING

#: From here on nodes need not go as far as there are digits.
USUAL = 1e-7
#: A distribution with less reach, in widths, has a tail lighter than any exponential.
LIGHT = 10.0
#: The most evaluations of code that is not ours, of all rows and of one.
DEAR, _MOST_NODES = 1 << 17, 1 << 13
#: Next to a kink, the slope of a sum over nodes is off by the square root of what the sum is.
_KINKED_SLOPES = 1e-8
#: The same of what the slopes bend with.
_BENDS = 1e-7
#: In widths: a place that is no further from 0 has lost no more than two digits.
_NEAR_ZERO = 16.0
#: Where nothing may depend on values (vmap, compile, jit): one rule for all.
TRACED_WHOLE, TRACED_SPLIT = 513, 257

_asked: list[float] = [1e-6]


@contextmanager
def tolerance(relative: float) -> Iterator[None]:
    """Ask all integrals inside the block for this relative error."""
    if isinstance(relative, bool) or not isinstance(relative, Real) or not relative > 0:
        raise ValueError(
            f"tolerance must be a positive number, the relative error of an integral: {relative!r}"
        )
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


def integrate(
    integrand: Integrand,
    parameters: Sequence[Tensor],
    reach: tuple[float | Tensor, float | Tensor],
    cuts: Cuts = (),
    kinked: bool = False,
    is_density: bool = True,
    moving: int = 0,
    narrow: Tensor | None = None,
    far: Tensor | None = None,
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
        far: of batch shape, how many of its widths p is away from 0.

    Returns:
        Nats of the broadcast batch shape, with an error estimate.
    """
    shape = common_shape(parameters)
    if is_traced():
        places = [c.expand(shape).reshape(-1) for c in given(cuts)]
        rows = _rows_of(integrand, parameters, shape, reach, places, kinked, is_density, narrow)
        flat = [x.expand(shape).reshape(-1) for x in parameters]
        value, error = _by_one_rule(rows, flat, cuts=bool(places))
        return Integral(value.reshape(shape), error.reshape(shape), TRACED_WHOLE)
    places = list(given(cuts)) if kinked else []
    if narrow is not None and not narrow.any():
        narrow = None
    rows = _rows_of(integrand, parameters, shape, reach, (), kinked, is_density, narrow)
    if far is not None and (far > _NEAR_ZERO).any():
        rows = replace(rows, far=far.expand(shape).reshape(-1))
    solution = Solution(rows, asked_tolerance(), shape, cuts)
    if torch.is_grad_enabled() and any(x.requires_grad for x in parameters):
        value = Adaptive.apply(solution, len(places), moving, *places, *parameters)
    else:
        solution.place(places)
        value = solution.solve(parameters, [False] * len(parameters))[0]
    reason = "" if solution.settled else short_of(value, solution.error, solution.tolerance)
    return Integral(value, solution.error, solution.nodes, reason)


def _by_one_rule(rows: Rows, parameters: Sequence[Tensor], *, cuts: bool) -> tuple[Tensor, Tensor]:
    """Value and error where nothing may depend on values: of each row by the better nodes.

    Where nodes must crowd is not known beforehand: a recorded step will be run with parameters
    that have moved.
    """
    rules = [(TRACED_WHOLE, False)] if not rows.kinked else []
    rules += [(TRACED_SPLIT, True)] if cuts or rows.kinked else []
    best: tuple[Tensor, Tensor] | None = None
    for count, split in rules:
        sums = sums_over(rows, parameters, count, split=split)
        value, error = sums.value, sums.error().nan_to_num(nan=math.inf, posinf=math.inf)
        if best is not None:
            better = error < best[1]
            value, error = (
                torch.where(better, new, old)
                for new, old in zip((value, error), best, strict=True)
            )
        best = value, error
    assert best is not None
    return best


def common_shape(tensors: Sequence[Tensor]) -> torch.Size:
    """The shape that tensors broadcast to; torch's own function takes 10 us to say so."""
    first = tensors[0].shape
    if all([x.shape == first for x in tensors]):
        return first
    return torch.broadcast_shapes(*(x.shape for x in tensors))


def _rows_of(
    integrand: Integrand,
    parameters: Sequence[Tensor],
    shape: torch.Size,
    reach: tuple[float | Tensor, float | Tensor],
    cuts: Sequence[Tensor],
    kinked: bool,
    is_density: bool,
    narrow: Tensor | None,
) -> Rows:
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
    return Rows(integrand, low, high, tuple(cuts), kinked, is_density, narrow, key, heavy, nearer)


def _is_light(reach: float | Tensor) -> bool:
    """Whether a distribution that has nothing left so near falls faster than an exponential."""
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

    def integrand(z: Tensor) -> tuple[Tensor, Tensor]:
        y = centre + width * z
        a = log_p(y).to(torch.float64)
        return a + torch.log(width), log_q(y) - a

    return integrate_closed(integrand, reach, cuts)


def integrate_closed(
    integrand: Callable[[Tensor], tuple[Tensor, ...]],
    reach: tuple[Tensor, Tensor],
    cuts: Sequence[Tensor],
) -> Integral:
    """The same for an integrand that keeps its parameters to itself, and takes whole batches only.

    Args:
        integrand: log p(z) and log q - log p at z of shape (nodes, *batch); after them, what else
            the nodes have to be fine enough for, since the slopes bend where it does.
        reach: how far below and above 0 p has mass, of batch shape.
        cuts: where else the nodes must crowd, of batch shape.

    Returns:
        Nats of the batch shape; the graph is the integrand's own. Blocks of nodes are evaluated
        again in the backward pass, so that its memory is that of a block.
    """
    shape, asked = reach[0].shape, asked_tolerance()
    size = shape.numel()

    def of_block(z: Tensor) -> tuple[Tensor, ...]:
        log_p, *rest = integrand(z.reshape(-1, *shape))
        mass = torch.exp(log_p).expand(rest[0].shape)
        # where nothing is left of p, log q may be -inf
        known = [torch.where(mass > 0, x, 0.0) for x in rest]
        return tuple(x.reshape(-1, size) for x in (mass, *known))

    def of_nodes(z: Tensor) -> tuple[Tensor, ...]:
        blocks = z.split(max(1, BLOCK // (8 * max(1, size))))
        if len(blocks) == 1:
            return of_block(z)
        found = [checkpoint(of_block, block, use_reentrant=False) for block in blocks]
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    def terms(z: Tensor) -> Tensor:
        mass, *rest = of_nodes(z)
        return torch.stack([mass * x for x in rest])

    def enough(value: Tensor, error: Tensor) -> bool:
        bends = error[1:] <= _BENDS * (1 + value[1:].abs())
        return not short_of(value[0].abs(), error[0], aim) and bool(bends.all())

    aim = min(asked, _KINKED_SLOPES) if torch.is_grad_enabled() else asked
    low, high = (x.reshape(-1) for x in reach)
    panels = first_panels(low, high, [c.reshape(-1) for c in cuts])
    with torch.no_grad():
        most = min(_MOST_NODES, DEAR // max(1, size))
        left, right, errors = halved(terms, panels, enough, most)
        error = errors[0]
        z, weights = nodes_of(left, right)
    mass, d = of_nodes(z)[:2]
    mass = weights * mass
    value, shift = -(mass * d).sum(0), (mass * torch.expm1(d.clamp(max=60.0))).sum(0)
    with torch.no_grad():
        near = (shift.abs() <= COVERED) & (value < NEAR)
        # p's own integral tells what rounding and too few nodes do to its density
        off, terms_size = ROUNDING + (mass.sum(0) - 1).abs(), (mass * d).abs().sum(0)
        noise = torch.where(near, off * terms_size, off * (1 + terms_size))
        error = error + noise
    value = value + torch.where(near, shift, 0.0)
    reason = short_of(value.detach(), error, asked)
    return Integral(value.reshape(shape), error.reshape(shape), z.shape[0], reason)


def excess_of(value: Tensor, error: Tensor, tolerance: float) -> Tensor:
    """How many times the error that was asked for the largest is."""
    return (error / (tolerance * value.detach().abs() + 2 * ROUNDING)).max()


def short_of(value: Tensor, error: Tensor, tolerance: float) -> str:
    """In words, what is missing to the tolerance; no digits can be asked of rounding."""
    short = ~(error <= tolerance * value.abs() + 2 * ROUNDING) & (value < math.inf)
    if not bool(short.any()):
        return ""
    worst = (error / value.abs().clamp(min=1e-300))[short].max().item()
    return (
        f"tolerance {tolerance:g} not reached in {int(short.sum())} of {short.numel()}: "
        f"relative error up to {worst:.1g}"
    )
