"""The two terms of the ELBO over a fit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .style import (
    FIRST,
    GREEN,
    SECOND,
    TARGET,
    axes_or_new,
    draw_steps,
    finish,
    legend,
    nats,
    set_height,
)
from .training import TrainingHistory, check_history

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def elbo_terms(
    history: TrainingHistory, *, optimum: float | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the expected log likelihood and the ELBO over a fit; the gap between them is the KL.

    Args:
        history: of a fit; see `TrainingHistory`.
        optimum: the ELBO that the fit should come to, nats, where it is known.
        ax: the axes to draw on; None makes a figure.

    Returns:
        The axes.

    Raises:
        ValueError: the history has no steps, no sites, or lists of different lengths.
    """
    check_history(history)
    ax = axes_or_new(ax)
    steps, likelihood, elbo = list(history.steps), history.log_likelihood, list(history.elbo)
    ax.plot(steps, likelihood, **FIRST.line, label="E[log likelihood]")
    ax.fill_between(
        steps, elbo, likelihood, facecolor="none", edgecolor=GREEN, hatch="///", lw=0.0,
        label="the gap is KL(guide || prior)",
    )  # fmt: skip
    ax.plot(steps, elbo, **SECOND.line, label="ELBO")
    tops = [*likelihood, *elbo]
    if optimum is not None:
        tops.append(optimum)
        ax.axhline(optimum, **TARGET.line, label=f"largest ELBO: {nats(optimum)}")
    top = max(filter(math.isfinite, tops))
    draw_steps(ax, steps, set_height(ax, steps, elbo, top, room=0.25))
    ax.set_ylabel("nats")
    legend(ax, loc="lower right", ncols=2, columnspacing=1.2)
    return finish(
        ax,
        f"ELBO = E[log likelihood] - KL(guide || prior)\n"
        f"{nats(elbo[-1])} = {nats(likelihood[-1])} - {nats(history.kl[-1])} nats "
        f"after {steps[-1]:,} steps",
    )
