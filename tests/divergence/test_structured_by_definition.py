"""Entropies and divergences of structured classes, against sums of torch's and Pyro's log_prob."""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import (
    Independent,
    LKJCholesky,
    LogisticNormal,
    Multinomial,
    VonMises,
    Wishart,
)

import pyro_kl
from pyro_kl.divergence import sums

from .making import number

pytestmark = pytest.mark.usefixtures("nothing_warned", "double")
ORDERS = (0.1, 0.5, 0.9, 1 - 1e-6, 1 + 1e-6, 2.0, 5.0)


# --- points and weights of each space, by rules of their own -------------------------------------


@cache
def circle(count=512):
    angle = torch.arange(count) * (2 * math.pi / count)
    x = torch.stack((angle.cos(), angle.sin()), -1)
    return x, torch.full((count,), 2 * math.pi / count)


@cache
def sphere(count=64):
    z, w = (torch.as_tensor(x) for x in np.polynomial.legendre.leggauss(count))
    angle = torch.arange(count) * (2 * math.pi / count)
    ring = (1 - z * z).sqrt().unsqueeze(-1)
    height = z.unsqueeze(-1).expand(count, count)
    x = torch.stack((ring * angle.cos(), ring * angle.sin(), height), -1)
    return x.flatten(0, 1), (w * (2 * math.pi / count)).repeat_interleave(count)


@cache
def torus(count=96):
    angle = torch.arange(count) * (2 * math.pi / count) - math.pi
    x = torch.cartesian_prod(angle, angle)
    return x, torch.full((len(x),), (2 * math.pi / count) ** 2)


@cache
def plane(count=241, wide=36.0):
    """The trapezoidal rule in x = sinh(t), for both coordinates."""
    t = torch.linspace(-1.0, 1.0, count) * math.asinh(wide)
    x, slope = torch.sinh(t), torch.cosh(t) * (t[1] - t[0])
    return torch.cartesian_prod(x, x), torch.cartesian_prod(slope, slope).prod(-1)


@cache
def counts(n, k):
    every = itertools.product(range(n + 1), repeat=k)
    x = torch.tensor([row for row in every if sum(row) == n], dtype=torch.float64)
    return x, torch.ones(len(x))


def support(distribution):
    x = distribution.enumerate_support()
    return x, torch.ones(len(x))


def log_density(distribution, x):
    """The own `log_prob`, but where it takes one value at a time, or has 8 digits (VonMises)."""
    if isinstance(distribution, Independent):
        turn, k = x - distribution.base_dist.loc, distribution.base_dist.concentration
        # cos - 1 and i0e, so that nothing overflows
        each = k * (turn.cos() - 1) - (2 * math.pi * torch.special.i0e(k)).log()
        return each.sum(-1)
    if not isinstance(distribution, dist.GaussianScaleMixture):
        return distribution.log_prob(x)
    scales = distribution.component_scale.unsqueeze(-1) * distribution.coord_scale
    parts = torch.distributions.Normal(0.0, scales).log_prob(x.unsqueeze(-2)).sum(-1)
    return (parts + distribution.component_logits.log_softmax(-1)).logsumexp(-1)


def sine(*parameters, skewness=None):
    base = dist.SineBivariateVonMises(*map(number, parameters[:4]), number(parameters[4]))
    return base if skewness is None else dist.SineSkewed(base, number(skewness))


def of(cls, *parameters, **named):
    return lambda: cls(*map(number, parameters), **named)


PAIRS = {
    "Multinomial": (
        lambda: Multinomial(5, number([0.2, 0.3, 0.5])),
        lambda: Multinomial(5, number([0.4, 0.4, 0.2])),
        lambda p: counts(5, 3),
    ),
    "DirichletMultinomial": (
        lambda: dist.DirichletMultinomial(number([2.0, 0.7, 3.0]), 4),
        lambda: dist.DirichletMultinomial(number([1.0, 1.5, 0.4]), 4),
        lambda p: counts(4, 3),
    ),
    "Multinomial-DirichletMultinomial": (
        lambda: Multinomial(4, number([0.4, 0.4, 0.2])),
        lambda: dist.DirichletMultinomial(number([1.0, 1.5, 0.4]), 4),
        lambda p: counts(4, 3),
    ),
    "OneOneMatching": (
        of(dist.OneOneMatching, [[0.5, -1.0, 0.25], [0.0, 1.5, -0.5], [0.3, 0.1, -0.7]]),
        of(dist.OneOneMatching, [[0.0, 0.5, 1.0], [-0.75, 0.25, 0.5], [1.2, -0.3, 0.4]]),
        support,
    ),
    "OneTwoMatching": (
        of(dist.OneTwoMatching, [[0.5, -1.0], [0.25, 0.0], [1.5, -0.5], [0.3, 0.1]]),
        of(dist.OneTwoMatching, [[0.0, 0.5], [1.0, -0.75], [0.25, 0.5], [1.2, -0.3]]),
        support,
    ),
    "SpanningTree": (
        of(dist.SpanningTree, [0.5, -1.0, 0.25, 0.0, 1.5, -0.5]),
        of(dist.SpanningTree, [0.0, 0.5, 1.0, -0.75, 0.25, 0.5]),
        support,
    ),
    "ProjectedNormal on the circle": (
        of(dist.ProjectedNormal, [1.0, -2.0]),
        of(dist.ProjectedNormal, [0.0, 1.5]),
        lambda p: circle(),
    ),
    "ProjectedNormal on the sphere": (
        of(dist.ProjectedNormal, [1.0, 0.5, -2.0]),
        of(dist.ProjectedNormal, [0.0, 1.0, 0.5]),
        lambda p: sphere(),
    ),
    "VonMises3D": (
        of(dist.VonMises3D, [1.0, 0.5, -2.0]),
        of(dist.VonMises3D, [0.0, 3.0, 0.5]),
        lambda p: sphere(),
    ),
    "VonMises3D-ProjectedNormal": (
        of(dist.VonMises3D, [1.0, 0.5, -2.0]),
        of(dist.ProjectedNormal, [0.0, 1.0, 0.5]),
        lambda p: sphere(),
    ),
    "SineBivariateVonMises": (
        lambda: sine(0.5, -1.0, 3.0, 2.0, 1.0),
        lambda: sine(0.0, 0.5, 1.0, 4.0, -0.5),
        lambda p: torus(),
    ),
    "SineSkewed-VonMises": (
        lambda: sine(0.5, -1.0, 3.0, 2.0, 1.0, skewness=[0.3, -0.4]),
        lambda: Independent(VonMises(number([0.0, 0.5]), number([1.0, 2.0])), 1),
        lambda p: torus(),
    ),
    "GaussianScaleMixture": (
        of(dist.GaussianScaleMixture, [1.0, 0.5], [0.0, 1.0], [0.5, 2.0]),
        of(dist.GaussianScaleMixture, [1.0, 0.5], [0.0, 0.5, -1.0], [1.0, 0.3, 3.0]),
        lambda p: plane(),
    ),
}


