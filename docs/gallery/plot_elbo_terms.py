"""
The two terms of the ELBO
=========================

The ELBO is the expected log likelihood minus KL(guide || prior). Early in a fit the KL grows,
because the guide moves from the prior to where the data are; the log likelihood gains more than
that. Of this model the largest ELBO is known: it is the log evidence, because the guide has the
form of the posterior. Each step's ELBO is an estimate over 50 draws, which may lie above it.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal

import pyro_kl
from pyro_kl import plot

x = torch.tensor([1.2, 2.9, 2.1, 1.4, 2.6])


def model():
    """The mean of Normal observations."""
    mean = pyro.sample("mean", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


covariance = torch.eye(len(x)) + 9.0  # of the data, over the prior of the mean
log_evidence = dist.MultivariateNormal(torch.zeros(len(x)), covariance).log_prob(x)

pyro.set_rng_seed(0)
elbo = pyro_kl.TraceKL_ELBO(num_particles=50, vectorize_particles=True, max_plate_nesting=1)
svi = pyro_kl.SVI(model, AutoNormal(model), pyro.optim.Adam({"lr": 0.05}), elbo)
history = pyro_kl.loggers.History()
svi.run(150, callbacks=[history], progress=False)
axes = plot.elbo_terms(history, optimum=float(log_evidence))
