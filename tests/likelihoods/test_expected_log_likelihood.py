"""`pyro_kl.expected_log_likelihood`: what it accepts, returns, refuses and differentiates."""

import math

import pyro.distributions as dist
import pytest
import torch

import pyro_kl
from pyro_kl.likelihoods import LIKELIHOODS

D = torch.float64
ask = pyro_kl.expected_log_likelihood


def rows_of(likelihood):
    torch.manual_seed(0)
    loc = torch.tensor([-3.0, 0.4, 2.0, -0.7, 0.9], dtype=D)
    scale = torch.tensor([0.01, 0.2, 0.4, 3.0, 0.07], dtype=D)
    if likelihood.event_dim:
        loc, scale = torch.randn(5, 3, dtype=D), 2 * torch.rand(5, 3, dtype=D)
    return loc.requires_grad_(), scale.requires_grad_()


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=lambda each: each.name)
def test_autograd_differentiates_twice(likelihood):
    own = dict(likelihood.examples[-1])
    y = own.pop("y")

    def value(loc, scale):
        return ask(likelihood, y, loc, scale, **own).value

    # Steps of 1e-4: the error of a value is up to 5e-9 and changes where a rule does.
    given = {"eps": 1e-4, "atol": 1e-5, "rtol": 1e-4}
    assert torch.autograd.gradcheck(value, rows_of(likelihood), **given)
    assert torch.autograd.gradgradcheck(value, rows_of(likelihood), **given)


