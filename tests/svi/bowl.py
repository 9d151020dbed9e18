"""Steps down a noisy bowl by Pyro's optimisers and by ours."""

import pyro
import torch

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


def make_params():
    """New parameters in Pyro's store, the same in each call."""
    pyro.clear_param_store()
    generator = torch.Generator().manual_seed(1)
    for name, shape in SHAPES.items():
        pyro.param(name, torch.randn(shape, generator=generator, dtype=torch.float64))
    return dict(pyro.get_param_store().named_parameters())


def set_gradients(params, step):
    """Gradients of a bowl with noise, which depend on the step, the name and the values only."""
    for name, param in params.items():
        generator = torch.Generator().manual_seed(1000 * step + len(name))
        noise = torch.randn(param.shape, generator=generator, dtype=param.dtype)
        param.grad = 3 * param.detach() + noise


def always(step):
    return list(SHAPES)


def branches(step):
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


def by_name(name):
    return {"lr": 0.01 if name == "module.d.weight" else 0.05}


def factory(params):
    return torch.optim.Adam(params, lr=0.05)
