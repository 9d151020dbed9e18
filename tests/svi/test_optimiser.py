"""One optimiser over all parameters against Pyro's one for each."""

import functools

import pyro
import pyro.optim
import pytest
import torch

from pyro_kl.svi.optimiser import Optimiser

from .bowl import (
    PYRO,
    SHAPES,
    always,
    assert_same,
    branches,
    by_name,
    factory,
    make_params,
    with_ours,
    with_pyro,
)


@pytest.mark.parametrize("trace", [always, branches])
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


@pytest.mark.parametrize("trace", [always, branches])
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


@pytest.mark.parametrize("trace", [always, branches])
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


def test_sparse_gradients_are_taken_as_torch_takes_them():
    def gradients(params):
        embedded = torch.nn.functional.embedding(torch.tensor([1, 1]), params["c"], sparse=True)
        embedded.sum().backward()

    theirs, expected = pyro.optim.SGD({"lr": 0.1}), make_params()
    gradients(expected)
    theirs(list(expected.values()))
    params = make_params()
    gradients(params)
    Optimiser(pyro.optim.SGD({"lr": 0.1})).step(params)
    assert_same(params, expected)


def test_a_parameter_that_is_not_in_the_trace_is_not_moved_by_an_old_gradient():
    params = make_params()
    optimiser = Optimiser(torch.optim.SGD, optim_args={"lr": 0.1})
    optimiser.add(params)
    before = params["b"].detach().clone()
    params["b"].grad = torch.ones_like(before)
    with_ours(optimiser, 1, params=params, trace=lambda step: ["a"])
    assert torch.equal(params["b"], before)


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
