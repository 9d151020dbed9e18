"""All KLs between some distributions, as a heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch.distributions import Distribution

from ..divergence.kl import kl
from ..messages import see
from ..registry.reduction import describe
from .style import axes_or_new, finish, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def kl_matrix(
    ps: Sequence[Distribution],
    qs: Sequence[Distribution] | None = None,
    *,
    names: Sequence[str] | None = None,
    q_names: Sequence[str] | None = None,
    reverse: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draw KL(p_i || q_j) as a heat map with the nats in its cells.

    A darker cell is a larger KL, on a logarithmic scale; a KL of 0 is white. An infinite KL is
    hatched and says so, a pair without a KL has a dash.

    Args:
        ps: distributions without batch dimensions, one for each row.
        qs: one for each column; None compares the `ps` with each other.
        names: of the rows, and of the columns where `qs` is None; by default their classes.
        q_names: of the columns.
        reverse: draw KL(q_j || p_i) instead, rows and columns as they were.
        ax: the axes to draw on; None makes a figure.

    Returns:
        The axes.

    Raises:
        ValueError: there is nothing to draw, a distribution is a batch, or the names do not fit.
    """
    others = ps if qs is None else qs
    rows = _names("names", names, ps)
    columns = rows if qs is None else _names("q_names", q_names, others)
    values = [[_kl(q, p) if reverse else _kl(p, q) for q in others] for p in ps]
    ax = axes_or_new(ax, 2.0 + 0.85 * len(others), 1.4 + 0.55 * len(ps))
    _draw(ax, values)
    ax.set_yticks(range(len(rows)), rows)
    slanted: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    long = max(map(len, columns)) > 12
    ax.set_xticks(range(len(columns)), columns, **(slanted if long else {}))
    ax.set_ylabel("p")
    ax.set_xlabel("q")
    ax.tick_params(length=0)
    finish(
        ax,
        f"KL({'q || p' if reverse else 'p || q'}), nats: a row for p, a column for q",
        grid=None,
    )
    ax.spines[:].set_visible(False)
    return ax


def _names(
    option: str, names: Sequence[str] | None, distributions: Sequence[Distribution]
) -> list[str]:
    """The names of rows or columns, by default those of the classes."""
    if not len(distributions):
        raise ValueError("kl_matrix needs at least one p and one q" + see("picture"))
    for distribution in distributions:
        if distribution.batch_shape:
            raise ValueError(
                f"a cell shows one KL, but {describe(distribution)} has batch shape "
                f"{tuple(distribution.batch_shape)}: pass its elements, or call .to_event()"
                + see("picture")
            )
    if names is None:
        return [describe(distribution) for distribution in distributions]
    if len(names) != len(distributions):
        raise ValueError(
            f"{option}: {len(names)} for {len(distributions)} distributions" + see("picture")
        )
    return [plain(name) for name in names]


def _kl(p: Distribution, q: Distribution) -> float:
    """KL(p || q) in nats; nan where there is none."""
    try:
        return float(kl(p, q))
    except NotImplementedError:
        return math.nan


def _draw(ax: Axes, values: list[list[float]]) -> None:
    """Draw the cells and what is written in them."""
    from matplotlib.patches import Rectangle

    shade = _shades(values)
    ax.imshow(shade, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            if not math.isfinite(value):
                cell = Rectangle(
                    (j - 0.5, i - 0.5), 1, 1, facecolor="white", edgecolor="#BBBBBB", hatch="///",
                    lw=0.0,
                )  # fmt: skip
                ax.add_patch(cell)
            text = "-" if math.isnan(value) else f"{value:.3g}"
            ground = None if math.isfinite(value) else {"facecolor": "white", "lw": 0.0, "pad": 2}
            ax.text(
                j, i, text, ha="center", va="center", bbox=ground,
                color="white" if shade[i][j] > 0.6 else "black",
            )  # fmt: skip


def _shades(values: list[list[float]]) -> list[list[float]]:
    """How dark each cell is, from 0 to 1: logarithmic, over a power of ten at least."""
    logs = [[math.log10(x) if 0 < x < math.inf else None for x in row] for row in values]
    known = [x for row in logs for x in row if x is not None]
    high = max(known, default=0.0)
    low = min([*known, high - 1.0])
    return [
        [0.0 if x is None else 0.1 + 0.9 * (x - low) / (high - low) for x in row] for row in logs
    ]
