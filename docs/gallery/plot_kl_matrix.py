"""
All KLs between some distributions
==================================

Each cell shows KL(p || q) of its row's p and its column's q. The KL of a distribution with heavy
tails to one with light tails is infinite: from the Cauchy distribution no KL to the Normal or the
Laplace is finite, but the KLs to it are.
"""

import torch
from pyro.distributions import Cauchy, Laplace, Normal, StudentT

from pyro_kl import plot

zero, one = torch.tensor(0.0), torch.tensor(1.0)
distributions = {
    "Normal": Normal(zero, one),
    "Laplace": Laplace(zero, one),
    "StudentT, df = 3": StudentT(torch.tensor(3.0), zero, one),
    "Cauchy": Cauchy(zero, one),
}
axes = plot.kl_matrix(list(distributions.values()), names=list(distributions))

# %%
# With ``reverse=True`` rows and columns stay as they are, and each cell shows KL(q || p): the
# matrix is mirrored. A KL is not symmetric.

axes = plot.kl_matrix(list(distributions.values()), names=list(distributions), reverse=True)

# %%
# Other distributions in the columns
# ----------------------------------
# ``qs`` are the columns, if they are not the rows themselves. A darker cell is a larger KL; the
# best approximation of each row is its lightest cell.

posteriors = {f"Normal({loc}, {scale})": Normal(torch.tensor(loc), scale)
              for loc, scale in ((0.0, 0.5), (1.0, 0.5), (1.0, 2.0))}  # fmt: skip
axes = plot.kl_matrix(
    list(posteriors.values()),
    list(distributions.values()),
    names=list(posteriors),
    q_names=list(distributions),
)
