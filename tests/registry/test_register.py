"""The only door to torch's registry: what it refuses, what it lets in, what it tells."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from torch.distributions import (
    Distribution,
    Exponential,
    Gamma,
    Independent,
    LogNormal,
    Normal,
    Poisson,
    TransformedDistribution,
    Weibull,
    kl_divergence,
)
from torch.distributions import kl as torch_kl
from torch.distributions.transforms import TanhTransform

import pyro_kl
from pyro_kl import Case, Family, Moment
from pyro_kl.registry import register as registry

from ..conformance.reference.multiprecision import integrate

pytestmark = pytest.mark.usefixtures("registries_as_they_were")

CASE = Case({"loc": 0.0, "scale": 1.0}, {"loc": 1.0, "scale": 1.0}, 0.5)


class Mine(Normal):
    """A class that nobody has registered."""


def mine(p, q):
    """KL(Mine || Mine)."""
    return (p.loc - q.loc) ** 2 / 2


def register_mine(formula=mine, **options):
    return pyro_kl.register(Mine, Mine, cases=[CASE], reference="here", **options)(formula)


# --- a single pair ------------------------------------------------------------------------------


def test_registered_formula_is_dispatched():
    assert register_mine() is mine
    assert kl_divergence(Mine(0.0, 1.0), Mine(1.0, 1.0)) == 0.5
    pair = registry.pair_of(Mine, Mine)
    assert (pair.name, pair.method, pair.finite) == ("Mine || Mine", "closed form", "always")
    assert pair.owner.endswith("test_register.mine")
    assert pair in pyro_kl.registered()


def test_duplicate_is_refused_and_its_owner_named():
    register_mine()
    with pytest.raises(ValueError, match=r"KL\(Mine \|\| Mine\) is already .*test_register\.mine"):
        register_mine(lambda p, q: p.loc)
    assert kl_divergence(Mine(0.0, 1.0), Mine(1.0, 1.0)) == 0.5


def test_the_same_code_again_replaces():
    """A notebook's cell run twice: same module, same qualified name, new function."""

    def make(power):
        def formula(p, q):
            return 0.5 * (p.loc - q.loc) ** power

        return formula

    register_mine(make(2))
    register_mine(make(6))
    assert kl_divergence(Mine(0.0, 1.0), Mine(2.0, 1.0)) == 32.0
    assert sum(pair.p is Mine for pair in pyro_kl.registered()) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((int, Normal, [CASE]), TypeError, "p must be a distribution class.*int"),
        ((Normal, 3.0, [CASE]), TypeError, "q must be a distribution class.*3.0"),
        ((Normal(0.0, 1.0), Normal, [CASE]), TypeError, "p must be a distribution class"),
        ((Mine, Mine, []), ValueError, r"KL\(Mine \|\| Mine\): give at least one worked case"),
        ((Mine, Mine, CASE), TypeError, "`cases` takes a list of Case"),
        ((Mine, Mine, [({}, {}, 0.5)]), TypeError, "`cases` takes a list of Case"),
        ((Mine, Mine, [Case(CASE.p, CASE.q, "0.5")]), TypeError, "`cases` takes a list of Case"),
    ],
    ids=["p not a class", "q not a class", "an instance", "no case", "one", "tuple", "text"],
)
def test_refused(arguments, error, message):
    p, q, cases = arguments
    with pytest.raises(error, match=message):
        pyro_kl.register(p, q, cases=cases, reference="here")(mine)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": ""}, "`reference` says in words"),
        ({"reference": None}, "`reference` says in words"),
        ({"reference": "here", "finite": None}, "`finite` says in words"),
        ({"reference": "here", "method": "magic"}, "`method` is one of closed form, .*'magic'"),
    ],
)
def test_what_the_table_cannot_print_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        pyro_kl.register(Mine, Mine, cases=[CASE], **options)(mine)
    assert (Mine, Mine) not in registry._PAIRS


