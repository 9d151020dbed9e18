"""Reasons why a KL is unknown although the weights of the draws look good."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms

import pyro_kl


def of(distribution):
    return lambda: pyro.sample("z", distribution)


def given(prior, at):
    """A model with a Normal observation around a function of z."""

    def model():
        pyro.sample("x", dist.Normal(at(pyro.sample("z", prior)), 1.0), obs=torch.tensor(1.5))

    return model


class WrongSign(transforms.ExpTransform):
    """exp with the log |det| of its inverse."""

    def log_abs_det_jacobian(self, x, y):
        return -x


BIT = given(dist.Bernoulli(0.3), lambda z: 2 * z)
STATE = given(dist.Categorical(torch.ones(3)), lambda z: z.float())
NORMAL = given(dist.Normal(0.0, 1.0), lambda z: z)
POSITIVE = given(dist.LogNormal(0.0, 1.0), lambda z: z.log())
VECTOR = given(dist.Normal(torch.zeros(2), 1.0).to_event(1), lambda z: z.sum(-1))
BASE = dist.Normal(torch.tensor(0.75), 0.5**0.5)


def diagnosed(model, guide, count=2000):
    return pyro_kl.diagnose(model, of(guide), num_samples=count, max_plate_nesting=1)


@pytest.mark.parametrize(
    ("model", "guide"),
    [
        (BIT, dist.Bernoulli(1.0)),
        (STATE, dist.Categorical(torch.tensor([0.5, 0.5, 0.0]))),
        (NORMAL, dist.Uniform(0.0, 2.0)),
        (NORMAL, dist.LogNormal(0.0, 0.5)),
        (VECTOR, dist.Uniform(torch.tensor([-50.0, -1.0]), 50.0).to_event(1)),
    ],
)
def test_a_guide_that_lacks_a_part_of_the_prior(model, guide):
    found = diagnosed(model, guide)
    assert found.kl_posterior.method == found.log_evidence.method == "unknown"
    assert found.kl_posterior.reason.startswith("the guide never draws some values of z")
    assert "Give the guide's sites the supports" in found.summary.replace("\n  ", " ")


@pytest.mark.parametrize(
    ("model", "guide"),
    [
        (BIT, dist.Bernoulli(0.5)),
        (NORMAL, dist.Normal(0.75, 0.7)),
        (POSITIVE, dist.LogNormal(0.75, 0.7)),
        (POSITIVE, dist.TransformedDistribution(BASE, [transforms.ExpTransform()])),
        (given(dist.VonMises(0.0, 1.0), torch.cos), dist.Uniform(-torch.pi, torch.pi)),
    ],
)
def test_a_guide_that_has_all_of_the_prior(model, guide):
    assert diagnosed(model, guide).known


def test_values_that_the_draws_never_had():
    found = diagnosed(BIT, dist.Bernoulli(1e-6))
    assert "the draws never had a value of z" in found.kl_posterior.reason
    assert "Jacobian" not in found.summary


@pytest.mark.filterwarnings("ignore:The KL of these sites is sampled")
def test_a_wrong_jacobian_of_a_transform():
    guide = dist.TransformedDistribution(BASE, [WrongSign()])
    found = diagnosed(POSITIVE, guide)
    assert found.kl_posterior.reason.startswith("the transform WrongSign of z gives log |det|")
    assert "Trust nothing here" in found.summary


def test_a_flow_without_an_inverse():
    flow = transforms.planar(2)
    base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    with pytest.warns(UserWarning, match="one by one: KeyError"):
        found = diagnosed(VECTOR, dist.TransformedDistribution(base, [flow]), 400)
    exact = dist.Normal(0.0, 3**0.5).log_prob(torch.tensor(1.5))
    error = float(found.log_evidence.standard_error)
    assert abs(float(found.log_evidence) - float(exact)) < 4 * error


def test_nearly_equal_weights_whose_largest_are_not_pareto():
    components = dist.Normal(torch.tensor([0.25, 1.25]), 0.5)
    guide = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), components)
    found = diagnosed(NORMAL, guide, 10_000)
    assert "the weights are nearly equal" in found.kl_posterior.reason
    assert "the guide may be good" in found.summary.replace("\n  ", " ")


@pytest.mark.parametrize("guide", [dist.Normal(1.0, 0.5), dist.Normal(0.0, 0.5)])
def test_draws_that_the_model_does_not_allow(guide):
    model = given(dist.Exponential(torch.tensor(1.0)), lambda z: z)
    for _ in range(5):  # the first draws may be inside
        with pytest.raises(ValueError, match="The guide draws values of z that are outside of"):
            diagnosed(model, guide)


def test_data_that_the_model_does_not_allow():
    def model():
        pyro.sample("x", dist.Exponential(pyro.sample("z", BASE).exp()), obs=torch.tensor(-1.0))

    with pytest.raises(ValueError, match="at site 'x'"):
        diagnosed(model, BASE)
