"""A warning points at the line of the user's that asked, whichever way in it was."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from torch.distributions import kl_divergence

import pyro_kl
from pyro_kl.numerics.quadrature import integrate as quadrature
from pyro_kl.registry import warnings as caller

pytestmark = pytest.mark.usefixtures("nothing_warned")

PACKAGE = Path(pyro_kl.__file__).parent


def test_every_warning_looks_for_its_line():
    """`warnings.warn` with a fixed number of calls is right for one way in only."""
    for path in PACKAGE.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
        assert "warnings.warn" not in called or path == Path(caller.__file__), path


MIXTURE = dist.MixtureSameFamily(
    dist.Categorical(torch.ones(2)), dist.Normal(torch.zeros(2, 2), 1.0).to_event(1)
)
PLANE = dist.Normal(torch.zeros(2), 1.0).to_event(1)
#: An integral, which `short` asks for more than there are digits.
HARD = dist.LogNormal(50.0, 1.0), dist.HalfCauchy(1.0)
HARD_PRODUCTS = tuple(side.expand((2,)).to_event(1) for side in HARD)


def short(ask, *arguments):
    with quadrature.tolerance(1e-30):
        return ask(*arguments)


def model():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0))


def guide():
    with pyro.poutine.scale(scale=0.5):
        pyro.sample("z", dist.Normal(0.0, pyro.param("scale", torch.tensor(1.0))))


def positive():
    pyro.sample("z", dist.HalfNormal(1.0))


def wide():
    pyro.sample("z", dist.Normal(0.0, 1.0))


def step():
    SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), pyro_kl.TraceKL_ELBO()).step()


def schedule():
    pyro_kl.TraceKL_ELBO(beta=pyro_kl.LinearWarmup(10, end=0.5)).loss(model, wide)


def penalty():
    pyro_kl.policy.penalty(torch.zeros(2, 3), torch.zeros(2, 3), use="loss", estimator="k1")


def controller():
    pyro_kl.policy.AdaptiveBeta(0.1, target=1.0, horizon=10).step(1.0, 99)


WAYS = {
    "kl, short": lambda: pyro_kl.kl(*HARD, tolerance=1e-30),
    "kl, samples": lambda: pyro_kl.kl(MIXTURE, PLANE, 100),
    "kl, short products": lambda: pyro_kl.kl(*HARD_PRODUCTS, tolerance=1e-30),
    "bounds": lambda: short(pyro_kl.bounds, *HARD),
    "kl_divergence": lambda: short(kl_divergence, *HARD),
    "step": step,
    "loss": lambda: pyro_kl.TraceKL_ELBO().loss(model, guide),
    "evaluate": lambda: pyro_kl.TraceKL_ELBO().evaluate(model, guide, num_particles=2),
    "an infinite site": lambda: pyro_kl.TraceKL_ELBO().loss(positive, wide),
    "compare_sites": lambda: pyro_kl.compare_sites(model, guide, num_particles=2),
    "a schedule": schedule,
    "a penalty": penalty,
    "a controller": controller,
}


def test_what_is_quiet_is_not_taken_for_told():
    with caller.quiet():
        pyro_kl.kl(*HARD, tolerance=1e-30)
    with pytest.warns(UserWarning, match="tolerance 1e-30 not reached"):
        pyro_kl.kl(*HARD, tolerance=1e-30)


@pytest.mark.parametrize("way", WAYS)
def test_points_at_the_caller(way):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        WAYS[way]()
    ours = [w for w in told if issubclass(w.category, UserWarning)]
    assert ours
    assert {w.filename for w in ours} == {__file__}
