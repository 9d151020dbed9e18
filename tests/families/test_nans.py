"""nan in, nan out: a parameter that is nan in one row makes that row's KL nan, and no other's.

Of the declared families test_values.py has it; here are structured families and wrapped cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms as T
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    MixtureSameFamily,
    constraints,
    kl_divergence,
)

import pyro_kl
from pyro_kl import policy

from ..conformance.cases import without_validation
from ..conformance.structured_cases import F64, STRUCTURED, over


def with_nan(values: Mapping[str, Tensor], name: str, row: int, everywhere: bool) -> None:
    """One row's parameter, or its first coordinate, is nan from here on."""
    x = values[name][row]
    x.copy_(torch.where(torch.arange(x.numel()).reshape(x.shape) == 0, math.nan, x))
    if everywhere:
        x.fill_(math.nan)


def check(
    make: tuple[Callable[..., Distribution], Callable[..., Distribution]],
    given: tuple[Mapping[str, Any], Mapping[str, Any]],
    names: list[tuple[int, str]],
    kl: Callable[[Any, Any], Tensor],
    everywhere: bool = False,
) -> None:
    """Each named parameter nan in a row of its own, between two rows that are as they are."""
    size = len(names) + 2
    rows = tuple(
        {k: x.expand(size, *x.shape).clone() if (i, k) in names else x for k, x in side.items()}
        for i, side in enumerate(given)
    )
    for row, (side, name) in enumerate(names, 1):
        with_nan(rows[side], name, row, everywhere)
    ends = tuple(
        {k: x[[0, -1]] if (i, k) in names else x for k, x in side.items()}
        for i, side in enumerate(rows)
    )
    with without_validation():
        value, alone = (torch.as_tensor(kl(make[0](**p), make[1](**q))) for p, q in (rows, ends))
    said = {f"{'pq'[i]}'s {name}": x for (i, name), x in zip(names, value[1:-1], strict=True)}
    assert value[1:-1].isnan().all(), said
    assert alone.isfinite().all()
    assert torch.allclose(value[[0, -1]], alone, rtol=1e-9, atol=1e-13)


def refused(make: Callable[..., Distribution], values: Mapping[str, Tensor], name: str) -> bool:
    """Whether the class itself does not let nan in."""
    one = {k: x.clone() for k, x in values.items()}
    one[name] = one[name] * math.nan
    try:
        with without_validation():
            make(**one)
    except (AssertionError, RuntimeError):
        return True
    return False


@over(duo for duo in STRUCTURED if duo.batched and duo.pair.method != "infinite")
@pytest.mark.parametrize("everywhere", [False, True], ids=["in one coordinate", "everywhere"])
def test_structured_families(duo, everywhere):
    case = duo.finite_cases()[0]
    given = tuple(family.drawn(x, (), 0.0) for family, x in duo.sides(case))
    names = [
        (i, name)
        for i, (family, x) in enumerate(zip(duo.families, given, strict=True))
        for name in family.free(x)
        if not refused(family, x, name)
    ]
    check(duo.families, given, names, torch.distributions.kl_divergence, everywhere)


# --- wrapped cases ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """How a member is made of parameters that have a batch dimension in front."""

    make: Callable[..., Distribution]
    given: Mapping[str, Any]


def normal(loc=0.3, scale=1.2) -> Side:
    return Side(dist.Normal, {"loc": loc, "scale": scale})


def mapped(*maps: Any, base: Any = dist.Normal, **more: float) -> Side:
    """A Normal, or another base, under maps; a map may be a function of parameters."""

    def make(loc, scale, **parameters):
        made = [m(**parameters) if isinstance(m, type(lambda: 0)) else m for m in maps]
        return dist.TransformedDistribution(base(loc, scale), made)

    return Side(make, {"loc": 0.3, "scale": 0.8, **more})


def products(**given: Any) -> Side:
    return Side(lambda loc, scale: dist.Normal(loc, scale).to_event(1), given)


def mixture(*locs: float) -> Side:
    return Side(
        lambda logits, loc, scale: MixtureSameFamily(
            Categorical(logits=logits), dist.Normal(loc, scale)
        ),
        {"logits": [0.0, 0.5], "loc": list(locs), "scale": [1.0, 0.7]},
    )


def inflated(gate: float, rate: float, key: str = "gate") -> Side:
    return Side(
        lambda rate, **gates: dist.ZeroInflatedDistribution(dist.Poisson(rate), **gates),
        {"rate": rate, key: gate},
    )


def counts(cls: Any, n: float, **given: Any) -> Side:
    return Side(cls, {"total_count": n, **given})


