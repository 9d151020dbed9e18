"""Angles as q: what fits in one turn has a KL to them, what may go round more often has none."""

from __future__ import annotations

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.transforms import AffineTransform, ExpTransform, SigmoidTransform
from scipy.special import i0
from torch.distributions import Categorical, Independent, MixtureSameFamily, kl_divergence

import pyro_kl
from pyro_kl.registry.register import families

from ..conformance.cases import F64, draw, make, row_of

CIRCLES = [family for family in families() if family.support.period is not None]
ON_THE_LINE = [family for family in families() if not family.support.discrete]
NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)


def angles(loc=1.4, concentration=1.2):
    return dist.VonMises(torch.tensor(loc, dtype=F64), torch.tensor(concentration, dtype=F64))


def doubles(*values):
    return [torch.tensor(value, dtype=F64) for value in values]


def two(component):
    return MixtureSameFamily(Categorical(torch.tensor([0.3, 0.7], dtype=F64)), component)


def definition(p, q, low, high):
    """The integral over (low, high), whose ends may be those of p's mass only to a square root."""
    turn = 0.5 * math.pi * NODES
    x = torch.as_tensor(low + (high - low) * 0.5 * (1 + np.sin(turn)))
    weight = torch.as_tensor(0.25 * math.pi * (high - low) * np.cos(turn) * WEIGHTS)
    log_p = p(x)
    return (weight * log_p.exp() * (log_p - q(x))).sum().item()


@pytest.mark.filterwarnings("ignore:KL.*tolerance:UserWarning")  # an error that is told
@pytest.mark.parametrize("family", ON_THE_LINE, ids=lambda family: family.name)
def test_never_a_negative_number(family):
    """Whatever the parameters: a KL, or no answer."""
    for circle in CIRCLES:
        p, q = draw(family, 20, 2.0), draw(circle, 20, 2.0)
        for i in range(20):
            check_a_kl_or_none(make(family, row_of(p, i)), make(circle, row_of(q, i)))


def check_a_kl_or_none(p, q):
    try:
        found = pyro_kl.kl(p, q)
    except NotImplementedError:
        with pytest.raises(NotImplementedError, match="circle"):
            pyro_kl.kl(p, q, num_samples=10)
        return
    told = 0.0 if found.error is None else found.error
    assert found.value >= -told - 1e-12, (p, q)


ONE_TURN = {
    "a whole turn": (dist.Uniform(*doubles(-math.pi, math.pi)), -math.pi, math.pi),
    "a whole turn in float32": (dist.Uniform(-math.pi, math.pi), -math.pi, math.pi),
    "beyond pi": (dist.Uniform(*doubles(2.0, 5.0)), 2.0, 5.0),
    "AffineBeta": (dist.AffineBeta(*doubles(2.0, 3.0, -4.0, 5.0)), -4.0, 1.0),
    "bounded tail": (dist.GeneralizedPareto(*doubles(0.5, 1.0, -0.5)), 0.5, 2.5),
    "mapped": (
        dist.TransformedDistribution(
            dist.Normal(*doubles(0.3, 0.5)), [SigmoidTransform(), AffineTransform(-3.0, 6.0)]
        ),
        -3.0,
        3.0,
    ),
    "shifted angles": (
        dist.TransformedDistribution(angles(0.5, 2.0), [AffineTransform(3.0, 1.0)]),
        3.0 - math.pi,
        3.0 + math.pi,
    ),
    "mixed angles": (two(dist.VonMises(*doubles([0.0, 2.0], [2.0, 4.0]))), -math.pi, math.pi),
    "folded angles": (dist.FoldedDistribution(angles(0.5, 2.0)), 0.0, math.pi),
}


