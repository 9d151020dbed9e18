"""diagnose: KLs to known posteriors, broken guides, what it refuses, and what it prints."""

import json
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoIAFNormal,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoNormalMessenger,
    AutoStructured,
)
from torch.distributions import kl_divergence

import pyro_kl
from models import eight_schools
from pyro_kl.diagnosis import draws

X = torch.tensor(2.0, dtype=torch.float64)
AUXILIARY = {"is_auxiliary": True}


def number(x):
    return torch.tensor(x, dtype=torch.float64)


def normal_model():
    z = pyro.sample("z", dist.Normal(number(0.0), 1.0))
    pyro.sample("x", dist.Normal(z, 1.0), obs=X)


def guide_of(distribution):
    return lambda: pyro.sample("z", distribution)


def z_score(found, exact):
    return (float(found) - float(exact)) / max(float(found.standard_error), 1e-12)


# --- known posteriors ---------------------------------------------------------------------------


def beta_bernoulli():
    p = pyro.sample("z", dist.Beta(number(2.0), 3.0))
    with pyro.plate("rows", 4):
        pyro.sample("x", dist.Bernoulli(p), obs=number([1.0, 1.0, 0.0, 1.0]))


def gamma_poisson():
    rate = pyro.sample("z", dist.Gamma(number(2.0), 1.0))
    with pyro.plate("rows", 3):
        pyro.sample("x", dist.Poisson(rate), obs=number([3.0, 5.0, 1.0]))


