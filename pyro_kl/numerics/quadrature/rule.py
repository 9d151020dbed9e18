r"""The rule on given nodes: the integral, the estimate of its error, and its derivatives.

The error has four parts. `truncation` is what the spacing of the nodes leaves, estimated from
sums with waves of lower frequencies. `left_over` extrapolates the integrand beyond the outermost
nodes. p's own integral over the nodes is 1 up to rounding and up to what the nodes miss of p.
`_displaced` is the rounding of x, where p is narrow and far from 0.

A kink is invisible in the spectrum until the smooth part has converged: rows where q may change
like a kink get a larger estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .integrand import NEAR, Evaluation, Integrand, at_nodes, near_shift
from .nodes import kept_unless_traced

EPS = 2.0**-52
#: Relative rounding of a sum of p times a log ratio: each of the two log densities is some thirty
#: operations on terms of its own order, and each operation rounds by half a unit.
ROUNDING = 64 * EPS
_TINY = 1e-290
#: The error of a kink at the nodes' frequency and all multiples of it, as a part of its spectrum
#: at 7/16 of that frequency: (7/16)^2 pi^2/6, doubled.
_KINK = 0.63
#: An integrand that is no density is assumed to fall no faster than exp(-10) over its window.
_FASTEST = 10.0


class Nodes(NamedTuple):
    """Nodes, and the numbers of the rule that depend on no parameter.

    Args:
        kept: results of the evaluation's prelude.
        minus: weights of the terms, (nodes, rows or 1): negative, and times p if p does not depend
            on parameters.
        masses: the same, positive.
        patterns: (8, nodes), as `patterns` has them; times `minus` if that has one column.
        off: how far p's sum is off 1, and rounding; None if p depends on parameters.
        last: the outermost nodes below and above.
        edge: three times the window below and above, (2, rows or 1); times p there, if p does not
            depend on parameters.
        fallen: by how much log p has fallen there; None if p depends on parameters.
        share: three times the window below and above, as parts of the whole window.
        z: the nodes, (nodes, rows or 1).
        per_piece: how many of them a piece has.
        is_density: whether p integrates to 1.
    """

    kept: tuple[Tensor, ...]
    minus: Tensor
    masses: Tensor
    patterns: Tensor
    off: Tensor | None
    last: Tensor
    edge: Tensor
    fallen: Tensor | None
    share: Tensor
    z: Tensor
    per_piece: int
    is_density: bool


@kept_unless_traced
def patterns(count: int, pieces: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(8, nodes): the sum of all, and waves of a half, a quarter, 3/8 and 7/16 of their frequency.

    All but the first two in both phases.
    """
    k = torch.arange(count)
    # by sixteenths of a turn, from exact sines
    turns = [math.sin(0.125 * math.pi * i) if i % 8 else 0.0 for i in range(16)]
    sine = torch.tensor(turns, dtype=dtype)
    rows = [torch.ones(count, dtype=dtype), 1.0 - 2.0 * (k % 2)]
    rows += [2 * sine[(m * k + shift) % 16] for m in (4, 6, 7) for shift in (4, 0)]
    return torch.stack(rows).repeat(1, pieces).to(device)


@kept_unless_traced
def _last(count: int, pieces: int, device: torch.device) -> Tensor:
    ends = [0 if pieces == 1 else count - 1, pieces * count - 1]
    return torch.tensor(ends, device=device, dtype=torch.int64)


def prepare(
    evaluation: Evaluation,
    z: Tensor,
    weights: Tensor,
    window: tuple[Tensor, Tensor],
    *,
    is_density: bool,
) -> Nodes:
    """The numbers for nodes and weights of shape (pieces, count, rows or 1)."""
    pieces, count, _ = z.shape
    z, weights = z.flatten(0, 1), weights.flatten(0, 1)
    minus, masses, *kept = evaluation.prelude((z, weights))
    waves = patterns(count, pieces, z.dtype, z.device)
    last = _last(count, pieces, z.device)
    off = fallen = None
    reach = torch.stack(torch.broadcast_tensors(*window)).reshape(2, -1)
    edge, share = 3 * reach, 3 * reach / reach.sum(0)
    if evaluation.is_fixed:
        off = (masses.sum(0) - 1).abs() + ROUNDING
        density = masses[last] / weights[last].clamp(min=_TINY)
        edge, fallen = edge * density, _fallen(density)
    if masses.shape[1] == 1:
        waves = waves * minus.t()
    return Nodes(
        tuple(kept), minus, masses, waves, off, last, edge, fallen, share, z, count, is_density
    )


def _fallen(density: Tensor) -> Tensor:
    """By how much a log density has fallen since its top, where it is of the order of 1."""
    return (-1 - torch.log(density.clamp(min=_TINY))).clamp(min=1.0)


# --- the sums -----------------------------------------------------------------------------------