POINT = Side(dist.Delta, {"v": 0.5, "log_density": 0.2})
ATOMS = Side(dist.Empirical, {"samples": [1.0, 2.0, 1.0], "log_weights": [0.0, 0.5, 1.0]})
OTHER_ATOMS = Side(dist.Empirical, {"samples": [2.0, 1.0, 3.0], "log_weights": [0.0, 0.1, 0.2]})
AFFINE = mapped(lambda a, b: T.AffineTransform(a, b), T.ExpTransform(), a=0.1, b=1.5)
MASKED = Side(lambda loc, scale: dist.Normal(loc, scale).mask(torch.tensor(True)), normal().given)
CHOICE = Side(
    lambda loc, scale: dist.MaskedMixture(
        torch.tensor(False), dist.LogNormal(loc, scale), dist.Exponential(torch.ones_like(loc))
    ),
    normal().given,
)
LINE = Side(lambda: dist.ImproperUniform(constraints.real, (), ()), {})
PAIRS = {
    "Delta": (POINT, normal()),
    "Delta in an interval": (POINT, Side(dist.Uniform, {"low": 0.0, "high": 1.0})),
    "Delta of a vector": (
        Side(lambda v, log_density: dist.Delta(v, log_density, event_dim=1),
            {"v": [0.2, 0.1], "log_density": 0.3}),
        Side(dist.MultivariateNormal, {"loc": [0.0, 0.0], "scale_tril": [[1.0, 0.0], [0.5, 1.0]]}),
    ),
    "Deltas": (
        Side(lambda v: dist.Delta(v).to_event(1), {"v": [0.2, 0.7]}),
        Side(lambda a, b: dist.Beta(a, b).to_event(1), {"a": [2.0, 3.0], "b": [1.5, 2.0]}),
    ),
    "Delta on the line": (POINT, LINE),
    "Delta under a map": (POINT, AFFINE),
    "Empirical": (ATOMS, OTHER_ATOMS),
    "Empirical against counts": (ATOMS, Side(dist.Poisson, {"rate": 2.0})),
    "Empirical against flips": (ATOMS, Side(dist.Binomial, {"total_count": 4.0, "probs": 0.4})),
    "zero-inflated": (inflated(0.3, 2.0), inflated(0.5, 1.0)),
    "zero-inflated by logits": (inflated(0.3, 2.0, "gate_logits"), inflated(0.5, 1.0)),
    "zero-inflated against a Poisson": (inflated(0.3, 2.0), Side(dist.Poisson, {"rate": 1.5})),
    "Poisson against zero-inflated": (Side(dist.Poisson, {"rate": 1.5}), inflated(0.3, 2.0)),
    "DirichletMultinomial": (
        counts(dist.DirichletMultinomial, 4.0, concentration=[2.0, 0.7, 3.0]),
        counts(dist.DirichletMultinomial, 4.0, concentration=[1.0, 1.5, 0.4]),
    ),
    "masked": (MASKED, MASKED),
    "a choice": (CHOICE, Side(dist.Gamma, {"concentration": 2.0, "rate": 1.0})),
    "against a choice": (Side(dist.Gamma, {"concentration": 2.0, "rate": 1.0}), CHOICE),
    "Independent": (
        products(loc=[0.1, 0.2], scale=[1.0, 2.0]), products(loc=[0.0, 0.3], scale=[1.5, 1.0])
    ),
    "Independent against a scale mixture": (
        products(loc=[0.1, 0.2], scale=[1.0, 2.0]),
        Side(lambda loc, scale: dist.Laplace(loc, scale).to_event(1),
            {"loc": [0.0, 0.3], "scale": [1.5, 1.0]}),
    ),
    "expanded": (
        Side(lambda loc, scale: dist.Normal(loc, scale).expand(loc.shape), normal().given),
        Side(lambda df: dist.ExpandedDistribution(dist.StudentT(df), df.shape), {"df": 4.0}),
    ),
    "maps": (AFFINE, AFFINE),
    "maps against a family": (AFFINE, Side(dist.Gamma, {"concentration": 2.0, "rate": 1.0})),
    "a family against maps": (
        Side(dist.Gamma, {"concentration": 2.0, "rate": 1.0}),
        mapped(lambda a, b: T.AffineTransform(a, b), T.SoftplusTransform(), a=0.1, b=1.5),
    ),
    "powers": (
        mapped(T.ExpTransform(), lambda k: T.PowerTransform(k), k=1.5),
        Side(dist.Weibull, {"scale": 1.0, "concentration": 1.4}),
    ),
    "tanh of maps": (
        mapped(lambda a, b: T.AffineTransform(a, b), T.TanhTransform(), a=0.1, b=1.5),
        mapped(lambda a, b: T.AffineTransform(a, b), T.TanhTransform(), a=0.3, b=0.7),
    ),
    "folded": (
        Side(lambda loc, scale: dist.FoldedDistribution(dist.Normal(loc, scale)), normal().given),
        Side(dist.HalfNormal, {"scale": 1.1}),
    ),
    "on the line": (normal(), LINE),
    "vectors on the line": (
        products(loc=[0.1, 0.2], scale=[1.0, 2.0]),
        Side(lambda: dist.ImproperUniform(constraints.real, (), (2,)), {}),
    ),
    "a normal on the line": (
        Side(dist.MultivariateNormal, {"loc": [0.0, 0.0], "scale_tril": [[1.0, 0.0], [0.5, 1.0]]}),
        Side(lambda: dist.ImproperUniform(constraints.real_vector, (), (2,)), {}),
    ),
    "mixtures": (mixture(0.0, 2.0), mixture(0.5, 1.0)),
    "mixture against a normal": (mixture(0.0, 2.0), normal()),
    "a normal against a mixture": (normal(), mixture(0.0, 2.0)),
    "a map against a mixture": (mapped(lambda a, b: T.AffineTransform(a, b), a=0.1, b=1.5),
                                mixture(0.0, 2.0)),
    "factors": (Side(dist.Unit, {"log_factor": 1.0}), Side(dist.Unit, {"log_factor": 0.5})),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_wrapped(name):
    cases = PAIRS[name]
    given = tuple(
        {k: torch.tensor(x, dtype=F64) for k, x in member.given.items()} for member in cases
    )
    names = [(i, name) for i, side in enumerate(given) for name in side]
    check((cases[0].make, cases[1].make), given, names, lambda p, q: pyro_kl.kl(p, q).value)


# --- policies -----------------------------------------------------------------------------------

LOGITS = torch.tensor([[0.0, 1.0, 2.0], [0.5, 1.5, 1.0], [1.0, 0.0, 0.0]], dtype=F64)
ANSWERS = {
    "exact_kl": torch.func.vmap(policy.exact_kl),
    "sequence_kl": policy.sequence_kl,
    "optimum": lambda logits, reward: policy.optimum(logits, reward, 0.5)[0].sum(-1),
    "log Z": lambda logits, reward: policy.optimum(logits, reward, 0.5)[1],
    "forward_optimum": lambda logits, r: policy.forward_optimum(logits, r, 0.5).sum(-1),
}


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("name", ANSWERS)
def test_policies(name, side):
    rows = [LOGITS.clone(), LOGITS.flip(-1)]
    right = ANSWERS[name](*rows)
    rows[side][1, 2] = math.nan
    found = ANSWERS[name](*rows)
    assert found.isnan().tolist() == [False, True, False]
    assert torch.equal(found[[0, 2]], right[[0, 2]])


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    "asked",
    [
        policy.exact_kl,
        lambda p, q: policy.objective(p, q, torch.zeros(3), 0.5),
        lambda p, q: policy.penalty(p, q, use="reward"),
        lambda p, q: policy.penalty(p, q, use="loss", per="sequence"),
        policy.sampled_kl,
        lambda p, q: policy.gate(p.sigmoid(), q.sigmoid(), torch.tensor(False)),
        lambda p, q: policy.moments(p + q),
    ],
)
def test_policies_refuse(asked, side):
    """Where values can be looked at, with the place."""
    rows = [LOGITS.clone(), LOGITS.flip(-1)]
    rows[side][1, 2] = math.nan
    with pytest.raises(ValueError, match="position"):
        asked(*rows)