#: Model, posterior, log evidence, and guides that are off.
KNOWN = {
    "normal": (
        normal_model,
        dist.Normal(number(1.0), 0.5**0.5),
        float(dist.Normal(number(0.0), 2**0.5).log_prob(X)),
        [dist.Normal(number(1.1), 0.65), dist.Normal(number(0.9), 0.9)],
    ),
    "beta": (
        beta_bernoulli,
        dist.Beta(number(5.0), 4.0),
        sum(math.lgamma(a) for a in (5, 4)) - math.lgamma(9)
        - sum(math.lgamma(a) for a in (2, 3)) + math.lgamma(5),
        [dist.Beta(number(4.5), 4.0), dist.Beta(number(6.0), 4.5)],
    ),
    "gamma": (
        gamma_poisson,
        dist.Gamma(number(11.0), 4.0),
        math.lgamma(11) - 11 * math.log(4) - sum(math.lgamma(x + 1) for x in (3, 5, 1)),
        [dist.Gamma(number(10.0), 4.0), dist.Gamma(number(12.0), 4.2)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("i", [0, 1])
@pytest.mark.parametrize("name", KNOWN)
def test_the_kl_to_a_known_posterior(name, i):
    model, posterior, evidence, guides = KNOWN[name]
    found = pyro_kl.diagnose(model, guide_of(guides[i]))
    exact = kl_divergence(guides[i], posterior)
    assert found.known
    assert abs(z_score(found.kl_posterior, exact)) < 4
    assert abs(z_score(found.log_evidence, evidence)) < 4
    assert abs(z_score(found.elbo, evidence - exact)) < 4
    assert float(found.kl_posterior.standard_error) < 0.1 * float(exact)
    assert float(found.kl_posterior) == float(found.log_evidence) - float(found.elbo)
    site = found["z"]
    assert abs(float((site.mean - posterior.mean) / site.mean_error)) < 4
    assert float(site.sd) == pytest.approx(float(posterior.stddev), rel=0.05)
    assert abs(posterior.mean - guides[i].mean) <= site.mean_bound * 1.05
    assert abs(posterior.stddev - guides[i].stddev) <= site.sd_bound * 1.05
    assert 0 <= found.kl_at_least <= exact


@pytest.mark.parametrize("name", KNOWN)
def test_the_posterior_itself_has_a_kl_of_zero(name):
    model, posterior, evidence, _ = KNOWN[name]
    found = pyro_kl.diagnose(model, guide_of(posterior), num_samples=1000)
    assert float(found.kl_posterior) == pytest.approx(0, abs=1e-12)
    assert float(found.log_evidence) == pytest.approx(evidence, abs=1e-9)
    assert "Trust the guide" in str(found)


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        (0.99, "Trust the guide as far as its draws reach: no posterior mean is further"),
        (0.93, "Trust the guide as far as its draws reach: by importance weights"),
        (0.8, "Take the posterior's columns"),
    ],
)
def test_a_guide_is_trusted_as_far_as_its_sds_are_right(scale, says):
    model, posterior, _, _ = KNOWN["normal"]
    guide = dist.Normal(posterior.mean, scale * posterior.stddev)
    assert says in pyro_kl.diagnose(model, guide_of(guide)).summary.replace("\n  ", " ")


def regression():
    """A linear regression whose posterior and evidence are Gaussian."""
    features = torch.linspace(-1, 1, 12).double()[:, None] ** torch.arange(4)
    target = torch.linspace(0, 2, 12).double().sin()

    def model():
        w = pyro.sample("z", dist.Normal(torch.zeros(4).double(), 1.0).to_event(1))
        with pyro.plate("rows", 12):
            pyro.sample("x", dist.Normal((features * w).sum(-1), 0.5), obs=target)

    precision = torch.eye(4, dtype=torch.float64) + features.T @ features / 0.25
    mean = torch.linalg.solve(precision, features.T @ target / 0.25)
    covariance = features @ features.T + 0.25 * torch.eye(12, dtype=torch.float64)
    evidence = dist.MultivariateNormal(torch.zeros(12).double(), covariance).log_prob(target)
    posterior = dist.MultivariateNormal(mean, precision_matrix=precision)
    guide = dist.MultivariateNormal(mean + 0.02, precision_matrix=precision * 1.1)
    return model, guide_of(guide), kl_divergence(guide, posterior), evidence


def state_space():
    """A random walk, one site for each step; the evidence is GaussianHMM's."""
    steps, data = 6, torch.linspace(0, 2, 6).double()
    eye = torch.eye(1, dtype=torch.float64)
    zero = torch.zeros(1).double()
    hmm = dist.GaussianHMM(
        dist.MultivariateNormal(zero, 2 * eye), eye, dist.MultivariateNormal(zero, eye),
        eye, dist.MultivariateNormal(zero, 0.25 * eye), duration=steps,
    )  # fmt: skip

    def model():
        z = pyro.sample("z0", dist.Normal(number(0.0), 3**0.5))
        pyro.sample("x0", dist.Normal(z, 0.5), obs=data[0])
        for t in range(1, steps):
            z = pyro.sample(f"z{t}", dist.Normal(z, 1.0))
            pyro.sample(f"x{t}", dist.Normal(z, 0.5), obs=data[t])

    differences = torch.eye(steps).double() - torch.diag(torch.ones(steps - 1), -1).double()
    noise = torch.diag(torch.tensor([1 / 3] + [1.0] * (steps - 1)).double())
    precision = differences.T @ noise @ differences + 4 * torch.eye(steps)
    mean = torch.linalg.solve(precision, 4 * data)
    scale = precision.diagonal().rsqrt()

    def guide():
        for t in range(steps):
            pyro.sample(f"z{t}", dist.Normal(mean[t], scale[t]))

    kl = kl_divergence(
        dist.MultivariateNormal(mean, torch.diag(scale**2)),
        dist.MultivariateNormal(mean, precision_matrix=precision),
    )
    return model, guide, kl, hmm.log_prob(data[:, None])


@pytest.mark.parametrize("problem", [regression, state_space])
def test_the_kl_to_a_gaussian_posterior(problem):
    model, guide, kl, evidence = problem()
    found = pyro_kl.diagnose(model, guide)
    assert found.known
    assert abs(z_score(found.kl_posterior, kl)) < 4
    assert abs(z_score(found.log_evidence, evidence)) < 4
    assert float(found.kl_posterior.standard_error) < 0.02


def correlated(n=3):
    """A posterior with correlations: a sum is observed."""
    z = pyro.sample("z", dist.Normal(torch.zeros(n).double(), 1.0).to_event(1))
    scale = pyro.sample("s", dist.LogNormal(number(0.0), 0.5))
    pyro.sample("x", dist.Normal(z.sum(-1), scale), obs=X)


GUIDES = {
    "AutoNormal": AutoNormal,
    "AutoDiagonalNormal": AutoDiagonalNormal,
    "AutoMultivariateNormal": AutoMultivariateNormal,
    "AutoLowRank": lambda model: AutoLowRankMultivariateNormal(model, rank=2),
    "AutoIAFNormal": lambda model: AutoIAFNormal(model, hidden_dim=[8]),
    "AutoStructured": lambda model: AutoStructured(
        model, conditionals="mvn", dependencies="linear"
    ),
}


SLOW = ("AutoNormal", "AutoDiagonalNormal", "AutoLowRank", "AutoIAFNormal", "AutoStructured")


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=pytest.mark.sweep) if x in SLOW else x for x in GUIDES]
)
def test_every_guide_agrees_on_the_evidence(name, double):
    """By numerical integration over s, given which x is Normal."""
    log_s = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    scale = log_s.exp()
    joint = dist.LogNormal(number(0.0), 0.5).log_prob(scale) + log_s
    joint = joint + dist.Normal(0.0, (3 + scale**2).sqrt()).log_prob(X)
    evidence = float(joint.logsumexp(0)) + math.log(8 / 4000)
    guide = GUIDES[name](correlated)
    elbo = pyro_kl.TraceKL_ELBO(num_particles=8, vectorize_particles=True, max_plate_nesting=0)
    svi = pyro.infer.SVI(correlated, guide, pyro.optim.Adam({"lr": 0.02}), elbo)
    for _ in range(300):
        svi.step()
    found = pyro_kl.diagnose(correlated, guide, num_samples=4000)
    assert found.known
    assert abs(z_score(found.log_evidence, evidence)) < 4
    assert float(found.kl_posterior) > -4 * float(found.kl_posterior.standard_error)


