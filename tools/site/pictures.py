"""Pictures of generated pages."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch.distributions import Distribution

import pyro_kl.plot


def integrand_picture(
    p: Distribution, q: Distribution, names: tuple[str, str], folder: Path, name: str
) -> str:
    """Where the KL of two distributions comes from."""
    text = f"Where the KL comes from: p = {names[0]}, q = {names[1]}"
    return f"{text}.\n\n{_saved(pyro_kl.plot.kl_integrand(p, q), folder, name, text)}"


def convergence_picture(p: Distribution, q: Distribution, folder: Path, name: str) -> str:
    """The sampled KL over the number of samples, beside the exact one."""
    torch.manual_seed(0)
    axes = pyro_kl.plot.convergence(p, q, num_samples=5_000)
    return _saved(axes, folder, name, f"The sampled KL of {name} against the exact one")


def _saved(axes: Axes, folder: Path, name: str, text: str) -> str:
    """Save a picture; returns the Markdown that shows it."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    axes.figure.savefig(folder / f"pictures/{name}.png", dpi=110, bbox_inches="tight")
    plt.close("all")
    return f"![{text}](pictures/{name}.png)"