def log_densities(name):
    make_p, make_q, space = PAIRS[name]
    p, q = make_p(), make_q()
    x, weight = space(p)
    return p, q, log_density(p, x), log_density(q, x), weight


@pytest.mark.parametrize("name", PAIRS)
def test_by_the_definition(name):
    """Entropy, Renyi of every order and Jensen-Shannon, summed over points of another rule."""
    p, q, log_p, log_q, weight = log_densities(name)
    mass_p, mass_q = weight * log_p.exp(), weight * log_q.exp()
    assert float(mass_p.sum()) == pytest.approx(1.0, abs=1e-11)
    for distribution, mass, log in ((p, mass_p, log_p), (q, mass_q, log_q)):
        found = pyro_kl.entropy(distribution)
        assert float(found) == pytest.approx(-float((mass * log).sum()), abs=1e-10)
    cross = -(mass_p * log_q).sum()
    assert float(pyro_kl.cross_entropy(p, q)) == pytest.approx(float(cross), abs=1e-10)
    log_ratio = log_p - log_q
    mean = (mass_p * log_ratio).sum()
    variance = (mass_p * (log_ratio - mean) ** 2).sum()
    for alpha in ORDERS:
        found = pyro_kl.renyi(p, q, alpha)
        power = weight * torch.exp(alpha * log_p + (1 - alpha) * log_q)
        expected = power.sum().log() / (alpha - 1)
        if abs(alpha - 1) < 1e-3:  # by the definition it loses six digits
            expected = mean + 0.5 * (alpha - 1) * variance
        assert float(found) == pytest.approx(float(expected), rel=1e-10), alpha
        assert found.error is None or float(found.error) < 1e-9
    middle = (0.5 * (mass_p + mass_q) / weight).log()
    js = 0.5 * (mass_p * (log_p - middle) + mass_q * (log_q - middle)).sum()
    for pair in ((p, q), (q, p)):
        assert float(pyro_kl.jensen_shannon(*pair)) == pytest.approx(float(js), rel=1e-9)


def test_student_t_against_normals():
    """Its tails are heavier: infinite above order 1, and not known below it."""
    p = dist.MultivariateStudentT(number(5.0), number([1.0, -0.5]), torch.eye(2))
    dense = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    product = Independent(torch.distributions.Normal(torch.zeros(2), 1.0), 1)
    for q in (dense, product):
        assert [float(pyro_kl.renyi(p, q, x)) for x in (0.0, 1.1, math.inf)] == [
            0.0, math.inf, math.inf,
        ]  # fmt: skip
        with pytest.raises(NotImplementedError, match="order 1"):
            pyro_kl.renyi(p, q, 0.5)
    mixed = Independent(torch.distributions.Laplace(torch.zeros(2), 1.0), 1)
    with pytest.raises(NotImplementedError):
        pyro_kl.renyi(p, mixed, 2.0)


def test_rules_are_refined_and_their_errors_hold():
    """Narrow against wide: by 1,500^2 nodes on the torus, by four times as many on the circle."""
    p, q = sine(0.5, -1.0, 900.0, 500.0, 100.0), sine(0.0, 0.5, 1.0, 4.0, -0.5)
    found = pyro_kl.jensen_shannon(p, q)
    assert abs(float(found) - 0.69112679670595) < float(found.error) < 1e-6
    p, q = (dist.ProjectedNormal(number(x)) for x in ([60.0, 0.0], [0.0, 50.0]))
    x, weight = circle(8192)
    log_p, log_q = p.log_prob(x), q.log_prob(x)
    for alpha in (0.5, 2.0):
        power = (alpha * log_p + (1 - alpha) * log_q + weight.log()).logsumexp(-1)
        found = pyro_kl.renyi(p, q, alpha)
        off = abs(float(found) - float(power / (alpha - 1)))
        assert off < float(found.error) + 1e-10 * float(found)