# --- broken guides ------------------------------------------------------------------------------


def shifted_model():
    z = pyro.sample("z", dist.Normal(number(0.0), 1.0))
    s = pyro.sample("s", dist.LogNormal(number(0.0), 0.3))
    with pyro.plate("rows", 20):
        pyro.sample("x", dist.Normal(z, s), obs=torch.linspace(-1, 3, 20).double())


def broken(half=1.0, swap=False, sign=1.0):
    """Guides close to the posterior of `shifted_model`, but for one mistake."""
    z, s = (dist.Normal(number(0.94), 0.25 * half), dist.Normal(number(0.15), 0.15 * half))

    def guide():
        first, second = (s, z) if swap else (z, s)
        pyro.sample("z", first)
        u = pyro.sample("u", second, infer={"is_auxiliary": True})
        pyro.sample("s", dist.Delta(u.exp(), log_density=-sign * u))

    return guide


def test_a_good_guide_is_trusted():
    found = pyro_kl.diagnose(shifted_model, broken())
    assert found.known
    assert float(found.kl_posterior) < 0.1


def is_worse(found, good):
    """Whether a KL is unknown, or larger by more than its noise."""
    if not found.known:
        return True
    errors = (float(x.kl_posterior.standard_error) for x in (found, good))
    return float(found.kl_posterior) - float(good.kl_posterior) > 4 * math.hypot(*errors)


@pytest.mark.parametrize("options", [{"half": 0.5}, {"swap": True}, {"sign": -1.0}], ids=str)
def test_a_broken_guide_is_noticed(options):
    good = pyro_kl.diagnose(shifted_model, broken())
    assert not is_worse(pyro_kl.diagnose(shifted_model, broken()), good)
    assert is_worse(pyro_kl.diagnose(shifted_model, broken(**options)), good)


class Wrong(AutoNormal):
    """AutoNormal without the log |det| of its transforms."""

    def forward(self, *args, **kwargs):
        with pyro.poutine.block(hide_fn=lambda msg: msg["name"] == "s"):
            values = super().forward(*args, **kwargs)
        values["s"] = pyro.sample("s", dist.Delta(values["s"]))
        return values


def rotated(sign=1.0, scale=1.0):
    """z and s are functions of the same two variables."""

    def guide():
        u = pyro.sample(
            "u", dist.Normal(torch.zeros(2).double(), 0.2).to_event(1), infer=AUXILIARY
        )
        z, log_s = u[..., 0] + u[..., 1], 0.3 * (u[..., 0] - u[..., 1])
        pyro.sample("z", dist.Delta(z, log_density=torch.tensor(-math.log(0.6)).double()))
        pyro.sample("s", dist.Delta(log_s.exp(), log_density=-sign * log_s))

    return guide


def dirichlet_model():
    pyro.sample("p", dist.Dirichlet(torch.ones(3).double()))
    shifted_model()


@pytest.mark.parametrize(
    ("model", "guide", "wrong"),
    [
        (shifted_model, rotated(), False),
        (shifted_model, rotated(-1.0), True),
        (shifted_model, AutoMultivariateNormal(shifted_model), False),
        (dirichlet_model, AutoMultivariateNormal(dirichlet_model), False),
        (shifted_model, Wrong(shifted_model), True),
    ],
)
def test_a_wrong_jacobian_is_found_by_derivatives(model, guide, wrong, double):
    found = pyro_kl.diagnose(model, guide, num_samples=200)
    assert ("log |det| of the change of variables" in found.kl_posterior.reason) is wrong
    assert ("Trust nothing here" in str(found)) is wrong


