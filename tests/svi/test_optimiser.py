"""One optimiser over all parameters against Pyro's one for each."""

import copy
import functools

import pyro
import pyro.optim
import pytest
import torch

from pyro_kl import LinearWarmup
from pyro_kl.svi.optimiser import Optimiser

SHAPES = {"a": (), "b": (3,), "c": (2, 4), "module$$$d.weight": (2, 2)}

#: Arguments of Pyro's optimisers that differ from the defaults where this matters.
PYRO = {
    "Adadelta": {},
    "Adagrad": {"lr": 0.05, "lr_decay": 0.01, "initial_accumulator_value": 0.1},
    "Adam": {"lr": 0.05, "betas": (0.95, 0.99), "amsgrad": True},
    "AdamW": {"lr": 0.05, "weight_decay": 0.1},
    "Adamax": {"lr": 0.05},
    "ASGD": {"lr": 0.05},
    "Adafactor": {"lr": 0.05},
    "NAdam": {"lr": 0.05},
    "RAdam": {"lr": 0.05},
    "RMSprop": {"lr": 0.01, "momentum": 0.5, "centered": True},
    "Rprop": {"lr": 0.01},
    "SGD": {"lr": 0.01, "momentum": 0.9, "nesterov": True},
    "AdagradRMSProp": {"eta": 0.3},
    "ClippedAdam": {"lr": 0.05, "lrd": 0.99, "clip_norm": 1.5},
    "DCTAdam": {"lr": 0.05, "lrd": 0.99},
}


@pytest.fixture(autouse=True)
def _clean():
    pyro.clear_param_store()
    torch.manual_seed(0)
    yield
    pyro.clear_param_store()


def make_params(dtype=torch.float64):
    """New parameters in Pyro's store, the same in each call."""
    pyro.clear_param_store()
    generator = torch.Generator().manual_seed(1)
    for name, shape in SHAPES.items():
        pyro.param(name, torch.randn(shape, generator=generator, dtype=dtype))
    return dict(pyro.get_param_store().named_parameters())


def set_gradients(params, step):
    """Gradients of a bowl with noise, which depend on the step, the name and the values only."""
    for name, param in params.items():
        generator = torch.Generator().manual_seed(1000 * step + len(name))
        noise = torch.randn(param.shape, generator=generator, dtype=param.dtype)
        param.grad = 3 * param.detach() + noise


def always(step):
    return list(SHAPES)


def alternating(step):
    """A model with branches: `b` from step 3 on, every other step."""
    return ["a", "c", "module$$$d.weight"] + (["b"] if step >= 3 and step % 2 else [])


def with_pyro(optim, steps=50, trace=always, start=0, params=None, after=None):
    """The parameters after steps of Pyro's SVI."""
    params = params or make_params()
    for step in range(start, start + steps):
        current = {name: params[name] for name in trace(step)}
        set_gradients(current, step)
        optim(list(current.values()))
        if after:
            after(step)
    return params


def with_ours(optimiser, steps=50, trace=always, start=0, params=None, after=None):
    """The parameters after steps of ours."""
    params = params or make_params()
    for step in range(start, start + steps):
        current = {name: params[name] for name in trace(step)}
        set_gradients(current, step)
        optimiser.step(current)
        if after:
            after(step)
    return params


def assert_same(params, expected, tolerance=1e-12):
    for name, param in params.items():
        torch.testing.assert_close(
            param.detach(), expected[name].detach(), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("trace", [always, alternating], ids=["always", "branches"])
@pytest.mark.parametrize("name", [name for name in PYRO if hasattr(pyro.optim, name)])
def test_equals_pyros_one_for_each(name, trace):
    expected = with_pyro(getattr(pyro.optim, name)(dict(PYRO[name])), trace=trace)
    params = with_ours(Optimiser(getattr(pyro.optim, name)(dict(PYRO[name]))), trace=trace)
    assert_same(params, expected)


def test_every_optimiser_of_pyro_is_tried():
    from pyro.optim.pytorch_optimizers import __all__ as names

    of_torch = {name for name in names if hasattr(torch.optim, name)} - {"SparseAdam", "Muon"}
    assert of_torch <= PYRO.keys()  # SparseAdam is for sparse gradients, Muon for matrices


SCHEDULERS = {
    "ExponentialLR": {"gamma": 0.9},
    "StepLR": {"step_size": 3, "gamma": 0.5},
    "LambdaLR": {"lr_lambda": lambda step: 1 / (1 + step)},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 60},
    "CosineAnnealingWarmRestarts": {"T_0": 4},
    "ReduceLROnPlateau": {"patience": 2},
}