def test_divergences_of_large_batches_are_refused_and_kls_are_not(monkeypatch):
    """The KL has one rule of few nodes; the divergences refine theirs, up to a size."""
    module = "pyro_kl.registry.at_points._MOST"
    monkeypatch.setattr(module, 3 * 64**2)
    p = dist.ProjectedNormal(number([[1.0, 0.5, -2.0]] * 4))
    q = dist.ProjectedNormal(number([0.0, 1.0, 0.5]))
    assert torch.distributions.kl_divergence(p, q).shape == (4,)
    with pytest.raises(NotImplementedError, match=r"takes 1.64e[+]04 numbers"):
        pyro_kl.jensen_shannon(p, q)
    plane = [dist.ProjectedNormal(x.concentration[..., :2]) for x in (p, q)]
    assert pyro_kl.jensen_shannon(*plane).value.shape == (4,)


def test_other_counts_share_no_outcome():
    p, q = Multinomial(3, number([0.2, 0.8])), dist.DirichletMultinomial(number([1.0, 2.0]), 2)
    assert float(pyro_kl.jensen_shannon(p, q)) == pytest.approx(math.log(2), rel=1e-15)
    for alpha in (0.5, 2.0):
        assert float(pyro_kl.renyi(p, q, alpha)) == math.inf
        assert float(pyro_kl.renyi(p, Multinomial(2, number([0.2, 0.8])), alpha)) == math.inf


def test_multinomial_of_many_trials():
    """n times the divergence of one trial, at orders 0 and infinity too."""
    p, q = (Multinomial(10**4, number(x)) for x in ([0.2, 0.3, 0.5], [0.4, 0.4, 0.2]))
    for alpha in (0.0, 0.5, 2.0, math.inf):
        trial = pyro_kl.renyi(p._categorical, q._categorical, alpha)
        assert float(pyro_kl.renyi(p, q, alpha)) == pytest.approx(1e4 * float(trial), rel=1e-14)
    with pytest.raises(NotImplementedError, match="all outcomes"):
        pyro_kl.jensen_shannon(p, q)
    sampled = pyro_kl.jensen_shannon(p, q, 10, torch.Generator().manual_seed(0))
    assert float(sampled) == pytest.approx(math.log(2), rel=1e-12)


# --- entropies of densities with other spaces ----------------------------------------------------


@pytest.mark.parametrize("dim", [2, 3, 4])
@pytest.mark.parametrize("concentration", [0.3, 1.0, 2.5, 1e6])
def test_entropy_of_correlation_matrices(dim, concentration):
    """H = log volume - KL(p || uniform), with the volumes of Joe (2006): 2, pi^2/2, 32 pi^2/27."""
    volume = {2: 2.0, 3: math.pi**2 / 2, 4: 32 * math.pi**2 / 27}[dim]
    p, uniform = dist.LKJ(dim, number(concentration)), dist.LKJ(dim, number(1.0))
    expected = math.log(volume) - float(pyro_kl.kl(p, uniform))
    assert float(pyro_kl.entropy(p)) == pytest.approx(expected, abs=2e-9)
    if dim == 2:  # the factor's free coordinate is the correlation itself
        factor = LKJCholesky(2, number(concentration))
        assert float(pyro_kl.entropy(factor)) == pytest.approx(expected, abs=2e-9)


def test_renyi_of_correlation_matrices():
    """From the normalising constant of Lewandowski, Kurowicka & Joe (2009), eq. 16."""

    def log_constant(eta, d):
        total = 0.0
        for k in range(1, d):
            half = eta + (d - k - 1) / 2
            total += (2 * eta - 2 + d - k) * (d - k) * math.log(2)
            total += (d - k) * (2 * math.lgamma(half) - math.lgamma(2 * half))
        return total

    p, q = dist.LKJ(4, number(1.5)), dist.LKJ(4, number(0.6))
    for alpha in (0.1, 0.5, 0.9, 2.0, 5.0):
        middle = alpha * 1.5 + (1 - alpha) * 0.6
        parts = alpha * log_constant(1.5, 4) + (1 - alpha) * log_constant(0.6, 4)
        expected = (log_constant(middle, 4) - parts) / (alpha - 1)
        assert float(pyro_kl.renyi(p, q, alpha)) == pytest.approx(expected, rel=1e-11)
        factors = pyro_kl.renyi(p.base_dist, q.base_dist, alpha)
        assert float(factors) == pytest.approx(expected, rel=1e-11)
    assert float(pyro_kl.renyi(q, p, 5.0)) == math.inf  # 5 * 0.6 - 4 * 1.5 < 0


def test_entropy_of_wishart():
    """The book's formula at 40 digits (mpmath)."""
    tril = number([[1.0, 0.0, 0.0], [0.3, 0.7, 0.0], [0.1, 0.2, 2.0]])
    for df, expected in ((3.5, 12.226014362703651137), (1e9, 73.069038421892039346)):
        p = Wishart(number(df), scale_tril=tril)
        assert float(pyro_kl.entropy(p)) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(
    ("df", "value"),
    [(0.5, 6.6147335150951357833), (3.0, 3.281400181761802449972), (1e8, 2.6147335350951357833)],
)
def test_entropy_of_student_t(df, value):
    """The integral over the radius at 30 digits (mpmath)."""
    p = dist.MultivariateStudentT(
        number(df), number([1.0, -0.5]), number([[1.0, 0.0], [0.6, 0.8]])
    )
    assert float(pyro_kl.entropy(p)) == pytest.approx(value, rel=1e-13)


