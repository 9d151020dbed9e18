"""Pictures of KL divergences. Needs matplotlib, imported only when a picture is drawn.

Every function returns a new `matplotlib.figure.Figure`, made without ``pyplot``: no window opens,
no backend is chosen and no global state changes. Save it with ``figure.savefig("picture.png")``.
The colours are those of Okabe and Ito (2008), which are distinct under colour blindness.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.distributions import Distribution

from .divergence.kl import kl
from .elbo.report import KLReport, SiteReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["coefficients", "convergence", "elbo_terms", "prior_posterior", "site_kls"]

_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#6B6B6B"
_DPI = 150


def elbo_terms(
    step: Sequence[int],
    log_likelihood: Sequence[float],
    kl: Sequence[float],
    beta: float = 1.0,
    title: str = "The two terms of the ELBO over the fit",
    optimum: float | None = None,
) -> Figure:
    """Draw E_q[log likelihood], the KL and the ELBO over the steps of a fit.

    The two terms get a panel each, because early in a fit the likelihood is larger by orders
    of magnitude; the vertical axes show the last nine tenths of the fit in full.

    Args:
        step: steps done at each record.
        log_likelihood: expected log likelihood at each record, nats.
        kl: KL(q || prior) at each record, nats.
        beta: weight of the KL in the ELBO.
        title: title of the picture.
        optimum: the largest ELBO there is, nats, where it is known.

    Returns:
        The figure.
    """
    figure = _figure(8.0, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True)
    elbo = [a - beta * b for a, b in zip(log_likelihood, kl, strict=True)]
    upper.plot(step, log_likelihood, color=_BLUE, lw=2, label="E$_q$[log likelihood]")
    name = "ELBO" if beta == 1 else f"ELBO (beta = {beta:g})"
    upper.plot(step, elbo, color=_ORANGE, lw=2, ls="--", label=name)
    lower.plot(step, kl, color=_GREEN, lw=2, label="KL(q || prior)")
    _zoom(upper, step, [*log_likelihood, *elbo])
    if optimum is not None:
        _draw_optimum(upper, optimum)
    for axes in (upper, lower):
        axes.set_ylabel("nats")
        axes.legend(
            loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2, ncols=2, frameon=False
        )
        _tidy(axes)
    weight = "" if beta == 1 else f"{beta:g} × "
    upper.set_title(
        f"{title}\n{name} {elbo[-1]:.2f} = {log_likelihood[-1]:.2f} - {weight}{kl[-1]:.2f} nats "
        f"after {step[-1]} steps",
        loc="left",
        fontsize=11,
    )
    lower.set_ylim(bottom=0.0)
    lower.set_xlim(step[0], max(step[-1], 1))
    lower.set_xlabel("gradient steps")
    return figure


def coefficients(
    names: Sequence[str],
    mean: Sequence[float],
    lower: Sequence[float],
    upper: Sequence[float],
    title: str = "Posterior means and 95 % intervals",
) -> Figure:
    """Draw the interval of each coefficient, the first one at the top.

    Args:
        names: of the coefficients.
        mean: posterior means.
        lower: where the intervals begin.
        upper: where they end.
        title: title of the picture.

    Returns:
        The figure.
    """
    figure = _figure(7.0, 1.4 + 0.24 * len(names))
    axes = figure.subplots()
    place = range(len(names))
    axes.axvline(0.0, color=_GREY, lw=1.0)
    axes.hlines(place, lower, upper, color=_BLUE, lw=2)
    axes.plot(mean, place, color=_BLUE, ls="", marker="o", ms=5)
    axes.set_yticks(place, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("coefficient")
    axes.set_title(title, loc="left", fontsize=12)
    _tidy(axes)
    return figure


def prior_posterior(
    names: Sequence[str],
    posteriors: Sequence[Distribution],
    priors: Sequence[Distribution],
    kls: Sequence[float],
    title: str = "Prior against posterior",
) -> Figure:
    """Draw the densities of univariate priors and posteriors, a panel for each pair.

    Args:
        names: one name per pair.
        posteriors: univariate distributions with a finite mean and variance, scalar batch.
        priors: the same.
        kls: KL(posterior || prior) of each pair, nats.
        title: title of the picture.

    Returns:
        The figure.

    Raises:
        ValueError: there is no pair.
    """
    if not names:
        raise ValueError("prior_posterior needs at least one pair to draw")
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = _figure(2.9 * columns + 0.4, 2.2 * rows + 1.0)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for i, name in enumerate(names):
        _densities(grid[i], name, posteriors[i], priors[i], kls[i])
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    figure.supxlabel("coefficient", fontsize=10)
    figure.supylabel("probability density", fontsize=10)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    return figure


def _densities(
    axes: Axes, name: str, posterior: Distribution, prior: Distribution, value: float
) -> None:
    """Draw one pair of densities and their KL."""
    low = min(_edge(posterior, -4.0), _edge(prior, -3.0))
    high = max(_edge(posterior, 4.0), _edge(prior, 3.0))
    x = torch.linspace(low, high, 400, dtype=torch.float64)
    for density, colour, fill, label in (
        (prior, _GREY, 0.12, "prior"),
        (posterior, _BLUE, 0.25, "posterior"),
    ):
        y = density.log_prob(x).exp().detach()
        style = "--" if label == "prior" else "-"
        axes.plot(x, y, color=colour, lw=1.8, ls=style, label=label)
        axes.fill_between(x, y, color=colour, alpha=fill, lw=0)
    axes.axvline(0.0, color=_GREY, lw=0.6)
    axes.set_title(f"{name}\nKL {value:.2f} nats", fontsize=10)
    axes.set_ylim(bottom=0.0)
    axes.set_xlim(low, high)
    _tidy(axes)


def _edge(distribution: Distribution, sds: float) -> float:
    return float((distribution.mean + sds * distribution.stddev).detach())


#: Exact and sampled KLs in three colours.
_KINDS = {"exact": _BLUE, "exact given other sites": _GREEN, "sampled": _ORANGE}


def site_kls(reports: Mapping[str, KLReport], title: str = "KL by site") -> Figure:
    """Draw the KL of every site, a panel for each report, coloured by exact or sampled.

    Args:
        reports: name -> report of an ELBO, as `TraceKL_ELBO.evaluate` returns it.
        title: title of the picture.

    Returns:
        The figure.

    Raises:
        ValueError: there is no report.
    """
    if not reports:
        raise ValueError("site_kls needs at least one report to draw")
    count = max(len(report.kls) for report in reports.values())
    figure = _figure(8.0, (0.34 * count + 0.7) * len(reports) + 0.6)
    grid = figure.subplots(len(reports), 1, sharex=True, squeeze=False).flatten()
    for axes, (name, report) in zip(grid, reports.items(), strict=True):
        rows = [row for row in report if row.kind != "likelihood"]
        for place, row in enumerate(reversed(rows)):
            error = 0.0 if math.isnan(row.standard_error) else row.standard_error
            axes.barh(place, row.nats, xerr=2 * error, color=_KINDS[_kind(row)], capsize=3)
        axes.set_yticks(range(len(rows)), [row.site for row in reversed(rows)])
        axes.set_title(f"{name}: ELBO {report.elbo:.2f} nats", loc="left", fontsize=10)
        _tidy(axes)
    grid[-1].set_xlabel("KL to the prior, nats; bars of error are two standard errors")
    used = {_kind(r) for report in reports.values() for r in report if r.kind != "likelihood"}
    marks = [
        grid[0].barh(0, 0, color=colour, label=k) for k, colour in _KINDS.items() if k in used
    ]
    figure.legend(handles=marks, loc="outside upper right", ncols=3, frameon=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def _kind(row: SiteReport) -> str:
    """Exact, exact given others, or sampled."""
    if not row.exact:
        return "sampled"
    return "exact" if row.standard_error == 0 else "exact given other sites"


def convergence(
    p: Distribution,
    q: Distribution,
    num_samples: int = 100_000,
    title: str = "Sampled KL converging on the exact one",
) -> Figure:
    """Draw the Monte Carlo KL(p || q) against the number of samples, and the exact value.

    The line is the running mean of ``log p(x) - log q(x)`` over one sequence of draws from p,
    the band two standard errors of that mean. Draws come from torch's global random state, so
    ``pyro.set_rng_seed`` makes the picture reproducible.

    Args:
        p: distribution to sample from, scalar batch.
        q: the other distribution.
        num_samples: number of draws, at least 100.
        title: title of the picture.

    Returns:
        The figure.

    Raises:
        ValueError: fewer than 100 draws, or distributions with a batch.
    """
    if num_samples < 100:
        raise ValueError(f"num_samples must be at least 100, got {num_samples}")
    count, mean, error = _running_mean(p, q, num_samples)
    figure = _figure(8.0, 4.5)
    axes = figure.subplots()
    low, high = mean - 2 * error, mean + 2 * error
    label = "± 2 standard errors"
    axes.fill_between(count, low, high, color=_BLUE, alpha=0.25, lw=0, label=label)
    axes.plot(count, mean, color=_BLUE, lw=1.8, label="Monte Carlo")
    reference = _reference(p, q)
    if reference is not None:
        value, method = reference
        label = f"{method}: {value:.4f} nats"
        axes.axhline(value, color=_ORANGE, lw=1.8, ls="--", label=label)
    # the exact line at half height leaves room for the legend in the upper corner
    middle = float(mean[-1]) if reference is None else reference[0]
    reach = 1.05 * float(max(abs(high - middle).max(), abs(low - middle).max()))
    if math.isfinite(reach) and reach > 0:
        axes.set_ylim(middle - reach, middle + reach)
    axes.set_xscale("log")
    axes.set_xlim(int(count[0]), int(count[-1]))
    axes.set_xlabel("number of samples")
    axes.set_ylabel("KL(p || q), nats")
    axes.set_title(title, loc="left", fontsize=12)
    axes.legend(loc="upper right", frameon=False)
    _tidy(axes)
    return figure


@torch.no_grad()
def _running_mean(p: Distribution, q: Distribution, num_samples: int) -> tuple[Any, Any, Any]:
    """Return counts, running means and their standard errors, log-spaced from 10 draws on."""
    x = p.sample(torch.Size((num_samples,)))
    ratio = (p.log_prob(x) - q.log_prob(x)).double()
    if ratio.dim() != 1:
        raise ValueError(
            f"convergence draws one KL, but p and q have batch shape {tuple(ratio.shape[1:])}; "
            "pick one element or call .to_event() on both"
        )
    # around the overall mean, so that the variance keeps its digits
    centre = ratio.mean()
    ratio = ratio - centre
    exponents = torch.linspace(1.0, math.log10(num_samples), 300, dtype=torch.float64)
    count = torch.unique((10.0**exponents).round().long()).clamp(max=num_samples)
    first = ratio.cumsum(0)[count - 1] / count
    second = ratio.square().cumsum(0)[count - 1] / count
    error = ((second - first.square()).clamp(min=0.0) / (count - 1)).sqrt()
    return count.numpy(), (first + centre).numpy(), error.numpy()


def _reference(p: Distribution, q: Distribution) -> tuple[float, str] | None:
    """Return the exact KL and its method, or None where there is no formula."""
    try:
        estimate = kl(p, q)
    except NotImplementedError:
        return None
    return float(torch.as_tensor(estimate.value).detach()), estimate.method


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install matplotlib") from None
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _draw_optimum(axes: Axes, optimum: float) -> None:
    """Draw the largest ELBO there is as a line with its name."""
    low, high = axes.get_ylim()
    margin = 0.1 * (high - low)
    axes.set_ylim(min(low, optimum - margin), max(high, optimum + margin))
    axes.axhline(optimum, color=_GREY, lw=1.4, ls=":")
    axes.annotate(
        f"largest ELBO {optimum:.2f}",
        (0.995, optimum),
        xycoords=axes.get_yaxis_transform(),
        ha="right",
        va="bottom",
        color=_GREY,
    )


def _zoom(axes: Axes, step: Sequence[int], values: Sequence[float]) -> None:
    """Set the vertical range by the values after the first tenth of the steps."""
    late = [
        value
        for at, value in zip([*step, *step], values, strict=True)
        if at >= 0.1 * step[-1] and math.isfinite(value)
    ]
    low, high = min(late), max(late)
    margin = 0.1 * max(high - low, 1e-3 * max(abs(high), 1.0))
    axes.set_ylim(low - margin, high + margin)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#DDDDDD", lw=0.6)
    axes.set_axisbelow(True)
