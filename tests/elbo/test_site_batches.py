"""Sites between the same two families, whose KLs one call of a formula computes."""

from operator import attrgetter

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch.distributions import kl_divergence

import pyro_kl

SHAPES = [(), (3,), (2, 4)]
PRIORS = {
    "HalfCauchy": (lambda shape: dist.HalfCauchy(torch.full(shape, 1.5)), dist.LogNormal),
    "Gamma": (lambda shape: dist.Gamma(torch.full(shape, 2.0), 1.5), dist.LogNormal),
    "Normal": (lambda shape: dist.Normal(torch.full(shape, 0.5), 2.0), dist.Normal),
}


def model_of(prior):
    """A site of each shape, and a site in a plate."""

    def model():
        for i, shape in enumerate(SHAPES):
            pyro.sample(f"z{i}", prior(shape).to_event(len(shape)))
        with pyro.plate("rows", 5):
            pyro.sample("local", prior((5,)))

    return model


@pytest.mark.parametrize("name", PRIORS)
def test_each_site_has_the_kl_that_it_has_alone(name):
    prior, image = PRIORS[name]
    model = model_of(prior)
    guide, elbo = AutoNormal(model, init_scale=0.4), pyro_kl.TraceKL_ELBO()
    guide()
    elbo.loss_and_grads(model, guide)
    shapes = {**{f"z{i}": shape for i, shape in enumerate(SHAPES)}, "local": (5,)}
    expected = {}
    for site, shape in shapes.items():
        loc, scale = attrgetter(site)(guide.locs), attrgetter(site)(guide.scales)
        kl = kl_divergence(image(loc, scale), prior(shape))
        expected[site] = kl.sum()
        row = elbo.report[site]
        assert row.nats == pytest.approx(kl.sum().item(), rel=1e-5)
        assert torch.tensor(row.per_dimension).flatten().tolist() == pytest.approx(
            kl.flatten().tolist(), rel=1e-5
        )
    parameters = list(guide.parameters())
    slopes = torch.autograd.grad(sum(expected.values()), parameters)
    for parameter, slope in zip(parameters, slopes, strict=True):
        assert torch.allclose(parameter.grad, slope, rtol=1e-4, atol=1e-6)


def test_a_scaled_site_is_computed_apart():
    def sites(distribution):
        def run():
            for i in range(3):
                with pyro.poutine.scale(scale=float(max(i, 1))):
                    pyro.sample(f"z{i}", distribution)

        return run

    elbo = pyro_kl.TraceKL_ELBO()
    elbo.loss(sites(dist.HalfCauchy(1.0)), sites(dist.LogNormal(0.3, 0.4)))
    kl = kl_divergence(dist.LogNormal(0.3, 0.4), dist.HalfCauchy(1.0)).item()
    for i in range(3):
        assert elbo.report[f"z{i}"].raw == pytest.approx(kl, rel=1e-5)
        assert elbo.report[f"z{i}"].nats == pytest.approx(max(i, 1) * kl, rel=1e-5)
