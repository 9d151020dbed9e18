"""Renyi's divergence above order 1 of maps, mixtures and folded distributions."""

from __future__ import annotations

import math

import pytest
import torch
from pyro.distributions import FoldedDistribution
from torch.distributions import (
    Beta,
    Categorical,
    Cauchy,
    Exponential,
    Gamma,
    GeneralizedPareto,
    Gumbel,
    HalfCauchy,
    Laplace,
    LogNormal,
    MixtureSameFamily,
    Normal,
    Pareto,
    StudentT,
    TransformedDistribution,
    Uniform,
    transforms,
)

import pyro_kl

from .making import number, of

pytestmark = pytest.mark.usefixtures("nothing_warned", "double")


def mapped(base, *maps):
    return TransformedDistribution(base, list(maps))


def mixture(cls, *parameters):
    return MixtureSameFamily(Categorical(number([0.5, 0.5])), of(cls, *parameters))


EXP, TANH, SIGMOID = (
    transforms.ExpTransform(),
    transforms.TanhTransform(),
    transforms.SigmoidTransform(),
)
NORMALS = mixture(Normal, [-1.0, 1.0], [1.0, 2.0])
TO_UNIT = transforms.AffineTransform(number(0.5), number(0.5))

# Integrals at 34 digits (mpmath's tanh-sinh rule on some fifty pieces), with the densities of the
# images written out on the line of the base.
REFERENCES = [
    (
        mapped(of(Normal, 0.2, 0.7), TANH, TO_UNIT),
        of(Beta, 2.0, 3.0),
        {1.5: 1.1109549545209900784, 2.0: 1.8923884849629180417, 5.0: 4.3526296579582709235},
    ),
    (mapped(of(Laplace, 0.0, 1.0), SIGMOID), of(Beta, 2.0, 2.0), {1.9: 0.62269587169413199454}),
    (mapped(of(Laplace, 0.0, 0.3), EXP), of(HalfCauchy, 1.0), {2.0: 0.98516531617806176375}),
    (NORMALS, of(Normal, 0.0, 1.6), {1.1: 0.095031508926952854131, 2.5: 2.3806592109970457313}),
    (
        of(Normal, 0.0, 1.0),
        mixture(Normal, [-1.0, 1.0], [0.2, 0.8]),
        {1.1: 0.75229887506073445184, 2.5: 13.588769567420744753},
    ),
    (mixture(Gamma, [1.0, 2.0], [1.0, 2.0]), of(Exponential, 2.0), {1.5: 0.57149156108186166133}),
    (
        FoldedDistribution(of(Normal, 1.0, 1.0)),
        of(HalfCauchy, 1.0),
        {2.0: 0.30180844109838449651},
    ),
    # the Exponential among the GeneralizedPareto, where log(a r + (1 - a) s) is the integral
    (
        of(GeneralizedPareto, 0.0, 1.0, 0.0),
        of(Exponential, 2.0),
        {1.9: (-math.log(0.1) - 0.9 * math.log(2)) / 0.9},
    ),
    (
        of(Exponential, 1.0),
        of(GeneralizedPareto, 0.0, 0.5, 0.0),
        {1.9: (-math.log(0.1) - 0.9 * math.log(2)) / 0.9},
    ),
]


@pytest.mark.parametrize(("p", "q", "values"), REFERENCES)
def test_references(p, q, values):
    for alpha, value in values.items():
        found = pyro_kl.renyi(p, q, alpha)
        assert float(found) == pytest.approx(value, rel=1e-12)
        assert found.method == "quadrature"
        assert found.error < 1e-9 * value