@pytest.mark.parametrize("trace", [always, alternating], ids=["always", "branches"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_user_steps_pyros_scheduler(name, trace):
    def scheduler():
        arguments = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.05}}
        return getattr(pyro.optim, name)({**arguments, **SCHEDULERS[name]})

    def stepped(scheduler):
        loss = (1.0,) if name == "ReduceLROnPlateau" else ()
        return lambda step: scheduler.step(*loss) if step % 2 else None

    theirs, ours = scheduler(), scheduler()
    expected = with_pyro(theirs, trace=trace, after=stepped(theirs))
    assert_same(with_ours(Optimiser(ours), trace=trace, after=stepped(ours)), expected)


def by_name(name):
    return {"lr": 0.01 if name == "module.d.weight" else 0.05}


def by_module_and_name(module, name):
    return {"lr": 0.01 if (module, name) == ("module", "d.weight") else 0.05}


def clip_by_name(module, name):
    return {"clip_norm": 0.7, "clip_value": 0.4} if name == "c" else {}


@pytest.mark.parametrize("args", [by_name, by_module_and_name])
@pytest.mark.parametrize("clip", [clip_by_name, {"clip_norm": 0.5}, {"clip_value": 0.5}])
def test_arguments_and_clipping_by_parameter(args, clip):
    expected = with_pyro(pyro.optim.Adam(args, clip))
    optimiser = Optimiser(pyro.optim.Adam(args, clip))
    assert_same(with_ours(optimiser), expected)
    (cohort,) = optimiser.cohorts
    assert [group["lr"] for group in cohort.optimizer.param_groups] == [0.05, 0.01]


@pytest.mark.parametrize(
    ("name", "setting"), [("Adam", "fused"), ("RMSprop", "foreach"), ("ASGD", None)]
)
def test_the_fast_kernel_is_used_unless_the_user_chose(name, setting):
    def group(**args):
        optimiser = Optimiser(getattr(torch.optim, name), optim_args=args)
        with_ours(optimiser, 1)
        return optimiser.cohorts[0].optimizer.param_groups[0]

    assert len(group()["params"]) == len(SHAPES)
    assert all(
        group().get(key, False) == (key == setting or None)
        for key in ("fused", "foreach")
        if key in group()
    )
    assert group(foreach=False)["foreach"] is False


def factory(params):
    return torch.optim.Adam(params, lr=0.05)


@pytest.mark.parametrize("trace", [always, alternating], ids=["always", "branches"])
@pytest.mark.parametrize(
    ("optim", "args"),
    [
        (torch.optim.Adam, {"lr": 0.05}),
        (torch.optim.Adam, lambda name: {"lr": 0.05}),
        (functools.partial(torch.optim.Adam, lr=0.05), None),
        (factory, None),
    ],
)
def test_the_forms_of_an_optimiser_are_the_same(optim, args, trace):
    expected = with_pyro(pyro.optim.Adam({"lr": 0.05}), trace=trace)
    assert_same(with_ours(Optimiser(optim, optim_args=args), trace=trace), expected)


@pytest.mark.parametrize("trace", [always, alternating], ids=["always", "branches"])
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


def test_a_new_tensor_under_an_old_name_is_a_new_parameter():
    def run(step):
        params = make_params()
        step(params, 5, 0)
        pyro.get_param_store()["b"] = torch.ones(3, dtype=torch.float64)
        params = dict(pyro.get_param_store().named_parameters())
        step(params, 5, 5)
        return params

    theirs, ours = pyro.optim.Adam({"lr": 0.1}), Optimiser(pyro.optim.Adam({"lr": 0.1}))
    expected = run(lambda params, n, start: with_pyro(theirs, n, always, start, params))
    assert_same(run(lambda params, n, start: with_ours(ours, n, always, start, params)), expected)


