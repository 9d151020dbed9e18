"""Entropy, cross-entropy, Renyi's, Jensen and Shannon's and Jeffreys' divergence."""

from __future__ import annotations

import itertools
import math
import zlib

import pytest
import torch
from pyro.distributions import Logistic
from pyro.distributions import Normal as pyro_normal
from torch.distributions import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Cauchy,
    Dirichlet,
    Exponential,
    Gamma,
    GeneralizedPareto,
    Geometric,
    Gumbel,
    HalfCauchy,
    HalfNormal,
    Independent,
    Kumaraswamy,
    Laplace,
    LogNormal,
    MixtureSameFamily,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    OneHotCategorical,
    Pareto,
    Poisson,
    StudentT,
    TransformedDistribution,
    Uniform,
    VonMises,
    Weibull,
    Wishart,
    transforms,
)

import pyro_kl
from pyro_kl.registry.family import end_at
from pyro_kl.registry.register import families

from ..conformance.reference.extended_precision import divergences as independent

pytestmark = pytest.mark.usefixtures("nothing_warned", "double")
LOG_2 = math.log(2)


def number(x):
    return torch.tensor(x, dtype=torch.float64)


def of(cls):
    return lambda **parameters: lambda: cls(**{k: number(x) for k, x in parameters.items()})


# Integrals at 34 digits (mpmath's tanh-sinh rule on some twenty pieces) of the densities as the
# books write them.
REFERENCES = [
    (
        of(Normal)(loc=0.3, scale=1.1),
        of(Laplace)(loc=-0.5, scale=2.0),
        {
            0.1: 0.13048507735928276107,
            0.5: 0.31674445797106747882,
            0.9: 0.405208307533782269,
            0.999999: 0.42208081487554195802,
            1.000001: 0.42208113797779055203,
            2.0: 0.53954017304783439309,
            5.0: 0.69338265264607535498,
        },
        0.12225459909663748394,
    ),
    (
        of(Normal)(loc=0.3, scale=1.1),
        of(Normal)(loc=-0.5, scale=2.0),
        {
            0.1: 0.070333707924701165986,
            0.5: 0.23039566033050340205,
            0.9: 0.3137259907558049563,
            0.999999: 0.32908685492898445075,
            1.000001: 0.32908714658210944303,
            2.0: 0.4275149697349761259,
            5.0: 0.53683214546645383493,
        },
        0.095683679600793625688,
    ),
    (
        of(Gumbel)(loc=0.5, scale=1.0),
        of(Logistic)(loc=0.0, scale=1.5),
        {
            0.1: 0.2511233285855113265,
            0.5: 0.4042369083420211531,
            0.9: 0.46735542643892555655,
            0.999999: 0.4790642240004683853,
            1.000001: 0.47906444724512381588,
            2.0: 0.55763857231254959871,
            5.0: 0.65505332877003256711,
        },
        0.14398908668957913884,
    ),
    (
        of(Gamma)(concentration=2.0, rate=3.0),
        of(Weibull)(scale=1.5, concentration=0.75),
        {
            0.1: 0.13826464922433547146,
            0.5: 0.35322381310218419053,
            0.9: 0.44788850162062435029,
            0.999999: 0.4647838893564045389,
            1.000001: 0.46478420888680275526,
            2.0: 0.57050173826186318306,
            5.0: 0.68458148606764956875,
        },
        0.13565002963112827694,
    ),
    (
        of(HalfNormal)(scale=1.0),
        of(Exponential)(rate=0.5),
        {
            0.1: 0.13656474722928058563,
            0.5: 0.29603825414251140369,
            0.9: 0.35608121588317457292,
            0.999999: 0.36629801236520435497,
            1.000001: 0.36629820426798085659,
            2.0: 0.42726818151662965359,
            5.0: 0.48815334158535622797,
        },
        0.11187960050964090701,
    ),
    (
        of(Beta)(concentration1=2.0, concentration0=3.0),
        of(Kumaraswamy)(concentration1=1.5, concentration0=2.0),
        {
            0.1: 0.006619092935748526863,
            0.5: 0.029179158951433975166,
            0.9: 0.047073152318623887076,
            0.999999: 0.050996046139784550663,
            1.000001: 0.050996122691696237413,
            2.0: 0.081925686953604183106,
            5.0: 0.13102183583889679034,
        },
        0.014106213721567056379,
    ),
]


