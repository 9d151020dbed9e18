r"""Expectations of a log ratio on the line: the public face of the quadrature.

    KL = integral of p(z) [log p(z) - log q(z)] dz

A distribution p on the line, shifted and scaled such that its mass is near 0 and about 1 wide, is
integrated by the trapezoidal rule in t, z = sinh(t), which converges geometrically for what is
smooth (Takahasi & Mori 1974; Trefethen & Weideman 2014). Where q is much narrower than p or has a
kink, the line is split there and every piece gets nodes that crowd at the breakpoints.

The nodes are constants: the gradient is that of the sum. `rule` estimates the error of a set of
nodes; `adaptive` doubles them, for the rows of a batch that need it, until the error is below the
tolerance. What may bend anywhere is integrated on `panels` instead.

Callers use `integrate` for an integrand whose parameters are tensors of batch shape, and
`integrate_opaque` for one that keeps its parameters to itself. Both return an `Integral`, whose
error means the same: the estimate of the absolute error of the value, rounding included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...messages import see
from ..concrete import choices_of_step, is_traced
from ..dtypes import common_shape
from .adaptive import BLOCK, Adaptive, Breakpoints, Solver
from .integrand import Integrand, near_shift
from .panels import first_panels, halved, nodes_of
from .problem import Problem, problem_of
from .recorded import integrate_recorded
from .rule import ROUNDING

#: The most evaluations of a user's code, of all rows and of one.
_MOST_EVALUATIONS, _MOST_NODES = 1 << 17, 1 << 13
#: Next to a kink, the slope of a sum over nodes is off by the square root of what the sum is.
_KINKED_SLOPES = 1e-8
#: The same of what the slopes bend with.
_BENDS = 1e-7
#: In widths: a place that is no further from 0 has lost no more than two digits.
_NEAR_ZERO = 16.0
#: Where nothing may depend on values (vmap, compile, jit), all rows get these nodes.
TRACED_WHOLE, TRACED_SPLIT = 513, 257

_requested: list[float] = [1e-6]


@contextmanager
def tolerance(relative: float) -> Iterator[None]:
    """Request this relative error of all integrals inside the block."""
    if isinstance(relative, bool) or not isinstance(relative, Real) or not relative > 0:
        raise ValueError(
            f"tolerance must be a positive number, the relative error of an integral: {relative!r}"
            + see("option")
        )
    _requested.append(relative)
    try:
        yield
    finally:
        _requested.pop()


def requested_tolerance() -> float:
    """The relative error that integrals aim at."""
    return _requested[-1]


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
    window: tuple[float | Tensor, float | Tensor],
    breakpoints: Breakpoints = (),
    has_breakpoints: bool = False,
    *,
    is_density: bool = True,
    num_placing: int = 0,
    narrow: Tensor | None = None,
    distance: Tensor | None = None,
) -> Integral:
    """The integral of p (log p - log q) over the line, in p's own scale.

    Args:
        integrand: `integrand(z, *parameters)` returns log p(z), the density with respect to z,
            and log q - log p at z; elementwise, z of shape (nodes, rows).
        parameters: tensors that broadcast to the batch shape.
        window: how far below and above 0 p has mass.
        breakpoints: places z for the nodes to crowd at if many nodes do not suffice, each of
            batch shape; or a function that returns them then.
        has_breakpoints: whether the nodes crowd there from the first attempt on.
        is_density: whether p is a density, so that its integral and q's are known to be 1.
        num_placing: how many of the parameters, the first ones, do nothing but place the nodes.
        narrow: of batch shape, 1 where q changes within less than p's width, else 0.
        distance: of batch shape, how many of its widths p is away from 0.

    Returns:
        Nats of the broadcast batch shape, with an error estimate.
    """
    shape, requested = common_shape(*[x.shape for x in parameters]), requested_tolerance()
    traced = is_traced()
    if narrow is not None and (traced or narrow.any()):
        narrow = narrow.expand(shape).reshape(-1)
    else:
        narrow = None
    if distance is not None and not traced and (distance > _NEAR_ZERO).any():
        distance = distance.expand(shape).reshape(-1)
    else:
        distance = None
    problem = problem_of(
        integrand, parameters[0], shape, window, requested, has_breakpoints=has_breakpoints,
        is_density=is_density, narrow=narrow, distance=distance,
    )  # fmt: skip
    places: Sequence[Tensor] = ()
    if has_breakpoints or traced:
        places = breakpoints() if callable(breakpoints) else breakpoints
    choices = choices_of_step()
    if choices is not None:
        solver = Solver(problem, requested, shape, breakpoints)
        value, error = integrate_recorded(choices, solver, places, parameters)
        return Integral(value, error, choices.made[-1][0])
    if traced:
        problem = problem.with_breakpoints(places, shape)
        flat = [x.expand(shape).reshape(-1) for x in parameters]
        value, error = _by_one_rule(problem, flat)
        return Integral(value.reshape(shape), error.reshape(shape), TRACED_WHOLE)
    solver = Solver(problem, requested, shape, breakpoints)
    if torch.is_grad_enabled() and any([x.requires_grad for x in parameters]):
        value = Adaptive.apply(solver, len(places), num_placing, *places, *parameters)
    else:
        if places:
            solver.place(places)
        value = solver.solve(parameters, (False,) * len(parameters))[0]
    reason = "" if solver.settled else short_of(value, solver.error, requested)
    return Integral(value, solver.error, solver.nodes, reason)


def _by_one_rule(problem: Problem, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Value and error where nothing may depend on values: of each row by the better nodes.

    Both kinds of nodes are evaluated: a step that was traced is run again with other parameters,
    for which the nodes may have to crowd elsewhere.
    """
    rules = [] if problem.has_breakpoints else [(TRACED_WHOLE, False)]
    rules += [(TRACED_SPLIT, True)] if problem.breakpoints or problem.has_breakpoints else []
    best: tuple[Tensor, Tensor] | None = None
    for count, split in rules:
        value, error = problem.differentiable(parameters, count, split=split)
        error = error.nan_to_num(nan=math.inf, posinf=math.inf)
        if best is not None:
            better = error < best[1]
            value, error = torch.where(better, value, best[0]), torch.where(better, error, best[1])
        best = value, error
    assert best is not None
    return best


