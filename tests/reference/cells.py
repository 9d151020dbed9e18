"""Random cells: two laws of two families, parameters over eight decades, in either dtype.

A cell is one question: KL(p || q) of members of two families, the truth at the parameters as the
dtype rounds them. `found` asks pyro_kl for the value, the error that it tells and the gradient,
`faults` says what of that is wrong.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

import pyro_kl
from pyro_kl import Family

from .peer import Truth, truth
from .random_laws import draw_wide

__all__ = ["Cell", "Found", "cells", "faults", "found"]

#: The parameters of a cell are drawn between 10^-d and 10^d, for a d up to this.
DECADES = 4.0
#: What a formula that tells no error may be off, relative.
EXACT = 1e-12
#: Nats: what rounding leaves of the sum of the terms of a KL of the order of 1.
FLOOR = 1e-14
#: Beyond, a KL in nats is as good as infinite.
HUGE = 1e290
ASKED = 1e-6
#: Derivatives smaller than this fraction of the largest are compared with that.
SMALL = 1e-3
GOOD_SLOPE = 1e-7
SLOPE = 1e-5


@dataclass(frozen=True)
class Cell:
    """One question."""

    p: Family
    q: Family
    a: Mapping[str, float]
    b: Mapping[str, float]
    dtype: torch.dtype

    def __str__(self) -> str:
        sides = (
            f"{family.name}({', '.join(f'{k}={x!r}' for k, x in law.items())})"
            for family, law in ((self.p, self.a), (self.q, self.b))
        )
        return " || ".join(sides) + f", {str(self.dtype)[6:]}"

    def truth(self) -> Truth:
        return truth(self.p.name, self.a, self.q.name, self.b, slopes=True)


@dataclass(frozen=True)
class Found:
    """What pyro_kl says: nats, its error, whether it says that it is short, and the slopes."""

    value: float
    told: float | None
    short: bool
    slopes: Mapping[tuple[str, str], float]
    method: str


def cells(pairs: Sequence[tuple[Family, Family]], count: int, seed: int = 0) -> Iterator[Cell]:
    """So many, the pairs in turn."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(pairs))
    for i in range(count):
        p, q = pairs[order[i % len(pairs)]]
        decades = random.uniform(0.5, DECADES)
        dtype = (torch.float64, torch.float32)[random.integers(2)]
        a, b = (_rounded(draw_wide(family, random, decades), dtype) for family in (p, q))
        yield Cell(p, q, a, b, dtype)


def _rounded(law: Mapping[str, float], dtype: torch.dtype) -> dict[str, float]:
    return {name: torch.tensor(x, dtype=dtype).item() for name, x in law.items()}


def found(cell: Cell) -> Found | str:
    """Ask pyro_kl; why it declines, if it does."""
    leaves, laws = {}, []
    for side, family, law in (("p", cell.p, cell.a), ("q", cell.q, cell.b)):
        mine = {k: torch.tensor(x, dtype=cell.dtype, requires_grad=True) for k, x in law.items()}
        leaves |= {(side, k): x for k, x in mine.items()}
        laws.append(family.distribution(**mine, validate_args=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            kl = pyro_kl.kl(*laws, tolerance=ASKED)
        except NotImplementedError as declined:
            return str(declined)
    slopes = {}
    if kl.value.requires_grad and kl.value.isfinite():
        grads = torch.autograd.grad(
            kl.value, [*leaves.values()], allow_unused=True, materialize_grads=True
        )
        slopes = {key: g.item() for key, g in zip(leaves, grads, strict=True)}
    told = None if kl.error is None else kl.error.item()
    return Found(kl.value.item(), told, "tolerance" in kl.reason, slopes, kl.method)


def faults(cell: Cell, right: Truth, got: Found) -> list[str]:
    """What is wrong, in words; nothing if it is right, or says how far it may be off."""
    exact, value = float(right.kl), got.value
    if math.isnan(value):
        return ["nan"]
    top = torch.finfo(cell.dtype).max
    if math.isinf(exact) or math.isinf(value):
        same = value == exact or (math.isinf(value) and exact > 1e-3 * min(top, HUGE))
        return [] if same else [f"{value} for {exact:.6g}"]
    wrong = []
    off = float(abs(right.kl - value))
    rounding = 0.5 * torch.finfo(cell.dtype).eps * abs(exact)
    told = EXACT * abs(exact) + FLOOR if got.told is None else got.told
    slack = rounding * (1 + 1e-6) + right.error + 4 * 2.0**-52 * abs(exact)
    if off > told + slack:
        wrong.append(f"off by {off:.2g}, told {told:.2g}, of {exact:.6g} ({value:.6g})")
    if not got.short and off > ASKED * abs(exact) + slack + FLOOR:
        wrong.append(f"off by {off / abs(exact):.2g} in silence, of {exact:.6g}")
    if any(not math.isfinite(x) for x in got.slopes.values()):
        wrong.append(
            f"gradient { ({k: v for k, v in got.slopes.items() if not math.isfinite(v)}) }"
        )
    elif got.slopes and not got.short:
        wrong += _slopes(cell, right, got)
    return wrong


def _slopes(cell: Cell, right: Truth, got: Found) -> list[str]:
    known = {k: x for k, (x, off) in right.slopes.items() if off <= GOOD_SLOPE * abs(x)}
    if not known:
        return []
    # by the parameters' logarithms: what it would be to move all by the same factor
    unit = {key: abs((cell.a if key[0] == "p" else cell.b)[key[1]]) or 1.0 for key in known}
    largest = max(abs(x) * unit[key] for key, x in known.items())
    wrong = []
    for key, x in known.items():
        off = abs(got.slopes[key] - x)
        if off > SLOPE * max(abs(x), SMALL * largest / unit[key]):
            wrong.append(f"gradient by {'.'.join(key)} {got.slopes[key]:.7g} for {x:.7g}")
    return wrong