# --- Gaussian sequences and groups: from Pyro's log_prob -----------------------------------------


@cache
def moments(distribution):
    """Mean and covariance of a joint normal, from second differences, exact for a parabola."""
    shape = getattr(distribution, "group_idx", torch.zeros(distribution.event_shape)).shape
    n = math.prod(shape)
    eye = torch.eye(n)

    def log(x):
        return distribution.log_prob(x.reshape(shape))

    at_zero, at_one = log(torch.zeros(n)), torch.stack([log(x) for x in eye])
    at_two = torch.stack([torch.stack([log(x + y) for x in eye]) for y in eye])
    precision = at_one + at_one.unsqueeze(-1) - at_two - at_zero
    mean = torch.linalg.solve(precision, at_one - at_zero + 0.5 * precision.diagonal())
    return mean, torch.linalg.inv(precision)


def renyi_of_normals(p, q, alpha):
    """Gil, Alajaji & Linder (2013), table 2, as the table has it."""
    (m, s), (n, t) = moments(p), moments(q)
    middle = alpha * t + (1 - alpha) * s
    if torch.linalg.eigvalsh(middle).amin() <= 0:
        return math.inf
    gap = m - n
    logs = middle.logdet() - (1 - alpha) * s.logdet() - alpha * t.logdet()
    return float(0.5 * alpha * gap @ torch.linalg.solve(middle, gap) + 0.5 * logs / (1 - alpha))


SEQUENCES = [
    pair
    for pair in pyro_kl.registered()
    if {pair.p, pair.q} & {dist.GaussianHMM, dist.GaussianMRF, dist.GroupedNormalNormal}
    and dist.LinearHMM not in (pair.p, pair.q)  # which has no log_prob
]


@pytest.mark.parametrize("pair", SEQUENCES, ids=lambda pair: pair.name)
def test_gaussian_joints(pair):
    p, q = pair.made(pair.cases[0])
    for distribution in (p, q):
        covariance = moments(distribution)[1]
        entropy = 0.5 * (2 * math.pi * math.e * covariance).logdet()
        assert float(pyro_kl.entropy(distribution)) == pytest.approx(float(entropy), rel=1e-11)
    for alpha in (0.1, 0.5, 2.0, 5.0):
        found = float(pyro_kl.renyi(p, q, alpha))
        assert found == pytest.approx(renyi_of_normals(p, q, alpha), rel=1e-9), alpha
    for alpha in (1 - 1e-6, 1 + 1e-6):
        assert float(pyro_kl.renyi(p, q, alpha)) == pytest.approx(
            float(pyro_kl.kl(p, q)), rel=1e-4
        )


def test_linear_hmm_is_the_same_as_a_gaussian_hmm():
    found = []
    for cls in (dist.LinearHMM, dist.GaussianHMM):
        pair = next(x for x in pyro_kl.registered() if x.p is x.q is cls)
        p, q = pair.made(pair.cases[0])
        found.append([float(pyro_kl.entropy(p)), float(pyro_kl.renyi(p, q, 0.5))])
    assert found[0] == pytest.approx(found[1], rel=1e-12)


def test_entropy_of_a_sequence_with_a_random_scale():
    """A t of n dimensions: the Hessian at its mode is -(nu + n)/nu times the inverse scale."""
    pair = next(x for x in pyro_kl.registered() if x.name.startswith("GammaGaussianHMM"))
    p, _ = pair.made(pair.cases[0])
    df, n = 2 * 3.0, math.prod(p.event_shape)
    mean = torch.tensor([0.0, 0.5])  # the observations' locations in the example
    top = p.log_prob(mean.reshape(p.event_shape))
    psi = torch.digamma(torch.tensor([0.5 * (df + n), 0.5 * df]))
    expected = -top + 0.5 * (df + n) * (psi[0] - psi[1])
    assert float(pyro_kl.entropy(p)) == pytest.approx(float(expected), rel=1e-11)


# --- others --------------------------------------------------------------------------------------


def test_entropy_of_coalescents():
    """Equal leaf times: independent Exponentials. Two leaves: one integral over Pyro's density."""
    p = dist.CoalescentTimes(torch.zeros(4), number(0.7))
    rates = [0.7 * k * (k - 1) / 2 for k in (2, 3, 4)]
    expected = sum(1 - math.log(rate) for rate in rates)
    assert float(pyro_kl.entropy(p)) == pytest.approx(expected, rel=1e-12)
    varying = dist.CoalescentTimesWithRate(number([-0.5, 1.3]), number([0.5, 1.5, 0.8]))
    x, weight = np.polynomial.legendre.leggauss(40)
    total, edges = 0.0, [-80.0, -40.0, -20.0, -10.0, -5.0, -2.0, -0.5]
    for low, high in itertools.pairwise(edges):
        t = torch.tensor(0.5 * (high - low) * (x + 1) + low)
        log = torch.stack([varying.log_prob(time.reshape(1)) for time in t])
        total -= float((torch.tensor(weight) * 0.5 * (high - low) * log.exp() * log).sum())
    assert float(pyro_kl.entropy(varying)) == pytest.approx(total, rel=1e-9)


