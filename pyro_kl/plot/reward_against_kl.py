"""The reward of policies against their KL to the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..messages import see
from .style import TARGET, axes_or_new, finish, legend, plain, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def reward_against_kl(
    kl: Sequence[float],
    reward: Sequence[float],
    *,
    labels: Sequence[str] | None = None,
    optimum: tuple[Sequence[float], Sequence[float]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the expected reward of policies against KL(policy || reference).

    Args:
        kl: KL(policy || reference) of each policy, nats.
        reward: E[R] of each policy.
        labels: how each policy is called in the legend; None draws them all alike.
        optimum: KLs and rewards of the optimal policies, a curve that no policy can be above, as
            `pyro_kl.policy.optimum` gives them.
        ax: the axes to draw on; None makes a figure.

    Returns:
        The axes.

    Raises:
        ValueError: there is nothing to draw, or the lengths differ.
    """
    if len(kl) != len(reward):
        raise ValueError(
            f"one KL for each reward: {len(kl)} KLs and {len(reward)} rewards" + see("picture")
        )
    if not len(kl) and optimum is None:
        raise ValueError(
            "reward_against_kl needs at least one policy, or the optimum" + see("picture")
        )
    if labels is not None and len(labels) != len(kl):
        raise ValueError(
            f"one label for each policy: {len(labels)} labels, {len(kl)} policies" + see("picture")
        )
    if optimum is not None and len(optimum[0]) != len(optimum[1]):
        raise ValueError(
            f"the optimum has {len(optimum[0])} KLs and {len(optimum[1])} rewards" + see("picture")
        )
    ax = axes_or_new(ax)
    if optimum is not None:
        ax.plot(*optimum, **TARGET.line, label="optimal policies")
    if labels is None and len(kl):
        ax.plot(kl, reward, **{**series(0).line, "ls": ""}, marker="o", ms=7, label="policies")
    for i, label in enumerate(labels or ()):
        how = series(i)
        ax.plot(kl[i], reward[i], color=how.colour, ls="", marker=how.marker, ms=8,
                label=plain(label))  # fmt: skip
    ax.set_xlabel("KL(policy || reference), nats")
    ax.set_ylabel("expected reward")
    legend(ax, loc="lower right")
    return finish(ax, "Expected reward against KL(policy || reference)")
