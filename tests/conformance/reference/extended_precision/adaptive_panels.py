"""Composite Gauss-Legendre rules in extended precision, with an error of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .functions import EPS, LD, gauss_legendre

NODES = 20
DEEPEST, MOST_PANELS = 40, 5000
#: What halving a panel must leave the same, of the integral of the integrand's absolute value.
_STILL = 1e-17
#: What rounding leaves of a sum: most of it is in the normalisers, whose terms are large.
ROUNDING = 256 * EPS


@dataclass(frozen=True)
class Sum:
    """An integral of a distribution's mass and of what is wanted, and its error.

    Args:
        mass: of p.
        value: what is wanted.
        error: by how much the rule and that on halved panels differ, and what rounding leaves.
        panels: left and right ends, in columns.
    """

    mass: Any
    value: Any
    error: Any
    panels: Any


def nodes_of(panels: Any) -> tuple[Any, Any]:
    """All nodes and weights, panel after panel along the last axis."""
    x, w = gauss_legendre(NODES)
    half, middle = (panels[..., 1] - panels[..., 0]) / 2, (panels[..., 1] + panels[..., 0]) / 2
    y, weight = middle[..., None] + half[..., None] * x, half[..., None] * w
    flat = (*panels.shape[:-2], -1)
    return y.reshape(flat), weight.reshape(flat)


def _sums(terms: Callable[[Any], tuple[Any, Any]], panels: Any) -> Any:
    """Mass, value and size of every panel, in rows."""
    y, weight = nodes_of(panels)
    mass, value = terms(y)
    rows = np.stack([mass * weight, value * weight, np.abs(value * weight)])
    return rows.reshape(3, len(panels), NODES).sum(-1)


def bisected(terms: Callable[[Any], tuple[Any, Any]], ends: Any) -> Sum:
    """Halve the panels between the ends until that changes nothing."""
    panels = np.stack([ends[:-1], ends[1:]], -1)
    coarse, done, kept, error = _sums(terms, panels), np.zeros(3, LD), [], LD(0)
    for depth in range(DEEPEST):
        middle = panels.mean(-1)
        halves = np.stack([panels[:, 0], middle, middle, panels[:, 1]], -1).reshape(-1, 2)
        fine = _sums(terms, halves)
        both = fine.reshape(3, -1, 2).sum(-1)
        change = np.abs(both - coarse)[:2].max(0)
        size = done[2] + both[2].sum() + 1
        still = change <= _STILL * size
        last = depth == DEEPEST - 1 or 2 * len(panels) + sum(map(len, kept)) > MOST_PANELS
        if last:
            still |= True
        done, error = done + both[:, still].sum(-1), error + change[still].sum()
        kept.append(panels[still])
        if still.all():
            break
        panels, coarse = halves[np.repeat(~still, 2)], fine[:, np.repeat(~still, 2)]
    mass, value, size = done
    return Sum(mass, value, error + ROUNDING * size, np.concatenate(kept))
