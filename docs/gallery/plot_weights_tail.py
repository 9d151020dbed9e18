"""
The tail of the importance weights
==================================

`pyro_kl.diagnose` draws from a guide and weighs each draw by p(data, latents) / guide(latents).
The tail of these weights is fitted by a generalised Pareto distribution, whose shape is k-hat. It
says whether the draws are enough to know the evidence and the KL to the posterior.
"""

import pyro
import pyro.distributions as dist
import torch
from matplotlib import pyplot as plt

import pyro_kl
from pyro_kl import plot


def model():
    """A posterior with a correlation of -1/2."""
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=torch.tensor(2.0))


def guide_of(scale):
    """A guide without the correlation."""
    return lambda: pyro.sample("z", dist.Normal(torch.full((2,), 2 / 3), scale).to_event(1))


pyro.set_rng_seed(0)
found = pyro_kl.diagnose(model, guide_of(0.7), max_plate_nesting=0)
axes = plot.weights_tail(found)

# %%
# A tail that is too heavy
# ------------------------
# A guide that is too narrow has draws with hundreds of times the mean weight. Where the tail is
# flatter than the limit, the mean of these weights cannot be known from them. `pyro_kl.diagnose`
# makes draws of a wider guide too, with which the evidence may still be known, as it is here.

figure, panels = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for axes, scale in zip(panels, (0.5, 0.3), strict=True):
    narrow = pyro_kl.diagnose(model, guide_of(scale), max_plate_nesting=0)
    plot.weights_tail(narrow, ax=axes)

# %%
print(narrow)
