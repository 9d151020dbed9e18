"""Estimates and their standard errors: right on average, and honest about the rest."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pyro.distributions.transforms as maps
import pytest
import torch
from torch.distributions import (
    Beta,
    Gamma,
    Independent,
    MultivariateNormal,
    Normal,
    Uniform,
    kl_divergence,
)

import pyro_kl
from pyro_kl.divergence import monte_carlo as sampler

from ..conformance.cases import F64, SAME, draw, make, over

P, Q = Normal(0.3, 1.2), Normal(0.0, 1.0)
SEEDS = 400


def over_seeds(estimator, num_samples=200, p=P, q=Q):
    runs = []
    for seed in range(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        estimate = pyro_kl.monte_carlo(p, q, num_samples, estimator, generator)
        runs.append((estimate.value.item(), estimate.standard_error.item()))
    values, errors = torch.tensor(runs, dtype=torch.float64).T
    return values, errors


def expected(estimator):
    """E_p of the estimator's term, on a grid."""
    x = torch.linspace(-15, 15, 200_001, dtype=torch.float64)
    d = P.log_prob(x) - Q.log_prob(x)
    term = {"k1": d, "k2": d**2 / 2, "k3": torch.expm1(-d) + d}[estimator]
    return torch.trapezoid(P.log_prob(x).exp() * term, x).item()


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_mean_over_seeds(estimator):
    values, _ = over_seeds(estimator)
    z = (values.mean() - expected(estimator)) / (values.std() / math.sqrt(SEEDS))
    assert abs(z) < 4.5


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_unbiased(estimator):
    assert expected(estimator) == pytest.approx(kl_divergence(P, Q).item(), rel=1e-5)
    assert expected("k2") != pytest.approx(kl_divergence(P, Q).item(), rel=0.05)


@pytest.mark.filterwarnings(
    "ignore:KL.*the standard error does not hold:UserWarning"
)  # a few seeds
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_standard_error_covers(estimator):
    """Two standard errors hold about 95 % of the runs, and their size is the runs' spread."""
    values, errors = over_seeds(estimator, num_samples=2000)
    inside = ((values - expected(estimator)).abs() < 2 * errors).double().mean().item()
    assert 0.90 < inside < 0.985
    assert errors.mean().item() == pytest.approx(values.std().item(), rel=0.15)


def test_k3_is_never_negative():
    estimate = pyro_kl.monte_carlo(Normal(torch.zeros(500), 1.0), Normal(1e-3, 1.0), 2, "k3")
    assert estimate.value.min() >= 0


def test_generator_is_reproducible_and_leaves_the_global_one():
    state = torch.get_rng_state()
    generators = [torch.Generator().manual_seed(7) for _ in range(2)]
    first, second = (pyro_kl.monte_carlo(P, Q, 100, generator=g) for g in generators)
    assert torch.equal(first.value, second.value)
    assert torch.equal(torch.get_rng_state(), state)
    further = pyro_kl.monte_carlo(P, Q, 100, generator=generators[0])
    assert not torch.equal(further.value, first.value)


def test_generator_is_given_back_after_an_error():
    class Broken(Normal):
        def log_prob(self, value):
            raise RuntimeError("broken")

    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="broken"):
        pyro_kl.monte_carlo(P, Broken(0.0, 1.0), 10, generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)