@pytest.mark.parametrize(("p", "q", "values", "js"), REFERENCES)
def test_references(p, q, values, js):
    p, q = p(), q()
    for alpha, value in values.items():
        found = pyro_kl.renyi(p, q, alpha)
        assert float(found) == pytest.approx(value, rel=1e-13)
        if found.error is not None:
            assert found.method == "quadrature"
            assert found.error < 1e-9 * value
    assert float(pyro_kl.jensen_shannon(p, q)) == pytest.approx(js, rel=1e-13)
    assert float(pyro_kl.jensen_shannon(q, p)) == pytest.approx(js, rel=1e-13)


# --- every pair of families on a line, against extended precision --------------------------------

ON_LINE = [f for f in families() if f.line is not None]


def some_pairs(one_in):
    found = []
    for p, q in itertools.product(ON_LINE, repeat=2):
        on_circle = "VonMises" in {p.name, q.name} and p is not q
        if zlib.crc32(f"{p.name} {q.name}".encode()) % one_in == 0 and not on_circle:
            found.append((p, q))
    return found


def ends(family, example):
    given = {name: number(x) for name, x in example.items()}
    support = family.support.low, family.support.high
    return [float(torch.as_tensor(end_at(end, given))) for end in support]


@pytest.mark.parametrize(("p", "q"), some_pairs(24), ids=lambda family: family.name)
def test_extended_precision(p, q):
    a, b = p.examples[0], q.examples[1]
    mine, theirs = ends(p, a), ends(q, b)
    inside = mine[0] >= theirs[0] and mine[1] <= theirs[1]
    around = mine[0] <= theirs[0] and mine[1] >= theirs[1]
    for alpha in (0.1, 0.5, 0.9, 1 - 1e-6, 1 + 1e-6, 2.0, 5.0):
        if inside:
            expected, off = independent.renyi(p.name, a, q.name, b, alpha)
        elif around and alpha < 1:
            expected, off = independent.renyi(q.name, b, p.name, a, 1 - alpha)
            expected, off = (x * alpha / (1 - alpha) for x in (expected, off))
        else:
            continue
        if not off < 1e-8 * max(abs(expected), 1e-3):
            continue
        found = pyro_kl.renyi(p.make(a), q.make(b), alpha)
        told = 0.0 if found.error is None else float(found.error)
        assert float(found) == pytest.approx(expected, rel=1e-9, abs=told + off), alpha
    if mine == theirs:
        expected, off = independent.jensen_shannon(p.name, a, q.name, b)
        found = pyro_kl.jensen_shannon(p.make(a), q.make(b))
        assert float(found) == pytest.approx(expected, rel=1e-9, abs=float(found.error) + off)


def test_lines_that_overflow():
    """Far out on the line of a Pareto, x overflows before its density is nothing."""
    p = GeneralizedPareto(number(1.0), number(2.0), number(0.0))
    found = pyro_kl.renyi(p, Pareto(number(4.0), number(6.0)), 0.9)
    assert float(found) == pytest.approx(13.87898486082532, rel=1e-12)
    # on the line of q, p's mass next to 0 is further out than floats go: the error says so
    p, q = Gamma(number(0.3), number(5.0)), Kumaraswamy(number(12.0), number(5.0))
    found = pyro_kl.renyi(p, q, 1 - 1e-6)
    assert abs(float(found) - 706.379328097893) < float(found.error) * 1.01
    far = pyro_kl.renyi(HalfNormal(number(15.0)), Exponential(number(8.0)), 5.0)
    assert float(far) == pytest.approx(5754.958823960658, rel=1e-12)


# --- closed forms -------------------------------------------------------------------------------


