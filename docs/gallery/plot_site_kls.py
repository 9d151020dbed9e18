"""
The KL of each site of a report
===============================

`TraceKL_ELBO.evaluate` reports the KL of each site and its method. In the picture an exact KL
differs from one that is exact given other sites, which is an average over draws of those, and from
a sampled one; the last two have error bars.
"""

import warnings

import pyro
import pyro.distributions as dist
import torch

import pyro_kl
from pyro_kl import plot


def model():
    """Two sites, and a third whose prior depends on the first."""
    loc = pyro.sample("loc", dist.Normal(0.0, 5.0))
    scale = pyro.sample("scale", dist.Gamma(2.0, 1.0))
    pyro.sample("effect", dist.Normal(loc, 1.0))
    pyro.sample("x", dist.Normal(loc, scale), obs=torch.tensor(1.0))


def guide():
    """A guide that draws `loc` after `effect`, on which its prior does not depend."""
    effect = pyro.sample("effect", dist.Normal(0.5, 0.7))
    pyro.sample("loc", dist.Normal(0.8 * effect, 1.5))
    pyro.sample("scale", dist.LogNormal(0.0, 0.4))


pyro.set_rng_seed(0)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it says that the KL of `effect` is sampled, and why
    report = pyro_kl.TraceKL_ELBO().evaluate(model, guide, num_particles=500)
axes = plot.site_kls(report)

# %%
# The report itself says why a site is sampled.

print(report)
