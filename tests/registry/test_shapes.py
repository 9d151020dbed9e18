"""Every pair, of whatever kind, with one batch shape beside another: it reads the registry.

A batch is two distributions over and over, so that what its rows must be is known from two single
KLs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from ..conformance.cases import (
    DUOS,
    FAMILIES,
    SAMPLE,
    counts_of,
    draw,
    make,
    row_of,
    without_validation,
)
from ..conformance.structured_cases import STRUCTURED, as_tensors, one_of, over
from ..conformance.structured_cases import draw as draw_structured

#: A rule that cannot do what it is asked says so, once for each pair.
pytestmark = pytest.mark.filterwarnings("ignore:KL.*tolerance:UserWarning")

Shape = tuple[int, ...]
Side = Mapping[str, Tensor]

#: Batch shapes of p and of q: 300 are more rows than an integral looks at together.
SHAPES: list[tuple[Shape, Shape]] = [
    ((2,), ()),
    ((1,), (300,)),
    ((3, 1), (2,)),
    ((0,), (1,)),
    ((2, 0, 1), (2, 1, 3)),
]
#: For a sample of the pairs, which share their code with all others.
MORE: list[tuple[Shape, Shape]] = [
    ((), (2,)),
    ((3000,), ()),
    ((), (3000,)),
    ((0,), ()),
    ((), (0,)),
]


def batch_of(distributions: Tensor, shape: Shape) -> Tensor:
    """The two distributions over and over, in a batch of this shape."""
    which = torch.arange(torch.Size(shape).numel()) % 2
    return distributions[which].reshape(shape + distributions.shape[1:])


def check(kl: Tensor, alone: Sequence[Tensor], shapes: tuple[Shape, Shape], rtol: float) -> None:
    """Where the first distribution of p meets the first of q, and the second the second."""
    p, q = torch.broadcast_tensors(*(batch_of(torch.arange(2), shape) for shape in shapes))
    assert kl.shape == p.shape, shapes
    for i, right in enumerate(alone):
        rows = kl[(p == i) & (q == i)]
        assert torch.allclose(rows, right.expand(rows.shape), rtol=rtol, atol=1e-12), shapes


def check_slopes(kl: Tensor, sides: Sequence[Side]) -> None:
    inputs = [x for side in sides for x in side.values() if x.requires_grad]
    slopes = torch.autograd.grad(kl[kl.isfinite()].sum(), inputs, allow_unused=True)
    assert all(d is None or d.shape == x.shape for x, d in zip(inputs, slopes, strict=True))


@cache
def two_of(name: str) -> Side:
    """All ask for gradients, so that an integral is recorded in one form only."""
    family = FAMILIES[name]
    drawn = draw(family, 2, 0.4).items()
    return {key: x.requires_grad_(key not in counts_of(family)) for key, x in drawn}


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name):
    for duo in (duo for duo in DUOS if duo.p.name == name):
        p, q = two_of(duo.p.name), two_of(duo.q.name)
        alone = [
            kl_divergence(make(duo.p, row_of(p, i)), make(duo.q, row_of(q, i))) for i in range(2)
        ]
        with without_validation():  # torch's own constraints refuse vectors of no rows
            for shapes in SHAPES + MORE * (duo in SAMPLE):
                sides = [
                    {key: batch_of(x, shape) for key, x in side.items()}
                    for side, shape in zip((p, q), shapes, strict=True)
                ]
                kl = kl_divergence(duo.p.distribution(**sides[0]), duo.q.distribution(**sides[1]))
                check(kl, alone, shapes, duo.digits(1e-12))
                if kl.requires_grad and shapes[0] == (3, 1):
                    check_slopes(kl, sides)


def takes_no_rows(duo) -> bool:
    """Pyro's own constructor may ask for the largest element of a parameter."""
    try:
        for family, x in duo.sides(duo.finite_cases()[0]):
            empty = draw_structured(family, as_tensors(x), (0,), 0.1)
            family(**empty)
    except RuntimeError:
        return False
    return True


@over(duo for duo in STRUCTURED if duo.batched)
def test_structures(duo):
    given = duo.sides(duo.finite_cases()[0])
    p, q = (draw_structured(family, as_tensors(x), (2,), 0.1) for family, x in given)
    make_p, make_q = duo.families
    alone = [duo.of(one_of(make_p, p, (i,)), one_of(make_q, q, (i,))) for i in range(2)]
    with without_validation():
        for shapes in (((2,), ()), ((3, 1), (2,)), ((0,), (1,)), ((2, 0, 1), (2, 1, 3))):
            if 0 in shapes[0] and not takes_no_rows(duo):
                continue
            sides = [
                {
                    key: batch_of(x, shape).requires_grad_() if key in family.parameters else x
                    for key, x in side.items()
                }
                for family, side, shape in zip(duo.families, (p, q), shapes, strict=True)
            ]
            kl = duo.of(*sides)
            check(kl, alone, shapes, 1e-8)
            if kl.requires_grad and shapes[0] == (3, 1):
                check_slopes(kl, sides)
