"""One member of every class of results, made as a user makes it."""

from __future__ import annotations

import pandas
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal

import pyro_kl
from models import eight_schools
from pyro_kl.calibration.calibration import Calibration
from pyro_kl.glm.held_out import Score
from pyro_kl.loggers import History
from pyro_kl.registry.pair import PairTable


def _svi(callbacks=(), **options):
    guide = AutoMultivariateNormal(eight_schools.model)
    svi = pyro_kl.SVI(
        eight_schools.model, guide, torch.optim.Adam, pyro_kl.TraceKL_ELBO(), **options
    )
    return svi.run(57, callbacks=callbacks)


def _history():
    history = History()
    _svi([history])
    return history


def _report():
    """With long names, a long reason, and an objective that is not the ELBO."""

    def model():
        name = "a latent with a long name and without abbreviations"
        z = pyro.sample(name, dist.Gamma(1.0, 1.0))
        with pyro.plate("rows", 100, subsample_size=10):
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(10))
        eight_schools.model()

    elbo = pyro_kl.TraceKL_ELBO(beta=pyro_kl.LinearWarmup(10))
    return elbo.evaluate(model, AutoIAFNormal(model), num_particles=5)


def _comparisons():
    guide = AutoMultivariateNormal(eight_schools.model)
    return pyro_kl.compare_sites(eight_schools.model, guide, num_particles=50)


def _diagnosis():
    """Of a guide that is too narrow: the longest notes there are."""
    guide = AutoMultivariateNormal(eight_schools.model, init_scale=0.01)
    return pyro_kl.diagnose(eight_schools.model, guide, num_samples=300)


def _calibration():
    """With long names, words on each latent, and latents without ranks."""
    name = "a latent with a long name and without abbreviations"
    ranks = [{name: [0, 9, 9], "z": [i]} for i in range(10)]
    return Calibration.of({name: (3, 1), "z": ()}, ranks, 9, (f"{name}, masked",))


def _mixture():
    weights = dist.Categorical(torch.ones(2))
    return dist.MixtureSameFamily(weights, dist.Normal(torch.tensor([-3.0, 3.0]), 1.0))


def _regression():
    x = torch.randn(200, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    names = [f"the name of feature {i}, which is long" for i in range(60)]
    return pyro_kl.glm.LogisticRegression().fit(pandas.DataFrame(x, columns=names), x[:, 0] > 0)


X, Y = torch.tensor([[-2.0], [-1.0], [1.0], [3.0]]).double(), ["no", "no", "yes", "yes"]


BATCH = dist.LogNormal(torch.linspace(-1.0, 1.0, 60), 1.0)

MAKE = {
    "Estimate": lambda: pyro_kl.kl(dist.LogNormal(0.0, 1.0), dist.HalfCauchy(1.0)),
    "Estimate of a batch": lambda: pyro_kl.kl(BATCH, dist.HalfCauchy(1.0)),
    "Estimate of two dimensions": lambda: pyro_kl.monte_carlo(
        dist.Normal(torch.zeros(2, 3), 1.0), dist.Normal(1.0, 1.0), 100
    ),
    "Estimate of nothing": lambda: pyro_kl.kl(
        dist.Normal(torch.zeros(0), 1.0), dist.Normal(1.0, 1.0)
    ),
    "Comparison": lambda: pyro_kl.compare(dist.InverseGamma(2.0, 1.0), dist.LogNormal(0.0, 1.0)),
    "Comparison of a batch": lambda: pyro_kl.compare(BATCH, dist.HalfCauchy(1.0), 100),
    "Comparison of infinities": lambda: pyro_kl.compare(
        dist.Normal(0.0, 1.0), dist.Gamma(1.0, 1.0)
    ),
    "Bounds": lambda: pyro_kl.bounds(_mixture(), _mixture()),
    "CheckReport": lambda: pyro_kl.check(dist.Normal, dist.Cauchy),
    "PairTable": lambda: PairTable(
        pair for pair in pyro_kl.registered() if pair.p.__module__.startswith(("torch", "pyro."))
    ),
    "KLReport": _report,
    "SiteComparisons": _comparisons,
    "SVIResult": _svi,
    "SVIResult of no step": lambda: pyro_kl.SVIResult.of([], 0, None),
    "SVIResult of tuples": lambda: pyro_kl.SVIResult.of([(1.0, 2.0)] * 3, 3, "interrupt"),
    "History": _history,
    "Posterior": lambda: _regression().posterior_,
    "Sensitivity": lambda: pyro_kl.glm.LogisticRegression().fit(X, Y).sensitivity(X, Y),
    "Diagnosis": _diagnosis,
    "Calibration": _calibration,
    "Score": lambda: Score(1e6, 0.75, 0.5, 0.69),
}
