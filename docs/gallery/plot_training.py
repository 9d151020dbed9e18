"""
The KL of each site over a fit
==============================

`pyro_kl.loggers.History` is a callback of `pyro_kl.SVI` that keeps the ELBO and the KL of each
site. The picture stacks the KLs, so that the upper edge is their sum; the ELBO has the axis on the
right. The model is Rubin's eight schools, and the guide an autoguide.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal

import pyro_kl
from pyro_kl import plot

effects = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
errors = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def model():
    """The effect of each school has a mean mu and a spread tau."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", 8):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, errors), obs=effects)


pyro.set_rng_seed(0)
guide = AutoNormal(model)
elbo = pyro_kl.TraceKL_ELBO(num_particles=20, vectorize_particles=True, max_plate_nesting=1)
svi = pyro_kl.SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), elbo)
history = pyro_kl.loggers.History(every=5)
svi.run(300, callbacks=[history], progress=False)
axes = plot.training(history)

# %%
# The two terms of the ELBO
# -------------------------
# The same history shows the ELBO as the difference of its two terms: the gap between the expected
# log likelihood and the ELBO is the KL.

axes = plot.elbo_terms(history)
