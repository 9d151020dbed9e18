"""
A guide against the posterior
=============================

The mean-field guide of two correlated latents is too narrow. Weighing its draws by
p(data, latents) / guide(latents) gives the density of the posterior, as long as k-hat says that
the weights can be trusted.
"""

import pyro
import pyro.distributions as dist
import torch
from matplotlib import pyplot as plt
from pyro.infer.autoguide import AutoNormal

import pyro_kl
from pyro_kl import plot

data = torch.tensor([1.2, 2.8])


def model():
    """Two latents of whose sum there are data, and the scale of the noise."""
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    scale = pyro.sample("scale", dist.Gamma(4.0, 3.0))
    with pyro.plate("rows", 2):
        pyro.sample("x", dist.Normal(a + b, scale), obs=data)


pyro.set_rng_seed(0)
guide = AutoNormal(model)
svi = pyro_kl.SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), pyro_kl.TraceKL_ELBO())
svi.run(1000, progress=False)
found = pyro_kl.diagnose(model, guide)

figure, panels = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
plot.posterior_sites(found, "a", ax=panels[0])
axes = plot.posterior_sites(found, "scale", ax=panels[1])

# %%
# The same numbers for all latents, and what to trust:

print(found)
