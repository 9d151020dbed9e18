"""The intervals of a regression's coefficients, with their KLs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..messages import see
from .style import FIRST, GREY, axes_or_new, finish, nats, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class _Posterior(Protocol):
    """The posterior of a regression of `pyro_kl.glm`."""

    def to_dicts(self) -> Sequence[Mapping[str, Any]]: ...


def coefficients(
    posterior: _Posterior, *, largest: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the posterior mean and the 95 % interval of each coefficient, and its KL to the prior.

    Args:
        posterior: of a regression of `pyro_kl.glm`.
        largest: draw so many coefficients only, those of the largest KL, in their own order.
        ax: the axes to draw on; None makes a figure.

    Returns:
        The axes.

    Raises:
        ValueError: `largest` is less than 1.
    """
    rows = list(posterior.to_dicts())
    count = len(rows) if largest is None else largest
    if count < 1:
        raise ValueError(
            f"at least one coefficient must be drawn, largest is {largest}" + see("option")
        )
    kept = sorted(sorted(range(len(rows)), key=lambda i: -rows[i]["kl"])[:count])
    shown = [rows[i] for i in kept]
    ax = axes_or_new(ax, 6.4, 1.4 + 0.26 * len(shown))
    place = range(len(shown))
    ax.axvline(0.0, color=GREY, lw=1.0)
    ax.hlines(
        place, [row["lower"] for row in shown], [row["upper"] for row in shown],
        color=FIRST.colour, lw=2,
    )  # fmt: skip
    ax.plot([row["mean"] for row in shown], place, color=FIRST.colour, ls="", marker="o", ms=5)
    ax.set_yticks(place, [plain(row["coefficient"]) for row in shown])
    ax.set_ylim(len(shown) - 0.4, -0.6)
    for i, row in zip(place, shown, strict=True):
        ax.annotate(
            nats(row["kl"]), (1.01, i), xycoords=ax.get_yaxis_transform(), va="center",
            fontsize="small",
        )  # fmt: skip
    ax.set_xlabel("coefficient: posterior mean and 95 % interval")
    left_out = "" if len(shown) == len(rows) else f", {len(shown)} of {len(rows)}"
    return finish(ax, f"Coefficients{left_out}; on the right: KL(posterior || prior), nats")