def test_renyi_of_coalescents():
    """Equal leaf times: independent Exponentials. Two leaves: one integral over Pyro's density."""
    leaves = torch.zeros(4)
    p, q = (dist.CoalescentTimes(leaves, number(rate)) for rate in (0.7, 1.3))
    for alpha in (0.0, *ORDERS[:-1]):
        sides = [torch.distributions.Exponential(x.rate * number([1.0, 3.0, 6.0])) for x in (p, q)]
        expected = float(pyro_kl.renyi(*sides, alpha).value.sum()) if alpha else 0.0
        assert float(pyro_kl.renyi(p, q, alpha)) == pytest.approx(expected, rel=1e-10), alpha
    assert float(pyro_kl.renyi(p, q, 2.2)) == math.inf  # 2.2 * 0.7 < 1.2 * 1.3
    # all have met before the rate changes for the last time
    p, q = (
        dist.CoalescentTimesWithRate(number([3.5, 4.0]), number(rates))
        for rates in ([0.5, 50.0, 0.8], [0.9, 0.1, 0.05])
    )
    x, weight = np.polynomial.legendre.leggauss(40)
    edges = [-90.0, -30.0, -10.0, -5.0, -2.0, 0.0, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5]
    halves = [0.5 * (high - low) for low, high in itertools.pairwise(edges)]
    at = torch.tensor(
        [h * (t + 1) + low for h, low in zip(halves, edges, strict=False) for t in x]
    )
    log_weight = torch.tensor([math.log(h * w) for h in halves for w in weight])
    log_p, log_q = (torch.stack([side.log_prob(t.reshape(1)) for t in at]) for side in (p, q))
    for alpha in (0.1, 0.5, 0.9, 1.5):
        log_rho = (alpha * log_p + (1 - alpha) * log_q + log_weight).logsumexp(-1)
        found = float(pyro_kl.renyi(p, q, alpha))
        assert found == pytest.approx(float(log_rho / (alpha - 1)), rel=1e-9), alpha


def test_renyi_of_logistic_normal_and_dirichlet():
    """Over the log odds of the two sticks, with torch's densities on the simplex."""
    p = LogisticNormal(number([0.3, -1.0]), number([0.5, 2.0]))
    q = torch.distributions.Dirichlet(number([2.0, 0.7, 3.0]))
    y = torch.linspace(-30.0, 30.0, 601)
    z = torch.cartesian_prod(y, y)
    sticks, rest = torch.sigmoid(z), torch.sigmoid(-z)
    x = torch.stack((sticks[:, 0], rest[:, 0] * sticks[:, 1], rest[:, 0] * rest[:, 1]), -1)
    log_weight = (sticks.log() + rest.log()).sum(-1) + rest[:, 0].log() + 2 * (y[1] - y[0]).log()
    stick = torch.distributions.StickBreakingTransform()
    at = z + number([2.0, 1.0]).log()  # where the sticks are with torch's offset
    log_p = p.base_dist.log_prob(at) - stick.log_abs_det_jacobian(at, stick(at))
    log_q = torch.distributions.Dirichlet(q.concentration, validate_args=False).log_prob(x)
    for first, second, pair in ((log_p, log_q, (p, q)), (log_q, log_p, (q, p))):
        for alpha in (0.3, 0.7):
            power = (alpha * first + (1 - alpha) * second + log_weight).logsumexp(-1)
            found = float(pyro_kl.renyi(*pair, alpha))
            assert found == pytest.approx(float(power / (alpha - 1)), rel=1e-8)
    assert float(pyro_kl.renyi(q, p, 1.1)) == math.inf  # exponential tails of the log odds


def test_zero_inflated_and_selected():
    """An additional zero on any counts; components that a mask selects."""
    p = dist.ZeroInflatedDistribution(dist.Geometric(number(0.25)), gate=number(0.5))
    q = dist.ZeroInflatedDistribution(dist.Geometric(number(0.5)), gate=number(0.25))
    k = torch.arange(400.0)
    log_p, log_q = p.log_prob(k), q.log_prob(k)
    entropy = -float((log_p.exp() * log_p).sum())
    assert float(pyro_kl.entropy(p)) == pytest.approx(entropy, rel=1e-12)
    assert float(p.entropy()) == pytest.approx(entropy, rel=1e-12)
    for alpha in (0.1, 0.5, 2.0, 5.0):
        expected = (alpha * log_q + (1 - alpha) * log_p).logsumexp(-1) / (alpha - 1)
        assert float(pyro_kl.renyi(q, p, alpha)) == pytest.approx(float(expected), rel=1e-11)
    assert float(pyro_kl.renyi(p, q, 2.0)) == math.inf  # 0.75^2 > 0.5
    middle = (0.5 * (log_p.exp() + log_q.exp())).log()
    js = 0.5 * (log_p.exp() * (log_p - middle) + log_q.exp() * (log_q - middle)).sum()
    assert float(pyro_kl.jensen_shannon(p, q)) == pytest.approx(float(js), rel=1e-11)
    same = dist.ZeroInflatedPoisson(number(3.0), gate=number(0.2))
    made = dist.ZeroInflatedDistribution(dist.Poisson(number(3.0)), gate=number(0.2))
    assert float(pyro_kl.entropy(made)) == pytest.approx(float(pyro_kl.entropy(same)), rel=1e-14)
    normal = torch.distributions.Normal(number(0.0), number(1.0))
    laplace = torch.distributions.Laplace(number(0.0), number(1.0))
    mask = torch.tensor([True, False])
    selected = dist.MaskedMixture(mask, laplace.expand([2]), normal.expand([2]))
    wide = torch.distributions.Normal(number(0.0), number(2.0))
    for found, of_one in (
        (pyro_kl.entropy(selected), pyro_kl.entropy),
        (pyro_kl.renyi(selected, wide, 0.5), lambda x: pyro_kl.renyi(x, wide, 0.5)),
        (pyro_kl.jensen_shannon(selected, wide), lambda x: pyro_kl.jensen_shannon(x, wide)),
    ):
        expected = [float(of_one(normal)), float(of_one(laplace))]
        assert found.value.tolist() == pytest.approx(expected, rel=1e-12)


