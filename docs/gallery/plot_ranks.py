"""
Whether a way to fit is calibrated
==================================

`pyro_kl.calibrate` draws latents from the prior and data given them, fits, and finds the rank of
each latent among draws of the fitted guide. If the guides are the posteriors, ranks are uniform,
and the line stays in the band. Here the guide is the exact posterior.
"""

import pyro
import pyro.distributions as dist
import torch

import pyro_kl
from pyro_kl import plot

data = torch.zeros(5)


def model(x):
    """A mean with five observations."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 5):
        pyro.sample("x", dist.Normal(z, 2.0), obs=x)


def fit_with(width):
    """A fit that finds the exact posterior, and makes it wider or narrower."""

    def fit(model):
        x = pyro.poutine.trace(model).get_trace(data).nodes["x"]["value"]
        precision = 1 + 5 / 4
        guide = dist.Normal(x.sum() / 4 / precision, width * precision**-0.5)
        return lambda x: pyro.sample("z", guide)

    return fit


options = {"num_simulations": 60, "num_draws": 39, "progress": False}
axes = plot.ranks(pyro_kl.calibrate(model, fit_with(1.0), data, **options), "z")

# %%
# Half the standard deviation
# ---------------------------
# The guide's draws are too close together: the latent is below all of them, or above, too often.
# The line rises at once and falls below 0 later.

found = pyro_kl.calibrate(model, fit_with(0.5), data, **options)
axes = plot.ranks(found, "z")

# %%
# The same in words:

print(found)
