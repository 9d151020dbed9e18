"""Models, guides and settings that several tests of the ELBO share."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer import SVI
from pyro.infer.util import torch_item
from pyro.optim import Adam

from pyro_kl import JitTraceKL_ELBO, TraceKL_ELBO

ELBOS = [TraceKL_ELBO, JitTraceKL_ELBO]


# torch.jit.trace is deprecated, and Pyro's plates and checks look at shapes while it runs
jit = pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning"
)


def ok(model, guide, elbo, *args, **kwargs):
    """A step runs without a warning, and loss and differentiable loss agree on one draw."""
    pyro.clear_param_store()
    SVI(model, guide, Adam({"lr": 1e-6}), elbo).step(*args, **kwargs)
    pyro.set_rng_seed(0)
    loss = elbo.loss(model, guide, *args, **kwargs)
    pyro.set_rng_seed(0)
    differentiable = elbo.differentiable_loss(model, guide, *args, **kwargs)
    assert torch_item(differentiable) == pytest.approx(loss, abs=1e-3, rel=1e-5)
    return loss


def normal_model():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(x, 1.0), obs=torch.tensor(0.5))


def normal_guide():
    loc = pyro.param("loc", torch.tensor(0.3))
    pyro.sample("x", dist.Normal(loc, 0.5))


quiet = pytest.mark.filterwarnings("ignore:The KL of these sites is sampled:UserWarning")


def f64(x):
    return torch.as_tensor(x, dtype=torch.float64)


def params():
    return pyro.get_param_store()._params.values()


def eight_schools():
    y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    log_tau = pyro.sample("log_tau", dist.Normal(1.0, 1.0))
    with pyro.plate("schools", 8):
        theta = pyro.sample("theta", dist.Normal(mu, log_tau.exp()))
        pyro.sample("y", dist.Normal(theta, 10.0), obs=y)


def two_sites():
    pyro.sample("a", dist.Normal(f64(0.0), f64(1.0)))
    with pyro.plate("plate", 2):
        pyro.sample("b", dist.Gamma(f64(2.0), f64(1.0)))


def two_sites_guide():
    loc = pyro.param("loc", lambda: f64(0.8))
    sd = pyro.param("sd", lambda: f64(0.6), constraint=constraints.positive)
    shape = pyro.param("shape", lambda: f64([1.5, 3.0]), constraint=constraints.positive)
    pyro.sample("a", dist.Normal(loc, sd))
    with pyro.plate("plate", 2):
        pyro.sample("b", dist.Gamma(shape, f64(1.3)))