def test_entropy_of_logistic_normal():
    """The mean of torch's -log_prob under the normals, by the trapezoidal rule."""
    p = LogisticNormal(number([0.3, -1.0]), number([0.5, 2.0]))
    z = torch.linspace(-8.5, 8.5, 121)
    weight = (z[1] - z[0]) * torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    y = torch.cartesian_prod(0.3 + 0.5 * z, -1.0 + 2.0 * z)
    base = -0.5 * torch.cartesian_prod(z, z).square().sum(-1) - math.log(2 * math.pi * 0.5 * 2.0)
    stick = torch.distributions.StickBreakingTransform()
    log = base - stick.log_abs_det_jacobian(y, stick(y))
    expected = -float((torch.cartesian_prod(weight, weight).prod(-1) * log).sum())
    assert float(pyro_kl.entropy(p)) == pytest.approx(expected, rel=1e-11)


def test_empirical():
    """Equal atoms are one; a density has no mass at atoms."""
    p = dist.Empirical(number([1.0, 2.0, 1.0]), torch.zeros(3))
    q = dist.Empirical(number([2.0, 3.0]), torch.zeros(2))
    log_2, third = math.log(2), 1 / 3
    assert float(pyro_kl.entropy(p)) == pytest.approx(math.log(3) - 2 / 3 * log_2, rel=1e-14)
    for alpha, value in ((0.5, -2 * math.log(math.sqrt(third / 2))), (2.0, math.inf)):
        assert float(pyro_kl.renyi(p, q, alpha)) == pytest.approx(value, rel=1e-13)
    shared = 0.5 * (third * math.log(third / (5 / 12)) + 0.5 * math.log(0.5 / (5 / 12)))
    only = 0.5 * (2 / 3 + 0.5) * log_2
    assert float(pyro_kl.jensen_shannon(p, q)) == pytest.approx(shared + only, rel=1e-13)
    poisson = torch.distributions.Poisson(number(2.0))
    mass = poisson.log_prob(number([1.0, 2.0])).exp()
    weights = number([2 / 3, 1 / 3])
    middle = 0.5 * (mass + weights)
    js = 0.5 * (weights * (weights / middle).log() + mass * (mass / middle).log()).sum()
    js = float(js + 0.5 * (1 - mass.sum()) * log_2)
    for pair in ((p, poisson), (poisson, p)):
        assert float(pyro_kl.jensen_shannon(*pair)) == pytest.approx(js, rel=1e-13)
    improper = dist.ImproperUniform(torch.distributions.constraints.real, (), ())
    with pytest.raises(NotImplementedError):
        pyro_kl.jeffreys(p, improper)
    normal = torch.distributions.Normal(number(0.0), number(1.0))
    assert float(pyro_kl.jensen_shannon(p, normal)) == pytest.approx(log_2, rel=1e-15)
    assert float(pyro_kl.renyi(p, normal, 0.5)) == math.inf


def test_points_and_improper_distributions():
    """A point counts as in the KL; what needs two densities refuses it."""
    point = dist.Delta(number(1.0), log_density=number(2.0))
    normal = torch.distributions.Normal(number(0.0), number(1.0))
    assert float(pyro_kl.entropy(point)) == -2.0
    expected = -float(normal.log_prob(number(1.0)))
    assert float(pyro_kl.cross_entropy(point, normal)) == pytest.approx(expected, rel=1e-15)
    for alpha in (0.0, 0.5, 2.0, math.inf):
        assert float(pyro_kl.renyi(point, normal, alpha)) == float(pyro_kl.kl(point, normal))
    improper = dist.ImproperUniform(torch.distributions.constraints.real, (), ())
    with pytest.raises(NotImplementedError, match="no normalised one"):
        pyro_kl.jensen_shannon(normal, improper, num_samples=10)
    with pytest.raises(NotImplementedError, match="no normalised one"):
        pyro_kl.jensen_shannon(point, dist.Delta(number(1.0)))
    with pytest.raises(NotImplementedError, match="no normalised one"):
        pyro_kl.renyi(normal, improper, 0.5)


# --- normals: narrow ones, orders 0 and infinity, derivatives ------------------------------------


def normals(loc, scales, turn=0.0):
    """A normal in the plane whose axes are turned."""
    c, s = math.cos(turn), math.sin(turn)
    axes = number([[c, -s], [s, c]])
    covariance = axes @ torch.diag(number(scales) ** 2) @ axes.mT
    return torch.distributions.MultivariateNormal(number(loc), covariance)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 0.3, 0.9, 1.0, 1.1, 1.4])
