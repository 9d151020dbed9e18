"""
The coefficients of a regression
================================

A Bayesian logistic regression of `pyro_kl.glm`: the posterior mean and the 95 % interval of each
coefficient, and on the right its KL to the prior. A coefficient about which the data say much
has a large KL, whether it is near zero or not.
"""

import torch

from pyro_kl import plot
from pyro_kl.glm import LogisticRegression

torch.manual_seed(0)
features = torch.randn(300, 12)
weights = torch.tensor([1.5, -1.0, 0.5, *[0.0] * 9])
labels = (features @ weights + torch.randn(300) > 0.0).float()
posterior = LogisticRegression().fit(features, labels).posterior_
axes = plot.coefficients(posterior)

# %%
# Of many coefficients, ``largest`` keeps those of the largest KL.

axes = plot.coefficients(posterior, largest=4)
