"""The tail of a guide's importance weights, with its fitted generalised Pareto distribution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..diagnosis.diagnosis import Diagnosis
from .style import FIRST, SECOND, TARGET, axes_or_new, finish, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The fitted tail is followed to where so many draws are expected.
_BEYOND = 0.1
#: Weights whose ratio is below this have no tail to speak of.
_EQUAL = 1.001


def weights_tail(diagnosis: Diagnosis, *, ax: Axes | None = None) -> Axes:
    """Draw how often the importance weights of a guide are large, and how often by the fit.

    The axes are logarithmic: a tail of shape k comes to a slope of -1/k. The flatter it is, the
    more a mean of weights rests on a few draws. The dotted line is the flattest tail that the
    number of draws suffices for.

    Args:
        diagnosis: as `pyro_kl.diagnose` returns it.
        ax: the axes to draw on; None makes a figure.

    Returns:
        The axes.

    Reference:
        Vehtari, Simpson, Gelman, Yao & Gabry (2024), "Pareto smoothed importance sampling".
    """
    tail, draws, limit = diagnosis.largest_weights, diagnosis.num_samples, diagnosis.khat_threshold
    # where all weights are equal none is in the tail, and one of the mean's size stands for them
    weights = tail.log_weights.exp().numpy() if len(tail.log_weights) else np.ones(1)
    count = len(weights)
    larger = (count - np.arange(count) - 0.5) / draws
    shares = np.geomspace(count / draws, _BEYOND / draws, 200)
    ax = axes_or_new(ax)
    cut = math.exp(tail.log_cut)
    equal = weights[-1] <= _EQUAL * weights[0]
    if math.isfinite(tail.scale) and not equal:
        fitted = cut + _excess(shares * draws / count, tail.khat, tail.scale)
        flattest = cut + _excess(shares * draws / count, limit, tail.scale)
        ax.plot(flattest, shares, **TARGET.line, label=f"k-hat {limit:.2f}, the limit")
        ax.plot(fitted, shares, **SECOND.line, label=f"fitted tail, k-hat {tail.khat:.2f}")
    ax.plot(
        weights, larger, ls="", marker=FIRST.marker, ms=4, color=FIRST.colour, mfc="none",
        label=f"the {count:,} largest of {draws:,} weights",
    )  # fmt: skip
    ax.set_xscale("log")
    if equal:
        ax.set_xlim(0.5, 2.0)
    else:
        ax.set_xlim(0.9 * max(cut, 1e-3 * weights[0]), 3 * weights[-1])
    ax.set_yscale("log")
    ax.set_xlabel("weight / mean weight")
    ax.set_ylabel("share of draws with a larger weight")
    legend(ax)
    return finish(ax, f"Importance weights: {_words(tail.khat, limit, equal)}")


def _excess(share: npt.NDArray[np.float64], shape: float, scale: float) -> npt.NDArray[np.float64]:
    """What a share of the excesses over the cut is larger than."""
    if abs(shape) < 1e-9:
        return -scale * np.log(share)
    return scale * np.expm1(-shape * np.log(share)) / shape


def _words(khat: float, limit: float, equal: bool) -> str:
    if equal:
        return "all are nearly equal"
    if not math.isfinite(khat):
        return "too few draws to fit a tail"
    if khat >= limit:
        return f"k-hat {khat:.2f}, too heavy a tail to know their mean"
    if khat >= 0.5:
        return f"k-hat {khat:.2f}, their variance is infinite"
    return f"k-hat {khat:.2f}, their variance is finite"
