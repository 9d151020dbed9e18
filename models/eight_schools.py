"""Eight schools, centred and non-centred: the model and Rubin's (1981) data.

Reference: Rubin (1981), Estimation in Parallel Randomized Experiments, table 1.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

SCHOOLS = "ABCDEFGH"
EFFECT = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
ERROR = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)


def model() -> None:
    """The centred model."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(EFFECT), dim=-1):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, torch.tensor(ERROR)), obs=torch.tensor(EFFECT))


def non_centred() -> None:
    """The same model of the data, with standardised effects z: theta = mu + tau z."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(EFFECT), dim=-1):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * z)
        pyro.sample("y", dist.Normal(theta, torch.tensor(ERROR)), obs=torch.tensor(EFFECT))
