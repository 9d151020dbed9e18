"""Learnt prior scales: no scale that is fitted on its own has a larger ELBO."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import sparse

from pyro_kl.glm import LogisticRegression, PoissonRegression
from pyro_kl.glm.covariances.covariance import DiagonalCovariance, FullCovariance
from pyro_kl.glm.priors.prior import NormalPrior
from pyro_kl.glm.priors.scale_equation import ScaledPrior, em_step, slope
from pyro_kl.glm.priors.shrinkage import HorseshoePrior, LaplacePrior, StudentTPrior

PRIORS = {
    "normal": NormalPrior,
    "laplace": LaplacePrior,
    "studentt": StudentTPrior,
    "horseshoe": HorseshoePrior,
}
GROUPS = ["strong"] * 4 + ["weak"] * 8


def data(num_rows=400, seed=0):
    """Four strong coefficients and eight weak ones."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_rows, 12))
    weights = np.r_[2.0 * rng.normal(size=4), 0.3 * rng.normal(size=8)]
    return x, rng.random(num_rows) < 1 / (1 + np.exp(-x @ weights + 0.5))


def elbo_at(scale, x, y, **settings):
    return LogisticRegression(scale, tol=1e-8, max_iter=2000, **settings).fit(x, y).elbo_


@pytest.mark.parametrize("covariance", ["full", "diagonal", "low_rank"])
@pytest.mark.parametrize("prior", PRIORS)
def test_no_other_scale_has_a_larger_elbo(prior, covariance):
    x, y = data()
    settings = {"prior": prior, "covariance": covariance, "rank": 2}
    learnt = LogisticRegression("learn", max_iter=500, **settings).fit(x, y)
    assert learnt.converged_
    assert isinstance(learnt.prior_scale_, float)
    own = elbo_at(learnt.prior_scale_, x, y, **settings)
    assert own == pytest.approx(learnt.elbo_, abs=2e-4)
    grid = learnt.prior_scale_ * np.exp(np.linspace(-1.5, 1.5, 13))
    others = [elbo_at(scale, x, y, **settings) for scale in grid]
    assert max(others) < own + 2e-4
    assert min(others) < own - 0.1  # the grid is wide enough to tell


@pytest.mark.parametrize("prior", PRIORS)
def test_no_other_scales_of_groups_have_a_larger_elbo(prior):
    x, y = data()
    settings = {"groups": GROUPS, "prior": prior, "max_iter": 500}
    learnt = LogisticRegression("learn", **settings).fit(x, y)
    assert learnt.converged_
    assert learnt.prior_scale_["strong"] > 2 * learnt.prior_scale_["weak"]
    rng = np.random.default_rng(0)
    for size in (0.02, 0.1, 0.5):
        for _ in range(5):
            near = {
                label: scale * math.exp(size * rng.normal())
                for label, scale in learnt.prior_scale_.items()
            }
            each = np.array([near[label] for label in GROUPS])
            assert elbo_at(each, x, y, prior=prior) < learnt.elbo_ + 2e-4


def test_a_scale_that_is_given_stays():
    x, y = data()
    model = LogisticRegression({"strong": 2.0, "weak": "learn"}, groups=GROUPS).fit(x, y)
    assert model.prior_scale_["strong"] == 2.0
    assert model.prior_.scale[0] == 5.0
    grid = model.prior_scale_["weak"] * np.exp([-0.5, -0.1, 0.1, 0.5])
    for weak in grid:
        each = np.array([2.0] * 4 + [weak] * 8)
        assert elbo_at(each, x, y) < model.elbo_ + 2e-4


@pytest.mark.parametrize("first", [1e-3, 1e3])
def test_features_of_any_size(first):
    x, y = data()
    plain = LogisticRegression("learn").fit(x, y)
    scaled = LogisticRegression("learn", max_iter=500).fit(x * first, y)
    assert scaled.elbo_ == pytest.approx(plain.elbo_, abs=3e-4)
    assert scaled.prior_scale_ * first == pytest.approx(plain.prior_scale_, rel=0.01)