def integrate_opaque(
    integrand: Callable[[Tensor], tuple[Tensor, ...]],
    window: tuple[Tensor, Tensor],
    breakpoints: Sequence[Tensor],
) -> Integral:
    """The same for an integrand that keeps its parameters to itself, and takes whole batches only.

    Args:
        integrand: log p(z) and log q - log p at z of shape (nodes, *batch); after them, what else
            the nodes have to be fine enough for, since the slopes bend where it does.
        window: how far below and above 0 p has mass, of batch shape.
        breakpoints: where else the nodes must crowd, of batch shape.

    Returns:
        Nats of the batch shape; the graph is the integrand's own. Blocks of nodes are evaluated
        again in the backward pass, so that its memory is that of a block.
    """
    shape, requested = window[0].shape, requested_tolerance()
    size = shape.numel()

    def of_block(z: Tensor) -> tuple[Tensor, ...]:
        log_p, *rest = integrand(z.reshape(len(z), *shape))
        mass = torch.exp(log_p).expand(rest[0].shape)
        # where nothing is left of p, log q may be -inf
        known = [torch.where(mass > 0, x, 0.0) for x in rest]
        return tuple(x.reshape(len(z), size) for x in (mass, *known))

    def of_nodes(z: Tensor) -> tuple[Tensor, ...]:
        blocks = z.split(max(1, BLOCK // (4 * max(1, size))))
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

    aim = min(requested, _KINKED_SLOPES) if torch.is_grad_enabled() else requested
    low, high = (x.reshape(-1) for x in window)
    panels = first_panels(low, high, [x.reshape(-1) for x in breakpoints])
    with torch.no_grad():
        most = min(_MOST_NODES, _MOST_EVALUATIONS // max(1, size))
        left, right, _, errors = halved(terms, panels, enough, most)
        error = errors[0]
        z, weights = nodes_of(left, right)
    mass, ratio = of_nodes(z)[:2]
    masses = weights * mass
    parts = masses * ratio
    value = -parts.sum(0)
    shift, covered = near_shift(value, masses, ratio)
    with torch.no_grad():
        # p's own integral is 1 up to rounding and up to what the nodes miss of p
        off, sizes = ROUNDING + (masses.sum(0) - 1).abs(), parts.abs().sum(0)
        error = error + off * (torch.where(covered, 0.0, 1.0) + sizes)
    value = value + shift
    reason = short_of(value.detach(), error, requested)
    return Integral(value.reshape(shape), error.reshape(shape), z.shape[0], reason)


def excess_of(value: Tensor, error: Tensor, tolerance: float) -> Tensor:
    """The largest error, as a multiple of the requested one."""
    return (error / (tolerance * value.detach().abs() + 2 * ROUNDING)).max()


def short_of(value: Tensor, error: Tensor, tolerance: float) -> str:
    """In words, which rows are short of the tolerance; beyond rounding none are."""
    short = ~(error <= tolerance * value.abs() + 2 * ROUNDING) & (value < math.inf)
    if not bool(short.any()):
        return ""
    worst = (error / value.abs().clamp(min=1e-300))[short].max().item()
    return (
        f"tolerance {tolerance:g} not reached in {int(short.sum())} of {short.numel()}: "
        f"relative error up to {worst:.1g}"
    )