OVERFLOWING = {
    "exp": lambda c: [T.ExpTransform()],
    "scale": lambda c: [T.ExpTransform(), T.AffineTransform(0.0, c)],
    "shift": lambda c: [T.ExpTransform(), T.AffineTransform(c, 1.0)],
    "power": lambda c: [T.ExpTransform(), T.PowerTransform(c)],
}


@pytest.mark.parametrize("maps", OVERFLOWING)
def test_slopes_where_an_image_overflows(maps):
    """exp of a Student's t has a log tail: nodes lie beyond the largest number."""
    values = [0.19, 0.04, 0.89, 0.0675, 1.3]

    def kl(loc, scale, q_scale, concentration, c):
        base = dist.StudentT(torch.tensor(3.0, dtype=F64), loc, scale)
        p = dist.TransformedDistribution(base, OVERFLOWING[maps](c))
        zero = torch.zeros((), dtype=F64)
        return kl_divergence(p, dist.GeneralizedPareto(zero, q_scale, concentration))

    leaves = [torch.tensor(v, dtype=F64, requires_grad=True) for v in values]
    slopes = torch.autograd.grad(kl(*leaves), leaves, allow_unused=True, materialize_grads=True)
    for k, slope in enumerate(slopes):
        h = 1e-4 * values[k]
        up, down = (
            kl(*(torch.tensor(v + (k == i) * s * h, dtype=F64) for i, v in enumerate(values)))
            for s in (1, -1)
        )
        assert slope.item() == pytest.approx((up - down).item() / (2 * h), rel=1e-4, abs=1e-6), k