def test_dense_normals_are_their_coordinates(scale):
    """Where log det is that of 1e-24, the eigenvalues of M have rounded to -1."""
    eye = torch.eye(2)
    p = torch.distributions.MultivariateNormal(number([0.0, 0.0]), scale_tril=scale * eye)
    q = torch.distributions.MultivariateNormal(number([1.0, 0.5]), scale_tril=eye)
    products = [Independent(torch.distributions.Normal(x.loc, x.stddev), 1) for x in (p, q)]
    for alpha in (0.0, *ORDERS):
        expected = float(pyro_kl.renyi(*products, alpha)) if alpha else 0.0
        assert float(pyro_kl.renyi(p, q, alpha)) == pytest.approx(expected, rel=1e-9), alpha


def test_greatest_log_ratio_of_normals():
    p, q = normals([0.0, 0.0], [0.5, 0.2], 0.3), normals([1.0, 0.5], [1.0, 2.0], -0.5)
    x = torch.cartesian_prod(*[torch.linspace(-3.0, 3.0, 1201)] * 2)
    highest = (p.log_prob(x) - q.log_prob(x)).max()
    found = pyro_kl.renyi(p, q, math.inf)
    assert float(highest) <= float(found) == pytest.approx(float(highest), abs=1e-3)
    assert float(pyro_kl.renyi(p, q, 1e7)) == pytest.approx(float(found), rel=1e-5)
    assert float(pyro_kl.renyi(q, p, math.inf)) == math.inf
    # one direction in common
    p, q = normals([0.0, 1.0], [0.5, 2.0]), normals([0.0, 1.0], [1.0, 2.0])
    assert float(pyro_kl.renyi(p, q, math.inf)) == pytest.approx(math.log(2.0), rel=1e-13)
    moved = normals([0.0, 1.5], [1.0, 2.0])
    assert float(pyro_kl.renyi(p, moved, math.inf)) == math.inf


@pytest.mark.parametrize("alpha", [0.5, 2.0, math.inf])
@pytest.mark.parametrize("scale", [0.05, 0.95])
def test_derivatives_of_normals(alpha, scale):
    tril = number([[1.0, 0.0], [0.3, 0.7]])
    q_tril = number([[1.05, 0.0], [0.2, 0.9]])

    def value(loc, a, b):
        p = torch.distributions.MultivariateNormal(loc, scale_tril=a.tril(), validate_args=False)
        q = torch.distributions.MultivariateNormal(
            torch.zeros(2), scale_tril=b.tril(), validate_args=False
        )
        return pyro_kl.renyi(p, q, alpha).value

    inputs = [number([0.1, -0.2]), scale * tril, q_tril]
    assert torch.autograd.gradcheck(value, [x.requires_grad_() for x in inputs])


def test_infinite_rows_have_no_gradient():
    """Of order 2: the second row is too wide. float32 decides as float64 does at the boundary."""
    scale = torch.tensor([0.5, 1.5, 0.9], dtype=torch.float32, requires_grad=True)
    loc = torch.zeros(3, 2, dtype=torch.float32)
    eye = torch.eye(2, dtype=torch.float32)
    p = torch.distributions.MultivariateNormal(loc, scale_tril=scale[:, None, None] * eye)
    q = torch.distributions.MultivariateNormal(loc + 0.25, scale_tril=eye)
    separate = Independent(torch.distributions.Normal(loc, scale[:, None]), 1)
    unit = Independent(torch.distributions.Normal(loc + 0.25, torch.ones(2)), 1)
    found = pyro_kl.renyi(p, q, 2.0).value
    assert found.dtype is torch.float32
    assert found.isinf().tolist() == [False, True, False]
    found.where(found.isfinite(), 0.0).sum().backward()
    value = pyro_kl.renyi(separate, unit, 2.0).value
    (expected,) = torch.autograd.grad(value.where(found.isfinite(), 0.0).sum(), scale)
    assert scale.grad[1] == 0.0
    torch.testing.assert_close(scale.grad, expected, rtol=1e-5, atol=0.0)


def test_counts_beyond_the_atoms_of_q():
    """Infinite at once above order 1, but for a constant p."""
    q = torch.distributions.Categorical(number([[0.2, 0.8], [0.5, 0.5]]))
    p = torch.distributions.Poisson(number([0.0, 2.0]))
    for alpha in (1.4, math.inf):
        found = pyro_kl.renyi(p, q, alpha).value
        assert found[1] == math.inf
    assert float(pyro_kl.renyi(p, q, 1.4)[0]) == pytest.approx(-math.log(0.2), rel=1e-14)
    whole = torch.distributions.Poisson(number(3.0)), torch.distributions.Geometric(number(0.5))
    assert str(float(pyro_kl.renyi(*whole, 0.0))) == "0.0"  # not -0.0


def test_atoms_and_densities_share_no_mass():
    """Renyi's divergence of every order is infinite, and Jensen and Shannon's log 2."""
    atoms = torch.distributions.Bernoulli(number([0.5, 0.25]))
    density = torch.distributions.Beta(number(2.0), number(3.0))
    for pair in ((atoms, density), (density, atoms)):
        for alpha in (0.0, 0.5, 2.0, math.inf):
            assert pyro_kl.renyi(*pair, alpha).value.tolist() == [math.inf] * 2
        assert pyro_kl.jensen_shannon(*pair).value.tolist() == [math.log(2)] * 2


