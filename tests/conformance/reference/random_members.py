"""Random members of families, broad but sane: scales 0.1 to 10, shapes 0.3 to 30."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from pyro_kl import Family

from .extended_precision.kl import Truth, truth

#: Powers of ten between which a positive parameter is log-uniform; shapes are all others.
_DECADES = {
    "scale": (-1.0, 1.0),
    "rate": (-1.0, 1.0),
    "temperature": (-0.5, 0.5),
    "asymmetry": (-0.5, 0.5),
    "softness": (-0.5, 0.5),
}
_SHAPE = (-0.523, 1.477)


def draw(family: Family, random: np.random.Generator) -> dict[str, float]:
    """One member, by the constructor's arguments of a random one of the family's examples."""
    example = family.examples[random.integers(len(family.examples))]
    found: dict[str, float] = {}
    for name in example:
        if name in ("loc", "low", "logits", "gate_logits"):
            found[name] = 2 * random.standard_normal()
        elif name in ("probs", "gate"):
            found[name] = random.uniform(0.02, 0.98)
        elif name == "high":
            found[name] = found["low"] + 10 ** random.uniform(-1.0, 1.0)
        elif family.name == "GeneralizedPareto" and name == "concentration":
            found[name] = random.uniform(-1.0, 1.0)
        else:
            found[name] = 10 ** random.uniform(*_DECADES.get(name, _SHAPE))
    return {name: float(f"{x:.6g}") for name, x in found.items()}


def random_pairs(
    p: Family,
    q: Family,
    count: int,
    *,
    finite: int,
    seed: int = 0,
    slopes: bool = False,
    tries: int = 4000,
) -> Iterator[tuple[dict[str, float], dict[str, float], Truth]]:
    """Random members of both and their KL: as they come, but `finite` of them finite if found."""
    random = np.random.default_rng([seed, zlib.crc32(f"{p.name} || {q.name}".encode())])
    infinite: list[tuple[dict[str, float], dict[str, float], Truth]] = []
    given = 0
    for _ in range(tries):
        if given == count:
            return
        a, b = draw(p, random), draw(q, random)
        right = truth(p.name, a, q.name, b, slopes=slopes)
        if not np.isposinf(right.kl):
            given += 1
            yield a, b, right
        elif len(infinite) < count - finite:
            infinite.append((a, b, right))
            given += 1
            yield a, b, right


def draw_wide(family: Family, random: np.random.Generator, decades: float) -> dict[str, float]:
    """One member, every parameter of a size from 10^-decades to 10^decades."""
    example = family.examples[random.integers(len(family.examples))]

    def size() -> float:
        return 10 ** random.uniform(-decades, decades)

    def signed() -> float:
        return random.choice((-1.0, 1.0)) * size()

    found: dict[str, float] = {}
    for name in example:
        if name in ("loc", "low"):
            found[name] = signed()
        elif name in ("logits", "gate_logits"):
            found[name] = random.choice((-1.0, 1.0)) * 10 ** random.uniform(-decades, 1.3)
        elif name in ("probs", "gate"):
            odds = size()
            found[name] = odds / (1 + odds)
        elif name == "high":
            found[name] = found["low"] + size()
        elif family.name == "GeneralizedPareto" and name == "concentration":
            found[name] = signed()
        else:
            found[name] = size()
    return {name: float(f"{x:.6g}") for name, x in found.items()}
