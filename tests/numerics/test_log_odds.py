"""The KL of a Normal and the log odds of a Beta, against integrals at 50 digits."""

import math

import pytest
import torch
from torch.distributions import (
    AffineTransform,
    Beta,
    CorrCholeskyTransform,
    Dirichlet,
    Independent,
    LKJCholesky,
    LogisticNormal,
    MultivariateNormal,
    Normal,
    SigmoidTransform,
    StickBreakingTransform,
    TransformedDistribution,
    kl_divergence,
)

import pyro_kl
from pyro_kl.numerics.special.log_odds import kl_normal_log_odds, mean_softplus_excess

F64 = torch.float64
EPS = 2.0**-52

#: mean, scale, a, b; the KL; its derivatives by each of the four. Made by mpmath.quad of log p -
#: log q, on pieces that end at 0 and at multiples of the scale.
# fmt: off
INTEGRALS = [
    (0.3, 0.1, 0.5, 0.5, 2.7339525596504430962, 0.074261409643324140652,
     -9.9756109649100652683, -0.83071824710822057797, -0.53071824710822058907),
    (-4.0, 1.99, 2.0, 3.0, 3.8330522706704958279, -1.6643251968206302266,
     -0.034977839249206211537, 3.0016730851465806472, -0.49832691485341935277),
    (2.5, 2.01, 5.0, 1.0, 0.32850563682861668582, -0.041336086233648737339,
     0.65081723351212349516, 0.05916946742306234653, 0.4758361340897290132),
    (-10.0, 2.2, 0.03, 960.0, 1.8570362424189671546, 0.4428870926999345411,
     0.55768978323263680239, -30.728197589910866413, 0.00046919141400335444569),
    (46.0, 21.0, 4.9, 0.008, 1.2479831236097464168, -0.063373117694410372969,
     0.13268252176380821245, 0.10649855264912414716, -80.941371814679005857),
    (1.0, 6.0, 0.7, 0.4, 0.53145939394613244873, -0.080218108866160675972,
     0.24847118115250281029, 1.2353131057000241057, 0.89395211481284286213),
    (-300.0, 3.0, 2.0, 3.0, 594.99754252833921726, -2.0,
     -0.33333333333333333333, 298.91666666666666667, -0.58333333333333333333),
    (300.0, 1.5, 2.0, 3.0, 895.69068970889916257, 3.0,
     -0.66666666666666666667, -1.0833333333333333333, 299.41666666666666667),
    (0.0, 1.0, 1e-200, 1.0, 459.90413924895190386, 0.5,
     -0.79337903585809296274, -1.0000000000000000179e200, 0.80605918334743978453),
    (-0.69565345, 0.12273014, 100.0, 200.0, 0.00013952653131991537712, -0.00027608862210523056438,
     0.0068123767120093110246, 9.4739697335421331975e-7, 9.2787879756293996399e-7),
    (-0.69314743056, 0.00122474513, 1e6, 2e6, 1.3888895497539330501e-8, -2.1668413149339915872e-8,
     0.000072645628850286945695, 5.0296034826819734878e-15, 1.2783854345047724814e-14),
]
# fmt: on


def size(mean, scale, a, b, value):
    """What rounding is relative to: the largest terms."""
    return 1 + value + abs(math.log(scale)) + min(a, b) * (abs(mean - math.log(a / b)) + scale)


@pytest.mark.parametrize("numbers", INTEGRALS)
def test_value_and_derivatives(numbers):
    given = torch.tensor(numbers[:4], dtype=F64, requires_grad=True)
    value = kl_normal_log_odds(*given)
    (found,) = torch.autograd.grad(value, given)
    mean, scale, a, b, exact, *slopes = numbers
    assert value.item() == pytest.approx(exact, rel=0, abs=16 * EPS * size(*numbers[:5]))
    # the terms of a slope: (a + b) f' and 1 / scale; f, whose slope by the mean is below 1
    by_mean, log_size = min(a, b) + 1 / scale, 1 + abs(mean - math.log(a / b)) + scale
    tolerances = by_mean, by_mean, log_size / min(a, 1), log_size / min(b, 1)
    for x, slope, scale_of in zip(found.tolist(), slopes, tolerances, strict=True):
        assert x == pytest.approx(slope, rel=1e-12, abs=16 * EPS * scale_of)