class _Sums(NamedTuple):
    """Sums over the nodes, of each row.

    Args:
        value: the rule.
        size: the same of the absolute values.
        off: how far p's own integral is off 1, relative rounding included.
        error: truncation, what is beyond the outermost nodes, and displacement.
    """

    value: Tensor
    size: Tensor
    off: Tensor
    error: Tensor


def _sums(
    nodes: Nodes,
    terms: Tensor,
    density: Tensor | None,
    ratio: Tensor,
    narrow: Tensor | None,
    distance: Tensor | None,
) -> _Sums:
    """The rule and its error from the terms p (log q - log p), p and log q - log p at the nodes.

    The density is None if p does not depend on parameters: the weights contain it, and the terms
    are the ratio.
    """
    sizes = terms.abs()
    one_column = nodes.masses.shape[1] == 1
    if one_column:
        sums, size = torch.mm(nodes.patterns, terms), torch.mm(nodes.masses.t(), sizes)[0]
    else:
        weighted = nodes.minus * terms
        sums, size = torch.mm(nodes.patterns, weighted), weighted.abs().sum(0)
    off, fallen = nodes.off, nodes.fallen
    if density is not None and nodes.is_density:
        mass = torch.mm(nodes.masses.t(), density) if one_column else nodes.masses * density
        off, fallen = (mass.sum(0) - 1).abs() + ROUNDING, _fallen(density[nodes.last])
    elif density is not None:
        off, fallen = torch.full_like(size, 4 * EPS), torch.full_like(size, _FASTEST)
    assert off is not None
    assert fallen is not None
    one_piece = nodes.per_piece == nodes.z.shape[0]
    edge = sizes.index_select(0, nodes.last) * nodes.edge
    error = truncation(sums, size, narrow, one_piece=one_piece) + left_over(
        edge, nodes.share, size, fallen
    )
    if distance is not None:
        masses = nodes.masses if density is None else nodes.masses * density
        error = error + _displaced(nodes, masses, ratio, distance)
    return _Sums(sums[0], size, off, error)


def truncation(sums: Tensor, size: Tensor, narrow: Tensor | None, *, one_piece: bool) -> Tensor:
    """The integrand's spectrum at the nodes' frequency, extrapolated from lower frequencies.

    The sum over all nodes is off by the spectrum at their frequency and its multiples. The sum
    over every second node shows it at half of that frequency, but with an unknown phase, so that
    it may be small by chance; at a quarter, at 3/8 and at 7/16 the phase is known. The spectrum of
    an analytic integrand decays geometrically in the frequency: its log decay from 1/2 to 1 is
    twice that from 1/4 to 1/2. The estimate uses a quarter of it, to be on the safe side. Where q
    is narrow, what is left at 7/16 may come from a bend between two nodes, whose spectrum only
    falls like the inverse square of the frequency.
    """
    power = sums[1:].square()
    slow, fast, last = (power[1:].reshape(3, 2, -1).sum(1) + _TINY).unbind(0)
    half = torch.maximum(power[0] + _TINY, fast * fast / slow)
    by_half = 4 * (half * (half / (slow + half)).sqrt()).sqrt()
    falling = fast / size.clamp(min=_TINY**0.5)  # of two equal distributions the size is 0
    error = torch.maximum(by_half, falling)
    if narrow is not None:
        narrow = narrow / (3.0 if one_piece else 12.0)
        bend = _KINK * torch.maximum(last, half).sqrt() * (narrow > 0)
        # a kink's part of the spectrum is visible only once the smooth part has converged
        hidden = narrow * torch.maximum(8 * half.sqrt(), 4 * fast.sqrt())
        error = torch.maximum(error, torch.maximum(bend, hidden))
    return error


def extrapolated(sums: Tensor, trust: float) -> Tensor:
    """The same of an integrand whose spectrum is known to decay, from how fast it does near 1/2.

    Of a KL `truncation` is right for all integrands. It costs twice the nodes for those that are
    entire functions of two smooth log densities: their spectra decay ever faster.

    Args:
        sums: over the nodes, with the waves of `patterns`.
        trust: for how much of the way from 1/2 to 1 the spectrum is taken to decay as it does
            between 1/4 and 7/16, where it does so most slowly.
    """
    power = sums[1:].square()
    slow, fast, last = (power[1:].reshape(3, 2, -1).sum(1) + _TINY).sqrt().unbind(0)
    half = torch.maximum(power[0].sqrt(), fast * fast / slow)
    # by a sixteenth of the nodes' frequency
    decay = torch.maximum((fast / slow).sqrt(), last / fast)
    decay = torch.maximum(decay, (last / slow) ** (1 / 3)).clamp(max=1.0)
    return 16 * torch.maximum(half, last * decay) * decay ** (8 * trust)