def test_large_batches_are_summed_in_parts(monkeypatch):
    """As one row is: rows are cut where the terms of all of them would be too many."""
    monkeypatch.setattr(sums, "_CHUNK", 512)
    rate = torch.full((9,), 3.0)
    rate[-1] = 7.0
    p, q = torch.distributions.Poisson(rate), torch.distributions.Poisson(number(2.0))
    nb = torch.distributions.NegativeBinomial(number(3.0), number(0.4))
    for values, row in (
        (pyro_kl.entropy(p).value, lambda p: pyro_kl.entropy(p)),
        (pyro_kl.jensen_shannon(p, q).value, lambda p: pyro_kl.jensen_shannon(p, q)),
        (pyro_kl.renyi(p, nb, 2.0).value, lambda p: pyro_kl.renyi(p, nb, 2.0)),
    ):
        for i in (0, -1):
            alone = float(row(torch.distributions.Poisson(rate[i])))
            assert float(values[i]) == pytest.approx(alone, rel=1e-13)


def test_samples_of_another_total_are_outside():
    """torch's support of a Multinomial lets a smaller total pass."""
    p, q = Multinomial(3, number([0.2, 0.8])), Multinomial(2, number([0.4, 0.6]))
    for pair in ((p, q), (q, p)):
        both = pyro_kl.compare(*pair, 50, divergence="jensen-shannon")
        assert float(both.sampled) == pytest.approx(math.log(2), rel=1e-12)
        assert float(pyro_kl.monte_carlo(*pair, 10)) == math.inf


@pytest.mark.parametrize("seed", range(3))
def test_sampled_shannon_of_vectors(seed):
    """Normals that differ in one coordinate have the divergence of that coordinate."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.distributions.MultivariateNormal(number([1.0, 0.0]), scale_tril=torch.eye(2))
    q = torch.distributions.MultivariateNormal(number([0.0, 0.0]), scale_tril=torch.eye(2))
    with pytest.raises(NotImplementedError, match="num_samples="):
        pyro_kl.jensen_shannon(p, q)
    found = pyro_kl.jensen_shannon(p, q, 4000, generator)
    line = [torch.distributions.Normal(number(loc), number(1.0)) for loc in (1.0, 0.0)]
    exact = float(pyro_kl.jensen_shannon(*line))
    assert abs(float(found) - exact) < 5 * float(found.standard_error) < 0.02


def test_cross_entropy_of_narrow_distributions():
    """KL and entropy are large and cancel: off by rounding of the larger one, at most."""
    p = torch.distributions.Normal(number(0.1), number(1e-12))
    q = torch.distributions.Normal(number(0.0), number(1.0))
    # log(2 pi)/2 + (0.01 + 1e-24)/2
    exact = 0.5 * math.log(2 * math.pi) + 0.005
    assert float(pyro_kl.cross_entropy(p, q)) == pytest.approx(exact, abs=2e-14)
    tril = 1e-12 * torch.eye(3)
    p = torch.distributions.MultivariateNormal(torch.full((3,), 0.1), scale_tril=tril)
    q = torch.distributions.MultivariateNormal(torch.zeros(3), scale_tril=torch.eye(3))
    assert float(pyro_kl.cross_entropy(p, q)) == pytest.approx(3 * exact, abs=6e-14)


@pytest.mark.parametrize(
    "name", ["VonMises3D", "ProjectedNormal on the circle", "ProjectedNormal on the sphere"]
)
def test_a_missing_parameter_is_missing(name):
    """nan in, nan out, in its row alone."""
    p, q, _ = PAIRS[name]
    p, q = p(), q()
    rows = torch.stack((p.concentration, p.concentration * math.nan))
    both = type(p)(rows, validate_args=False)
    for found, alone in (
        (pyro_kl.entropy(both), pyro_kl.entropy(p)),
        (pyro_kl.renyi(both, q, 0.5), pyro_kl.renyi(p, q, 0.5)),
        (pyro_kl.jensen_shannon(both, q), pyro_kl.jensen_shannon(p, q)),
    ):
        assert found.value.isnan().tolist() == [False, True]
        assert float(found.value[0]) == pytest.approx(float(alone), rel=1e-12)


def test_counts_that_are_constant():
    """Of one atom at 0: -log q(0) for every order as p; as q, infinite above order 1."""
    one, zero = number(1.0), number(0.0)
    p = torch.distributions.Geometric(number(0.2))
    inflated = dist.ZeroInflatedNegativeBinomial(number(3.0), probs=number(0.4), gate=one)
    constants = [
        torch.distributions.Geometric(one),
        dist.ZeroInflatedPoisson(number(2.0), gate=one),
        inflated,
        torch.distributions.Poisson(zero),
    ]
    for constant in constants:
        for other in (p, constants[1]):
            for alpha in (0.1, 1 + 1e-6):
                expected = -float(other.log_prob(zero))
                found = float(pyro_kl.renyi(constant, other, alpha))
                assert found == pytest.approx(expected, rel=1e-9, abs=1e-15)
        for other in (p, torch.distributions.Poisson(number(2.5))):
            assert float(pyro_kl.renyi(other, constant, 1.5)) == math.inf
            below = float(pyro_kl.renyi(other, constant, 0.5))
            assert below == pytest.approx(-float(other.log_prob(zero)), rel=1e-12)
