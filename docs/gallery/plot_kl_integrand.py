"""
Where a KL comes from
=====================

KL(p || q) is the integral of p(x) log(p(x) / q(x)). The integrand is positive where p is the
larger of the two densities, and negative where q is. The KL is what is left of the positive area
when the negative one is subtracted, and it is never negative.
"""

import torch
from matplotlib import pyplot as plt
from torch.distributions import Gamma, Geometric, LogNormal, Normal, Poisson

from pyro_kl import plot

p, q = Gamma(torch.tensor(2.0), 1.0), LogNormal(torch.tensor(0.0), 1.0)
axes = plot.kl_integrand(p, q)

# %%
# The title has the value of `pyro_kl.kl` and its method; the legend has both areas. For counts
# the areas are bars.

axes = plot.kl_integrand(Poisson(torch.tensor(3.0)), Geometric(torch.tensor(0.3)))

# %%
# Both ways round
# ---------------
# KL(p || q) is an expectation over p: only the places where p has mass count. A narrow p against a
# wide q gives a small KL. The other way round the wide distribution has mass where the narrow one
# has nearly none, and the KL is large. Option ``names`` says which one is which.

narrow, wide = Normal(torch.tensor(0.0), 1.0), Normal(torch.tensor(1.0), 3.0)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
plot.kl_integrand(narrow, wide, names=("narrow", "wide"), ax=left)
axes = plot.kl_integrand(wide, narrow, names=("wide", "narrow"), ax=right)