def by_definition(p, q, alpha, x, weight):
    powers = alpha * p.log_prob(x) + (1 - alpha) * q.log_prob(x)
    return (powers.logsumexp(0) + math.log(weight)) / (alpha - 1)


EXPONENTIAL_FAMILIES = [
    (Poisson(number(3.0)), Poisson(number(2.0))),
    (Geometric(number(0.3)), Geometric(number(0.2))),
    (Binomial(7, number(0.3)), Binomial(7, number(0.6))),
    (NegativeBinomial(number(3.0), number(0.4)), NegativeBinomial(number(2.5), number(0.5))),
    (Bernoulli(number(0.3)), Bernoulli(logits=number(1.0))),
]


@pytest.mark.parametrize(("p", "q"), EXPONENTIAL_FAMILIES)
@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9, 1 - 1e-3, 1 + 1e-3, 2.0])
def test_discrete(p, q, alpha):
    atoms = 2 if isinstance(p, Bernoulli) else 8 if isinstance(p, Binomial) else 400
    x = torch.arange(float(atoms))
    value = float(by_definition(p, q, alpha, x, 1.0))
    assert float(pyro_kl.renyi(p, q, alpha)) == pytest.approx(value, rel=1e-10)


def normal_in(dimension, seed):
    torch.manual_seed(seed)
    factor = torch.randn(dimension, dimension)
    covariance = factor @ factor.mT / dimension + torch.eye(dimension)
    return MultivariateNormal(torch.randn(dimension), covariance)


def renyi_of_normals(p, q, alpha):
    mixed = (1 - alpha) * p.covariance_matrix + alpha * q.covariance_matrix
    d = p.loc - q.loc
    log_dets = (1 - alpha) * p.covariance_matrix.logdet() + alpha * q.covariance_matrix.logdet()
    return 0.5 * alpha * d @ torch.linalg.solve(mixed, d) - 0.5 / (alpha - 1) * (
        mixed.logdet() - log_dets
    )


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9, 1.2, 2.0])
def test_multivariate_normal(alpha):
    p, q = normal_in(3, 0), normal_in(3, 1)
    q = MultivariateNormal(q.loc, 4 * q.covariance_matrix)
    expected = float(renyi_of_normals(p, q, alpha))
    assert float(pyro_kl.renyi(p, q, alpha)) == pytest.approx(expected, rel=1e-12)
    product = Independent(Normal(p.loc, p.stddev), 1)
    dense = MultivariateNormal(p.loc, torch.diag(p.variance))
    expected = float(renyi_of_normals(dense, q, alpha))
    assert float(pyro_kl.renyi(product, q, alpha)) == pytest.approx(expected, rel=1e-12)
    both = Independent(Normal(q.loc, q.stddev), 1)
    summed = pyro_kl.renyi(product.base_dist, both.base_dist, alpha).value.sum()
    assert float(pyro_kl.renyi(product, both, alpha)) == pytest.approx(float(summed))


def test_multivariate_normal_is_infinite_where_a_direction_is_too_wide():
    wide = torch.diag(number([1.0, 2.5]))
    p, q = (
        MultivariateNormal(torch.zeros(2), wide),
        MultivariateNormal(torch.zeros(2), torch.eye(2)),
    )
    assert pyro_kl.renyi(p, q, 1.6).value.isfinite()
    assert pyro_kl.renyi(p, q, 2.0).value == math.inf


def test_multivariate_normal_has_derivatives_where_p_is_q():
    q = normal_in(3, 0)

    def divergence(loc, tril):
        p = MultivariateNormal(loc, scale_tril=tril.tril(), validate_args=False)
        return pyro_kl.renyi(p, q, 1.3).value

    for loc, tril in ((q.loc, q.scale_tril), (q.loc + 0.1, 0.9 * q.scale_tril)):
        inputs = loc.clone().requires_grad_(), tril.clone().requires_grad_()
        assert torch.autograd.gradcheck(divergence, inputs)
        assert torch.autograd.gradgradcheck(divergence, inputs)


