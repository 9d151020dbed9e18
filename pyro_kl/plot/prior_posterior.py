"""A prior and a posterior in one panel, with the KL between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.distributions import Distribution

from ..divergence.estimate import Estimate
from ..divergence.kl import kl as kl_of
from .style import FIRST, SECOND, Series, axes_or_new, finish, integer_ticks, legend, nats, plain
from .univariate import BARS, Window, check_univariate, is_discrete, log_density, window_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: How far the prior is followed beyond the posterior, in widths of the posterior.
_BEYOND = 10.0


def prior_posterior(
    posterior: Distribution,
    prior: Distribution,
    *,
    kl: float | Estimate | None = None,
    name: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw the densities of a posterior and its prior, with KL(posterior || prior) in the title.

    Args:
        posterior: a univariate distribution without batch dimensions.
        prior: another one; both continuous or both discrete.
        kl: KL(posterior || prior) in nats; None computes it by `pyro_kl.kl`.
        name: of the parameter; it is the label of the horizontal axis.
        ax: the axes to draw on; None makes a figure.

    Returns:
        The axes.

    Raises:
        NotImplementedError: `kl` is None, and there is no KL(posterior || prior); or one of them
            cannot be sampled.
        TypeError: one of them is not a distribution.
        ValueError: one of them has a batch or an event shape, or one is discrete and the other
            not.

    Example:
        >>> prior = torch.distributions.Beta(1.0, 1.0)
        >>> posterior = torch.distributions.Beta(9.0, 3.0)
        >>> ax = pyro_kl.plot.prior_posterior(posterior, prior, name="coin")  # doctest: +SKIP
    """
    check_univariate(posterior=posterior, prior=prior)
    window = window_of(posterior, prior, _BEYOND)
    value = kl_of(posterior, prior) if kl is None else kl
    ax = axes_or_new(ax, 4.8, 3.4)
    for distribution, how, label in ((prior, SECOND, "prior"), (posterior, FIRST, "posterior")):
        _draw(ax, distribution, window, how, label)
    ax.set_ylim(0.0, 1.2 * ax.get_ylim()[1])  # room for the legend
    ax.set_xlabel(plain(name) or ("k" if is_discrete(prior) else "x"))
    ax.set_ylabel("probability" if is_discrete(prior) else "density")
    if window.logarithmic:
        ax.set_xscale("log")
        ax.set_ylabel("density of the logarithm")
    legend(ax, loc="upper right", ncols=2, columnspacing=1.0)
    return finish(ax, f"KL(posterior || prior) = {nats(float(value))} nats")


def _draw(ax: Axes, distribution: Distribution, window: Window, how: Series, label: str) -> None:
    if is_discrete(distribution):
        k, _ = window.atoms()
        mass = log_density(distribution, k).exp()
        if len(k) <= BARS:
            shift = 0.2 if label == "posterior" else -0.2  # side by side
            ax.bar((k + shift).numpy(), mass.numpy(), 0.4, **how.area, label=label)
        else:
            ax.plot(k.numpy(), mass.numpy(), **how.line, label=label)
            ax.fill_between(k.numpy(), mass.numpy(), color=how.colour, alpha=0.2, lw=0.0)
        integer_ticks(ax)
        return
    x, slope = window.points(distribution)
    density = slope * log_density(distribution, x).exp()
    density = torch.where(density.isfinite(), density, torch.nan)
    ax.plot(x.numpy(), density.numpy(), **how.line, label=label)
    ax.fill_between(x.numpy(), density.numpy(), color=how.colour, alpha=0.2, lw=0.0)
    ax.set_xlim(window.low, window.high)