def test_global_randomness_by_default():
    torch.manual_seed(3)
    first = pyro_kl.monte_carlo(P, Q, 100)
    torch.manual_seed(3)
    assert torch.equal(pyro_kl.monte_carlo(P, Q, 100).value, first.value)
    assert not torch.equal(pyro_kl.monte_carlo(P, Q, 100).value, first.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_batch(dtype):
    p = Normal(torch.zeros(3, 1, dtype=dtype), torch.ones(3, 1, dtype=dtype))
    q = Normal(torch.ones(4, dtype=dtype), torch.ones(4, dtype=dtype))
    estimate = pyro_kl.monte_carlo(p, q, 2000)
    for tensor in (estimate.value, estimate.standard_error):
        assert tensor.shape == (3, 4)
        assert tensor.dtype == dtype
        assert not tensor.requires_grad
    assert ((estimate.value - 0.5) / estimate.standard_error).abs().max() < 4.5
    # elements of the batch have samples of their own
    assert estimate.value.unique().numel() == 12


def test_events():
    p = MultivariateNormal(torch.ones(3), torch.eye(3)).expand((2,))
    q = Independent(Normal(torch.zeros(3), 1.0), 1)
    estimate = pyro_kl.monte_carlo(p, q, 4000)
    assert estimate.value.shape == (2,)
    assert ((estimate.value - 1.5) / estimate.standard_error).abs().max() < 4.5


def test_distributions_without_a_density_of_their_own():
    """torch has no log_prob of |x|; the folded distribution that it is has one."""
    torch.manual_seed(0)
    folded = torch.distributions.TransformedDistribution(
        Normal(0.5, 1.0), torch.distributions.transforms.AbsTransform()
    )
    for p, q in ((folded, Gamma(2.0, 1.5)), (Gamma(2.0, 1.5), folded)):
        comparison = pyro_kl.compare(p, q, num_samples=20_000)
        assert abs(comparison.z_score) < 4
    assert pyro_kl.monte_carlo(Normal(0.0, 1.0), folded).value == math.inf


def test_classes_that_cannot_expand():
    """Pyro refuses to expand a subclass with a constructor of its own."""
    torch.manual_seed(0)
    p = dist.OMTMultivariateNormal(torch.zeros(2), torch.eye(2))
    q = dist.MultivariateNormal(torch.ones(3, 2), torch.eye(2))
    estimate = pyro_kl.monte_carlo(p, q, num_samples=10_000)
    assert estimate.value.shape == (3,)
    assert ((estimate.value - 1.0).abs() < 5 * estimate.standard_error).all()


@pytest.mark.parametrize("chunk", [7, 100, 999, 1000])
def test_chunks_merge_to_one(monkeypatch, chunk):
    """Samples drawn in chunks are those drawn at once, where each sample is one call."""
    generator = torch.Generator()
    p, q = Uniform(0.0, 1.0), Beta(2.0, 3.0)
    whole = pyro_kl.monte_carlo(p, q, 1000, generator=generator.manual_seed(5))
    monkeypatch.setattr(sampler, "_CHUNK", chunk)
    parts = pyro_kl.monte_carlo(p, q, 1000, generator=generator.manual_seed(5))
    assert parts.value.item() == pytest.approx(whole.value.item(), rel=1e-5)
    assert parts.standard_error.item() == pytest.approx(whole.standard_error.item(), rel=1e-5)
    assert parts.num_samples == 1000


@pytest.mark.parametrize("chunk", [10, 2**22])
def test_mass_outside_is_infinite(monkeypatch, chunk):
    monkeypatch.setattr(sampler, "_CHUNK", chunk)
    p = Normal(torch.tensor([0.0, 60.0]), 1.0)
    estimate = pyro_kl.monte_carlo(p, Gamma(2.0, 1.0), 100)
    assert estimate.value.isinf().tolist() == [True, False]
    assert estimate.standard_error.isinf().tolist() == [True, False]
    assert not estimate.value.isnan().any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "k4"}, "estimator must be one of k1, k2, k3: 'k4'"),
        ({"num_samples": 1}, "num_samples must be at least 2, for a standard error: 1"),
        ({"q": Independent(Normal(torch.zeros(2), 1.0), 1)}, r"event shapes \(\) and \(2,\)"),
        ({"p": Normal(torch.zeros(3), 1.0), "q": Normal(torch.zeros(2), 1.0)}, "do not broadcast"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        pyro_kl.monte_carlo(**{"p": P, "q": Q, **options})


def test_says_how_it_was_made():
    estimate = pyro_kl.monte_carlo(P, Q, 12_345, "k3")
    assert not estimate.exact
    assert estimate.num_samples == 12_345
    assert "+-" in str(estimate)
    assert "monte carlo (k3): 12,345 samples of p" in str(estimate)


# --- draws that have rounded to an end of the support, and what cannot be sampled ---------------


@pytest.mark.usefixtures("double")
@pytest.mark.filterwarnings("ignore:KL.*the standard error does not hold:UserWarning")
@over(duo for duo in SAME if not duo.p.support.discrete)
def test_no_verdict_from_draws_at_the_end(duo):
    """Wide parameters: an estimate that is off says that its standard error does not hold."""
    torch.manual_seed(0)
    p, q = (make(family, draw(family, 12, 2.5)) for family in (duo.p, duo.q))
    found = pyro_kl.compare(p, q, num_samples=5000)
    doubtful = found.sampled.unreliable
    doubtful = torch.zeros(12, dtype=torch.bool) if doubtful is None else doubtful
    assert found.z_score[doubtful].isnan().all()
    sound = found.value.isfinite() & ~doubtful
    assert (found.z_score[sound].abs() < 5).all(), found.z_score
    if doubtful.any():
        assert "the standard error does not hold" in found.sampled.reason


AT_THE_END = {
    "Gamma": lambda t: (dist.Gamma(t(0.01), t(1.0)), dist.Gamma(t(0.1), t(1.0))),
    "Beta": lambda t: (dist.Beta(t(0.01), t(0.01)), dist.Beta(t(1.0), t(1.0))),
    "InverseGamma": lambda t: (
        dist.InverseGamma(t(0.02), t(1.0)),
        dist.InverseGamma(t(0.1), t(1.0)),
    ),
    "Dirichlet": lambda t: (dist.Dirichlet(t([0.005] * 50)), dist.Dirichlet(t([0.02] * 50))),
    "Kumaraswamy": lambda t: (dist.Kumaraswamy(t(0.05), t(0.05)), dist.Beta(t(1.0), t(1.0))),
    "product": lambda t: (
        dist.Gamma(t([0.01, 2.0]), t(1.0)).to_event(1),
        dist.Gamma(t([0.1, 2.0]), t(1.0)).to_event(1),
    ),
    "mapped": lambda t: (
        dist.TransformedDistribution(
            dist.Gamma(t(0.01), t(1.0)), maps.AffineTransform(t(0.0), t(2.0))
        ),
        dist.Gamma(t(0.1), t(1.0)),
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", AT_THE_END)
def test_draws_at_the_end_are_counted(name, dtype):
    torch.manual_seed(0)
    p, q = AT_THE_END[name](lambda x: torch.tensor(x, dtype=dtype))
    with pytest.warns(UserWarning, match=r"[0-9]+ (rounded to an end of p's support|left out)"):
        found = pyro_kl.compare(p, q, num_samples=5000)
    assert found.estimate.isfinite()
    assert found.z_score.isnan()
    assert "the standard error does not hold" in " ".join(str(found).split())
    assert str(found).splitlines()[-1].split() == ["z", "-"]


def test_only_the_rows_at_the_end_lose_their_verdict():
    torch.manual_seed(0)
    p = Gamma(torch.tensor([0.01, 2.0]), 1.0)
    with pytest.warns(UserWarning, match="up to [0-9,]+ rounded"):
        found = pyro_kl.compare(p, Gamma(1.0, 1.0), num_samples=5000)
    assert found.z_score.isnan().tolist() == [True, False]
    assert [part.unreliable.item() for part in found.sampled] == [True, False]


def test_one_draw_has_much_of_the_variance():
    """The mean of x^20 of an exponential variable is 2e18, and few draws are above 10."""
    torch.manual_seed(0)
    p = dist.Weibull(*(torch.tensor(x, dtype=F64) for x in (1.0, 0.05)))
    with pytest.warns(UserWarning, match="1 makes up more than a quarter of the variance"):
        assert pyro_kl.compare(p, Gamma(1.0, 1.0), num_samples=5000).z_score.isnan()


@pytest.mark.filterwarnings("ignore:.*is estimated by Monte Carlo:UserWarning")
def test_a_mixture_says_so_too():
    torch.manual_seed(0)
    parts = Independent(Gamma(torch.tensor([[0.01, 1.0], [1.0, 2.0]]), 1.0), 1)
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), parts)
    other = Independent(Gamma(torch.ones(2), 1.0), 1)
    with pytest.warns(UserWarning, match="rounded to an end of p's support"):
        found = pyro_kl.kl(mixture, other, num_samples=2000)
    assert found.unreliable
    assert found.value.isfinite()


LACKING = {
    "sampler": (
        lambda: dist.LogNormalNegativeBinomial(*torch.tensor([5.0, 0.0, 0.5])),
        lambda: dist.Poisson(3.0),
        "LogNormalNegativeBinomial has no sampler",
    ),
    **{
        name: (
            lambda: dist.Normal(torch.zeros(2), 1.0).to_event(1),
            lambda make=make: dist.TransformedDistribution(
                dist.Normal(torch.zeros(2), 1.0).to_event(1), [make()]
            ),
            r"TransformedDistribution has no density .* a transform has no inverse \(",
        )
        for name, make in {
            "planar": lambda: maps.planar(2),
            "radial": lambda: maps.radial(2),
            "sylvester": lambda: maps.sylvester(2, 2),
            "polynomial": lambda: maps.polynomial(2),
            "neural autoregressive": lambda: maps.neural_autoregressive(2),
            "block autoregressive": lambda: maps.block_autoregressive(2),
        }.items()
    },
}


@pytest.mark.filterwarnings("ignore:.*is estimated by Monte Carlo:UserWarning")
@pytest.mark.parametrize("name", LACKING)
def test_says_what_is_lacking(name):
    p, q, message = LACKING[name]
    for ask in (pyro_kl.monte_carlo, pyro_kl.kl):
        with pytest.raises(NotImplementedError, match=message):
            ask(p(), q(), num_samples=100)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda distribution: distribution,
        lambda distribution: distribution.expand([2]),
        lambda distribution: distribution.mask(True),
    ],
)
def test_says_that_a_sampler_is_another_distributions(wrap):
    """torch draws correlation matrices from another distribution than its log_prob is of."""
    p, q = (wrap(dist.LKJCholesky(3, torch.tensor(eta))) for eta in (1.5, 4.0))
    with pytest.warns(UserWarning, match="sampler draws from another distribution"):
        found = pyro_kl.monte_carlo(p, q, 1000)
    assert found.unreliable.all()
    assert "sampler draws from another distribution" in found.reason
    with pytest.warns(UserWarning, match="sampler"):
        assert pyro_kl.compare(p, q, 1000).z_score.isnan().all()
