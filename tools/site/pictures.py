"""Pictures of generated pages."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch.distributions import Distribution

import pyro_kl.plot
from pyro_kl import Family


def integrand_picture(family: Family, folder: Path) -> str:
    """Where the KL of two members comes from: of the examples whose KL is closest to 1 nat."""
    every = [family.make(example) for example in family.examples]
    torch.manual_seed(0)
    members = [p for p in every if len(p.sample((100,)).unique()) > 1]  # some have one value only
    p, q = min(permutations(members, 2), key=lambda pair: abs(pyro_kl.kl(*pair).item() - 1))
    text = f"Where the KL of two members of {family.name} comes from"
    return _saved(pyro_kl.plot.kl_integrand(p, q), folder, family.name, text)


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