@pytest.mark.parametrize("name", ["bernoulli", "bernoulli probit"])
def test_derivatives_are_those_of_expected(name):
    (likelihood,) = (each for each in LIKELIHOODS if each.name == name)
    loc, scale = rows_of(likelihood)
    value = ask(name, 1.0, loc, scale).value
    by_loc, by_scale = torch.autograd.grad(value.sum(), (loc, scale), create_graph=True)
    (second,) = torch.autograd.grad(by_loc.sum(), loc, retain_graph=True)
    (by_both,) = torch.autograd.grad(by_loc.sum(), scale)
    with torch.no_grad():
        plain = likelihood.expected(torch.ones_like(loc), loc, scale)
        third, _ = likelihood.higher(torch.ones_like(loc), loc, scale)
    torch.testing.assert_close(by_loc, plain.slope, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(by_scale, -scale * plain.curvature, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(second, -plain.curvature, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(by_both, scale * third, rtol=1e-12, atol=1e-14)


def test_a_third_derivative_in_scale_says_that_there_is_none():
    loc, scale = torch.tensor([0.3, 0.5], dtype=D, requires_grad=True)
    derivative = ask("bernoulli", 1.0, loc, scale).value
    for _ in range(2):
        (derivative,) = torch.autograd.grad(derivative, scale, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiable twice"):
        torch.autograd.grad(derivative, scale)


def test_the_own_parameters_are_differentiated():
    loc = torch.tensor(0.2, dtype=D)
    noise = torch.tensor(0.7, dtype=D, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: ask("gaussian", 1.0, loc, 0.5, noise=x).value, noise)
    count = torch.tensor(1.7, dtype=D, requires_grad=True)
    value = ask("negative binomial", 3.0, loc, 0.3, total_count=count).value
    assert torch.autograd.grad(value, count)[0].isfinite()


def test_a_class_of_torch_or_pyro_and_a_name_are_one_likelihood():
    loc, scale = torch.tensor([0.5, -2.0]), torch.tensor([0.3, 4.0])
    for asked in (torch.distributions.Bernoulli, dist.Bernoulli, "Bernoulli", LIKELIHOODS[0]):
        assert ask(asked, 1.0, loc, scale) == ask("bernoulli", 1.0, loc, scale)
    by_link = ask(dist.Bernoulli, 1.0, loc, scale, link="probit")
    assert by_link == ask("bernoulli probit", 1.0, loc, scale)
    assert ask(dist.Normal, 1.0, loc, scale, noise=2.0).method == "closed form"


def test_shapes_broadcast_and_the_dtype_is_that_of_loc_and_scale():
    y = torch.tensor([0, 2, 5])
    loc = torch.zeros(4, 1)
    found = ask("binomial", y, loc, 0.5, total_count=torch.tensor(5))
    assert found.value.shape == found.error.shape == (4, 3)
    assert found.value.dtype == torch.float32
    assert ask("poisson", y, torch.zeros(3, dtype=D), 0.5).value.dtype == D
    assert ask("categorical", y[:2], torch.zeros(4, 1, 3), torch.ones(3)).value.shape == (4, 2)
    assert ask("bernoulli", 1, 0, 0).value.item() == pytest.approx(-math.log(2))


def test_without_uncertainty_it_is_the_log_likelihood():
    y, loc = torch.tensor([1.0, 0.0, 1.0], dtype=D), torch.tensor([0.3, -4.0, 40.0], dtype=D)
    for likelihood, own, p in (
        ("bernoulli", {}, dist.Bernoulli(logits=loc)),
        ("bernoulli probit", {}, dist.Bernoulli(torch.special.ndtr(loc))),
        ("binomial", {"total_count": 3.0}, dist.Binomial(3, logits=loc)),
        ("poisson", {}, dist.Poisson(loc.exp())),
        ("gaussian", {"noise": 0.5}, dist.Normal(loc, 0.5)),
        ("negative binomial", {"total_count": 2.5}, dist.NegativeBinomial(2.5, logits=loc)),
    ):
        found = ask(likelihood, y, loc, 0.0, **own)
        torch.testing.assert_close(found.value, p.log_prob(y), rtol=1e-12, atol=1e-12)
        assert found.error is None or not found.error.any()


def test_the_bound_of_a_categorical_is_below_and_close():
    torch.manual_seed(0)
    loc, scale = 2 * torch.randn(200, 2, dtype=D), 2 * torch.rand(200, 2, dtype=D)
    found = ask("categorical", 0, loc, scale)
    # Two classes are a Bernoulli with the difference of the logits.
    exact = ask("bernoulli", 1, loc[:, 0] - loc[:, 1], scale.square().sum(-1).sqrt())
    gap = exact.value - found.value
    assert found.method == "bound"
    assert found.error is None
    assert gap.min() >= -4e-9
    assert gap.max() < 0.1 * scale.max() ** 2
    assert gap[scale.amax(-1) < 0.5].max() < 2e-3
    certain = ask("categorical", 1, loc, 0.0).value
    torch.testing.assert_close(certain, torch.log_softmax(loc, -1)[:, 1])
    draws = loc[:, None] + scale[:, None] * torch.randn(200, 4000, 2, dtype=D)
    sampled = torch.log_softmax(draws, -1)[..., 0]
    assert ((found.value - sampled.mean(1)) < 5 * sampled.std(1) / math.sqrt(4000)).all()


class OtherBernoulli(dist.Bernoulli):
    """A subclass with another density."""

    def log_prob(self, value):
        return super().log_prob(1 - value)


ERRORS = (
    (("poisson", -1, 0.0, 1.0), {}, r"poisson\" has y in 0, 1, 2, .*; 1 of 1 .* first of them -1"),
    (("bernoulli", 0.5, 0.0, 1.0), {}, "has y in 0 and 1"),
    (("binomial", 4, 0.0, 1.0), {"total_count": 3}, "0, 1, ..., total_count"),
    (("categorical", 3, torch.zeros(3), torch.ones(3)), {}, "the number of logits - 1"),
    (("gaussian", math.inf, 0.0, 1.0), {"noise": 1.0}, "real numbers"),
    (("bernoulli", 1, 0.0, -1.0), {}, "scale is -1 in some rows"),
    (("binomial", 1, 0.0, 1.0), {}, "has total_count by keyword; given: none"),
    (("poisson", 1, 0.0, 1.0), {"total_count": 3}, "has no parameters by keyword"),
    (("gamma", 1, 0.0, 1.0), {}, r"declared for gamma\. There are \"bernoulli\""),
    (("poisson", 1, 0.0, 1.0), {"link": "probit"}, 'poisson with link "probit"'),
    ((dist.Gamma, 1, 0.0, 1.0), {}, "declared for Gamma"),
    ((OtherBernoulli, 1, 0.0, 1.0), {}, "declared for OtherBernoulli"),
)


@pytest.mark.parametrize(("arguments", "keywords", "message"), ERRORS)
def test_errors(arguments, keywords, message):
    with pytest.raises(ValueError, match=message):
        ask(*arguments, **keywords)
