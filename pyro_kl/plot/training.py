"""The KL of each site over a fit, with the ELBO."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from ..messages import see
from .style import TARGET, axes_or_new, draw_steps, finish, legend, nats, plain, series, set_height

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class TrainingHistory(Protocol):
    """What is drawn of a fit, such as a `pyro_kl.loggers.History`; all in nats.

    Attributes:
        steps: the steps that were recorded, ascending.
        elbo: the ELBO at each, with beta = 1, without free bits and capacity.
        log_likelihood: the expected log likelihood at each.
        kl: the sum of all KL(guide || prior) at each, unweighted.
        kls: the KL(guide || prior) of each site at each; nan where a step did not have the site.
    """

    @property
    def steps(self) -> Sequence[int]: ...
    @property
    def elbo(self) -> Sequence[float]: ...
    @property
    def log_likelihood(self) -> Sequence[float]: ...
    @property
    def kl(self) -> Sequence[float]: ...
    @property
    def kls(self) -> Mapping[str, Sequence[float]]: ...


def training(history: TrainingHistory, *, ax: Axes | None = None) -> Axes:
    """Draw the KL of each site over a fit, stacked to their sum, and the ELBO on the right.

    If a KL is negative, as a sampled one may be, the sites are lines instead of stacked areas.

    Args:
        history: of a fit; see `TrainingHistory`.
        ax: the axes to draw on; None makes a figure. The ELBO gets axes of its own on the right.

    Returns:
        The axes of the KLs.

    Raises:
        ValueError: the history has no steps, no sites, or lists of different lengths.
    """
    check_history(history)
    ax = axes_or_new(ax)
    from matplotlib.patheffects import withStroke

    steps, rows = list(history.steps), list(history.kls.values())
    labels = [f"KL of {plain(name)}" for name in history.kls]
    if all(value >= 0 for row in rows for value in row):  # not so for a nan
        _stack(ax, steps, rows, labels)
    else:
        for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
            ax.plot(steps, row, **series(i).line, label=label)
    ax.set_ylabel("KL(guide || prior), nats")
    right = ax.twinx()
    elbo = list(history.elbo)
    right.plot(
        steps, elbo, color=TARGET.colour, lw=1.8, label="ELBO (right axis)",
        path_effects=[withStroke(linewidth=4.0, foreground="white")],
    )  # fmt: skip
    right.set_ylabel("ELBO, nats")
    right.spines["top"].set_visible(False)
    draw_steps(ax, steps, set_height(right, steps, elbo, max(filter(math.isfinite, elbo))))
    of_sites, of_elbo = ax.get_legend_handles_labels(), right.get_legend_handles_labels()
    handles, names = of_sites[0] + of_elbo[0], of_sites[1] + of_elbo[1]
    legend(right, handles=handles, labels=names, loc="center right", fontsize="small")
    return finish(
        ax,
        f"KL(guide || prior) of each site: {nats(history.kl[-1])} nats after {steps[-1]:,} steps\n"
        f"ELBO = {nats(elbo[-1])} nats",
    )


def _stack(
    ax: Axes, steps: Sequence[int], rows: Sequence[Sequence[float]], labels: Sequence[str]
) -> None:
    below = [0.0] * len(steps)
    for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
        top = [a + b for a, b in zip(below, row, strict=True)]
        ax.fill_between(steps, below, top, **series(i).area, label=label)
        ax.plot(steps, top, color=series(i).colour, lw=1.0)
        below = top
    ax.set_ylim(bottom=0.0)


def check_history(history: TrainingHistory) -> None:
    """Check that a history has something to draw.

    Raises:
        ValueError: it has no steps, no sites, lists of different lengths, or no finite ELBO.
    """
    count = len(history.steps)
    if not count:
        raise ValueError(
            "the history has no steps: record some before they are drawn" + see("picture")
        )
    if not history.kls:
        raise ValueError("the history has no site with a KL" + see("picture"))
    lengths = {
        "elbo": len(history.elbo),
        "log_likelihood": len(history.log_likelihood),
        "kl": len(history.kl),
    }
    lengths |= {f"the KL of {site}": len(row) for site, row in history.kls.items()}
    wrong = {name: length for name, length in lengths.items() if length != count}
    if wrong:
        found = ", ".join(f"{length} of {name}" for name, length in wrong.items())
        raise ValueError(f"the history has {count} steps, but {found}" + see("picture"))
    if not any(map(math.isfinite, history.elbo)):
        raise ValueError(
            "the ELBO is infinite or not a number at every step of the history" + see("picture")
        )
