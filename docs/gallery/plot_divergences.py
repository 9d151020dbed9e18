"""
The KL and the divergences next to it
=====================================

Between two normal distributions with the same mean, over the standard deviation of q. The KL
from q to p and the one from p to q differ the more, the further the two are apart. The divergence
of Jensen and Shannon is symmetric, and never above log 2. Where Renyi's of order 2 is infinite,
importance weights of draws from q for p have no variance: here q is then too narrow by a factor
of more than the square root of 2.
"""

import torch
from torch.distributions import Gamma, LogNormal, Normal, Uniform

from pyro_kl import plot


def normals(scale):
    """The same p for each value, and a q."""
    return Normal(torch.tensor(0.0).double(), 1.0), Normal(torch.tensor(0.0).double(), scale)


axes = plot.divergences(normals, torch.linspace(0.4, 2.5, 50).tolist(), name="sd of q")

# %%
# A tail that decides
# -------------------
# Near 0 a log-normal distribution has much less mass than a gamma distribution. The KL from the
# gamma distribution to it is small all the same, but Renyi's divergence is infinite for every
# order above 1. The strip at the top is infinity.


def gamma_and_lognormal(loc):
    """The gamma distribution is p."""
    return Gamma(torch.tensor(2.0).double(), 1.0), LogNormal(torch.tensor(loc).double(), 1.0)


values = torch.linspace(-0.5, 1.5, 30).tolist()
axes = plot.divergences(gamma_and_lognormal, values, name="loc of the log-normal")

# %%
# Supports that differ
# --------------------
# Of two uniform distributions that are shifted, each has mass where the other has none: both KLs
# are infinite at once. Renyi's divergence of order 1/2 is infinite where they share nothing, and
# that of Jensen and Shannon is log 2 there.


def uniforms(shift):
    """Both have a width of 1."""
    low = torch.tensor(float(shift)).double()
    return Uniform(torch.tensor(0.0).double(), 1.0), Uniform(low, low + 1)


axes = plot.divergences(uniforms, [0.1 * i for i in range(13)], name="shift of q")
