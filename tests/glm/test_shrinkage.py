"""Shrinkage priors: their expectations against many digits, and the horseshoe distribution."""

import itertools
import math

import mpmath as mp
import pytest
import torch
from scipy.integrate import quad

import pyro_kl
from pyro_kl.glm.covariances.covariance import DiagonalCovariance, FullCovariance
from pyro_kl.glm.priors.horseshoe import Horseshoe, log_scaled_exp1
from pyro_kl.glm.priors.shrinkage import HorseshoePrior, LaplacePrior, StudentTPrior

PRIORS = {"laplace": LaplacePrior, "studentt": StudentTPrior, "horseshoe": HorseshoePrior}
LOCS = (0.0, 1e-4, -0.3, 5.0, -1e3)
SCALES = (1e-4, 0.01, 1.0, 30.0, 1e3)


def log_scaled_exp1_in_digits(y):
    """log(exp(y) E1(y)); the asymptotic series (DLMF 6.12.1) where exp(-y) is too small."""
    if y < 5000:
        return y + mp.log(mp.e1(y))
    return -mp.log(y) + mp.log(sum((-1) ** k * mp.factorial(k) / y**k for k in range(12)))


def log_density(name, x):
    """As the books have it, for a scale of 1."""
    if name == "laplace":
        return -abs(x) - mp.log(2)
    if name == "studentt":
        top = mp.gamma(mp.mpf(5) / 2) / (mp.gamma(2) * mp.sqrt(4 * mp.pi))
        return mp.log(top) - mp.mpf(5) / 2 * mp.log(1 + x * x / 4)
    return log_scaled_exp1_in_digits(x * x / 2) - mp.log(2 * mp.pi**3) / 2


def in_digits(name, loc, scale):
    """E log p and minus its second derivative in the mean; the first one between them (Bonnet)."""
    with mp.workdps(25):
        m, s = mp.mpf(loc), mp.mpf(scale)
        ends = [mp.mpf(k) for k in (-13, -9, -6, -3, -1, 0, 1, 3, 6, 9, 13)]
        bends = [(sign * mp.mpf(10) ** k - m) / s for sign in (-1, 1) for k in range(-6, 4)]
        inside = {z for z in (*bends, -m / s) if abs(z) < 13}

        def expectation(of):
            def integrand(z):
                x = m + s * z
                return mp.npdf(z) * of(z) * log_density(name, x) if x else mp.mpf(0)

            return mp.quad(integrand, sorted({*ends, *inside}))

        value = expectation(lambda z: 1)
        return [float(x) for x in (
            value, expectation(lambda z: z / s), expectation(lambda z: (1 - z * z) / s**2)
        )]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["laplace", "studentt", pytest.param("horseshoe", marks=pytest.mark.sweep)]
)
def test_expectations_agree_with_integrals_in_digits(name):
    pairs = list(itertools.product(LOCS, SCALES))[::3]
    loc, scale = torch.tensor(pairs, dtype=torch.float64).unbind(-1)
    for m, s in zip(loc, scale, strict=True):
        terms = PRIORS[name](torch.ones(1).double()).expected(
            m.reshape(1), DiagonalCovariance(s.reshape(1))
        )
        value, slope, curvature = in_digits(name, float(m), float(s))
        assert terms.value == pytest.approx(value, rel=1e-11, abs=1e-11)
        assert float(terms.gradient) == pytest.approx(slope, rel=1e-9, abs=1e-15)
        assert float(terms.precision) == pytest.approx(curvature, rel=1e-8, abs=1e-15)