def test_a_missing_correlation_is_noticed():
    def model():
        z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(-1), 0.5), obs=X)

    precision = torch.eye(2, dtype=torch.float64) + 4.0
    posterior = dist.MultivariateNormal(
        4 * X * torch.linalg.inv(precision).sum(-1), precision_matrix=precision
    )
    # what inference by a product of Normals finds
    guide = dist.Normal(posterior.mean, precision.diagonal().rsqrt()).to_event(1)
    found = pyro_kl.diagnose(model, guide_of(guide))
    product = dist.MultivariateNormal(posterior.mean, torch.diag(guide.stddev**2))
    exact = float(kl_divergence(product, posterior))
    assert found.khat > 0.5
    if found.known:
        assert abs(z_score(found.kl_posterior, exact)) < 4
    assert found.kl_at_least <= exact


def test_covariances_and_their_bound():
    def model():
        z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=X)

    posterior = dist.MultivariateNormal(
        X * torch.ones(2).double() / 3, precision_matrix=torch.eye(2).double() + 1
    )
    guide = dist.Normal(posterior.mean, 0.8).to_event(1)
    found = pyro_kl.diagnose(model, guide_of(guide))
    own = found["z"].covariances
    error = (own.posterior - posterior.covariance_matrix).abs()
    assert float(error.max()) < 0.03
    difference = posterior.covariance_matrix - torch.eye(2) * 0.8**2
    assert bool((difference.abs() <= own.bound).all())
    assert "correlation that differs most: z[0] and z[1], -0.5" in str(found).replace("\n  ", " ")
    close = pyro_kl.diagnose(model, guide_of(posterior), num_samples=2000)
    assert "correlation" not in str(close)
    assert float(close["z"].covariances.bound.max()) < 1e-6


def test_a_narrow_guide_has_an_unknown_kl():
    found = pyro_kl.diagnose(normal_model, guide_of(dist.Normal(number(1.0), 0.05)))
    assert not found.known
    assert found.kl_posterior.method == "unknown"
    assert str(found.kl_posterior).startswith("unknown: the k-hat")
    assert math.isnan(float(found.kl_posterior))
    assert math.isnan(float(found["z"].mean))
    assert found["z"].guide_sd == pytest.approx(0.05, rel=0.05)
    exact = float(kl_divergence(dist.Normal(number(1.0), 0.05), KNOWN["normal"][1]))
    assert 0 <= found.kl_at_least < exact
    assert "Trust neither" in str(found)


def test_draws_outside_of_the_posterior_are_an_infinite_kl():
    def model():
        z = pyro.sample("z", dist.HalfNormal(number(1.0)))
        pyro.sample("x", dist.Normal(z, 1.0), obs=X)

    with pyro.validation_enabled(False):
        found = pyro_kl.diagnose(model, guide_of(dist.Normal(number(1.0), 0.6)))
    assert found.kl_posterior.method == "infinite"
    assert math.isinf(float(found.kl_posterior))


def test_an_infinite_kl_that_no_draw_shows():
    def model():
        z = pyro.sample("z", dist.HalfNormal(number(1.0)))
        pyro.sample("x", dist.Normal(z, 1.0), obs=X)

    found = pyro_kl.diagnose(model, guide_of(dist.Normal(number(1.0), 0.02)), num_samples=100)
    assert found.kl_posterior.method == "infinite"
    assert "no draw shows it" in found.kl_posterior.reason
    assert float(found.elbo) == -math.inf


# --- many draws ---------------------------------------------------------------------------------


def mixing():
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z.sum(), 1.0), obs=torch.tensor(1.0))


def branching():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    scale = 1.0 if z > 0 else 2.0
    pyro.sample("x", dist.Normal(z, scale), obs=torch.tensor(1.0))


def by_numpy():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(float(z.numpy()), 1.0), obs=torch.tensor(1.0))


def vector_guide():
    pyro.sample("z", dist.Normal(torch.full((2,), 0.3), 0.7).to_event(1))


@pytest.mark.parametrize("model", [branching, by_numpy])
def test_a_model_that_makes_one_draw_at_a_time(model):
    guide = guide_of(dist.Normal(0.5, 0.8))
    with pytest.warns(UserWarning, match="Error for several at once"):
        found = pyro_kl.diagnose(model, guide, num_samples=100)
    assert len(found.sites) == 1
    alone = pyro_kl.diagnose(model, guide, num_samples=100, vectorize=False)
    root = math.hypot(*(float(x.elbo.standard_error) for x in (found, alone)))
    assert abs(float(found.elbo) - float(alone.elbo)) < 4 * root
    with pytest.raises(ValueError, match="vectorize=True: "):
        pyro_kl.diagnose(model, guide, num_samples=100, vectorize=True)