def log_beta(a):
    return torch.lgamma(a).sum() - torch.lgamma(a.sum())


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9, 1.5, 2.0, 5.0])
def test_dirichlet(alpha):
    a, b = number([2.0, 3.0, 0.75]), number([1.0, 1.0, 1.0])
    middle = alpha * a + (1 - alpha) * b
    found = float(pyro_kl.renyi(Dirichlet(a), Dirichlet(b), alpha))
    if (middle <= 0).any():
        assert found == math.inf
    else:
        log_rho = log_beta(middle) - alpha * log_beta(a) - (1 - alpha) * log_beta(b)
        assert found == pytest.approx(float(log_rho) / (alpha - 1), rel=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 0.9, 1.5])
def test_wishart(alpha):
    p = Wishart(number(4.0), scale_tril=number([[1.0, 0.0], [0.3, 0.7]]))
    q = Wishart(number(5.5), scale_tril=number([[1.2, 0.0], [-0.4, 1.0]]))

    def log_partition(df, precision):
        rest = df * LOG_2 + torch.special.multigammaln(0.5 * df, 2)
        return rest - 0.5 * df * precision.logdet()

    df = alpha * p.df + (1 - alpha) * q.df
    precision = alpha * p.precision_matrix + (1 - alpha) * q.precision_matrix
    ends = alpha * log_partition(p.df, p.precision_matrix)
    ends = ends + (1 - alpha) * log_partition(q.df, q.precision_matrix)
    value = float((log_partition(df, precision) - ends) / (alpha - 1))
    assert float(pyro_kl.renyi(p, q, alpha)) == pytest.approx(value, rel=1e-12)


# --- where it is infinite -----------------------------------------------------------------------

FINITE_BELOW = [
    # p, q, the order from which on the divergence is infinite
    (StudentT(number(1.0)), StudentT(number(3.0)), 1.5),
    (Cauchy(number(0.0), number(1.0)), StudentT(number(2.0)), 2.0),
    (Laplace(number(0.0), number(1.0)), Laplace(number(1.0), number(0.75)), 4.0),
    (Logistic(number(0.0), number(1.0)), Laplace(number(0.0), number(0.5)), 2.0),
    (Normal(number(0.0), number(1.0)), Normal(number(0.0), number(0.5)), 4 / 3),
    (Gamma(number(1.0), number(1.0)), Weibull(number(0.5), number(1.0)), 2.0),
    (Beta(number(0.5), number(1.0)), Kumaraswamy(number(1.0), number(1.0)), 2.0),
    (Beta(number(0.5), number(1.0)), Kumaraswamy(number(1.5), number(1.0)), 1.5),
    (Gamma(number(2.0), number(1.0)), LogNormal(number(0.0), number(1.0)), 1.0),
    (Beta(number(0.5), number(1.0)), Laplace(number(0.0), number(1.0)), 2.0),
    (Weibull(number(0.3), number(0.8)), Cauchy(number(-9.0), number(5.0)), 5.0),
    (HalfCauchy(number(1.0)), Gamma(number(2.0), number(1.0)), 1.0),
    (LogNormal(number(0.0), number(1.0)), HalfCauchy(number(1.0)), math.inf),
    (Gumbel(number(0.0), number(1.0)), Normal(number(0.0), number(9.0)), 1.0),
    (Normal(number(0.0), number(9.0)), Gumbel(number(0.0), number(1.0)), 1.0),
    (Geometric(number(0.25)), NegativeBinomial(number(1.0), number(0.5625)), 2.0),
    (Geometric(number(0.25)), Poisson(number(3.0)), 1.0),
    (Poisson(number(3.0)), Geometric(number(0.9)), math.inf),
    (Uniform(number(0.0), number(1.0)), Uniform(number(0.5), number(2.0)), 1.0),
]


