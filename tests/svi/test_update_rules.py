"""Update rules on one packed vector against the optimisers of torch and Pyro."""

import inspect

import pyro
import pyro.optim
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_kl import LinearWarmup
from pyro_kl.svi.optimiser import Optimiser
from pyro_kl.svi.packing import pack, packed_rates, unpack
from pyro_kl.svi.update_rules import rule_of, update_rule

SHAPES = {"a": (3,), "b": (), "c": (2, 2)}

#: Every formula with every setting that changes it.
OPTIMISERS = {
    "Adam": {"lr": 0.02},
    "Adam-amsgrad": {"lr": 0.02, "amsgrad": True, "weight_decay": 0.1, "betas": (0.8, 0.99)},
    "Adam-decoupled": {"lr": 0.02, "decoupled_weight_decay": True, "weight_decay": 0.1},
    "AdamW": {"lr": 0.02},
    "SGD": {"lr": 0.02},
    "SGD-momentum": {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1},
    "SGD-dampening": {"lr": 0.02, "momentum": 0.9, "dampening": 0.5},
    "SGD-nesterov": {"lr": 0.02, "momentum": 0.9, "nesterov": True},
    "RMSprop": {"lr": 0.02},
    "RMSprop-momentum": {"lr": 0.02, "momentum": 0.5, "weight_decay": 0.1},
    "RMSprop-centered": {"lr": 0.02, "momentum": 0.5, "centered": True},
    "Adagrad": {"lr": 0.02, "lr_decay": 0.1, "initial_accumulator_value": 0.2},
    "Adagrad-decay": {"lr": 0.02, "weight_decay": 0.1},
    "Adamax": {"lr": 0.02, "weight_decay": 0.1},
    "NAdam": {"lr": 0.02, "weight_decay": 0.1},
    "NAdam-decoupled": {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": True},
    "RAdam": {"lr": 0.02, "weight_decay": 0.1},
    "RAdam-decoupled": {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": True},
    "ClippedAdam": {"lr": 0.02, "lrd": 0.99, "clip_norm": 2.0},
    "ClippedAdam-centered": {"lr": 0.02, "centered_variance": True, "weight_decay": 0.1},
    "AdagradRMSProp": {"eta": 0.5, "t": 0.2, "delta": 0.01},
}
if "centered_variance" not in inspect.signature(pyro.optim.clipped_adam.ClippedAdam).parameters:
    del OPTIMISERS["ClippedAdam-centered"]  # Pyro 1.9.1 has it not yet

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def pyro_optimiser(name):
    return getattr(pyro.optim, name.split("-")[0])(dict(OPTIMISERS[name]))


class Fit:
    """The same fit by single steps of the optimiser, or by its rule on the packed vector."""

    def __init__(self, optim, dtype=torch.float64, **options):
        pyro.clear_param_store()
        generator = torch.Generator().manual_seed(2)
        for name, shape in SHAPES.items():
            pyro.param(name, torch.randn(shape, generator=generator, dtype=dtype))
        self.params = dict(pyro.get_param_store().named_parameters())
        self.optimiser = Optimiser(optim, **options)
        self.optimiser.add(self.params)
        self.step = 0
        self.layout, offset = [], 0
        for name, param in self.params.items():
            self.layout.append((name, offset, param.shape))
            offset += param.numel()

    def gradient(self, flat):
        """That of a bowl, with noise that depends on the step."""
        generator = torch.Generator().manual_seed(self.step)
        self.step += 1
        return 3 * flat + torch.randn(flat.shape, generator=generator, dtype=flat.dtype)

    @property
    def flat(self):
        return torch.cat([param.detach().flatten() for param in self.params.values()])

    def write(self, flat, attribute):
        for name, start, shape in self.layout:
            value = flat[start : start + shape.numel()].view(shape).clone()
            setattr(self.params[name], attribute, value)

    def single(self, steps):
        for _ in range(steps):
            self.write(self.gradient(self.flat), "grad")
            self.optimiser.step(self.params)
        return self

    def packed(self, steps, call=lambda rule: rule):
        rule, reason = update_rule(self.optimiser, self.layout)
        assert rule is not None, reason
        step = call(rule_of(rule.key()))
        flat, state = self.flat, pack(self.optimiser, rule, self.layout)
        for lr in packed_rates(self.optimiser, self.layout, steps):
            flat, state = step(flat, self.gradient(flat), state, lr)
        self.optimiser.advance(steps)
        unpack(self.optimiser, rule, self.layout, state)
        self.write(flat, "data")
        return self


def assert_same(fit, expected, tolerance=TOLERANCE[torch.float64]):
    torch.testing.assert_close(fit.flat, expected.flat, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", OPTIMISERS)
def test_equals_the_optimiser(name, dtype):
    expected = Fit(pyro_optimiser(name), dtype).single(200)
    tolerance = TOLERANCE[dtype]
    assert_same(Fit(pyro_optimiser(name), dtype).packed(200), expected, tolerance)
    switched = Fit(pyro_optimiser(name), dtype).packed(1).single(60).packed(70).single(69)
    assert_same(switched, expected, tolerance)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_is_recorded(name):
    """One graph of tensor operations, which a compiler takes and which serves all steps."""
    graphs = []

    def call(rule):
        def step(flat, grad, lr, *state):
            flat, state = rule(flat, grad, state, lr)
            return flat, *state

        def replay(flat, grad, state, lr):
            if not graphs:
                graph = make_fx(step)(flat, grad, lr, *state)
                inputs = (flat, grad, lr, *state)
                graphs.append(torch.export.export(graph, inputs).module())
            flat, *state = graphs[0](flat, grad, lr, *state)
            return flat, tuple(state)

        return replay

    options = {"clip_norm": 3.0, "average": 0.9}
    expected = Fit(pyro_optimiser(name), **options).packed(30)
    assert_same(Fit(pyro_optimiser(name), **options).packed(30, call), expected)


OPTIONS = {
    "clip_norm": {"clip_norm": 0.5},
    "clip_value": {"clip_value": 0.5},
    "polyak": {"average": "polyak"},
    "decay": {"average": 0.9, "clip_norm": 2.0},
    "warmup": {"schedule": LinearWarmup(20, start=0.1)},
    "exponential": {"schedule": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.95)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("name", ["Adam", "ClippedAdam"])
def test_options_are_the_same_in_both_forms(name, options):
    expected = Fit(pyro_optimiser(name), **options).single(50)
    for fit in (
        Fit(pyro_optimiser(name), **options).packed(50),
        Fit(pyro_optimiser(name), **options).single(7).packed(11).single(9).packed(23),
    ):
        assert_same(fit, expected)
        assert fit.optimiser.learning_rates(3) == expected.optimiser.learning_rates(3)
        if "average" in options:
            averages = expected.optimiser.averaged()
            for name_, value in fit.optimiser.averaged().items():
                torch.testing.assert_close(value, averages[name_], rtol=1e-12, atol=1e-12)


def by_name(name):
    """Arguments that differ by parameter."""
    return {"lr": 0.01 if name == "a" else 0.05, "betas": (0.8 if name == "b" else 0.9, 0.99)}


def clip_by_name(module, name):
    return {"clip_norm": 0.7} if name == "c" else {}


def test_arguments_by_parameter():
    def optim():
        return pyro.optim.Adam(by_name, clip_by_name)

    expected = Fit(optim(), clip_value=2.0).single(50)
    assert_same(Fit(optim(), clip_value=2.0).packed(20).single(10).packed(20), expected)


def test_parameters_that_started_at_different_steps():
    """Step counts, averages and rates that differ by parameter become vectors."""

    def new():
        fit = Fit(pyro_optimiser("ClippedAdam"), average="polyak")
        fit.optimiser.cohorts, fit.optimiser.params = [], {}
        for _ in range(3):
            fit.params["a"].grad = torch.ones(3, dtype=torch.float64)
            fit.optimiser.step({"a": fit.params["a"]})
        fit.optimiser.add(fit.params)
        return fit

    expected = new().single(30)
    fit = new().packed(10).single(5).packed(15)
    assert_same(fit, expected)
    for name, value in fit.optimiser.averaged().items():
        torch.testing.assert_close(value, expected.optimiser.averaged()[name])


@pytest.mark.parametrize("name", OPTIMISERS)
def test_unpacking_on_the_way_changes_no_bit(name):
    expected = Fit(pyro_optimiser(name), torch.float32, average=0.9).packed(40)
    fit = Fit(pyro_optimiser(name), torch.float32, average=0.9).packed(13).packed(27)
    assert torch.equal(fit.flat, expected.flat)


def test_without_a_step_there_is_no_state():
    """A packed fit that took no step leaves the optimiser to take its first one."""
    expected = Fit(pyro_optimiser("SGD-dampening")).single(10)
    fit = Fit(pyro_optimiser("SGD-dampening"))
    rule, _ = update_rule(fit.optimiser, fit.layout)
    unpack(fit.optimiser, rule, fit.layout, pack(fit.optimiser, rule, fit.layout))
    assert_same(fit.single(10), expected)


def test_one_formula_for_parameters_with_the_same_settings():
    fit = Fit(pyro_optimiser("ClippedAdam"))
    rule, _ = update_rule(fit.optimiser, fit.layout)
    assert [part[:2] for part in rule.parts] == [(0, 8)]
    assert packed_rates(fit.optimiser, fit.layout, 3).shape == (3,)


class OwnAdam(torch.optim.Adam):
    """May step in any way."""


def one_cycle(optimizer):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 60)


def amsgrad_by_name(name):
    return {"amsgrad": name == "a"}


@pytest.mark.parametrize(
    ("optim", "options", "reason"),
    [
        (pyro.optim.DCTAdam({}), {}, "DCTAdam is not among"),
        (pyro.optim.Adadelta({}), {}, "Adadelta is not among"),
        (OwnAdam, {}, "OwnAdam is not among"),
        (pyro.optim.Adam({"maximize": True}), {}, "Adam maximises"),
        (pyro.optim.Adam({"lr": torch.tensor(0.1)}), {}, "a setting of Adam is a tensor"),
        (pyro.optim.Adam({}), {"schedule": one_cycle}, "OneCycleLR changes the momentum"),
        (pyro.optim.Adam(amsgrad_by_name), {}, "keep different state"),
    ],
)
def test_what_has_no_rule_says_why(optim, options, reason):
    fit = Fit(optim, **options)
    rule, why = update_rule(fit.optimiser, fit.layout)
    assert rule is None
    assert reason in why


def test_parameters_of_two_dtypes_have_no_rule():
    fit = Fit(pyro_optimiser("Adam"))
    other = torch.zeros(2, requires_grad=True)
    fit.optimiser.add({"d": other})
    layout = [*fit.layout, ("d", 8, other.shape)]
    assert update_rule(fit.optimiser, layout)[1].endswith("of one dtype and device")
    with pytest.raises(ValueError, match=r"has not seen \['e'\]"):
        update_rule(fit.optimiser, [("e", 0, other.shape)])