@pytest.mark.parametrize("name", PRIORS)
def test_coefficients_add_up_and_each_has_its_scale(name):
    generator = torch.Generator().manual_seed(0)
    loc, scale = torch.randn(2, 300, generator=generator, dtype=torch.float64)
    scale = torch.exp(2 * scale)
    tril = torch.tril(torch.randn(300, 300, generator=generator, dtype=torch.float64))
    covariance = FullCovariance(tril)
    sd = tril.square().sum(-1).sqrt()
    whole = PRIORS[name](scale).expected(loc, covariance)
    parts = [
        PRIORS[name](torch.ones(1).double()).expected(
            (loc[j] / scale[j]).reshape(1), DiagonalCovariance((sd[j] / scale[j]).reshape(1))
        )
        for j in range(300)
    ]
    values = sum(part.value for part in parts) - float(scale.log().sum())
    assert whole.value == pytest.approx(values, rel=1e-10)
    gradient = torch.cat([part.gradient for part in parts]) / scale
    precision = torch.cat([part.precision for part in parts]) / scale.square()
    torch.testing.assert_close(whole.gradient, gradient, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(whole.precision, precision, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", PRIORS)
def test_the_distribution_is_that_of_the_expectations(name):
    scale = torch.tensor([5.0, 0.5, 1.0], dtype=torch.float64)
    loc, sd = torch.tensor([0.3, 0.01, -2.0]).double(), torch.tensor([0.5, 0.2, 0.1]).double()
    prior = PRIORS[name](scale)
    q = torch.distributions.Independent(torch.distributions.Normal(loc, sd), 1)
    kl = float(pyro_kl.kl(q, prior.distribution()).value)
    terms = prior.expected(loc, DiagonalCovariance(sd))
    entropy = float(sd.log().sum()) + 1.5 * math.log(2 * math.pi * math.e)
    assert -entropy - terms.value == pytest.approx(kl, rel=1e-6)
    assert prior.distribution().event_shape == (3,)


def test_the_tails_of_student_t_and_the_horseshoe_are_not_concave():
    for name in ("studentt", "horseshoe"):
        far = PRIORS[name](torch.ones(1).double()).expected(
            torch.tensor([10.0]).double(), DiagonalCovariance(torch.tensor([0.1]).double())
        )
        assert float(far.precision) < 0


# --- the horseshoe ------------------------------------------------------------------------------


def test_log_scaled_exp1_against_digits():
    far = [10.0**k for k in range(-300, 301, 5)]
    near = [1.5 + 0.025 * k for k in range(41)]  # where the series ends
    y = torch.tensor([*far, *near], dtype=torch.float64)
    exact = [float(log_scaled_exp1_in_digits(mp.mpf(float(x)))) for x in y]
    exact = torch.tensor(exact, dtype=torch.float64)
    torch.testing.assert_close(log_scaled_exp1(y), exact, rtol=1e-14, atol=1e-14)


def density(distribution, x):
    return float(distribution.log_prob(torch.tensor(x, dtype=torch.float64)).exp())


def test_the_density_of_the_horseshoe_is_that_of_the_mixture():
    scale, x = 0.7, 0.4

    def mixed(lamda):
        normal = math.exp(-0.5 * (x / (scale * lamda)) ** 2) / (scale * lamda)
        return normal / math.sqrt(2 * math.pi) * 2 / (math.pi * (1 + lamda**2))

    q = Horseshoe(torch.tensor(scale, dtype=torch.float64))
    assert density(q, x) == pytest.approx(
        quad(mixed, 0, math.inf, epsabs=0, epsrel=1e-11)[0], rel=1e-9
    )
    mass = quad(lambda u: density(q, math.exp(u)) * math.exp(u), -80, 60, limit=500)[0]
    assert 2 * mass == pytest.approx(1.0, abs=1e-6)


def test_draws_of_the_horseshoe_have_its_density():
    torch.manual_seed(0)
    q = Horseshoe(torch.tensor([0.5, 2.0], dtype=torch.float64))
    draws = q.expand((3, 2)).sample((40_000,))
    assert draws.shape == (40_000, 3, 2)
    assert q.rsample().shape == (2,)
    inside = (draws.abs() < q.scale).double().mean((0, 1))
    one = Horseshoe(torch.tensor(1.0, dtype=torch.float64))
    below = quad(
        lambda u: 2 * math.exp(float(one.log_prob(torch.tensor(math.exp(u)))) + u), -80, 0
    )
    standard_error = math.sqrt(below[0] * (1 - below[0]) / 120_000)
    assert (inside - below[0]).abs().max() < 5 * standard_error


def test_the_kl_from_the_horseshoe_is_differentiable_twice_and_keeps_the_dtype():
    loc = torch.tensor([0.3, 0.0, 4.0], dtype=torch.float64, requires_grad=True)
    sd = torch.tensor([0.3, 0.2, 0.1], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)

    def kl(loc, sd, scale):
        normal = torch.distributions.Normal(loc, sd)
        return torch.distributions.kl_divergence(normal, Horseshoe(scale))

    assert torch.autograd.gradcheck(kl, (loc, sd, scale))
    assert torch.autograd.gradgradcheck(kl, (loc, sd, scale))
    single = kl(loc.detach().float(), sd.detach().float(), scale.detach().float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, kl(loc, sd, scale).float().detach())
    nowhere = torch.distributions.Normal(
        torch.tensor([math.nan, 0.3]), torch.tensor(0.1), validate_args=False
    )
    found = torch.distributions.kl_divergence(nowhere, Horseshoe(torch.tensor(1.0)))
    assert found[0].isnan()
    assert found[1] == pytest.approx(1.93609, rel=1e-5)
    empty = torch.distributions.Normal(torch.zeros(0), torch.ones(0))
    assert torch.distributions.kl_divergence(empty, Horseshoe(torch.tensor(1.0))).shape == (0,)


def test_the_kl_from_the_horseshoe_passes_the_checks_of_any_pair():
    assert pyro_kl.check(torch.distributions.Normal, Horseshoe).ok