@pytest.mark.parametrize(("p", "q", "order"), FINITE_BELOW)
def test_infinite_from_an_order_on(p, q, order):
    below = [0.5, 0.9 * order] if math.isfinite(order) and order > 1 else [0.5]
    below += [50.0] if order == math.inf else []
    for alpha in below:
        assert pyro_kl.renyi(p, q, alpha).value.isfinite(), alpha
    if math.isfinite(order):
        for alpha in (1.01 * order, 2 * order, 50.0):
            assert pyro_kl.renyi(p, q, alpha).value == math.inf, alpha


def test_no_gradient_of_an_infinite_row_reaches_another():
    df = number([3.0, 1.0]).requires_grad_()
    value = pyro_kl.renyi(StudentT(df), StudentT(number(2.5), number(0.5)), 5.0).value
    assert value.isinf().tolist() == [False, True]
    (slope,) = torch.autograd.grad(value[0], df)
    assert slope[0] != 0
    assert slope[1] == 0


@pytest.mark.parametrize("alpha", [0.5, 5.0])
def test_rows_with_a_parameter_that_is_nan(alpha):
    p = Laplace(number(0.5), number([1.5, math.nan, 4.0]), validate_args=False)
    value = pyro_kl.renyi(p, Laplace(number(0.0), number(1.25)), alpha).value
    assert value.isnan().tolist() == [False, True, False]
    assert value.isinf().tolist() == [False, False, alpha > 1]


def test_disjoint_supports():
    p, q = Uniform(number(0.0), number(1.0)), Uniform(number(2.0), number(3.0))
    assert pyro_kl.renyi(p, q, 0.5).value == math.inf
    assert float(pyro_kl.jensen_shannon(p, q)) == pytest.approx(LOG_2, rel=1e-12)


# --- limits -------------------------------------------------------------------------------------


def test_orders_without_a_formula_of_their_own():
    p, q = Categorical(number([0.2, 0.8, 0.0])), Categorical(number([0.5, 0.25, 0.25]))
    assert float(pyro_kl.renyi(p, q, 0)) == pytest.approx(-math.log(0.75))
    assert float(pyro_kl.renyi(p, q, math.inf)) == pytest.approx(math.log(0.8 / 0.25))
    assert pyro_kl.renyi(p, q, 1) == pyro_kl.kl(p, q)
    assert float(pyro_kl.renyi(p, q, 1e4)) == pytest.approx(math.log(3.2), abs=1e-3)
    assert float(pyro_kl.renyi(p, q, 1e-6)) == pytest.approx(-math.log(0.75), abs=1e-5)
    assert pyro_kl.renyi(q, p, 2.0).value == math.inf
    u, v = Uniform(number(0.0), number(1.0)), Uniform(number(0.0), number(4.0))
    assert float(pyro_kl.renyi(u, v, 0)) == pytest.approx(math.log(4))


@pytest.mark.parametrize("alpha", [-1, math.nan, "2", None, True])
def test_order_that_is_none(alpha):
    p = Normal(number(0.0), number(1.0))
    with pytest.raises(ValueError, match="alpha must be"):
        pyro_kl.renyi(p, Normal(number(1.0), number(1.0)), alpha)


CLOSE = [
    (lambda e: Gamma(2.0 + e, number(1.0)), 1e-6),
    (lambda e: StudentT(5.0 + e, number(0.0), number(1.0)), 1e-4),
    (lambda e: Weibull(1.0 + e, number(1.5)), 1e-6),
    (lambda e: Laplace(e, number(1.0)), 1e-6),
    (lambda e: Categorical(torch.stack((0.2 + e, number(0.3), number(0.5)))), 1e-6),
    (lambda e: Poisson(3.0 + e), 1e-6),
]


@pytest.mark.parametrize(("member", "step"), CLOSE)
@pytest.mark.parametrize("alpha", [0.5, 0.9, 2.0])
def test_close_to_each_other(member, step, alpha):
    p, q = member(number(step)), member(number(0.0))
    divergence = float(pyro_kl.kl(p, q))
    assert float(pyro_kl.renyi(p, q, alpha)) == pytest.approx(alpha * divergence, rel=20 * step)
    assert float(pyro_kl.jensen_shannon(p, q)) == pytest.approx(divergence / 4, rel=20 * step)
    assert float(pyro_kl.renyi(q, q, alpha)) == 0