def test_what_is_no_declaration_is_refused():
    with pytest.raises(TypeError, match="declare takes a Family"):
        pyro_kl.declare(Mine)
    with pytest.raises(TypeError, match="decorates a function"):
        register_mine(0.5)


@pytest.mark.parametrize(
    ("formula", "value", "message"),
    [
        (mine, 99.0, r"says 99.0 nats, and the formula gives 0\.5\b"),
        (mine, 0.50001, "says 0.50001 nats"),
        (mine, math.inf, "says inf nats"),
        (lambda p, q: mine(p, q) * math.nan, 0.5, "gives nan"),
        (lambda p, q: mine(p, q).expand(3), 0.5, r"gives a batch of shape \(3,\)"),
        (lambda p, q: p.rate, 0.5, "raises AttributeError: 'Mine' object has no attribute 'rate'"),
    ],
    ids=["another number", "a wrong digit", "infinity", "nan", "a batch", "a crash"],
)
def test_a_formula_that_disagrees_with_its_case_is_refused(formula, value, message):
    case = Case(CASE.p, CASE.q, value)
    with pytest.raises(ValueError, match=rf"KL\(Mine \|\| Mine\): .*{message}"):
        pyro_kl.register(Mine, Mine, cases=[CASE, case], reference="here")(formula)
    assert (Mine, Mine) not in registry._PAIRS


def test_a_case_may_be_written_in_seven_digits():
    third = Case({"loc": 0.0, "scale": 1.0}, {"loc": 1 / 3, "scale": 1.0}, 0.05555556)
    pyro_kl.register(Mine, Mine, cases=[third, CASE], reference="here")(mine)


@pytest.mark.parametrize("module", ["torch.distributions.kl", "pyro.distributions.kl"])
def test_override_needs_a_reason(module):
    p, q = next(key for key, f in registry._UPSTREAM.items() if f.__module__ == module)
    registry._PAIRS.pop((p, q), None)  # as before we had our own, if we have
    before = torch_kl._KL_REGISTRY[p, q]
    options = {"cases": [CASE], "reference": "here", "make_p": Mine, "make_q": Mine}
    with pytest.raises(ValueError, match=rf"already registered to {module}\..*replaces="):
        pyro_kl.register(p, q, **options)(mine)
    assert torch_kl._KL_REGISTRY[p, q] is before
    pyro_kl.register(p, q, **options, replaces="a test")(mine)
    assert registry._PAIRS[p, q].replaces == "a test"
    assert torch_kl._KL_REGISTRY[p, q].pyro_kl_pair.formula is mine


# --- a family -----------------------------------------------------------------------------------


class Own(Weibull):
    """A distribution of the user's, of a class that nobody has declared."""


class Unknown(Distribution):
    """A distribution that nobody knows anything of."""

    arg_constraints: ClassVar[dict] = {}


def family(**changes):
    """A Weibull's entropy and moments."""

    def log_density(mp, x, scale, concentration):
        z = x / scale
        return mp.log(concentration / scale) + (concentration - 1) * mp.log(z) - z**concentration

    euler = 0.57721566490153286061

    def entropy(scale, concentration):
        return euler * (1 - 1 / concentration) + torch.log(scale / concentration) + 1

    options = dict(
        distribution=Own,
        parameters=("scale", "concentration"),
        support=pyro_kl.POSITIVE,
        examples=[{"scale": 1.0, "concentration": 2.0}, {"scale": 0.3, "concentration": 0.8}],
        reference="Johnson, Kotz & Balakrishnan (1994), ch. 21",
        log_density=log_density,
        entropy=entropy,
        moments={
            "mean": Moment(
                lambda scale, concentration: scale * torch.exp(torch.lgamma(1 + 1 / concentration))
            ),
            "mean_log": Moment(
                lambda scale, concentration: torch.log(scale) - euler / concentration
            ),
            "variance_log": Moment(
                lambda scale, concentration: (math.pi / concentration) ** 2 / 6
            ),
        },
    )
    return Family(**{**options, **changes})


