"""The KL both ways, and the divergences next to it, over a parameter."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch.distributions import Distribution

from ..divergence.estimate import Estimate
from ..divergence.jensen_shannon import jensen_shannon
from ..divergence.kl import kl
from ..divergence.mixtures import check_operands
from ..divergence.renyi import renyi
from ..messages import see
from ..registry.shapes import broadcast_batch
from .style import GREY, axes_or_new, finish, legend, plain, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Divergence = Callable[[Distribution, Distribution], Estimate]
Values = npt.NDArray[np.float64]

#: What is drawn, by its name.
_DIVERGENCES: dict[str, Divergence] = {
    "KL(p || q)": kl,
    "KL(q || p)": lambda p, q: kl(q, p),
    "Jensen-Shannon": jensen_shannon,
    "Renyi 1/2 (p || q)": lambda p, q: renyi(p, q, 0.5),
    "Renyi 2 (p || q)": lambda p, q: renyi(p, q, 2.0),
}
#: The axis ends at so many times the median of each divergence's finite values.
_TALL = 6.0
#: The height of the strip above the data, as a share of theirs, for each infinite divergence.
_STRIP = 0.055


def divergences(
    make: Callable[[float], tuple[Distribution, Distribution]],
    values: Sequence[float],
    *,
    name: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw KL, reverse KL, Jensen-Shannon and Renyi's divergences of order 1/2 and 2.

    Where a divergence is infinite, its line goes on in a strip above the others, which is marked
    as infinity.

    Args:
        make: a value of the parameter -> p and q, without batch dimensions.
        values: of the parameter, in rising order.
        name: of the parameter; it is the label of the horizontal axis.
        ax: the axes to draw on; None makes a figure.

    Returns:
        The axes.

    Raises:
        TypeError: `make` returns something else than two distributions.
        ValueError: fewer than two values, or p or q is a batch.

    Reference:
        van Erven & Harremoes (2014), Renyi divergence and Kullback-Leibler divergence.

    Example:
        >>> def make(scale):
        ...     return pyro.distributions.Normal(0.0, 1.0), pyro.distributions.Normal(0.0, scale)
        >>> ax = pyro_kl.plot.divergences(make, [0.5, 1.0, 1.5, 2.0])  # doctest: +SKIP
    """
    if len(values) < 2:
        raise ValueError(f"values: at least two are needed, got {len(values)}" + see("picture"))
    pairs = [_checked(make(value), value) for value in values]
    x = np.asarray(values, dtype=float)
    found = {
        label: np.array([_value(divergence, p, q) for p, q in pairs])
        for label, divergence in _DIVERGENCES.items()
    }
    ax = axes_or_new(ax)
    for number, (label, y) in enumerate(found.items()):
        how, finite = series(number), np.isfinite(y)
        if np.isnan(y).all():
            label += ": not known"
        ax.plot(
            x, np.where(finite, y, np.nan), **how.line, marker=how.marker, ms=5,
            markevery=_places(len(x), number), label=label,
        )  # fmt: skip
    top = _top(list(found.values()))
    infinite = {n: np.isposinf(y) for n, y in enumerate(found.values()) if np.isposinf(y).any()}
    _draw_infinite(ax, x, infinite, top)
    ax.set_xlim(x[0], x[-1])
    ax.set_xlabel(plain(name) or "parameter")
    cut = any(bool((y[np.isfinite(y)] > top).any()) for y in found.values())
    ax.set_ylabel(f"nats{' (axis is cut)' if cut else ''}")
    legend(ax)
    return finish(ax, "Divergences of p and q")


def _checked(pair: Any, value: float) -> tuple[Distribution, Distribution]:
    """The pair, if it is one of two distributions without batch dimensions."""
    try:
        p, q = pair
    except (TypeError, ValueError):
        raise TypeError(
            f"make({value!r}) must return p and q, got {type(pair).__name__}"
            + see("not-a-distribution")
        ) from None
    check_operands(p, q)
    shape = broadcast_batch(p, q)
    if shape:
        raise ValueError(
            f"make({value!r}) has batch shape {tuple(shape)}: a picture shows one pair for each "
            "value; call .to_event() on both" + see("picture")
        )
    return p, q


def _value(divergence: Divergence, p: Distribution, q: Distribution) -> float:
    """Nats; nan where there is no way to compute it."""
    try:
        return float(divergence(p, q))
    except NotImplementedError:
        return math.nan


def _top(curves: Sequence[Values]) -> float:
    """Where the axis ends: a divergence that goes to infinity leaves room for the others."""
    finite = [y[np.isfinite(y)] for y in curves if np.isfinite(y).any()]
    if not finite:
        return 1.0
    highest = max(float(y.max()) for y in finite)
    return min(highest, _TALL * max(float(np.median(y)) for y in finite)) or 1.0


def _draw_infinite(ax: Axes, x: Values, infinite: dict[int, Any], top: float) -> None:
    """Set the vertical range, with a strip on top for the lines of infinite divergences."""
    height = 1.04 * top
    strip = (len(infinite) + 0.6) * _STRIP * top if infinite else 0.0
    ax.set_ylim(-0.02 * top, height + strip)
    if not infinite:
        return
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= height])
    ax.axhspan(height, height + strip, facecolor="#ECECEC", lw=0.0, zorder=2.5)  # over the lines
    ax.axhline(height, color=GREY, lw=0.8)
    ax.text(
        -0.012, height + strip / 2, "infinite", ha="right", va="center", fontsize="small",
        transform=ax.get_yaxis_transform(),
    )  # fmt: skip
    for place, (number, where) in enumerate(infinite.items()):
        how = series(number)
        y = np.where(where, height + (place + 0.8) * _STRIP * top, np.nan)
        ax.plot(
            x, y, **how.line, marker=how.marker, ms=5, markevery=_places(len(x), number), zorder=3
        )


def _places(count: int, number: int) -> tuple[int, int]:
    """Which points of a line have a marker: about eight, and not those of the other lines."""
    step = max(1, count // 8)
    return number * step // len(_DIVERGENCES), step
