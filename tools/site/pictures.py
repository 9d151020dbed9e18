"""Pictures of generated pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

import pyro_kl.plot
from pyro_kl import Family


def integrand_picture(family: Family, folder: Path) -> str:
    """Where the KL of two members comes from; "" if they cannot be drawn."""
    if not hasattr(pyro_kl.plot, "kl_integrand") or family.vectors:
        return ""
    p, q = family.make(family.examples[0]), family.make(family.examples[1])
    return picture(folder, family.name, pyro_kl.plot.kl_integrand, p, q, family.name)


def picture(folder: Path, name: str, draw: Any, p: Any, q: Any, alt: str) -> str:
    """Draw and save a picture; returns the Markdown that shows it."""
    axes = draw(p, q)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    axes.figure.savefig(folder / f"pictures/{name}.png", dpi=110, bbox_inches="tight")
    plt.close(axes.figure)
    return f"![{draw.__name__} of two members of {alt}](pictures/{name}.png)"
