"""Random cells: two distributions of two families, parameters over eight decades, in either dtype.

A cell is one question: KL(p || q) of members of two families, the truth at the parameters as the
dtype rounds them. `found` asks pyro_kl for the value, the error that it tells and the gradient,
`faults` says what of that is wrong.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.distributions import (
    AffineTransform,
    Distribution,
    ExpTransform,
    PowerTransform,
    SigmoidTransform,
    SoftplusTransform,
    TanhTransform,
    Transform,
    TransformedDistribution,
)

import pyro_kl
from pyro_kl import Family

from .extended_precision.kl import Truth, knows, truth
from .extended_precision.maps import Map
from .random_members import draw_wide

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
    """One question: two families, their parameters and the maps of both, the first one first."""

    p: Family
    q: Family
    a: Mapping[str, float]
    b: Mapping[str, float]
    dtype: torch.dtype
    p_maps: tuple[Map, ...] = ()
    q_maps: tuple[Map, ...] = ()

    def __str__(self) -> str:
        sides = (
            f"{family.name}({_call(distribution)})" + "".join(f" > {_named(one)}" for one in maps)
            for family, distribution, maps in (
                (self.p, self.a, self.p_maps),
                (self.q, self.b, self.q_maps),
            )
        )
        return " || ".join(sides) + f", {str(self.dtype)[6:]}"

    def truth(self) -> Truth:
        """From the densities in extended precision; maps that both end with drop out."""
        shared = 0
        for mine, other in zip(reversed(self.p_maps), reversed(self.q_maps), strict=False):
            if mine != other:
                break
            shared += 1
        # a map without numbers and its inverse, too: next to 1 a sigmoid has lost what it undoes
        there, back = (
            _without_inverses(list(enumerate(maps))[: len(maps) - shared])
            for maps in (self.p_maps, self.q_maps)
        )
        back.reverse()
        maps = (*(one for _, one in there), *(one.inv for _, one in back))
        found = truth(self.p.name, self.a, self.q.name, self.b, maps=maps, slopes=True)
        sides = [f"p{i}" for i, _ in there] + [f"q{i}" for i, _ in back]
        slopes = {_key(key, sides): x for key, x in found.slopes.items()}
        return replace(found, slopes=slopes)

    def numbers(self) -> dict[tuple[str, str], float]:
        """Every number that the cell is made of, by its side and name."""
        found = {("p", k): x for k, x in self.a.items()} | {("q", k): x for k, x in self.b.items()}
        for side, maps in (("p", self.p_maps), ("q", self.q_maps)):
            for i, one in enumerate(maps):
                found |= {(f"{side}{i}", k): x for k, x in one.numbers.items()}
        return found


def _without_inverses(maps: list[tuple[int, Map]]) -> list[tuple[int, Map]]:
    """Of numbered maps: the inverse after a map without parameters drops out with it."""
    for i in range(len(maps) - 1):
        if maps[i + 1][1] == maps[i][1].inv and not maps[i][1].numbers:
            return _without_inverses([*maps[:i], *maps[i + 2 :]])
    return maps


def _key(key: tuple[str, str], sides: Sequence[str]) -> tuple[str, str]:
    i, dot, name = key[1].partition(".")
    return (sides[int(i)], name) if dot else key


def _call(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{k}={x!r}" for k, x in numbers.items())


def _named(one: Map) -> str:
    return f"{one.name}{'.inv' * one.inverse}({_call(one.numbers)})"


@dataclass(frozen=True)
class Found:
    """What pyro_kl says: nats, its error, whether it says that it is short, and the slopes."""

    value: float
    told: float | None
    short: bool
    slopes: Mapping[tuple[str, str], float]
    method: str


def random_pairs_of(duos: Iterable[Any], *, mapped: bool = False) -> list[tuple[Family, Family]]:
    """The pairs of registered families that `knows` has, and that can be finite.

    With maps all those of the line: a map may take one support into another.
    """
    return [
        (duo.p, duo.q)
        for duo in duos
        if knows(duo.p.name, duo.q.name)
        and (mapped or duo.pair.method != "infinite")
        and (duo.p.line is not None or not mapped)
    ]


def cells(
    pairs: Sequence[tuple[Family, Family]], count: int, seed: int = 0, *, mapped: bool = False
) -> Iterator[Cell]:
    """So many, the pairs in turn; with random maps on one side or on both."""
    random = np.random.default_rng([seed, mapped])
    order = random.permutation(len(pairs))
    for i in range(count):
        p, q = pairs[order[i % len(pairs)]]
        decades = random.uniform(0.5, DECADES)
        dtype = (torch.float64, torch.float32)[random.integers(2)]
        a, b = (_rounded(draw_wide(family, random, decades), dtype) for family in (p, q))
        maps = _maps(p, q, random, dtype) if mapped else ((), ())
        yield Cell(p, q, a, b, dtype, *maps)


def _rounded(numbers: Mapping[str, float], dtype: torch.dtype) -> dict[str, float]:
    return {name: torch.tensor(x, dtype=dtype).item() for name, x in numbers.items()}


#: From one kind of support to another: what a map of each name does.
_STEPS = {
    "real": [("affine", "real"), ("exp", "positive"), ("sigmoid", "unit"),
             ("softplus", "positive"), ("tanh", "interval")],
    "positive": [("affine", "half"), ("stretch", "positive"), ("power", "positive"),
                 ("exp.inv", "real"), ("softplus.inv", "real"), ("sigmoid", "interval")],
    "unit": [("affine", "interval"), ("power up", "unit"), ("sigmoid.inv", "real")],
    "half": [("affine", "half")],
    "interval": [("affine", "interval"), ("sigmoid", "interval"), ("exp", "interval")],
}  # fmt: skip


_WITHIN = {
    "real": {"real"},
    "positive": {"real", "positive"},
    "unit": {"real", "positive", "unit"},
    "half": {"real"},
    "interval": {"real"},
}


def _kind(family: Family) -> str:
    low, high = family.support.low, family.support.high
    if callable(low) or callable(high):
        return "interval" if high != math.inf else "half"
    return {(0, math.inf): "positive", (0, 1): "unit"}.get((low, high), "real")


def _maps(
    p: Family, q: Family, random: np.random.Generator, dtype: torch.dtype
) -> tuple[tuple[Map, ...], tuple[Map, ...]]:
    """Of p and q: the same map on both, one on p alone, on q alone, or two with other numbers."""
    mine, other = _kind(p), _kind(q)
    way = random.integers(4)
    if other not in _WITHIN[mine] and way in (0, 3):
        way = 1
    steps = _steps(mine if way == 1 else other, random)
    first, second = (tuple(_drawn(step, random, dtype) for step in steps) for _ in range(2))
    if way == 0:
        return first, first
    if way == 1:
        return first, ()
    return ((), first) if way == 2 else (first, second)


def _steps(kind: str, random: np.random.Generator) -> list[str]:
    found = []
    for _ in range(random.integers(1, 4)):
        name, kind = _STEPS[kind][random.integers(len(_STEPS[kind]))]
        found.append(name)
    return found


def _drawn(step: str, random: np.random.Generator, dtype: torch.dtype) -> Map:
    name, inverse = step.removesuffix(".inv"), step.endswith(".inv")
    numbers: dict[str, float] = {}
    sign = random.choice((-1.0, 1.0))
    if name == "affine":
        numbers = {
            "loc": 2 * random.standard_normal(),
            "scale": sign * 10 ** random.uniform(-1, 1),
        }
    elif name == "stretch":
        numbers = {"scale": 10 ** random.uniform(-1, 1)}
    elif name.startswith("power"):
        size = 10 ** random.uniform(-0.5, 0.5)
        name, numbers = "power", {"exponent": size if name.endswith("up") else sign * size}
    numbers = {k: float(f"{x:.6g}") for k, x in numbers.items()}
    return Map(name, _rounded(numbers, dtype), inverse)


_TRANSFORMS: dict[str, Callable[..., Transform]] = {
    "affine": AffineTransform,
    "stretch": lambda scale: AffineTransform(0.0, scale),
    "exp": ExpTransform,
    "power": PowerTransform,
    "sigmoid": SigmoidTransform,
    "softplus": SoftplusTransform,
    "tanh": TanhTransform,
}


def maps_of(p: Family, q: Family, random: np.random.Generator) -> tuple[Map, ...]:
    """Random maps that both supports allow; none where p's kind of support is not within q's."""
    if _kind(q) not in _WITHIN[_kind(p)]:
        return ()
    return tuple(_drawn(step, random, torch.float64) for step in _steps(_kind(q), random))


def transforms_of(maps: Sequence[Map]) -> list[Transform]:
    """The same as torch's, with constant numbers."""
    float64 = torch.float64
    return [
        _transform(one, {k: torch.tensor(x, dtype=float64) for k, x in one.numbers.items()})
        for one in maps
    ]