# exp(-exp(-x) / 2) at its lower end
FLIPPED = mapped(of(Gamma, 2.0, 0.5), EXP.inv, transforms.AffineTransform(0.0, -1.0))
FINITE_BELOW = [
    # p, q, the order from which on the divergence is infinite
    (mapped(of(Normal, 0.0, 1.0), TANH, TO_UNIT), of(Beta, 2.0, 2.0), math.inf),
    (mapped(of(Laplace, 0.0, 1.0), SIGMOID), of(Beta, 2.0, 2.0), 2.0),
    (of(Beta, 2.0, 2.0), mapped(of(Laplace, 0.0, 0.25), SIGMOID), 2.0),
    (mapped(of(StudentT, 3.0), EXP), of(LogNormal, 0.0, 1.0), 1.0),
    (mapped(of(Gamma, 2.0, 1.0), EXP.inv), of(Gumbel, 0.0, 1.0), 1.0),
    (FLIPPED, of(Gumbel, 0.0, 1.0), 2.0),
    (FLIPPED, of(Gumbel, -math.log(2), 1.0), math.inf),
    (mapped(of(Cauchy, 0.0, 1.0), transforms.AffineTransform(1.0, -3.0)), of(Normal, 0.0, 9.0), 1),
    (mapped(of(Uniform, 0.0, 1.0), transforms.PowerTransform(4.0)), of(HalfCauchy, 1.0), 4 / 3),
    (mapped(of(Pareto, 1.0, 1.0), transforms.PowerTransform(0.5)), of(Pareto, 1.0, 4.0), 2.0),
    (NORMALS, of(Normal, 0.0, 1.5), 4 / (4 - 2.25)),
    (of(Normal, 0.0, 1.0), mixture(Normal, [-1.0, 1.0], [0.2, 0.8]), 1 / (1 - 0.64)),
    (of(Cauchy, 0.0, 2.0), mixture(StudentT, [5.0, 2.0]), 2.0),
    (mixture(StudentT, [5.0, 2.0]), of(Cauchy, 0.0, 2.0), math.inf),
    (mixture(Gamma, [1.0, 2.0], [1.0, 2.0]), of(Exponential, 2.0), 2.0),
    (mixture(Gumbel, [0.0, 1.0], [1.0, 2.0]), of(Normal, 0.0, 3.0), 1.0),
    (of(Uniform, 0.0, 3.0), mixture(Pareto, [1.0, 0.5], [1.0, 2.0]), 1.0),
    (of(GeneralizedPareto, 0.0, 1.0, 0.0), of(Exponential, 2.0), 2.0),
    (of(HalfCauchy, 1.0), of(GeneralizedPareto, 0.0, 1.0, 0.0), 1.0),
]


@pytest.mark.parametrize(("p", "q", "order"), FINITE_BELOW)
def test_infinite_from_an_order_on(p, q, order):
    finite = [0.9 * order] if 1 < order < math.inf and 0.9 * order > 1 else []
    finite += [(1 + order) / 2] if 1 < order < math.inf else []
    for alpha in [0.5, *finite, *([50.0] if order == math.inf else [])]:
        assert pyro_kl.renyi(p, q, alpha).value.isfinite(), alpha
    if order < math.inf:
        for alpha in (1 + 1e-6, 1.01 * order, 50.0) if order == 1 else (1.01 * order, 50.0):
            assert pyro_kl.renyi(p, q, alpha).value == math.inf, alpha


def test_rows_of_maps_and_of_mixtures_that_are_infinite_or_unknown():
    scale = number([1.0, math.nan, 3.0, 0.5]).requires_grad_()
    image = TransformedDistribution(
        Laplace(number(0.0), scale, validate_args=False), SIGMOID, validate_args=False
    )
    value = pyro_kl.renyi(image, of(Beta, 2.0, 2.0), 1.9).value
    assert value.isnan().tolist() == [False, True, False, False]
    assert value.isinf().tolist() == [False, False, True, False]
    assert value[0].item() == pytest.approx(0.62269587169413199454, rel=1e-12)
    (slope,) = torch.autograd.grad(value[0] + value[3], scale)
    assert slope[2] == 0
    components = Normal(number([[-1.0, 1.0], [0.0, 0.0]]), number([[1.0, 2.0], [1.0, 9.0]]))
    both = MixtureSameFamily(Categorical(number([0.5, 0.5]).expand(2, 2)), components)
    value = pyro_kl.renyi(both, of(Normal, 0.0, 1.6), 2.5).value
    assert float(value[0]) == pytest.approx(2.3806592109970457313, rel=1e-12)
    assert value[1] == math.inf
    shapes = number([0.0, 0.5])
    tails = GeneralizedPareto(number(0.0), number(1.0), shapes)
    value = pyro_kl.renyi(tails, of(Exponential, 2.0), 1.9).value
    assert value.isinf().tolist() == [False, True]