def test_other_forms_of_the_data_and_counts():
    x, y = data()
    plain = LogisticRegression("learn", covariance="diagonal").fit(x, y)
    for other in (x.astype(np.float32), sparse.csr_matrix(x), torch.tensor(x)):
        model = LogisticRegression("learn", covariance="diagonal").fit(other, y)
        assert model.elbo_ == pytest.approx(plain.elbo_, abs=1e-3)
        assert model.prior_scale_ == pytest.approx(plain.prior_scale_, rel=0.02)
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.exp(0.2 * x[:, :3].sum(1)))
    learnt = PoissonRegression("learn").fit(x, counts)
    for factor in (0.5, 0.9, 1.1, 2.0):
        model = PoissonRegression(factor * learnt.prior_scale_, tol=1e-8).fit(x, counts)
        assert model.elbo_ < learnt.elbo_ + 2e-4


def test_it_costs_few_passes():
    x, y = data(20_000)
    plain = LogisticRegression().fit(x, y)
    learnt = LogisticRegression("learn", groups=GROUPS).fit(x, y)
    assert learnt.n_iter_ <= plain.n_iter_ + 3
    assert (np.diff(learnt.trace_) >= 0).all()


@pytest.mark.parametrize("prior", PRIORS)
def test_features_without_an_effect_have_the_scale_0(prior):
    rng = np.random.default_rng(1)
    y = np.arange(500) % 2
    x = rng.normal(size=(500, 5))
    x = np.concatenate([x, x])  # each row with both labels: the weights have no effect at all
    y = np.concatenate([y, 1 - y])
    with pytest.warns(UserWarning, match="best prior scale of the weights is 0"):
        model = LogisticRegression("learn", prior=prior).fit(x, y)
    assert model.prior_scale_ < 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        without = LogisticRegression(1e-6).fit(x, y)
    assert model.elbo_ == pytest.approx(without.elbo_, abs=0.01 if prior == "normal" else 1.0)


@pytest.mark.parametrize("prior", PRIORS)
def test_separable_data_have_a_finite_scale(prior):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(100, 3))
    y = x.sum(1) > 0
    learnt = LogisticRegression("learn", prior=prior, max_iter=1000).fit(x, y)
    assert learnt.converged_
    assert 10 < learnt.prior_scale_ < 1000
    for factor in (0.3, 3.0):
        assert elbo_at(factor * learnt.prior_scale_, x, y, prior=prior) < learnt.elbo_ + 1e-3


BAD = [
    ({"prior_scale": "lern"}, "numbers or 'learn', got 'lern'"),
    ({"prior_scale": [1.0, 2.0]}, r"one for each of 12 features, got shape \(2,\)"),
    ({"prior_scale": -1.0}, "positive numbers or 'learn', got -1.0"),
    ({"prior_scale": {"strong": 1.0}}, "groups, a label for each feature, is None"),
    ({"prior_scale": {"strong": 1.0}, "groups": GROUPS}, "and no others: weak"),
    ({"prior_scale": {"strong": 0.0, "weak": 1.0}, "groups": GROUPS}, "got 0.0"),
    ({"prior_scale": 1.0, "groups": GROUPS}, "pass prior_scale='learn'"),
    ({"prior_scale": "learn", "groups": GROUPS[1:]}, "label for each of 12 features, got 11"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_scales_that_cannot_be_used(settings, message):
    x, y = data()
    with pytest.raises(ValueError, match=message):
        LogisticRegression(**settings).fit(x, y)


# --- the equation -------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", PRIORS)
def test_the_slope_is_a_derivative_and_the_em_step_its_root(prior):
    generator = torch.Generator().manual_seed(0)
    loc = torch.randn(6, generator=generator, dtype=torch.float64)
    tril = torch.randn(6, 6, generator=generator, dtype=torch.float64).tril()
    for covariance in (FullCovariance(tril), DiagonalCovariance(tril.diagonal().abs())):
        group = torch.tensor([-1, 0, 0, 1, 1, 1])
        zeros = torch.zeros(2, dtype=torch.float64)
        scaled = ScaledPrior(PRIORS[prior](torch.full_like(loc, 0.7)), group, zeros, ("a", "b"))
        step = torch.tensor([1e-5, 0.0], dtype=torch.float64)
        up, down = (
            scaled.times(sign * step).prior.expected(loc, covariance).value for sign in (1, -1)
        )
        found = slope(scaled, loc, covariance)
        assert float(found[0]) == pytest.approx((up - down) / 2e-5, rel=1e-6, abs=1e-6)
        there = scaled.times(em_step(scaled, loc, covariance))
        assert slope(there, loc, covariance).abs().max() < 1e-7
        assert there.prior.scale[0] == scaled.prior.scale[0]
