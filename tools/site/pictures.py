"""Pictures of generated pages."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch.distributions import Distribution

import pyro_kl.plot
from pyro_kl import Case, Pair
from pyro_kl.plot.style import FIRST, finish
from pyro_kl.registry.structured_family import StructuredFamily


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


def path_picture(pair: Pair, case: Case, folder: Path, name: str) -> str:
    """The KL while p's parameters go to q's on a straight line; for classes without samples.

    The line is in the unconstrained coordinates of both. "" where p and q have other shapes.
    """
    family = pair.make_p
    if not isinstance(family, StructuredFamily) or family is not pair.make_q:
        return ""
    start, end = family.free(case.p), family.free(case.q)
    if any(start[key].shape != end[key].shape for key in start):
        return ""
    q = pair.made(case)[1]
    shares = torch.linspace(0.0, 1.0, 25, dtype=torch.float64)
    values = []
    for share in shares:
        between = {key: torch.lerp(start[key], end[key], share) for key in start}
        values.append(float(pair.formula(family(**family.bound(between, case.p)), q)))
    if max(values) < 1e-6:  # parameters that do not move make the difference
        return ""
    axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")[1]
    axes.plot(shares, values, color=FIRST.colour)
    axes.set_xlabel("share of the way from p's parameters (0) to q's (1)")
    axes.set_ylabel("KL(p || q), nats")
    finish(axes, f"{name}: the KL of the worked case while p moves to q")
    return _saved(axes, folder, name, f"The KL of {name} while p moves to q")


def _saved(axes: Axes, folder: Path, name: str, text: str) -> str:
    """Save a picture; returns the Markdown that shows it."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    axes.figure.savefig(folder / f"pictures/{name}.png", dpi=110, bbox_inches="tight")
    plt.close("all")
    return f"![{text}](pictures/{name}.png)"
