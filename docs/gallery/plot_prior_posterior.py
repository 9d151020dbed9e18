"""
A posterior against its prior
=============================

A coin showed 8 heads in 10 throws. With a uniform prior over the probability of heads the
posterior is Beta(9, 3). KL(posterior || prior), in the title, is how many nats the data taught.
"""

import torch
from matplotlib import pyplot as plt
from torch.distributions import Beta, HalfCauchy, LogNormal

from pyro_kl import plot

uniform = Beta(torch.tensor(1.0), 1.0)
axes = plot.prior_posterior(Beta(torch.tensor(9.0), 3.0), uniform, name="probability of heads")

# %%
# More data
# ---------
# Each panel of a figure is one call with ``ax=``. The more data there are, the narrower is the
# posterior, and the larger its KL to the prior.

figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
for axes, throws in zip(panels, (10, 40, 160), strict=True):
    heads = 0.8 * throws
    posterior = Beta(torch.tensor(1.0 + heads), 1.0 + throws - heads)
    plot.prior_posterior(
        posterior, uniform, name=f"probability of heads, {throws} throws", ax=axes
    )

# %%
# A prior with a heavy tail
# -------------------------
# The prior is followed as far as the posterior can be seen beside it. Where a formula exists for
# the KL it is used; here there is none, and the KL is an integral.

axes = plot.prior_posterior(
    LogNormal(torch.tensor(1.0), 0.6), HalfCauchy(torch.tensor(5.0)), name="tau"
)
