"""Compiled steps when Python values change: each is the step that model and guide would take."""

import warnings

import pyro
import pytest
import torch

import pyro_kl

from .test_surroundings import program, run

STEPS, CHANGE = 8, 4
MODEL = """
torch.manual_seed(0)
y, flag, scale, n, beta = torch.randn(10), False, 1.0, 0, 0.0
config, sizes, log = {{"flag": False, "scale": 1.0}}, [1.0], []
last, g = None, torch.Generator()
net, drop, prior = torch.nn.Linear(1, 1), torch.nn.Dropout(0.5), dist.Normal(0.0, 1.0)
class Thing:
    scale = 1.0
thing = Thing()
def transform(w): return w
def model():
    global n, last, beta
    w = pyro.sample("w", dist.Normal(0.0, scale))
    {}
    with pyro.plate("data", 10):
        pyro.sample("y", dist.Normal(w, 1.0), obs=y)
def guide():
    pyro.sample("w", dist.Normal(pyro.param("loc", torch.zeros(())), 0.5))
"""
# name: (what the model does, the line that is run before a step, a part of the notice)
CHANGES = {
    "a flag": ("w = w + flag", "flag = True", "`flag` of model was False and is True"),
    "a number": ("pass", "scale = 2.0", "`scale` of model was 1.0 and is 2.0"),
    "an entry": ("w = w * config['scale']", "config['scale'] = 2.0", "`config['scale']` of model"),
    "a list": ("w = w * sum(sizes)", "sizes.append(2.0)", "`sizes` of model had 1 elements"),
    "an attribute": ("w = w * thing.scale", "thing.scale = 2.0", "`thing.scale` of model is new"),
    "a class": ("w = w * thing.scale", "Thing.scale = 2.0", "`scale` of class Thing was 1.0"),
    "a function": ("w = transform(w)", "transform = lambda w: -w", "`transform` of model was"),
    "the data": ("pass", "y = torch.ones(10)", "`y` of model was a tensor of shape (10,)"),
    "the numbers of the data": ("pass", "y += 1", None),
    "another structure": (
        "if flag: pyro.sample('extra', dist.Normal(w, 1.0), obs=y[0])", "flag = True",
        "`flag` of model was False and is True"),
    "another dropout": ("w = drop(w + 1)", "drop.eval()", "`drop.training` of model was True"),
    "the dtype of new tensors": (
        "w = w * torch.tensor(1 / 3).double().float()", "torch.set_default_dtype(torch.float64)",
        "the type and the device of new tensors"),
    "a distribution": ("w = w + prior.mean", "prior.loc = torch.ones(())", "`prior.loc` of model"),
    "an option of the ELBO": ("pass", "elbo.num_particles = 3", "`num_particles` of the ELBO was"),
    "a network": (
        "w = net(w.reshape(1)).sum() + 0 * pyro.module('net', net)(w.reshape(1)).sum()",
        "net.bias.data += 1", None,
    ),
}  # fmt: skip
# name: (what the model does, the notice)
SELF_CHANGES = {
    "a counter": ("n += 1", None),
    "a growing list": ("log.append(1)", None),
    "a draw that is kept": ("last = w", "`last` of model keeps the value of the recorded step"),
    "a counter that is read": ("n += 1; w = w * n", "model reads `n`"),
    "an annealing": ("beta = min(1.0, beta + 0.1); w = w * beta", "model reads `beta`"),
    "the last draw": ("w, last = w + (last or 0.0), float(w)", "model reads `last`"),
    "Python's random": ("w = w * random.random()", "draws from Python's module random"),
    "a generator": ("w = w * torch.rand((), generator=g)", "draws from `g` of model"),
    "NumPy's random": ("w = w * np.random.rand()", "draws from NumPy's global generator"),
}


def steps(body, line, compile):
    """The losses of a fit, during which the line is run; its notices, and the program."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    module = program(MODEL.format(body))
    module.elbo = pyro_kl.TraceKL_ELBO()
    svi = pyro_kl.SVI(
        module.model, module.guide, torch.optim.Adam, module.elbo,
        optim_args={"lr": 0.1}, compile=compile,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        losses = [svi.step() for _ in range(CHANGE)]
        try:
            run(module, line)
            losses += [svi.step() for _ in range(STEPS - CHANGE)]
        finally:
            torch.set_default_dtype(torch.float32)
    return torch.tensor(losses), " ".join(str(warning.message) for warning in said), module


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_between_steps(name):
    body, line, notice = CHANGES[name]
    expected, _, _ = steps(body, line, None)
    losses, said, _ = steps(body, line, "fx")
    torch.testing.assert_close(losses, expected)
    assert notice in said if notice else said == ""


@pytest.mark.parametrize("name", SELF_CHANGES)
def test_what_the_model_changes_itself(name):
    body, notice = SELF_CHANGES[name]
    expected, _, _ = steps(body, "pass", None)
    losses, said, _ = steps(body, "pass", "fx")
    torch.testing.assert_close(losses, expected)
    assert notice in said if notice else said == ""


def test_a_value_is_looked_for_again_with_each_record():
    """What is only counted in one branch is read in another one."""
    _, said, _ = steps("n += 1\n    if flag: w = w * n", "flag = True", "fx")
    assert "`flag` of model was False and is True" in said
    assert "model reads `n`, which it changes itself in each run" in said


def test_no_python_of_the_model_runs_after_the_first_step():
    module = program(MODEL.format("n += 1"))
    pyro.clear_param_store()
    svi = pyro_kl.SVI(
        module.model, module.guide, torch.optim.Adam, pyro_kl.TraceKL_ELBO(), compile="fx",
        optim_args={"lr": 0.1},
    )  # fmt: skip
    svi.step()
    after_the_first = module.n
    for _ in range(50):
        svi.step()
    assert module.n == after_the_first