def test_shannon_of_vectors_is_sampled_where_that_is_allowed():
    p, q = normal_in(2, 0), normal_in(2, 1)
    with pytest.raises(NotImplementedError, match="Jensen-Shannon"):
        pyro_kl.jensen_shannon(p, q)
    found = pyro_kl.jensen_shannon(p, q, num_samples=20_000)
    assert 0 < found.standard_error < 0.01
    line = [MultivariateNormal(number([m]), number([[1.0]])) for m in (0.0, 1.0)]
    exact = pyro_kl.jensen_shannon(*(Normal(number(m), number(1.0)) for m in (0.0, 1.0)))
    found = pyro_kl.jensen_shannon(*line, num_samples=20_000)
    assert abs(found.value - exact.value) < 4.5 * found.standard_error


# --- inequalities -------------------------------------------------------------------------------


@pytest.mark.parametrize(("p", "q"), some_pairs(12), ids=lambda family: family.name)
def test_inequalities(p, q):
    p, q = p.make(p.examples[1]), q.make(q.examples[0])
    orders = (0.1, 0.5, 0.9, 1.0, 2.0, 5.0)
    values = [float(pyro_kl.renyi(p, q, alpha)) for alpha in orders]
    for low, high in itertools.pairwise(values):
        assert low <= high * (1 + 1e-6) + 1e-12
    shannon = float(pyro_kl.jensen_shannon(p, q))
    assert 0 <= shannon <= LOG_2 + 1e-12
    assert shannon <= float(pyro_kl.jeffreys(p, q)) / 4 + 1e-12


# --- wrappers -----------------------------------------------------------------------------------


def test_shared_maps_change_nothing():
    p, q = Normal(number(0.3), number(1.0)), Laplace(number(0.0), number(2.0))
    maps = [transforms.TanhTransform(), transforms.AffineTransform(1.0, 3.0)]
    images = [TransformedDistribution(x, maps) for x in (p, q)]
    assert pyro_kl.renyi(*images, 2.0).value == pyro_kl.renyi(p, q, 2.0).value
    assert pyro_kl.jensen_shannon(*images).value == pyro_kl.jensen_shannon(p, q).value


def test_masks():
    loc = number([0.0, 1.0, 2.0])
    mask = torch.tensor([True, False, True])
    p, q = pyro_normal(loc, 1.0).mask(mask), pyro_normal(0.5, 2.0).mask(mask)
    for divergence in (lambda a, b: pyro_kl.renyi(a, b, 2.0), pyro_kl.jensen_shannon):
        value = divergence(p, q).value
        assert value[1] == 0
        assert value[2] == divergence(Normal(loc, 1.0), Normal(number(0.5), 2.0)).value[2]
        with pytest.raises(NotImplementedError, match="mask on one side"):
            divergence(p, pyro_normal(0.5, 2.0))


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (Normal, Laplace),
        (Laplace, Normal),
        (StudentT, Cauchy),
        (Normal, Normal),
        (Gamma, Weibull),
        (Gamma, Gamma),
        (Pareto, HalfCauchy),
    ],
)
@pytest.mark.parametrize("alpha", [0.5, 0.9, 1.1])
def test_derivatives(p, q, alpha):
    starts = {
        Normal: (0.3, 1.1), Laplace: (-0.5, 2.0), StudentT: (4.0, 0.2, 1.0), Cauchy: (0.1, 1.5),
        Gamma: (2.0, 3.0), Weibull: (1.0, 0.9), Pareto: (1.2, 2.0), HalfCauchy: (0.7,),
    }  # fmt: skip
    own, other = starts[p], starts[q]
    values = [number(x).requires_grad_() for x in (*own, *(1.05 * x for x in other))]

    def divergence(*parameters):
        pair = p(*parameters[: len(own)]), q(*parameters[len(own) :])
        return pyro_kl.renyi(*pair, alpha).value

    if bool(divergence(*values).isfinite()):
        assert torch.autograd.gradcheck(divergence, values)

    def shannon(*parameters):
        return pyro_kl.jensen_shannon(p(*parameters[: len(own)]), q(*parameters[len(own) :])).value

    assert torch.autograd.gradcheck(shannon, values)


