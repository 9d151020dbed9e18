"""Where a KL comes from: both densities and the signed integrand p log(p / q)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..divergence.estimate import Estimate
from ..divergence.kl import kl
from ..messages import see
from .style import (
    FIRST,
    GREY,
    SECOND,
    SERIES,
    axes_or_new,
    finish,
    integer_ticks,
    legend,
    nats,
    plain,
)
from .univariate import (
    BARS,
    Window,
    check_univariate,
    integration_points,
    is_discrete,
    log_density,
    window_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The areas where the integrand is positive and where it is negative.
_SIGNS = (SERIES[2], SERIES[3])
#: Where it is infinite.
_INFINITE: dict[str, Any] = {
    "facecolor": "none", "edgecolor": GREY, "hatch": "xx", "lw": 0.0, "zorder": 0.5,
}  # fmt: skip
#: How far q is followed beyond p, in widths of p.
_BEYOND = 1.5


@dataclass(frozen=True)
class _Curves:
    """Both densities (or masses) and the integrand at some points; float64.

    Attributes:
        x: the points, ascending.
        p: density of p.
        q: density of q.
        integrand: p log(p / q), 0 where p is 0 and inf where q alone is.
    """

    x: Tensor
    p: Tensor
    q: Tensor
    integrand: Tensor

    @classmethod
    def at(
        cls, p: Distribution, q: Distribution, x: Tensor, slope: Tensor | float = 1.0
    ) -> _Curves:
        """The curves at points of an axis, along which x has the given slope."""
        log_p, log_q = log_density(p, x), log_density(q, x)
        none = log_p == -math.inf
        ratio = torch.where(none, 0.0, log_p) - torch.where(none, 0.0, log_q)
        there = log_p.exp() > 0  # the slope may have overflowed where nothing of p is left
        terms = torch.where(there, log_p.exp() * slope * ratio, 0.0)
        return cls(x, log_p.exp() * slope, log_q.exp() * slope, terms)


@dataclass(frozen=True)
class _Areas:
    """The areas of the integrand over all x, in nats.

    Attributes:
        positive: where p > q.
        negative: where p < q, as a positive number.
        outside: the share of both that lies outside of the picture; 0 if it is infinite.
    """

    positive: float
    negative: float
    outside: float


def kl_integrand(
    p: Distribution,
    q: Distribution,
    *,
    names: tuple[str, str] = ("p", "q"),
    xlim: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw p, q and p log(p / q), whose positive and negative areas add up to KL(p || q).

    Counts are drawn as bars. Where the integrand is larger or smaller than the densities by
    far, they are drawn times a power of ten, which the legend names.

    Args:
        p: a univariate distribution without batch dimensions.
        q: another one; both continuous or both discrete.
        names: how p and q are called in the picture.
        xlim: the range of x; by default nearly all of p's mass, and what of q's is near.
        ax: the axes to draw on; None makes a figure.

    Returns:
        The axes.

    Raises:
        NotImplementedError: there is no KL(p || q), or p or q cannot be sampled.
        TypeError: p or q is not a distribution.
        ValueError: p or q has a batch or an event shape, one is discrete and the other not, or
            `xlim` is not an interval.

    Example:
        >>> p, q = torch.distributions.Gamma(2.0, 1.0), torch.distributions.LogNormal(0.0, 1.0)
        >>> pyro_kl.plot.kl_integrand(p, q).figure.savefig("kl.png")  # doctest: +SKIP
    """
    check_univariate(p=p, q=q)
    if xlim is not None and not -math.inf < xlim[0] < xlim[1] < math.inf:
        raise ValueError(f"xlim must be an interval, got {xlim}" + see("option"))
    value = kl(p, q)
    window = window_of(p, q, _BEYOND) if xlim is None else Window(*xlim)
    areas = _areas(p, q, value, window)
    ax = axes_or_new(ax)
    draw = _draw_masses if is_discrete(p) else _draw_densities
    draw(ax, p, q, (plain(names[0]), plain(names[1])), window, areas)
    ax.axhline(0.0, color=GREY, lw=0.8)
    if areas.outside >= 0.015:
        ax.set_xlabel(f"{ax.get_xlabel()} ({areas.outside:.0%} of the areas is outside)")
    legend(ax, ncols=2, columnspacing=1.2)
    return finish(ax, _title(names, value))


def _title(names: tuple[str, str], value: Estimate) -> str:
    first, second = map(plain, names)
    if math.isinf(float(value)):
        return f"KL({first} || {second}) = inf"
    return f"KL({first} || {second}) = {nats(float(value))} nats ({value.method})"


def _areas(p: Distribution, q: Distribution, value: Estimate, window: Window) -> _Areas:
    """The two areas, whose difference is the KL; the negative one is integrated here."""
    x, weight = integration_points(p)
    terms = _Curves.at(p, q, x, weight).integrand
    terms = torch.where(terms.isfinite(), terms, 0.0)  # far out, a log density may overflow
    negative = float(terms.clamp(max=0.0).sum().abs())
    positive = float(value) + negative
    if math.isinf(positive):
        return _Areas(positive, negative, 0.0)
    outside = float(terms[~window.has(x)].abs().sum() / max(positive + negative, 1e-300))
    return _Areas(positive, negative, outside)