def test_unknown_tails_are_not_guessed():
    double = transforms.AffineTransform(0.0, 0.5)
    bells = (
        mapped(of(Gumbel, 0.0, 1.0), SIGMOID),
        mapped(of(Gumbel, 0.0, 1.0), double, TANH, TO_UNIT),
    )
    gap = MixtureSameFamily(Categorical(number([0.5, 0.5])), of(Uniform, [0.0, 2.0], [1.0, 3.0]))
    for p, q in (bells, (of(Uniform, 0.0, 3.0), gap)):
        with pytest.raises(NotImplementedError, match="is not known"):
            pyro_kl.renyi(p, q, 1.5)


def test_derivatives():
    def of_image(loc, scale, a):
        image = mapped(Normal(loc, scale), TANH, TO_UNIT)
        return pyro_kl.renyi(image, Beta(a, number(3.0)), 1.5).value

    values = [number(x).requires_grad_() for x in (0.2, 0.7, 2.0)]
    assert torch.autograd.gradcheck(of_image, values)

    def of_mixture(loc, scale, width):
        p = MixtureSameFamily(Categorical(number([0.5, 0.5])), Normal(loc, scale))
        return pyro_kl.renyi(p, Normal(number(0.0), width), 1.5).value

    values = [number(x).requires_grad_() for x in ([-1.0, 1.0], [1.0, 2.0], 1.9)]
    assert torch.autograd.gradcheck(of_mixture, values)


def test_a_kl_to_an_exponential_among_the_generalised_paretos_is_infinite():
    q = GeneralizedPareto(number(0.0), number(1.0), number([0.0, 0.5]))
    for p in (of(HalfCauchy, 1.0), mapped(of(HalfCauchy, 1.0), transforms.PowerTransform(2.0))):
        assert pyro_kl.kl(p, q).value.isinf().tolist() == [True, False]


TWO_WAYS = [
    # the same map twice, written so that it is not found to be shared; pairs on its domain
    (
        [transforms.AffineTransform(0.0, number(2.0)), EXP],
        [EXP, transforms.PowerTransform(number(2.0))],
    ),
    ([SIGMOID], [transforms.AffineTransform(0.0, number(0.5)), TANH, TO_UNIT]),
    (
        [EXP, transforms.PowerTransform(number(-0.5))],
        [transforms.AffineTransform(1.0, number(0.5)), EXP, transforms.PowerTransform(-1.0),
         transforms.AffineTransform(0.0, math.e)],
    ),
]  # fmt: skip
PAIRS = [
    (of(Normal, 0.0, 1.0), of(Normal, 0.5, 0.9)),
    (of(Laplace, 0.0, 1.0), of(Gumbel, 0.0, 2.0)),
    (of(Gumbel, 0.0, 2.0), of(Normal, 0.0, 3.0)),
    (of(StudentT, 1.5, 1.5, 0.4), of(Cauchy, -9.0, 5.0)),
]


@pytest.mark.parametrize("maps", TWO_WAYS)
@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_a_map_of_both_changes_nothing(p, q, maps):
    for alpha in (0.5, 1 + 1e-6, 1.5, 5.0, math.inf):
        expected = pyro_kl.renyi(p, q, alpha)
        try:
            found = pyro_kl.renyi(mapped(p, *maps[0]), mapped(q, *maps[1]), alpha)
        except NotImplementedError:
            assert isinstance(p, StudentT)  # floats end before its tail does
            continue
        error = sum(float(x.error) for x in (expected, found) if x.error is not None)
        assert float(found) == pytest.approx(float(expected), rel=1e-9, abs=error), alpha