@pytest.mark.parametrize("q", [Gamma, Exponential, LogNormal])
def test_declared_family_gets_its_pairs(q):
    weibull = pyro_kl.declare(family())
    pair = registry.pair_of(Own, q)
    assert pair.derived
    assert "test_register" in pair.source
    other = registry.family_of(q)
    for a in weibull.examples:
        truth = float(integrate.kl(weibull, a, other, other.examples[1]))
        value = kl_divergence(weibull.make(a), other.make(other.examples[1]))
        assert value.item() == pytest.approx(truth, rel=1e-12)


def test_coefficients_may_be_integers():
    """The derivative of 2 * concentration is a Python integer; it becomes a tensor."""

    def cross_entropy(mean, /, scale, concentration):
        return 2 * concentration + mean / scale

    weibull = pyro_kl.declare(family(cross_entropy=cross_entropy))
    q = weibull.make(weibull.examples[0])
    q.concentration.requires_grad_()
    kl = kl_divergence(Exponential(torch.ones((), dtype=torch.float64)), q)
    assert torch.autograd.grad(kl, q.concentration)[0] == 2


@pytest.mark.parametrize(
    "constant",
    [
        lambda: torch.tensor(2.0, dtype=torch.float64),
        lambda: kl_divergence(Exponential(torch.tensor(1.0)), Exponential(torch.tensor(0.5))),
    ],
    ids=["a tensor", "another KL"],
)
def test_formulas_may_have_tensors_of_their_own(constant):
    """A program is written with Python numbers; a formula with a constant tensor has none."""

    def cross_entropy(mean, /, scale, concentration):
        return constant() * concentration + mean / scale

    weibull = pyro_kl.declare(family(cross_entropy=cross_entropy))
    q = weibull.make(weibull.examples[0])
    q.concentration.requires_grad_()
    p = Exponential(torch.ones((), dtype=torch.float64))
    kl = kl_divergence(p, q)
    assert torch.autograd.grad(kl, q.concentration)[0] == constant()
    expected = constant() * q.concentration + 1 / q.scale - 1
    assert kl.item() == pytest.approx(expected.item(), rel=1e-12)


def test_counts_may_index_a_table():
    """A mass function that is no composition of elementwise operations is not recorded."""
    table = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log()

    class Table(Distribution):
        arg_constraints: ClassVar = {}

        def __init__(self, power, validate_args=None):
            self.power = power
            super().__init__(power.shape, validate_args=False)

    def log_mass(k, power):
        return torch.log_softmax(table[k] * power.unsqueeze(-1), -1)

    pyro_kl.declare(
        Family(
            Table,
            parameters=("power",),
            support=registry.family_of(Poisson).support,
            examples=({"power": 1.0},),
            reference="a table",
            log_mass=log_mass,
            num_atoms=lambda power: 3,
        )
    )
    power = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    kl = kl_divergence(Table(power), Poisson(torch.ones(2, dtype=torch.float64)))
    log_p = log_mass(torch.arange(3), power)
    log_q = Poisson(torch.ones((), dtype=torch.float64)).log_prob(torch.arange(3.0))
    wanted = (log_p.exp() * (log_p - log_q)).sum(-1)
    assert torch.allclose(kl, wanted, rtol=1e-12)
    slopes = (torch.autograd.grad(x.sum(), power, retain_graph=True)[0] for x in (kl, wanted))
    assert torch.allclose(*slopes, rtol=1e-10)


def test_declared_family_as_q():
    """It says no cross-entropy, but its support does say what is infinite."""
    pyro_kl.declare(family())
    assert registry.pair_of(Normal, Own).finite == "never"
    assert kl_divergence(Normal(0.0, 1.0), Own(1.0, 2.0)) == math.inf


def test_derived_pair_yields_to_a_written_one():
    pyro_kl.declare(family())
    here = {"cases": [CASE], "reference": "here", "make_p": Mine, "make_q": Mine}
    pyro_kl.register(Own, Gamma, **here)(mine)
    pyro_kl.declare(family())
    assert not registry.pair_of(Own, Gamma).derived