@pytest.mark.usefixtures("double")  # torch's GeneralizedPareto mixes dtypes otherwise
@pytest.mark.parametrize("name", ONE_TURN)
def test_within_one_turn(name):
    p, low, high = ONE_TURN[name]
    loc, concentration = 1.4, 1.2
    constant = math.log(2 * math.pi * i0(concentration))
    right = definition(
        p.log_prob, lambda x: concentration * torch.cos(x - loc) - constant, low, high
    )
    assert abs(pyro_kl.kl(p, angles(loc, concentration)).value.item() - right) < 1e-5 * right
    if name != "mapped":  # the sampler and the density agree on the support
        assert ((p.sample((1000,)) >= low - 1e-6) & (p.sample((1000,)) <= high + 1e-6)).all()


ROUND = {
    "Normal": dist.Normal(*doubles(0.0, 1.0)),
    "one of several rows": dist.Uniform(*doubles([0.0, 0.0], [1.0, 7.0])),
    "not declared": dist.Stable(*doubles(1.5, 0.0)),
    "mixture": two(dist.Normal(*doubles([0.0, 1.0], 1.0))),
    "mapped": dist.TransformedDistribution(dist.Beta(*doubles(2.0, 2.0)), AffineTransform(0, 7.0)),
    "masked": dist.Gamma(*doubles(2.0, 1.0)).mask(True),
}


@pytest.mark.parametrize("name", ROUND)
@pytest.mark.parametrize("mixed", [False, True], ids=["angles", "mixed angles"])
def test_more_than_one_turn(name, mixed):
    q = two(dist.VonMises(*doubles([0.0, 2.0], 2.0))) if mixed else angles()
    for ask in (
        lambda: kl_divergence(ROUND[name], q),
        lambda: pyro_kl.kl(ROUND[name], q),
        lambda: pyro_kl.kl(ROUND[name], q, num_samples=100),
        lambda: pyro_kl.monte_carlo(ROUND[name], q, 100),
        lambda: pyro_kl.compare(ROUND[name], q, 100),
    ):
        with pytest.raises(NotImplementedError, match="circle"):
            ask()


@pytest.mark.parametrize(
    "q",
    [
        Independent(dist.VonMises(*doubles([0.0, 1.0], 2.0)), 1),
        dist.SineBivariateVonMises(*doubles(0.0, 1.0, 2.0, 3.0), correlation=doubles(0.5)[0]),
    ],
    ids=["product", "torus"],
)
def test_products(q):
    for p in (
        dist.Normal(*doubles([0.0, 1.0], 1.0)).to_event(1),
        dist.MultivariateNormal(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64)),
    ):
        with pytest.raises(NotImplementedError, match="circle"):
            pyro_kl.kl(p, q, num_samples=100)


def test_the_image_of_an_angle_is_that_of_one_number():
    """exp of an angle lies between exp(-pi) and exp(pi), whatever torch's density says."""
    q = dist.TransformedDistribution(angles(), [ExpTransform()])
    inside = dist.Uniform(*doubles(0.5, 2.0))
    assert pyro_kl.monte_carlo(inside, q, 1000).value.isfinite()
    assert pyro_kl.monte_carlo(dist.Gamma(*doubles(2.0, 0.1)), q, 1000).value == math.inf


@pytest.mark.filterwarnings("ignore:The KL of these sites is sampled")
def test_pyro_samples_it_as_without_the_plugin():
    """A site with a Normal guide and a VonMises prior trains as it did: E_q[log p - log q]."""
    import pyro
    from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

    loc = torch.tensor(0.3, dtype=F64, requires_grad=True)

    def model():
        pyro.sample("z", angles())

    def guide():
        pyro.sample("z", dist.Normal(loc, torch.tensor(1.5, dtype=F64)))

    losses = []
    for elbo in (TraceMeanField_ELBO, pyro_kl.TraceKL_ELBO, Trace_ELBO):
        pyro.set_rng_seed(0)
        many = elbo(num_particles=50_000, vectorize_particles=True)
        loss = many.differentiable_loss(model, guide)
        losses.append((loss.item(), torch.autograd.grad(loss, loc)[0].item()))
    assert losses[0] == pytest.approx(losses[2], abs=1e-9)
    assert losses[1] == pytest.approx(losses[2], abs=0.02)