def by_matrices():
    """The product has another meaning where w has draws on its left."""
    w = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", 1):
        pyro.sample("x", dist.Normal(torch.ones(1, 2) @ w, 1.0), obs=torch.ones(1))


def with_a_jacobian():
    u = pyro.sample("u", dist.Normal(torch.zeros(2), 1.0).to_event(1), infer=AUXILIARY)
    z = 0.3 + 0.7 * u
    pyro.sample("z", dist.Delta(z, log_density=torch.tensor(-2 * math.log(0.7)), event_dim=1))


@pytest.mark.parametrize("guide", [vector_guide, with_a_jacobian])
@pytest.mark.parametrize("model", [mixing, by_matrices])
def test_a_model_that_makes_many_draws_by_vmap(model, guide):
    """No warning, and the number of draws shows that they are not made one by one."""
    found = pyro_kl.diagnose(model, guide, num_samples=20_000)
    posterior = dist.MultivariateNormal(
        torch.full((2,), 1 / 3.0), precision_matrix=torch.eye(2) + 1.0
    )
    exact = kl_divergence(
        dist.MultivariateNormal(torch.full((2,), 0.3), 0.49 * torch.eye(2)), posterior
    )
    assert abs(z_score(found.kl_posterior, exact)) < 4
    assert abs(z_score(found.log_evidence, dist.Normal(0.0, 3**0.5).log_prob(number(1.0)))) < 4
    prior_kl = 2 * kl_divergence(dist.Normal(0.3, 0.7), dist.Normal(0.0, 1.0))
    assert abs(z_score(found["z"].prior_kl, prior_kl)) < 4 or float(
        found["z"].prior_kl
    ) == pytest.approx(float(prior_kl))
    off = (found["z"].mean - 1 / 3) / found["z"].mean_error
    assert float(off.abs().max()) < 4


def test_a_guide_that_runs_the_model_makes_one_draw_at_a_time():
    guide = AutoNormalMessenger(normal_model)
    with pytest.warns(UserWarning, match="a GuideMessenger runs the model itself"):
        found = pyro_kl.diagnose(normal_model, guide, num_samples=300)
    exact = KNOWN["normal"][2]
    assert not found.known or abs(z_score(found.log_evidence, exact)) < 4


def test_chunks_do_not_change_what_is_found(monkeypatch):
    guide = guide_of(dist.Normal(number(1.1), 0.65))
    whole = pyro_kl.diagnose(normal_model, guide, num_samples=5000)
    monkeypatch.setattr(draws, "NUMBERS", 400)
    parts = pyro_kl.diagnose(normal_model, guide, num_samples=5000)
    root = math.hypot(*(float(x.kl_posterior.standard_error) for x in (whole, parts)))
    assert abs(float(whole.kl_posterior) - float(parts.kl_posterior)) < 4 * root
    site = parts["z"]
    assert abs(float((site.mean - 1) / site.mean_error)) < 4
    monkeypatch.setattr(draws, "NUMBERS", 17)  # two draws at a time, ranges from 17 of them
    few = pyro_kl.diagnose(normal_model, guide, num_samples=100)["z"].histograms
    assert float(few.edges[-1] - few.edges[0]) > 4 * 0.65


def test_the_contraction_is_that_of_the_variances():
    found = pyro_kl.diagnose(normal_model, guide_of(KNOWN["normal"][1]))
    assert float(found["z"].contraction) == pytest.approx(0.5, abs=0.08)
    guide = AutoNormal(eight_schools.model)
    rows = pyro_kl.diagnose(eight_schools.model, guide, num_samples=1000)
    assert bool(rows["tau"].contraction.isnan())  # a HalfCauchy has no variance


def test_a_site_whose_prior_variance_is_not_known_has_no_contraction():
    """Draws show it for some elements only: here, without the rule, for three of eight."""

    def model():
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", 8):
            theta = pyro.sample("theta", dist.Normal(0.0, tau))
            pyro.sample("y", dist.Normal(theta, 10.0), obs=torch.ones(8))

    guide = AutoNormal(model)
    pyro.set_rng_seed(0)
    guide()
    pyro.set_rng_seed(13)
    found = pyro_kl.diagnose(model, guide, num_samples=300, max_plate_nesting=1)
    assert bool(found["theta"].contraction.isnan().all())


