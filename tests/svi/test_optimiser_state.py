"""Fits that go from one optimiser to another with its state."""

import copy

import pyro
import pyro.optim
import pytest
import torch

from pyro_kl import LinearWarmup
from pyro_kl.svi.optimiser import Optimiser

from .bowl import (
    PYRO,
    always,
    assert_same,
    branches,
    by_name,
    factory,
    with_ours,
    with_pyro,
)


@pytest.mark.parametrize("trace", [always, branches])
@pytest.mark.parametrize("name", ["Adam", "SGD", "ClippedAdam", "AdagradRMSProp", "DCTAdam"])
def test_a_fit_goes_from_pyro_to_ours_and_back(name, trace, tmp_path):
    def optim():
        return getattr(pyro.optim, name)(dict(PYRO[name]))

    expected_optim, shared = optim(), optim()
    expected = {n: p.detach().clone() for n, p in with_pyro(expected_optim, 40, trace).items()}
    params = with_pyro(shared, 10, trace)
    with_ours(Optimiser(shared), 10, trace, 10, params)
    shared.save(tmp_path / "optim")
    with_pyro(shared, 5, trace, 20, params)
    with_ours(Optimiser(shared), 15, trace, 25, params)
    assert_same(params, expected)
    loaded = optim()
    loaded.load(tmp_path / "optim")
    restart = with_pyro(optim(), 20, trace)
    with_ours(Optimiser(loaded), 20, trace, 20, restart)
    assert_same(restart, expected)


def test_training_of_pyro_goes_on_under_another_default_dtype():
    """Pyro's step counts are then in float64; the fused kernel of a GPU reads them in float32."""
    torch.set_default_dtype(torch.float64)
    try:
        shared = pyro.optim.Adam({"lr": 0.1})
        params = with_pyro(shared, 10)
        optimiser = Optimiser(shared)
        with_ours(optimiser, 10, start=10, params=params)
    finally:
        torch.set_default_dtype(torch.float32)
    (cohort,) = optimiser.cohorts
    assert cohort.optimizer.state[params["a"]]["step"].dtype == torch.float32
    assert_same(params, with_pyro(pyro.optim.Adam({"lr": 0.1}), 20))


OPTIONS = {
    "plain": {},
    "clipped": {"clip_norm": 1.0, "clip_value": 0.3},
    "schedule": {"schedule": LinearWarmup(60)},
    "torch schedule": {
        "schedule": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 60)
    },
    "average": {"average": "polyak", "schedule": lambda step: 0.9**step},
}


@pytest.mark.parametrize("trace", [always, branches])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(
    "optim",
    [
        lambda: pyro.optim.Adam(by_name),
        lambda: pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.97}),
        lambda: factory,
    ],
    ids=["Adam", "ClippedAdam", "factory"],
)
def test_a_checkpoint_goes_on_to_the_last_bit(optim, options, trace, tmp_path):
    whole = Optimiser(optim(), **options)
    expected = {
        name: param.detach().clone() for name, param in with_ours(whole, 40, trace).items()
    }

    optimiser, params = Optimiser(optim(), **options), None
    for start, steps in ((0, 20), (20, 1), (21, 19)):  # no parameter b in the short part
        params = with_ours(optimiser, steps, trace, start, params)
        values = {name: param.detach() for name, param in params.items()}
        torch.save((optimiser.state_dict(), values), tmp_path / "fit")
        state, saved = torch.load(tmp_path / "fit", weights_only=False)
        pyro.clear_param_store()
        for name in reversed(saved):  # the order of names is no part of a checkpoint
            pyro.param(name, saved[name])
        params = dict(pyro.get_param_store().named_parameters())
        optimiser = Optimiser(optim(), **options)
        optimiser.load_state_dict(state)
    assert_same(params, expected, tolerance=0)
    assert optimiser.steps == 40
    if "average" in options:
        optimiser.add(params)
        assert_same(optimiser.averaged(), whole.averaged(), tolerance=0)


def test_a_checkpoint_is_loaded_into_a_fit_that_runs():
    optimiser = Optimiser(pyro.optim.Adam({"lr": 0.05}), average=0.9)
    params = with_ours(optimiser, 10)
    state = copy.deepcopy(optimiser.state_dict())
    saved = {name: param.detach().clone() for name, param in params.items()}
    with_ours(optimiser, 10, start=10, params=params)
    expected = {name: param.detach().clone() for name, param in params.items()}
    for name, param in params.items():
        param.data.copy_(saved[name])
    optimiser.load_state_dict(state)
    with_ours(optimiser, 10, start=10, params=params)
    assert_same(params, expected, tolerance=0)


def test_a_checkpoint_has_the_schedulers_that_the_user_steps():
    def scheduler():
        optim_args = {"lr": 0.05, "momentum": 0.5}
        args = {"optimizer": torch.optim.SGD, "optim_args": optim_args, "step_size": 7}
        return pyro.optim.StepLR(args)

    def run(state, scheduler, steps, start, params=None):
        optimiser = Optimiser(scheduler)
        if state:
            optimiser.load_state_dict(state)
        params = with_ours(
            optimiser, steps, start=start, params=params, after=lambda step: scheduler.step()
        )
        return optimiser.state_dict(), params

    _, expected = run(None, scheduler(), 20, 0)
    state, params = run(None, scheduler(), 10, 0)
    _, params = run(state, scheduler(), 10, 10, params)
    assert_same(params, expected, tolerance=0)


def test_a_checkpoint_of_other_options_is_refused():
    state = Optimiser(pyro.optim.Adam({}), schedule=LinearWarmup(3))
    with_ours(state, 1)
    optimiser = Optimiser(pyro.optim.Adam({}))
    optimiser.load_state_dict(state.state_dict())
    with pytest.raises(ValueError, match="made with schedule="):
        with_ours(optimiser, 1)
    with pytest.raises(ValueError, match="no averages"):
        optimiser.averaged()
