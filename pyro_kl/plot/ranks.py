"""Whether the ranks of a calibration are uniform: their distribution function and its band."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..calibration.calibration import LEVEL, Calibration
from ..calibration.uniformity import band, counts_at_most
from .style import BLACK, FIRST, GREY, SECOND, axes_or_new, finish, legend, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: So many elements of a site are drawn at most, those next to the worst left out.
_LINES = 50


def ranks(calibration: Calibration, site: str, *, ax: Axes | None = None) -> Axes:
    """Draw how far the ranks of a latent are from uniform, and how far uniform ranks are.

    The line is the share of simulations whose rank is at most r, minus the share that uniform
    ranks have. A line that leaves the band at any r is one of a fit that is not calibrated: all
    of a uniform line is in the band with a probability of 95 % (for all elements of the site
    together). A narrow guide has a line that first rises and then falls below 0; a wide one the
    reverse. Of a guide whose draws are too large the line is above 0, of one whose draws are too
    small it is below.

    Args:
        calibration: as `pyro_kl.calibrate` returns it.
        site: the name of a latent.
        ax: the axes to draw on; None makes a figure.

    Returns:
        The axes.

    Raises:
        KeyError: there is no such latent.

    Reference:
        Säilynoja, Bürkner & Vehtari (2022), "Graphical test for discrete uniformity", fig. 4.
    """
    row, count, draws = calibration[site], calibration.num_simulations, calibration.num_draws
    found = np.asarray(row.ranks)
    elements = found.shape[1]
    expected = np.arange(1, draws + 2) / (draws + 1)
    share = np.arange(draws + 1) / draws
    off = counts_at_most(found, draws) / count - expected[:, None]
    low, high = band(count, draws, 1 - LEVEL / elements)
    ax = axes_or_new(ax)
    least, most = (np.append(side / count, 1.0) - expected for side in (low, high))
    ax.fill_between(
        share, least, most, step="mid", color=GREY, alpha=0.25, lw=0.0, label="uniform ranks, 95 %"
    )
    for side in (least, most):  # the edge of the band stays visible where it is printed in grey
        ax.step(share, side, where="mid", color=GREY, lw=0.8)
    worst = int(np.ravel_multi_index(row.worst, row.shape)) if row.shape else 0
    others = [i for i in range(elements) if i != worst][:_LINES]
    for i in others:
        label = f"other elements{_of(len(others), elements - 1)}" if i == others[0] else None
        ax.step(share, off[:, i], where="mid", color=SECOND.colour, lw=0.9, alpha=0.7, label=label)
    name = plain(site) + (f"[{','.join(map(str, row.worst))}] (worst)" if row.worst else "")
    ax.step(share, off[:, worst], where="mid", **FIRST.line, label=name)
    ax.axhline(0.0, color=BLACK, lw=0.8)
    ax.set_xlim(0.0, 1.0)
    ax.set_xlabel(f"rank / {draws:,}, of {count:,} simulations")
    ax.set_ylabel("distribution function minus uniform")
    low_end, high_end = ax.get_ylim()
    ax.set_ylim(low_end, high_end + 0.14 * (high_end - low_end))  # room for the legend
    legend(ax, loc="upper center", ncols=3, columnspacing=1.2)
    return finish(ax, f"Ranks of {plain(site)}: {row.verdict}, p-value {row.p_value:.2g}")


def _of(shown: int, there: int) -> str:
    return "" if shown == there else f" ({shown} of {there:,})"
