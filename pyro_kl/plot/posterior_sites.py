"""Prior, guide and importance-corrected posterior of one element of a latent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..diagnosis.diagnosis import Diagnosis, SiteDiagnosis
from ..diagnosis.histograms import Histograms
from ..messages import see
from .style import FIRST, SECOND, SERIES, Series, axes_or_new, finish, legend, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: So many times each bin is averaged with its neighbours. The prior has fewer draws.
_PASSES = {"prior": 8, "guide": 2, "posterior": 2}

_STYLES = {"prior": SECOND, "guide": SERIES[2], "posterior": FIRST}


def posterior_sites(
    diagnosis: Diagnosis,
    site: str,
    index: int | tuple[int, ...] = (),
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw the densities of prior, guide and posterior of one element of a latent.

    That of the posterior is by importance weights of the guide's draws. All three are smoothed
    histograms of draws. Means and sds are in the title.

    Args:
        diagnosis: as `pyro_kl.diagnose` returns it.
        site: the name of a latent.
        index: of one of its elements.
        ax: the axes to draw on; None makes a figure.

    Returns:
        The axes.

    Raises:
        KeyError: there is no such latent.
        ValueError: there is no such element, or no density of it: the latent is discrete, or the
            model has thousands of elements.
    """
    row = diagnosis[site]
    place, shape = (index if isinstance(index, tuple) else (index,)), tuple(row.guide_mean.shape)
    inside = all(-n <= i < n for i, n in zip(place, shape, strict=False))
    if len(place) != len(shape) or not inside:
        raise ValueError(
            f"{site} has shape {shape}: index has to be that of one element, and is {index}"
            + see("picture")
        )
    if row.histograms is None:
        raise ValueError(
            f"the diagnosis has no densities of {site}: it is discrete, or the model has "
            "thousands of elements" + see("picture")
        )
    centres, curves = _curves(row.histograms, place)
    ax = axes_or_new(ax, 5.6, 3.6)
    for label, density in curves.items():
        _draw(ax, centres, density, _STYLES[label], label)
    if len(centres) > 1:
        ax.set_xlim(float(centres[0]), float(centres[-1]))
    ax.set_ylim(0.0, 1.25 * ax.get_ylim()[1])  # room for the legend
    name = plain(site) + (f"[{','.join(map(str, place))}]" if place else "")
    ax.set_xlabel(name)
    ax.set_ylabel("density")
    legend(ax, loc="upper center", ncols=3, columnspacing=1.0)
    return finish(ax, _title(name, row, place))


def _curves(histograms: Histograms, place: tuple[int, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """The centres of the bins, and the density of each distribution there.

    Where the bins at an end are empty in all of them a support ends. These are left out, and so is
    the next one, which the support's end cuts.
    """
    edges = histograms.edges[place]
    curves = {name: getattr(histograms, name)[place] for name in _PASSES}
    full = torch.stack([x.nan_to_num() for x in curves.values()]).sum(0) > 0
    some = full.nonzero()[:, 0]
    first, last = int(some[0]), int(some[-1])
    if last - first > 2:
        first, last = first + (first > 0), last - (last < len(full) - 1)
    inside = slice(first, last + 1)
    centres = ((edges[1:] + edges[:-1]) / 2)[inside]
    return centres, {
        name: _smooth(density[inside], _PASSES[name]) for name, density in curves.items()
    }


def _smooth(density: Tensor, passes: int) -> Tensor:
    """Averages of each bin with its neighbours; the bins at the ends have one."""
    for _ in range(passes):
        padded = torch.cat([density[:1], density, density[-1:]])
        density = (padded[:-2] + 2 * density + padded[2:]) / 4
    return density


def _draw(ax: Axes, centres: Tensor, density: Tensor, how: Series, label: str) -> None:
    if density.isnan().any():
        ax.plot([], [], **how.line, label=f"{label}: not known")
        return
    ax.plot(centres.numpy(), density.numpy(), **how.line, label=label)
    ax.fill_between(centres.numpy(), density.numpy(), color=how.colour, alpha=0.12, lw=0.0)


def _title(name: str, row: SiteDiagnosis, place: tuple[int, ...]) -> str:
    """Mean and sd by the guide, and those of the posterior where they are known."""
    guide = f"guide {float(row.guide_mean[place]):.3g} ± {float(row.guide_sd[place]):.2g}"
    if bool(row.mean[place].isnan()):
        return f"{name}, mean ± sd: {guide}"
    posterior = f"posterior {float(row.mean[place]):.3g} ± {float(row.sd[place]):.2g}"
    return f"{name}, mean ± sd: {guide}, {posterior}"