# --- entropies ----------------------------------------------------------------------------------


def test_entropies_that_torch_lacks():
    x = torch.arange(400.0)
    for p in (Poisson(number(3.0)), NegativeBinomial(number(3.0), number(0.4))):
        log_p = p.log_prob(x)
        assert float(pyro_kl.entropy(p)) == pytest.approx(-float((log_p.exp() * log_p).sum()))
        assert p.entropy() == pyro_kl.entropy(p).value
    counts = Binomial(torch.tensor([5.0, 3.0]), number(0.3))
    each = torch.stack([Binomial(n, number(0.3)).entropy() for n in (5, 3)])
    assert torch.allclose(pyro_kl.entropy(counts).value, each, rtol=1e-13)
    assert float(pyro_kl.entropy(VonMises(number(1.0), number(2.0)))) == pytest.approx(
        1.2663212919642852
    )


def test_entropies_whose_digits_torch_loses():
    concentration = torch.tensor(1e7, dtype=torch.float32)
    found = float(pyro_kl.entropy(Gamma(concentration, concentration)))
    assert found == pytest.approx(-6.6401093256078205, rel=1e-6)
    both = torch.stack((concentration, concentration))
    found = float(pyro_kl.entropy(Dirichlet(both)))
    assert found == pytest.approx(-7.679830088114407, rel=1e-6)


class WithoutZero(Poisson):
    """A subclass with another density."""

    def log_prob(self, value):
        return super().log_prob(value) - torch.log(-torch.expm1(-self.rate))


class Counted(Gamma):
    """A subclass with an entropy of its own."""

    def entropy(self):
        return torch.tensor(7.0)


def test_the_method_finds_formulas_and_sums_and_nothing_else():
    counts = Binomial(torch.tensor([5.0, 3.0]), number(0.3))
    assert torch.equal(counts.entropy(), pyro_kl.entropy(counts).value)
    moved = TransformedDistribution(Normal(0.0, 1.0), transforms.AffineTransform(1.0, 3.0))
    assert float(Independent(moved.expand((4,)), 1).entropy()) == pytest.approx(
        4 * float(Normal(0.0, 3.0).entropy())
    )
    squashed = TransformedDistribution(Normal(0.0, 1.0), transforms.TanhTransform())
    for p in (squashed, WithoutZero(number(3.0)), MIXTURE):
        with pytest.raises(NotImplementedError):
            p.entropy()
    assert Counted(number(2.0), number(1.0)).entropy() == 7
    concentration = torch.tensor(1e7, dtype=torch.float32)
    value = Gamma(concentration, concentration).entropy()
    assert value.dtype is torch.float32
    assert float(value) == pytest.approx(-6.6401093256078205, rel=1e-6)
    rate = number(3.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda rate: Poisson(rate).entropy(), rate)


def test_entropy_of_maps_and_products():
    normal = Normal(number([0.0, 1.0]), number(2.0))
    product = Independent(normal, 1)
    assert pyro_kl.entropy(product).value == normal.entropy().sum()
    stretched = TransformedDistribution(normal, transforms.AffineTransform(1.0, 3.0))
    assert torch.allclose(pyro_kl.entropy(stretched).value, normal.entropy() + math.log(3))
    squashed = pyro_kl.entropy(
        TransformedDistribution(Normal(number(0.0), number(1.0)), transforms.TanhTransform())
    )
    z = torch.linspace(-12, 12, 20001)
    log_p = Normal(0.0, 1.0).log_prob(z)
    log_slope = transforms.TanhTransform().log_abs_det_jacobian(z, z.tanh())
    expected = torch.trapezoid(log_p.exp() * (log_slope - log_p), z)
    assert float(squashed) == pytest.approx(float(expected), rel=1e-10)
    one_hot = OneHotCategorical(number([0.25, 0.75]))
    assert float(pyro_kl.entropy(one_hot)) == pytest.approx(float(one_hot.entropy()))


