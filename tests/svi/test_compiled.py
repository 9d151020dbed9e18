"""Steps by a record of the first one are the steps that Pyro's own run takes."""

import pyro
import pytest
import torch

import pyro_kl
from models import problems

PROBLEMS = (
    "breast_cancer", "hierarchical_logistic", "eight_schools_full_rank", "minibatches", "vae",
)  # fmt: skip


def fitted(name, compile, steps=20):
    """Losses and parameters of a short fit."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    problem = getattr(problems, name)()
    svi = pyro_kl.SVI(
        problem.model, problem.guide, torch.optim.Adam, pyro_kl.TraceKL_ELBO(),
        optim_args={"lr": problem.lr}, compile=compile,
    )  # fmt: skip
    losses = [svi.step(*problem.batch(i)) for i in range(steps)]
    leaves = pyro.get_param_store()._params
    return torch.tensor(losses), {name: leaf.detach().clone() for name, leaf in leaves.items()}


@pytest.mark.parametrize("name", PROBLEMS)
def test_same_trajectory(name):
    """The same seed gives the same draws, and the record's gradient has the same bits."""
    losses, leaves = fitted(name, None)
    recorded_losses, recorded = fitted(name, "fx")
    torch.testing.assert_close(recorded_losses, losses, rtol=1e-6, atol=0)
    assert leaves.keys() == recorded.keys()
    for name in leaves:
        torch.testing.assert_close(recorded[name], leaves[name], rtol=1e-6, atol=1e-7)