def test_the_histograms_are_densities():
    found = pyro_kl.diagnose(normal_model, guide_of(KNOWN["normal"][3][0]))
    densities = found["z"].histograms
    middle = (densities.edges[1:] + densities.edges[:-1]) / 2
    exact = {"prior": dist.Normal(0.0, 1.0), "guide": KNOWN["normal"][3][0]}
    for name, distribution in {**exact, "posterior": KNOWN["normal"][1]}.items():
        own, true = getattr(densities, name), distribution.log_prob(middle).exp()
        count = 2000 if name == "prior" else 10_000
        error = (true / densities.edges.diff() / count).sqrt() + 1e-3
        assert float(((own - true) / error).abs().max()) < 5, name
    counts = pyro_kl.diagnose(discrete, lambda: (good(), pyro.sample("k", dist.Bernoulli(0.4))))
    assert counts["k"].histograms is None


def test_the_largest_weights_have_the_fitted_tail():
    found = pyro_kl.diagnose(normal_model, guide_of(dist.Normal(number(1.0), 0.5)))
    tail = found.largest_weights
    assert tail.khat == found.khat
    assert len(tail.log_weights) == 300
    above = tail.log_weights.exp() - math.exp(tail.log_cut)
    survival = (1 + tail.khat * above / tail.scale) ** (-1 / tail.khat)
    # the ranks of 300 draws from the fitted distribution
    expected = 1 - torch.arange(0.5, 300) / 300
    assert float((survival - expected).abs().max()) < 0.1


# --- what is refused ----------------------------------------------------------------------------


def subsampling():
    with pyro.plate("rows", 10, subsample_size=2):
        pyro.sample("z", dist.Normal(0.0, 1.0))


def scaled():
    with pyro.poutine.scale(scale=0.5):
        normal_model()


def with_auxiliary():
    u = pyro.sample("u", dist.Normal(number(0.0), 1.0), infer={"is_auxiliary": True})
    pyro.sample("z", dist.Normal(u, 0.5))


def of_nothing():
    pass


def discrete():
    pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
    normal_model()


def undefined():
    normal_model()
    pyro.factor("f", torch.tensor(math.nan))


def changing():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("y" if z > 0 else "w", dist.Normal(0.0, 1.0))


good = guide_of(dist.Normal(number(1.0), 0.7))


@pytest.mark.parametrize(
    ("model", "guide", "says"),
    [
        (subsampling, subsampling, "'rows' draws 2 of 10 rows"),
        (scaled, good, "x has a scale|z has a scale"),
        (normal_model, AutoDelta(normal_model), "The guide is a point at z"),
        (normal_model, AutoLaplaceApproximation(normal_model), "The guide is a point at z"),
        (normal_model, with_auxiliary, "The guide draws u, of which no latent is an image"),
        (normal_model, of_nothing, "The guide does not draw z"),
        (undefined, good, "draws is nan"),
    ],
)
def test_what_is_refused(model, guide, says):
    with pyro.validation_enabled(False), pytest.raises(ValueError, match=says):
        pyro_kl.diagnose(model, guide, num_samples=100)


def test_latents_that_differ_between_draws_are_refused():
    with pytest.raises(ValueError, match="needs the same in all draws"):
        pyro_kl.diagnose(changing, changing, num_samples=100, vectorize=False)


def test_few_draws_are_refused():
    for few in (10, 1e4, "100"):
        with pytest.raises(ValueError, match=f"num_samples={few!r} has to be an integer of at"):
            pyro_kl.diagnose(normal_model, guide_of(dist.Normal(0.0, 1.0)), num_samples=few)


# --- what is shown ------------------------------------------------------------------------------


def test_the_table_and_the_data():
    pyro.clear_param_store()
    guide = AutoNormal(eight_schools.model)
    found = pyro_kl.diagnose(eight_schools.model, guide, num_samples=2000)
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[3].startswith("theta[0]")
    rows = found.to_dicts()
    assert [row["site"] for row in rows] == ["mu", "tau", *["theta"] * 8]
    assert rows[3]["index"] == (1,)
    *elements, whole = map(json.loads, found.to_json_lines().splitlines())
    assert len(elements) == 10
    assert whole["khat"] == found.khat
    assert "<table>" in found._repr_html_()
    with pytest.raises(KeyError, match="no site 'x'; there are mu, tau, theta"):
        found["x"]