def _labels(names: tuple[str, str], areas: _Areas) -> tuple[str, str]:
    term = f"{names[0]} log({names[0]} / {names[1]})"
    negative = nats(areas.negative)
    if areas.negative < 1e-6 * areas.positive < math.inf:
        negative = "0.0000"
    return f"{term} > 0: {nats(areas.positive)} nats", f"{term} < 0: -{negative} nats"


def _factor(curves: _Curves, shown: Tensor) -> float:
    """A power of ten that brings the densities to the integrand's size, at the points shown."""
    largest = float(_among(curves.integrand, shown).abs().max())
    height = max(float(_among(density, shown).max()) for density in (curves.p, curves.q))
    if not 0 < largest or 1 / 8 < largest / height < 8:
        return 1.0
    return 10.0 ** round(math.log10(largest / height))


def _among(curve: Tensor, shown: Tensor) -> Tensor:
    """The finite values at the points shown, or all finite ones if there are none."""
    finite = curve.isfinite()
    return curve[finite & shown] if bool((finite & shown).any()) else curve[finite]


def _times(name: str, factor: float) -> str:
    return name if factor == 1 else f"{factor:g} × {name}"


def _draw_densities(
    ax: Axes,
    p: Distribution,
    q: Distribution,
    names: tuple[str, str],
    window: Window,
    areas: _Areas,
) -> None:
    curves = _Curves.at(p, q, *window.points(p, q))
    x, integrand = curves.x.numpy(), curves.integrand
    at_end = window.near_ends(curves.x, p, q)
    factor = _factor(curves, ~at_end)
    for name, how, density in ((names[0], FIRST, curves.p), (names[1], SECOND, curves.q)):
        ax.plot(x, _open(factor * density).numpy(), **how.line, label=_times(name, factor))
    for side, how, label in zip((1, -1), _SIGNS, _labels(names, areas), strict=True):
        part = torch.where(integrand * side > 0, integrand, 0.0)
        part = torch.where(part.isfinite(), part, 0.0)
        ax.fill_between(x, part.numpy(), 0.0, **how.area, label=label)
    absent = integrand == math.inf
    if absent.any():
        ax.fill_between(
            x, 0, 1, where=absent.numpy(), transform=ax.get_xaxis_transform(), **_INFINITE,
            label=f"{names[1]} = 0 and {names[0]} > 0: infinite",
        )  # fmt: skip
    ax.set_xlim(window.low, window.high)
    cut = _set_height(ax, [factor * curves.p, factor * curves.q, integrand], at_end)
    ax.set_xlabel("x")
    per = "log x" if window.logarithmic else "x"
    ax.set_ylabel(f"density; nats per unit of {per}{' (axis is cut)' if cut else ''}")
    if window.logarithmic:
        ax.set_xscale("log")


def _open(values: Tensor) -> Tensor:
    """A curve with gaps where it is infinite."""
    return torch.where(values.isfinite(), values, math.nan)


def _set_height(ax: Axes, curves: list[Tensor], at_end: Tensor) -> bool:
    """Set the vertical range; whether it cuts a curve that rises to a pole at an end."""
    highest, lowest = zip(*(_extremes(curve, at_end) for curve in curves), strict=True)
    low, high = min(lowest), max(highest)
    ax.set_ylim(1.12 * low - 0.02 * high, 1.35 * high)  # with room for the legend
    return any(
        bool((curve[curve < math.inf] > 1.35 * high).any() | (curve < 1.12 * low).any())
        for curve in curves
    )


def _extremes(curve: Tensor, at_end: Tensor) -> tuple[float, float]:
    """The largest and smallest value to show: near an end, at most twice those elsewhere."""
    inner, all_of_it = _among(curve, ~at_end), curve[curve.isfinite()]
    top, bottom = float(inner.max()), float(inner.min())
    return (
        min(float(all_of_it.max()), 2 * max(top, 0.0)),
        max(float(all_of_it.min()), 2 * min(bottom, 0.0)),
    )


def _draw_masses(
    ax: Axes,
    p: Distribution,
    q: Distribution,
    names: tuple[str, str],
    window: Window,
    areas: _Areas,
) -> None:
    atoms, step = window.atoms()
    curves = _Curves.at(p, q, atoms)
    x, few = atoms.numpy(), len(atoms) <= BARS
    factor = _factor(curves, atoms.isfinite())
    for name, how, mass in ((names[0], FIRST, curves.p), (names[1], SECOND, curves.q)):
        style = {**how.line, **({"marker": how.marker, "ms": 5, "lw": 1.0} if few else {})}
        ax.plot(x, (factor * mass).numpy(), **style, label=_times(name, factor))
    integrand = torch.where(curves.integrand.isfinite(), curves.integrand, 0.0)
    for side, how, label in zip((1, -1), _SIGNS, _labels(names, areas), strict=True):
        part = torch.where(integrand * side > 0, integrand, 0.0).numpy()
        if few:
            ax.bar(x, part, 0.8, **how.area, label=label)
        else:
            ax.fill_between(x, part, 0.0, step="mid", **how.area, label=label)
    absent = curves.x[curves.integrand == math.inf]
    if len(absent):
        ax.bar(
            absent.numpy(), 1.0, max(0.8, step), transform=ax.get_xaxis_transform(), **_INFINITE,
            label=f"{names[1]} = 0 and {names[0]} > 0: infinite",
        )  # fmt: skip
    ax.set_xlim(x[0] - 0.6, x[-1] + 0.6)
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, 1.25 * top)  # with room for the legend
    integer_ticks(ax)
    ax.set_xlabel("k")
    ax.set_ylabel("probability; nats")
