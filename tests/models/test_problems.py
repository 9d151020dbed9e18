"""The six models on which a step of SVI is tested and timed, under Pyro's own ELBO."""

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam

from models.problems import PROBLEMS

pytestmark = pytest.mark.parametrize("name", PROBLEMS)


def loss_of(problem):
    """The loss at one batch, over the same draws at each call."""
    pyro.set_rng_seed(1)
    elbo = Trace_ELBO(num_particles=50, vectorize_particles=True, max_plate_nesting=1)
    return elbo.loss(problem.model, problem.guide, *problem.batch(0))


def test_ten_steps_lower_the_loss(name):
    problem = PROBLEMS[name]()
    start = loss_of(problem)
    svi = SVI(problem.model, problem.guide, Adam({"lr": problem.lr}), Trace_ELBO())
    for step in range(10):
        svi.step(*problem.batch(step))
    assert loss_of(problem) < start


def test_a_second_one_has_the_same_data_and_start(name):
    first, second = PROBLEMS[name](), PROBLEMS[name]()
    for some, same in zip(first.batch(3), second.batch(3), strict=True):
        assert some is not same
        assert torch.equal(some, same)
    start = loss_of(first)
    SVI(first.model, first.guide, Adam({"lr": first.lr}), Trace_ELBO()).step(*first.batch(0))
    assert loss_of(first) != start
    pyro.clear_param_store()
    assert loss_of(second) == start


def test_all_of_it_has_the_default_dtype(name, double):
    problem = PROBLEMS[name]()
    loss_of(problem)
    assert {value.dtype for value in pyro.get_param_store().values()} == {torch.float64}
    for value in problem.batch(0):
        assert value.dtype in (torch.float64, torch.int64)