# rounding leaves six digits of the last one, which a warning says
@pytest.mark.filterwarnings("ignore:KL.*tolerance 1e-06 not reached")
@pytest.mark.parametrize("numbers", INTEGRALS)
def test_told_error_holds(numbers):
    mean, scale, a, b, exact, *_ = numbers
    told = pyro_kl.kl(
        TransformedDistribution(
            Normal(torch.tensor(mean, dtype=F64), torch.tensor(scale, dtype=F64)),
            SigmoidTransform(),
        ),
        Beta(torch.tensor(a, dtype=F64), torch.tensor(b, dtype=F64)),
    )
    assert told.method == "quadrature"
    assert abs(told.value.item() - exact) <= told.error.item() <= 200 * EPS * size(*numbers[:5])


def test_second_derivatives():
    mean = torch.tensor([0.3, -2.0, 4.0, 0.0], dtype=F64, requires_grad=True)
    scale = torch.tensor([0.5, 1.9, 2.1, 7.0], dtype=F64, requires_grad=True)
    centre = torch.tensor([-0.2, 1.0, 0.7, -3.0], dtype=F64, requires_grad=True)
    inputs = (mean, scale, centre)
    assert torch.autograd.gradcheck(mean_softplus_excess, inputs)
    assert torch.autograd.gradgradcheck(mean_softplus_excess, inputs)


def stick_breaking(loc, scale):
    return TransformedDistribution(Independent(Normal(loc, scale), 1), StickBreakingTransform())


def test_sticks_are_those_of_every_other_way():
    """A map of one more step is integrated over the line, as any map is."""
    loc = torch.tensor([[0.3, -1.0], [2.0, 0.1]], dtype=F64, requires_grad=True)
    scale = torch.tensor([0.5, 3.0], dtype=F64, requires_grad=True)
    q = Dirichlet(torch.tensor([2.0, 0.7, 3.0], dtype=F64))
    image, known = stick_breaking(loc, scale), LogisticNormal(loc, scale)
    values = [kl_divergence(p, q) for p in (image, known)]
    assert torch.equal(*values)
    rest = torch.tensor([3.7, 3.0], dtype=F64)
    shift = torch.tensor([2.0, 1.0], dtype=F64).log()
    maps = [AffineTransform(-shift, 1.0), SigmoidTransform(), AffineTransform(0.0, 1.0 + 0 * loc)]
    by_line = TransformedDistribution(Normal(loc, scale), maps)
    expected = kl_divergence(by_line, Beta(q.concentration[:2], rest)).sum(-1)
    assert torch.allclose(values[0], expected, rtol=1e-9)
    found, wanted = (
        torch.autograd.grad(x.sum(), (loc, scale), retain_graph=True)
        for x in (values[0], expected)
    )
    for x, y in zip(found, wanted, strict=True):
        assert torch.allclose(x, y, rtol=1e-7)


def test_correlations_are_those_of_every_other_way():
    prior = LKJCholesky(3, torch.tensor([1.5, 0.7], dtype=F64))
    loc = torch.tensor([0.3, -1.0, 0.2], dtype=F64)
    covariance = torch.diag(torch.tensor([0.2, 1.0, 4.0], dtype=F64))
    values = [
        kl_divergence(TransformedDistribution(p, CorrCholeskyTransform()), prior)
        for p in (
            Independent(Normal(loc, covariance.diagonal().sqrt()), 1),
            MultivariateNormal(loc, covariance),
        )
    ]
    assert values[0].shape == (2,)
    assert torch.allclose(*values, rtol=1e-12)


def test_a_row_without_a_kl_leaves_the_others_alone():
    loc = torch.tensor([0.0, math.inf, 0.0, math.nan, -math.inf], requires_grad=True)
    scale = torch.tensor([1.0, 1.0, math.inf, 1.0, 1.0], requires_grad=True)
    q = Beta(torch.ones(5), torch.ones(5), validate_args=False)
    p = TransformedDistribution(
        Normal(loc, scale, validate_args=False), SigmoidTransform(), validate_args=False
    )
    value = kl_divergence(p, q)
    assert value.dtype == torch.float32
    assert value.isnan().tolist() == [False, True, True, True, True]
    by_loc, by_scale = torch.autograd.grad(value[0], (loc, scale))
    assert by_loc[0].abs() < 1e-6
    assert by_scale[0].isfinite()
