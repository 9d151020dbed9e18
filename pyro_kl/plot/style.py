"""The one style of all pictures: colours, lines, markers, hatches, titles and grids.

The colours are those of Okabe and Ito (2008), which people with any kind of colour blindness tell
apart. Several of them have the same grey, so that no two series differ by colour alone: lines also
differ in their dashes or markers, and areas in their hatches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..messages import see

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, GREY = "#E69F00", "#56B4E9", "#000000", "#6B6B6B"


@dataclass(frozen=True)
class Series:
    """How one series is drawn.

    Attributes:
        colour: of its line or area.
        dashes: matplotlib's line style.
        marker: of its points.
        hatch: of its area.
    """

    colour: str
    dashes: Any
    marker: str
    hatch: str

    @property
    def line(self) -> dict[str, Any]:
        """Options of a line."""
        return {"color": self.colour, "ls": self.dashes, "lw": 1.8}

    @property
    def area(self) -> dict[str, Any]:
        """Options of a filled and hatched area or bar."""
        from matplotlib.colors import to_rgba

        return {
            "facecolor": to_rgba(self.colour, 0.3),
            "edgecolor": self.colour,
            "hatch": self.hatch,
            "lw": 0.0,
        }


#: What is compared (p, the posterior, the value), and what it is compared with (q, the prior).
FIRST = Series(BLUE, "-", "o", "///")
SECOND = Series(VERMILLION, "--", "s", "\\\\\\")
#: An exact value, an optimum: what the other series should come to.
TARGET = Series(BLACK, ":", "D", "")
#: Any number of series, each unlike the others in grey too.
SERIES = (
    FIRST,
    SECOND,
    Series(GREEN, "-.", "^", "..."),
    Series(PURPLE, (0, (5, 1, 1, 1, 1, 1)), "v", "xxx"),
    Series(ORANGE, (0, (8, 2)), "P", "---"),
    Series(SKY, (0, (1, 1)), "X", "|||"),
    Series(BLACK, (0, (3, 3)), "*", "+++"),
    Series(GREY, (0, (1, 3)), "d", "ooo"),
)


def series(number: int) -> Series:
    """The series of a number; they repeat after the last one."""
    return SERIES[number % len(SERIES)]


def axes_or_new(ax: Axes | None, width: float = 6.4, height: float = 4.0) -> Axes:
    """The given axes, or those of a new figure of so many inches.

    Raises:
        ImportError: matplotlib is missing.
    """
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError(
            "pictures need matplotlib: pip install 'pyro-kl[plot]', or pip install matplotlib"
            + see("missing-library")
        ) from None
    return pyplot.subplots(figsize=(width, height), layout="constrained")[1]


def finish(ax: Axes, title: str, grid: Literal["both", "x", "y"] | None = "both") -> Axes:
    """Write the title, remove two sides of the frame, and draw a light grid behind the data."""
    ax.set_title(title, loc="left", fontsize="medium")
    ax.spines[["top", "right"]].set_visible(False)
    if grid:
        ax.grid(axis=grid, color="#DDDDDD", lw=0.6)
    ax.set_axisbelow(True)
    return ax


def integer_ticks(ax: Axes) -> None:
    """Put the marks of the horizontal axis at integers."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def legend(ax: Axes, **options: Any) -> None:
    """A legend on a nearly opaque ground, so that lines behind it do not hide its text."""
    ax.legend(
        **{"frameon": True, "edgecolor": "none", "framealpha": 0.8, "handlelength": 2.6, **options}
    )


def plain(text: object) -> str:
    """A name of the user's on one line, and without matplotlib's mathematics between dollars."""
    return " ".join(str(text).split()).replace("$", r"\$")


def nats(value: float) -> str:
    """A number of nats with four digits."""
    return f"{value:.4g}"


def draw_steps(ax: Axes, steps: Sequence[int], note: str = "") -> None:
    """The horizontal axis of a fit, with a note on what the picture leaves out."""
    ax.set_xlim(steps[0], max(steps[-1], steps[0] + 1))
    integer_ticks(ax)
    ax.set_xlabel(f"step ({note})" if note else "step")


def set_height(
    ax: Axes, steps: Sequence[int], elbo: Sequence[float], top: float, room: float = 0.0
) -> str:
    """Set the vertical range by the ELBO after a tenth of the steps; say what it leaves out.

    Early in a fit the ELBO is lower by orders of magnitude, and would leave a flat line of all
    that follows. `room` is left below for a legend, as a share of the range.
    """
    finite = [(x, y) for x, y in zip(steps, elbo, strict=True) if math.isfinite(y)]
    start = steps[0] + 0.1 * (steps[-1] - steps[0])
    low = min([y for x, y in finite if x >= start] or [y for _, y in finite])
    margin = 0.08 * max(top - low, 1e-3 * max(abs(top), 1.0))
    bottom = low - margin - room * (top - low)
    ax.set_ylim(bottom, top + margin)
    if min(y for _, y in finite) >= bottom:
        return ""
    return f"the ELBO begins at {nats(finite[0][1])} nats, below the axis"