def _transform(one: Map, numbers: Mapping[str, torch.Tensor]) -> Transform:
    transform = _TRANSFORMS[one.name](**numbers)
    return transform.inv if one.inverse else transform


def leaves_of(cell: Cell) -> dict[tuple[str, str], torch.Tensor]:
    """The cell's numbers as tensors that require grad."""
    return {
        key: torch.tensor(x, dtype=cell.dtype, requires_grad=True)
        for key, x in cell.numbers().items()
    }


def distributions_of(
    cell: Cell, leaves: Mapping[tuple[str, str], torch.Tensor]
) -> list[Distribution]:
    """P and q with these tensors for the cell's numbers."""

    def of(side: str) -> dict[str, torch.Tensor]:
        return {name: x for (where, name), x in leaves.items() if where == side}

    distributions: list[Distribution] = [
        cell.p.distribution(**of("p"), validate_args=False),
        cell.q.distribution(**of("q"), validate_args=False),
    ]
    p_maps = [_transform(one, of(f"p{i}")) for i, one in enumerate(cell.p_maps)]
    shared = cell.p_maps == cell.q_maps
    q_maps = (
        p_maps if shared else [_transform(one, of(f"q{i}")) for i, one in enumerate(cell.q_maps)]
    )
    for i, maps in enumerate((p_maps, q_maps)):
        if maps:
            distributions[i] = TransformedDistribution(distributions[i], maps, validate_args=False)
    return distributions


