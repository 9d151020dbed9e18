"""Models whose sites are all in one plate: the weights of each row."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch.distributions import kl_divergence

import pyro_kl

ROWS = 20
DATA = torch.linspace(-2, 2, 2 * ROWS).double().reshape(ROWS, 2)
#: Given x of two Normals the posterior of z is Normal, of each row by itself.
POSTERIOR = dist.Normal(DATA.sum(-1) / 3, 3**-0.5)
EVIDENCE = dist.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double() + 1).log_prob(
    DATA
)


def model(rows=ROWS):
    with pyro.plate("rows", rows):
        z = pyro.sample("z", dist.Normal(torch.zeros(()).double(), 1.0))
        pyro.sample("x", dist.Normal(z[..., None], torch.ones(2).double()).to_event(1), obs=DATA)


def guide_of(width, narrow=0):
    scale = torch.full((ROWS,), width / 3**0.5).double()
    scale[:narrow] *= 0.2
    own = dist.Normal(POSTERIOR.loc + 0.05, scale)

    def guide():
        with pyro.plate("rows", ROWS):
            pyro.sample("z", own)

    return guide, kl_divergence(own, POSTERIOR)


@pytest.mark.parametrize("vectorize", [True, pytest.param(False, marks=pytest.mark.sweep)])
def test_the_kl_is_the_sum_over_rows(vectorize):
    """The joint weights of all rows are hopeless, those of each row are not."""
    guide, exact = guide_of(0.8)
    count = 1000 if vectorize else 300
    found = pyro_kl.diagnose(model, guide, num_samples=count, vectorize=vectorize)
    assert found.by_row.plate == "rows"
    error = found.by_row.kl_posterior_error
    z = (found.by_row.kl_posterior - exact) / error
    assert float(z.abs().max()) < 5
    assert abs(float(found.kl_posterior) - float(exact.sum())) < 4 * float(error.norm())
    assert float(found.kl_posterior.standard_error) == pytest.approx(float(error.norm()))
    evidence = found.log_evidence
    assert abs(float(evidence) - float(EVIDENCE.sum())) < 4 * float(evidence.standard_error)
    assert found.khat == float(found.by_row.khat.max())
    site = found["z"]
    assert site.mean.shape == (ROWS,)
    off = (site.mean - POSTERIOR.mean) / site.mean_error
    assert float(off.abs().max()) < 5
    assert 0.5 < found.kl_at_least / float(exact.sum()) < 1
    assert float(site.prior_kl) == pytest.approx(
        float(kl_divergence(guide.__closure__[0].cell_contents, dist.Normal(0.0, 1.0)).sum())
    )
    assert float(site.contraction.mean()) == pytest.approx(2 / 3, abs=0.1)
    assert "Each of the 20 rows of 'rows' has weights of its own" in str(found)
    assert max(map(len, str(found).splitlines())) <= 80


def test_rows_whose_guide_is_too_narrow_are_counted():
    guide, exact = guide_of(0.9, narrow=3)
    found = pyro_kl.diagnose(model, guide, num_samples=1000)
    assert not found.known
    assert "rows of 'rows': the k-hat" in found.kl_posterior.reason
    assert set(found.by_row.kl_posterior.isnan().nonzero().flatten().tolist()) <= {0, 1, 2}
    assert 0 < found.kl_at_least < float(exact.sum())
    assert bool(found["z"].mean[3:].isfinite().all())


def of_two_plates():
    with pyro.plate("columns", 3, dim=-2), pyro.plate("rows", ROWS, dim=-1):
        z = pyro.sample("z", dist.Dirichlet(torch.ones(2).double()))
        pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=torch.zeros(3, ROWS))


def test_a_latent_of_vectors_in_two_plates(double):
    def guide():
        with pyro.plate("columns", 3, dim=-2), pyro.plate("rows", ROWS, dim=-1):
            pyro.sample("z", dist.Dirichlet(torch.ones(2).double()))

    found = pyro_kl.diagnose(of_two_plates, guide, num_samples=500)
    assert found["z"].guide_mean.shape == (3, ROWS, 2)
    joint = (dist.Beta(1.0, 1.0), dist.Normal(0.0, 1.0))
    x = torch.linspace(0, 1, 1001)[1:-1]
    row = (joint[0].log_prob(x) + joint[1].log_prob(x)).exp().mean().log() * 3
    error = found.log_evidence.standard_error
    assert abs(float(found.log_evidence) - ROWS * float(row)) < 4 * float(error) + 1e-3 * ROWS


def test_a_latent_outside_of_the_plate_has_joint_weights():
    def model():
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("rows", 5):
            z = pyro.sample("z", dist.Normal(0.0, scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.ones(5))

    found = pyro_kl.diagnose(model, AutoNormal(model), num_samples=200)
    assert found.by_row is None


@pytest.mark.parametrize(
    ("guide", "by_row"), [(AutoNormal, True), (AutoMultivariateNormal, False)]
)
def test_autoguides(guide, by_row):
    found = pyro_kl.diagnose(model, guide(model), num_samples=200)
    assert (found.by_row is not None) is by_row
    assert not math.isnan(found.khat)
