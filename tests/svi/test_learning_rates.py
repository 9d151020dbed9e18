"""Learning rates of the steps that are to come."""

import functools

import pyro
import pyro.optim
import pytest
import torch

from pyro_kl import LinearWarmup
from pyro_kl.svi.optimiser import Optimiser

from .bowl import (
    make_params,
    with_ours,
)

SCHEDULES = {
    "warm-up": LinearWarmup(5, start=0.1),
    "function": lambda step: 0.5 if step < 3 else 0.25,
    "exponential": lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
    "partial": functools.partial(torch.optim.lr_scheduler.StepLR, step_size=2),
    "sequence": lambda optimizer: torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=3),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10),
        ],
        milestones=[3],
    ),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter")  # SequentialLR of torch 2.8 uses it
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_rates_ahead_are_those_of_the_steps(schedule):
    def new():
        args = {"lr": 0.1, "lrd": 0.99}
        return Optimiser(pyro.optim.ClippedAdam(args), schedule=schedule)

    optimiser, params = new(), make_params()
    optimiser.add(params)
    ahead = optimiser.learning_rates(10)["a"]
    assert optimiser.learning_rates(10)["a"] == ahead
    taken = []
    for step in range(10):
        with_ours(optimiser, 1, start=step, params=params)
        taken.append(optimiser.learning_rates(1)["a"][0])
    assert list(ahead[1:]) == taken[:-1]
    elsewhere = new()
    elsewhere.add(make_params())
    elsewhere.advance(10)
    assert elsewhere.learning_rates(1)["a"][0] == taken[-1]


def test_a_function_of_the_step_is_a_factor_of_the_rate():
    optimiser = Optimiser(torch.optim.SGD, optim_args={"lr": 0.2}, schedule=LinearWarmup(4))
    optimiser.add(make_params())
    assert optimiser.learning_rates(6)["a"] == pytest.approx((0, 0.05, 0.1, 0.15, 0.2, 0.2))