OPTIONS = {
    "plain": {},
    "clipped": {"clip_norm": 1.0, "clip_value": 0.3},
    "schedule": {"schedule": LinearWarmup(60)},
    "torch schedule": {
        "schedule": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 60)
    },
    "average": {"average": "polyak", "schedule": lambda step: 0.9**step},
}


@pytest.mark.parametrize("trace", [always, alternating], ids=["always", "branches"])
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


@pytest.mark.parametrize("average", ["polyak", 0.8])
def test_averages(average):
    path = []
    params = make_params()
    optimiser = Optimiser(torch.optim.Adam, optim_args={"lr": 0.1}, average=average)
    with_ours(
        optimiser, 20, params=params, after=lambda step: path.append(params["c"].detach().clone())
    )
    weights = torch.tensor([1.0 if average == "polyak" else 0.8**age for age in range(20)])
    weights = weights.double().flip(0)
    expected = (weights[:, None, None] * torch.stack(path)).sum(0) / weights.sum()
    torch.testing.assert_close(optimiser.averaged()["c"], expected, rtol=1e-7, atol=1e-7)


def no_optimiser(params):
    return None


def two_of_them(params):
    return torch.optim.Adam(params[:2])


class OwnSteps(pyro.optim.PyroOptim):
    def __call__(self, params):
        pass


PLATEAU = torch.optim.lr_scheduler.ReduceLROnPlateau
EXPONENTIAL = {"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.1}, "gamma": 0.5}
ADAM = pyro.optim.Adam({})


@pytest.mark.parametrize(
    ("optim", "options", "error", "match"),
    [
        (torch.optim.LBFGS, {}, TypeError, "several times in a step"),
        (torch.optim.Adam([torch.zeros(1)]), {}, TypeError, "must be a Pyro optimiser"),
        ("adam", {}, TypeError, "must be a Pyro optimiser"),
        (ADAM, {"optim_args": {"lr": 1}}, TypeError, "optim_args are for a class"),
        (OwnSteps(torch.optim.Adam, {}), {}, TypeError, "OwnSteps steps parameters in its own"),
        (no_optimiser, {}, TypeError, "returned NoneType"),
        (two_of_them, {}, ValueError, "leaves out"),
        (ADAM, {"average": 1.5}, ValueError, "decay between 0 and 1"),
        (ADAM, {"average": "mean"}, ValueError, "decay between 0 and 1"),
        (ADAM, {"schedule": PLATEAU}, TypeError, "needs the loss of each step"),
        (ADAM, {"schedule": lambda step: "x"}, TypeError, "returned 'x'"),
        (pyro.optim.AdagradRMSProp({}), {"schedule": float}, ValueError, "no learning rate"),
        (
            pyro.optim.ExponentialLR(dict(EXPONENTIAL)),
            {"schedule": float},
            ValueError,
            "a Pyro scheduler already",
        ),
    ],
)
def test_refusals(optim, options, error, match):
    with pytest.raises(error, match=match):
        Optimiser(optim, **options).add(make_params())


def test_a_checkpoint_of_other_options_is_refused():
    state = Optimiser(ADAM, schedule=LinearWarmup(3))
    with_ours(state, 1)
    optimiser = Optimiser(pyro.optim.Adam({}))
    optimiser.load_state_dict(state.state_dict())
    with pytest.raises(ValueError, match="made with schedule="):
        with_ours(optimiser, 1)
    with pytest.raises(ValueError, match="no averages"):
        optimiser.averaged()


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


def test_a_parameter_that_is_not_in_the_trace_is_not_moved_by_an_old_gradient():
    params = make_params()
    optimiser = Optimiser(torch.optim.SGD, optim_args={"lr": 0.1})
    optimiser.add(params)
    before = params["b"].detach().clone()
    params["b"].grad = torch.ones_like(before)
    with_ours(optimiser, 1, params=params, trace=lambda step: ["a"])
    assert torch.equal(params["b"], before)


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