def test_derived_pair_does_not_replace_upstream_without_a_reason():
    """What we derive stays out of what torch and Pyro have, unless a reason is given."""
    for pair in pyro_kl.registered():
        if registry.upstream_owner(pair.p, pair.q) is not None:
            assert pair.replaces, pair.name


def test_family_declared_again_by_the_same_module_replaces():
    pyro_kl.declare(family())
    again = pyro_kl.declare(family(reference="the second"))
    assert registry.family_of(Own) is again
    assert "the second" in registry.pair_of(Own, Gamma).reference


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"examples": []}, ValueError, "Own: declare at least one example"),
        ({"distribution": int}, TypeError, "a family must be a distribution class"),
        ({"distribution": Normal}, ValueError, r"already declared in pyro_kl\.families\.normal"),
        ({"examples": [{"rate": 1.0}]}, ValueError, "Own, at the example.*constructor.*'rate'"),
        ({"parameters": ("scale", "df")}, ValueError, "Own, at the example.* no attribute 'df'"),
        ({"entropy": lambda scale: scale}, ValueError, "entropy: TypeError.*'concentration'"),
        (
            {"moments": {"mean": Moment(lambda scale, concentration: scale.expand(2))}},
            ValueError,
            r"moment 'mean' has shape \(2,\), its parameters \(\)",
        ),
    ],
    ids=["no example", "not a distribution", "taken", "example", "names", "entropy", "shape"],
)
def test_family_refused(changes, error, message):
    with pytest.raises(error, match=message):
        pyro_kl.declare(family(**changes))
    assert Own not in registry._FAMILIES


# --- what it tells ------------------------------------------------------------------------------


def test_table_prints_a_line_for_each_pair():
    table = pyro_kl.registered()
    every = table.text(None).splitlines()
    lines, reasons = every[: len(table) + 1], every[len(table) + 1 :]
    assert repr(table) == str(table)
    assert len(reasons) == 1 + sum(pair.replaces is not None for pair in table)
    assert lines[0].split("  ")[0] == "p || q"
    for pair, line in zip(table, lines[1:], strict=True):
        assert line.startswith(pair.name)
        assert pair.finite in line
        assert line.endswith(pair.reference)
    assert [pair.name for pair in table] == sorted(pair.name for pair in table)


def test_torch_dispatch_finds_every_pair():
    for pair in pyro_kl.registered():
        assert registry.pair_of(pair.p, pair.q) is pair


@pytest.mark.parametrize(
    ("p", "q", "names"),
    [
        (Unknown(), Gamma(1.0, 1.0), "Unknown || Gamma"),
        (Independent(Unknown(), 0), Independent(Gamma(1.0, 1.0), 0), "Unknown || Gamma"),
        (
            TransformedDistribution(Unknown(), TanhTransform()),
            Gamma(1.0, 1.0),
            "TransformedDistribution(Unknown) || Gamma",
        ),
    ],
    ids=["plain", "wrapped", "transformed"],
)
def test_missing_pair_says_what_to_do_next(p, q, names):
    with pytest.raises(NotImplementedError) as raised:
        kl_divergence(p, q)
    message = str(raised.value)
    assert f"KL({names})" in message
    assert "pyro_kl.monte_carlo" in message
    assert "pyro_kl.register" in message


def test_examples_and_cases_may_be_rows():
    """In the order of `Family.parameters`."""
    own = pyro_kl.declare(family(examples=[(1.0, 2.0), {"scale": 0.3, "concentration": 0.8}]))
    first = {"scale": 1.0, "concentration": 2.0}
    assert own.examples == (first, {"scale": 0.3, "concentration": 0.8})

    @pyro_kl.formula(own, own, cases=[((1.0, 2.0), (1.0, 2.0), 0.0)], reference="here")
    def kl_own(p, q):
        return 0.0 * p["scale"] * q["scale"]

    assert registry.pair_of(Own, Own).cases == (Case(first, first, 0.0),)
