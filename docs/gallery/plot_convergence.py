"""
The sampled KL and the exact one
================================

The Monte Carlo estimate of KL(p || q) is the mean of log p(x) - log q(x) over samples from p. Its
standard error falls with the square root of the number of samples: a hundred times as many samples
give one more digit. The exact value is there at once.
"""

import pyro
import torch
from matplotlib import pyplot as plt
from torch.distributions import Gamma, LogNormal, Normal

from pyro_kl import plot

pyro.set_rng_seed(0)
p, q = Gamma(torch.tensor(2.0), 1.0), LogNormal(torch.tensor(0.0), 1.0)
axes = plot.convergence(p, q, num_samples=10_000)

# %%
# Close distributions
# -------------------
# Of a KL that is small the samples say little: the terms have both signs and cancel. The standard
# error of a thousand samples is larger than the KL itself on the left.

figure, panels = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for axes, shift in zip(panels, (0.05, 2.0), strict=True):
    guide = Normal(torch.tensor(shift), 1.0)
    prior = Normal(torch.tensor(0.0), 1.0)
    plot.convergence(guide, prior, num_samples=10_000, names=("guide", "prior"), ax=axes)