def found(cell: Cell, tolerance: float = ASKED) -> Found | str:
    """Ask pyro_kl; why it declines, if it does."""
    leaves = leaves_of(cell)
    distributions = distributions_of(cell, leaves)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            kl = pyro_kl.kl(*distributions, tolerance=tolerance)
        except NotImplementedError as declined:
            return f"declined: {declined}"
        except Exception as raised:
            return f"raises {type(raised).__name__}: {raised}"
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
        said = got.short and got.told == math.inf and right.kl < math.inf
        return [] if same or said else [f"{value} for {exact:.6g}"]
    wrong = []
    off = float(abs(right.kl - value))
    rounding = 0.5 * torch.finfo(cell.dtype).eps * abs(exact)
    told = EXACT * abs(exact) + FLOOR if got.told is None else got.told
    slack = rounding * (1 + 1e-6) + right.error + 4 * 2.0**-52 * abs(exact)
    if off > told + slack:
        wrong.append(f"off by {off:.2g}, told {told:.2g}, of {exact:.6g} ({value:.6g})")
    if not got.short and off > ASKED * abs(exact) + slack + FLOOR:
        wrong.append(f"off by {off / abs(exact):.2g} in silence, of {exact:.6g}")
    wild = {k: x for k, x in got.slopes.items() if not math.isfinite(x)}
    if wild:
        beyond = all(
            math.isinf(x) and abs(right.slopes[k][0]) > 0.99 * top for k, x in wild.items()
        )
        wrong += [] if beyond else [f"gradient {wild}"]
    elif got.slopes and not got.short:
        wrong += _slopes(cell, right, got)
    return wrong


def _slopes(cell: Cell, right: Truth, got: Found) -> list[str]:
    known = {k: x for k, (x, off) in right.slopes.items() if off <= GOOD_SLOPE * abs(x)}
    if not known:
        return []
    # by the parameters' logarithms: what it would be to move all by the same factor
    numbers = cell.numbers()
    unit = {key: abs(numbers[key]) or 1.0 for key in known}
    largest = max(abs(x) * unit[key] for key, x in known.items())
    wrong = []
    for key, x in known.items():
        off = abs(got.slopes[key] - x)
        if off > SLOPE * max(abs(x), SMALL * largest / unit[key]):
            wrong.append(f"gradient by {'.'.join(key)} {got.slopes[key]:.7g} for {x:.7g}")
    return wrong
