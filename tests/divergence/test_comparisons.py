"""Divergences against samples, for pairs of families drawn at random, and wrong ones."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest
import torch
from torch.distributions import Gamma, Gumbel, Laplace, Normal, Poisson

import pyro_kl
from pyro_kl.divergence import compare as module

from ..conformance.cases import FAMILIES, make
from ..conformance.reference import divergence_values
from ..conformance.structured_cases import STRUCTURED, as_tensors

pytestmark = [
    pytest.mark.usefixtures("nothing_warned", "double"),
    pytest.mark.filterwarnings("ignore:.*(tolerance|does not hold):UserWarning"),
    pytest.mark.filterwarnings("ignore:Singular sample:UserWarning"),  # torch's Wishart
]

KINDS = (
    {"divergence": "renyi", "alpha": 0.4},
    {"divergence": "renyi", "alpha": 0.7},
    {"divergence": "jensen-shannon"},
    {"divergence": "jeffreys"},
    {"divergence": "cross-entropy"},
)
STORED = divergence_values.load()
#: Those whose samples reach all that matters: the divergences are small.
NEAR = [
    (name, i)
    for name, rows in STORED.items()
    for i, row in enumerate(rows)
    if " || " in name and row["renyi"][-1] not in ("inf", None) and row["renyi"][-1] < 3
]


@pytest.mark.parametrize(("name", "row"), Random(0).sample(NEAR, 12))
def test_samples_agree(name, row):
    torch.manual_seed(0)
    p, q = (
        make(FAMILIES[family], STORED[name][row][side])
        for family, side in zip(name.split(" || "), "pq", strict=True)
    )
    for kind in KINDS:
        comparison = pyro_kl.compare(p, q, 4000, **kind)
        if not comparison.z_score.isnan():
            assert abs(comparison.z_score) < 5, (name, kind, comparison)


STRUCTURED_CASES = [
    pytest.param(duo, case, id=f"{duo.id}[{i}]")
    for duo in STRUCTURED
    if not any(family.samples for family in duo.families)
    for i, case in enumerate(duo.finite_cases())
]


@pytest.mark.sweep
@pytest.mark.parametrize(("duo", "case"), STRUCTURED_CASES)
def test_samples_agree_with_structured_pairs(duo, case):
    torch.manual_seed(0)
    p, q = (family(**as_tensors(x)) for family, x in duo.sides(case))
    for kind in KINDS[:3]:
        try:
            comparison = pyro_kl.compare(p, q, 2000, **kind)
        except NotImplementedError:
            continue
        assert not (comparison.z_score.abs() > 5).any(), (duo.id, kind, comparison)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        ("renyi", {"divergence": "renyi", "alpha": 0.6}),
        ("jensen_shannon", {"divergence": "jensen-shannon"}),
        ("jeffreys", {"divergence": "jeffreys"}),
        ("cross_entropy", {"divergence": "cross-entropy"}),
    ],
)
def test_a_wrong_value_is_seen(function, kind, monkeypatch):
    """A fifth too much is beyond the samples."""
    torch.manual_seed(0)
    p, q = (
        Normal(torch.tensor(0.5), torch.tensor(1.0)),
        Laplace(torch.tensor(0.0), torch.tensor(2.0)),
    )
    assert abs(pyro_kl.compare(p, q, 20_000, **kind).z_score) < 5
    right = getattr(pyro_kl, function)
    title, _, sampled = module._OTHERS.get(kind["divergence"], (None, None, None))

    def wrong(*arguments):
        found = right(*arguments)
        return replace(found, value=1.2 * found.value)

    if title is None:
        monkeypatch.setattr(module, function, wrong)
    else:
        monkeypatch.setitem(module._OTHERS, kind["divergence"], (title, wrong, sampled))
    assert abs(pyro_kl.compare(p, q, 20_000, **kind).z_score) > 5


# --- classes of a user ---------------------------------------------------------------------------


@pytest.mark.parametrize("base", [Normal, Gamma, Poisson, Gumbel])
def test_a_subclass_keeps_what_its_family_declares(base):
    own = type("Own", (base,), {})
    numbers = [torch.tensor(x) for x in (1.3, 0.8)][: 1 if base is Poisson else 2]
    p, q = own(*numbers), base(*(1.2 * x for x in numbers))
    for function in (
        lambda a, b: pyro_kl.renyi(a, b, 0.7),
        pyro_kl.jensen_shannon,
        pyro_kl.cross_entropy,
        lambda a, _: pyro_kl.entropy(a),
    ):
        assert function(p, q).value == function(base(*numbers), q).value


@pytest.mark.parametrize("base", [Normal, Gamma, Poisson])
def test_a_subclass_with_another_density_loses_it(base):
    def log_prob(self, value):
        return base.log_prob(self, value) - 1.0

    own = type("Other", (base,), {"log_prob": log_prob})
    numbers = [torch.tensor(x) for x in (1.3, 0.8)][: 1 if base is Poisson else 2]
    p, q = own(*numbers), base(*(1.2 * x for x in numbers))
    formulas = {"closed form", "exact sum"}
    for function in (
        lambda a, b: pyro_kl.renyi(a, b, 0.7),
        pyro_kl.jensen_shannon,
        lambda a, _: pyro_kl.entropy(a),
    ):
        try:
            found = function(p, q)
        except NotImplementedError:
            continue
        assert found.method not in formulas


def test_orders_that_are_not_sampled():
    """0 and infinity are no means of a power; 1 is the KL."""
    p, q = torch.distributions.Uniform(0.0, 1.0), torch.distributions.Uniform(0.0, 2.0)
    for alpha in (0.0, math.inf):
        found = pyro_kl.compare(p, q, divergence="renyi", alpha=alpha)
        assert float(found.exact) == pytest.approx(math.log(2))
        assert found.sampled.value.isnan()
        assert found.z_score.isnan()
        line = f"unknown: order {alpha:g} is not the mean of a power, and is not sampled"
        assert line in " ".join(str(found).split())
    found = pyro_kl.compare(p, q, divergence="renyi", alpha=1.0)
    assert abs(float(found.z_score)) < 5


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda p, q: pyro_kl.renyi(p, q, 0.5), "Renyi"),
        (pyro_kl.jensen_shannon, "Jensen-Shannon"),
        (pyro_kl.jeffreys, "Jeffreys"),
        (pyro_kl.cross_entropy, "cross-entropy"),
    ],
)
def test_errors_name_the_divergence(function, name):
    p = torch.distributions.Normal(torch.zeros(3), 1.0)
    with pytest.raises(ValueError, match=rf"^{name}\(Normal \|\| Independent\): event shapes"):
        function(p, torch.distributions.Independent(p, 1))
    with pytest.raises(ValueError, match=rf"^{name}\(Normal \|\| Normal\): batch shapes"):
        function(p, torch.distributions.Normal(torch.zeros(2), 1.0))
    with pytest.raises(TypeError, match=rf"^the {name}.* is between two distributions, not float"):
        function(p, 3.0)


def test_an_entropy_is_of_a_distribution():
    with pytest.raises(TypeError, match=r"^the entropy is of a distribution, not float"):
        pyro_kl.entropy(3.0)