def mixture_of_normals(weights, locs, scales):
    return MixtureSameFamily(Categorical(number(weights)), Normal(number(locs), number(scales)))


MIXTURE = mixture_of_normals([[0.3, 0.7], [0.5, 0.5]], [[0.0, 3.0], [-50.0, 50.0]], [1.0, 0.05])


@pytest.mark.parametrize(
    "q", [Normal(0.0, 2.0), StudentT(3.0), mixture_of_normals([0.5, 0.5], [-1.0, 3.0], [2.0, 0.1])]
)
def test_mixtures(q):
    x = torch.linspace(-80.0, 80.0, 400_001).unsqueeze(-1)
    log_p, log_q = MIXTURE.log_prob(x), q.log_prob(x.expand(-1, 2))
    mean = torch.logaddexp(log_p, log_q) - LOG_2

    def integral(f):
        return f.nan_to_num(0.0).sum(0) * (160.0 / 400_000)

    halves = [integral(log.exp() * (log - mean)) for log in (log_p, log_q)]
    expected = {
        pyro_kl.entropy(MIXTURE): integral(-log_p.exp() * log_p),
        pyro_kl.jensen_shannon(MIXTURE, q): 0.5 * (halves[0] + halves[1]),
        pyro_kl.jensen_shannon(q, MIXTURE): 0.5 * (halves[0] + halves[1]),
        pyro_kl.renyi(MIXTURE, q, 0.5): -2 * integral((0.5 * (log_p + log_q)).exp()).log(),
    }
    for found, value in expected.items():
        assert torch.allclose(found.value, value, rtol=2e-5 if isinstance(q, StudentT) else 1e-9)
        assert (found.error < 1e-9 * (1 + value.abs())).all()


def test_cross_entropy():
    p, q = Normal(number(1.0), number(1.0)), Normal(number(0.0), number(2.0))
    expected = 0.5 * math.log(2 * math.pi) + LOG_2 + (1 + 1) / 8
    assert float(pyro_kl.cross_entropy(p, q)) == pytest.approx(expected, rel=1e-14)
    assert pyro_kl.cross_entropy(p, Exponential(number(1.0))).value == math.inf


# --- comparisons --------------------------------------------------------------------------------

OTHERS = [
    {"divergence": "renyi", "alpha": 0.3},
    {"divergence": "renyi", "alpha": 0.5},
    {"divergence": "renyi", "alpha": 1.5},
    {"divergence": "jensen-shannon"},
    {"divergence": "jeffreys"},
    {"divergence": "cross-entropy"},
]


@pytest.mark.parametrize("which", OTHERS)
def test_compare(which):
    comparison = pyro_kl.compare(
        Gamma(number(2.0), number(1.0)), Weibull(number(2.0), number(0.9)), 20_000, **which
    )
    assert abs(comparison.z_score) < 4.5
    assert comparison.standard_error < 0.05
    assert "sampled" in str(comparison)


def test_samples_do_not_see_an_infinite_mean():
    comparison = pyro_kl.compare(
        Gamma(number(2.0), number(1.0)), LogNormal(number(0.0), number(1.0)), 1000,
        divergence="renyi", alpha=1.1,
    )  # fmt: skip
    assert comparison.value == math.inf
    assert comparison.z_score.isnan()


def test_compare_refuses_what_it_does_not_know():
    p, q = Normal(number(0.0), number(1.0)), Normal(number(1.0), number(1.0))
    with pytest.raises(ValueError, match="divergence must be one of"):
        pyro_kl.compare(p, q, divergence="hellinger")
    with pytest.raises(ValueError, match="alpha is the order"):
        pyro_kl.compare(p, q, divergence="renyi")
    with pytest.raises(ValueError, match="alpha is the order"):
        pyro_kl.compare(p, q, alpha=2.0)