def left_over(edge: Tensor, share: Tensor, size: Tensor, fallen: Tensor) -> Tensor:
    """What an exponential tail leaves beyond the outermost nodes.

    The rate of decay is estimated from the integrand's mean over the window and its value at the
    end of the window. Where log q grows as fast as p falls, the
    integrand falls more slowly than p.

    Args:
        edge: three times the window below and above, times the integrand there, (2, rows).
        share: three times the window below and above, as parts of the whole window.
        size: the integral of the integrand's absolute value.
        fallen: by how much the log density has fallen at the ends.
    """
    rate = (size * share / edge.clamp(min=_TINY)).log().clamp(min=0.01)
    return (edge / torch.minimum(rate, fallen)).sum(0)


def _displaced(nodes: Nodes, masses: Tensor, ratio: Tensor, distance: Tensor) -> Tensor:
    """What a relative rounding of the nodes' places and of p's and q's locations does.

    Where p is narrow and far from 0, x has lost digits: `distance` is its size over p's width.
    """
    z = nodes.z
    apart = torch.full_like(z, math.inf)
    apart[1:] = (z[1:] - z[:-1]).abs().clamp(min=_TINY)
    apart[:: nodes.per_piece] = math.inf  # a piece's first node has no neighbour
    moved = torch.zeros_like(ratio)
    moved[1:] = (ratio[1:] - ratio[:-1]).abs()
    return EPS * distance * (moved * (masses / apart)).nan_to_num(0.0, 0.0, 0.0).sum(0)


# --- the rule -----------------------------------------------------------------------------------


def evaluate(
    evaluation: Evaluation,
    nodes: Nodes,
    parameters: Sequence[Tensor],
    aim: Tensor | float,
    narrow: Tensor | None,
    distance: Tensor | None,
) -> tuple[bool, list[Tensor]]:
    """Evaluate the rule for rows of parameters.

    Returns:
        Whether all rows certainly reach the relative error `aim`; then the integral, its error and
        the recorded derivatives, one number for each row.
    """
    terms, *slopes = evaluation.main((*nodes.kept, *parameters))
    density, ratio = None, terms
    if not evaluation.is_fixed:
        density, ratio, *slopes = slopes
    sums = _sums(nodes, terms, density, ratio, narrow, distance)
    value = sums.value
    if not nodes.is_density:
        return False, [value, sums.off * sums.size + sums.error, *slopes]
    error = (sums.size + 1).mul_(sums.off).add_(sums.error)
    if (error <= value * aim).logical_and_(value >= NEAR).all():
        return True, [value, error, *slopes]
    few = torch.nonzero(value < NEAR)[:, 0]
    if few.numel():
        masses = _some(nodes.masses, few)
        if density is not None:
            masses = masses * _some(density, few)
        some = _Sums(*(_some(x, few) for x in sums))
        value, error = value.clone(), error.clone()
        value[few], error[few] = _near(some, some.value, masses, ratio[:, few])
    return False, [value, error, *slopes]


def evaluate_everywhere(
    evaluation: Evaluation,
    nodes: Nodes,
    parameters: Sequence[Tensor],
    narrow: Tensor | None,
    distance: Tensor | None,
) -> list[Tensor]:
    """The same without a branch: the integral, its error and the recorded derivatives."""
    terms, *slopes = evaluation.main((*nodes.kept, *parameters))
    density, ratio = None, terms
    if not evaluation.is_fixed:
        density, ratio, *slopes = slopes
    sums = _sums(nodes, terms, density, ratio, narrow, distance)
    if not nodes.is_density:
        return [sums.value, sums.off * sums.size + sums.error, *slopes]
    masses = nodes.masses if density is None else nodes.masses * density
    return [*_near(sums, sums.value, masses, ratio), *slopes]


def _some(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of a tensor; one column is shared by all rows."""
    return x[..., rows] if x.shape[-1] != 1 else x


def _near(sums: _Sums, value: Tensor, masses: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Value and error of rows with a small KL: its terms are p log(p / q) - p + q."""
    shift, covered = near_shift(value, masses, ratio)
    noise = sums.off * (torch.where(covered, 0.0, 1.0) + sums.size)
    return value + shift, noise + sums.error


def differentiable(
    integrand: Integrand,
    nodes: Nodes,
    parameters: Sequence[Tensor],
    narrow: Tensor | None,
    distance: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Value and error in operations that autograd and `torch.func` follow, without a branch.

    The nodes are those of an integrand that is not recorded; they may have a graph.
    """
    density, ratio = at_nodes(integrand, nodes.z, parameters)
    terms = density * ratio
    with torch.no_grad():
        sums = _sums(nodes, terms, density, ratio, narrow, distance)
    value = (nodes.minus * terms).sum(0)
    if not nodes.is_density:
        return value, sums.off * sums.size + sums.error
    return _near(sums, value, nodes.masses * density, ratio)
