"""The Monte Carlo KL over the number of samples, and the exact one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..divergence.draws import draw
from ..divergence.estimate import Estimate
from ..divergence.kl import kl
from ..messages import see
from ..wrappers.log_prob import log_prob_anywhere
from .style import FIRST, SECOND, axes_or_new, finish, legend, nats, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The mean of fewer samples than this decides nothing about the vertical range.
_SETTLED = 30


def convergence(
    p: Distribution,
    q: Distribution,
    *,
    num_samples: int = 100_000,
    names: tuple[str, str] = ("p", "q"),
    ax: Axes | None = None,
) -> Axes:
    """Draw the Monte Carlo estimate of KL(p || q) over the number of samples.

    The line is the running mean of ``log p(x) - log q(x)`` over one sequence of samples from p,
    the band two standard errors of that mean on either side. Samples come from torch's global
    random state, so that `pyro.set_rng_seed` makes the picture reproducible.

    Args:
        p: the distribution that is sampled; one without batch dimensions.
        q: the distribution that it is compared with.
        num_samples: number of samples, at least 100.
        names: how p and q are called in the picture.
        ax: the axes to draw on; None makes a figure.

    Returns:
        The axes.

    Raises:
        ValueError: fewer than 100 samples, or a batch of distributions.
    """
    if num_samples < 100:
        raise ValueError(f"num_samples must be at least 100, got {num_samples}" + see("option"))
    count, mean, error, rounded = running_mean(p, q, num_samples)
    exact = _exact(p, q)
    ax = axes_or_new(ax)
    low, high = mean - 2 * error, mean + 2 * error
    ax.fill_between(
        count.numpy(), low.numpy(), high.numpy(), color=FIRST.colour, alpha=0.25, lw=0.0,
        label="± 2 standard errors",
    )  # fmt: skip
    ax.plot(count.numpy(), mean.numpy(), **FIRST.line, label=_label(mean, error, rounded))
    shown = torch.cat([low[count >= _SETTLED], high[count >= _SETTLED]])
    if exact is not None:
        value = float(exact)
        ax.axhline(
            value if math.isfinite(value) else math.nan,
            **SECOND.line,
            label=f"{exact.method}: {nats(value)} nats",
        )
        shown = torch.cat([shown, torch.tensor([value], dtype=shown.dtype)])
    _set_height(ax, shown[shown.isfinite()])
    ax.set_xscale("log")
    ax.set_xlim(int(count[0]), int(count[-1]))
    ax.set_xlabel("number of samples")
    first, second = map(plain, names)
    ax.set_ylabel(f"KL({first} || {second}), nats")
    legend(ax)
    return finish(ax, f"KL({first} || {second}), sampled{' and exact' if exact else ''}")


def _label(mean: Tensor, error: Tensor, rounded: int) -> str:
    last = float(mean[-1])
    if math.isinf(last):
        return "Monte Carlo: inf, since q has no mass at a sample"
    text = f"Monte Carlo: {nats(last)} nats, standard error {float(error[-1]):.2g}"
    return f"{text},\n{rounded:,} samples are rounded: it does not hold" if rounded else text


def _set_height(ax: Axes, shown: Tensor) -> None:
    """Set the vertical range by what is shown of the band."""
    if not len(shown):
        return
    low, high = float(shown.min()), float(shown.max())
    if high > low:
        ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


@torch.no_grad()
def running_mean(
    p: Distribution, q: Distribution, num_samples: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Counts, running means and their standard errors, log-spaced from 10 samples on.

    Also returns how many samples were rounded to an end of p's support.

    Raises:
        ValueError: p or q is a batch.
    """
    x, at_end = draw(p, num_samples)
    ratio = (p.log_prob(x) - log_prob_anywhere(q, x)).double().cpu()
    if ratio.dim() != 1:
        raise ValueError(
            f"convergence draws one KL, but p and q have batch shape {tuple(ratio.shape[1:])}: "
            "pick one element, or call .to_event() on both" + see("picture")
        )
    # around the overall mean, so that the variance keeps its digits
    centre = ratio[ratio.isfinite()].mean().nan_to_num()
    ratio = ratio - centre
    exponents = torch.linspace(1.0, math.log10(num_samples), 300, dtype=torch.float64)
    count = torch.unique((10.0**exponents).round().long()).clamp(max=num_samples)
    first = ratio.cumsum(0)[count - 1] / count
    second = ratio.square().cumsum(0)[count - 1] / count
    error = ((second - first.square()).clamp(min=0.0) / (count - 1)).sqrt()
    return count, first + centre, error, 0 if at_end is None else int(at_end.sum())


def _exact(p: Distribution, q: Distribution) -> Estimate | None:
    """The exact KL; None where there is no formula and no integral."""
    try:
        return kl(p, q)
    except NotImplementedError:
        return None
