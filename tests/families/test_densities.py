"""The density that a declaration prints is that of the class."""

from __future__ import annotations

import math

import pytest
import sympy
import torch

from pyro_kl.registry.register import families
from tools.site.formulas import expression

DECLARED = [family for family in families() if family.density]


def test_each_family_has_a_density():
    ours = [x for x in families() if x.distribution.__module__.split(".")[0] in ("torch", "pyro")]
    assert ours == [x for x in ours if x.density]


@pytest.fixture
def default_float64():
    """torch's GeneralizedPareto draws in the default type only."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("default_float64")
@pytest.mark.parametrize("family", DECLARED, ids=lambda family: family.name)
def test_the_declared_density_is_that_of_the_class(family):
    compared = 0
    for example in family.examples:
        own = family.make(example)
        torch.manual_seed(0)
        x = own.sample()
        expected = own.log_prob(x).exp().item()
        found = _value(family, own, example, x.item())
        if found is None:
            continue  # a limit, such as the exponential among the generalised Paretos
        compared += 1
        assert found == pytest.approx(expected, rel=1e-6), (example, x)  # torch: I0 by polynomials
    assert compared


def _value(family, own, example, x):
    values = {**example, "x": x, "k": round(x)}
    if "logits" in values:
        values["probs"] = _sigmoid(values["logits"])
    if "gate_logits" in values:
        values["gate"] = _sigmoid(values["gate_logits"])
    if isinstance(values.get("probs"), float) and values["probs"] < 1:
        values["odds"] = values["probs"] / (1 - values["probs"])
    if {"loc", "scale"} <= values.keys():
        values["z"] = (x - values["loc"]) / values["scale"]
    if "cutpoints" in values:  # the first category begins at -inf, the last one ends at inf
        values["cutpoints"] = [*values["cutpoints"], math.inf, -math.inf]
    names = sorted(values)
    kinds = [sympy.IndexedBase if isinstance(values[n], list) else sympy.Symbol for n in names]
    symbols = [kind(name) for kind, name in zip(kinds, names, strict=True)]
    function = sympy.lambdify(symbols, expression(family), ["mpmath"])
    try:
        found = float(function(*[values[name] for name in names]))
    except ZeroDivisionError:
        return None
    return found if math.isfinite(found) else None


def _sigmoid(x):
    if isinstance(x, list):
        return torch.tensor(x, dtype=torch.float64).softmax(-1).tolist()
    return 1 / (1 + math.exp(-x))
