"""What `TraceEnum_ELBO` accepts, warns about or refuses, `TraceEnumKL_ELBO` does too."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate

from pyro_kl import TraceEnumKL_ELBO

PARALLEL = {"enumerate": "parallel"}
HALF = torch.tensor(0.5)


def one_plate_after_the_other():
    with pyro.plate("first", 10, 5) as rows:
        pyro.sample("a", dist.Bernoulli(HALF).expand_by([len(rows)]))
    with pyro.plate("second", 11, 6) as rows:
        pyro.sample("b", dist.Bernoulli(HALF).expand_by([len(rows)]))


def outside_after_inside():
    with pyro.plate("rows", 3):
        pyro.sample("a", dist.Bernoulli(HALF))
    pyro.sample("b", dist.Bernoulli(HALF))


def sequential_plates():
    for i in pyro.plate("outer", 2):
        with pyro.plate(f"inner_{i}", 3):
            pyro.sample(f"a_{i}", dist.Bernoulli(HALF))


def nothing_is_marked():
    pyro.sample("a", dist.Normal(0.0, 1.0))


def summed(scale=1.0, other=1.0):
    """Labels that the model sums out, and their data, at two scales."""

    def model():
        with pyro.plate("rows", 2):
            with poutine.scale(scale=scale):
                z = pyro.sample("z", dist.Bernoulli(HALF), infer=PARALLEL)
            with poutine.scale(scale=other):
                pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(2))

    return model


def global_label():
    a = pyro.sample("a", dist.Bernoulli(HALF), infer=PARALLEL)
    with pyro.plate("rows", 2):
        b = pyro.sample("b", dist.Bernoulli(0.2 + 0.5 * a))
        pyro.sample("x", dist.Normal(b, 1.0), obs=torch.zeros(2))


def local_label():
    with pyro.plate("rows", 2):
        pyro.sample("b", dist.Bernoulli(HALF), infer=PARALLEL)


def nothing():
    pass


CASES = {
    "plates one after the other": (one_plate_after_the_other,) * 2,
    "a site outside of a plate after one inside": (outside_after_inside,) * 2,
    "sequential plates": (sequential_plates,) * 2,
    "nothing is marked": (poutine.block(nothing_is_marked, hide=[]), nothing_is_marked),
    "two scales": (summed(1.0, 2.0), nothing),
    "a scale for each row": (summed(torch.ones(2), torch.ones(2)), nothing),
    "a scale": (summed(2.0, 2.0), nothing),
    "the model sums over what is more global than the guide's": (global_label, local_label),
    "a site that only the guide has": (nothing, local_label),
}
MARKED = list(CASES)[:3]


def outcome(Elbo, model, guide, nesting):
    """The loss, or that there is none; and the classes of the warnings."""
    pyro.set_rng_seed(0)
    with warnings.catch_warnings(record=True) as caught, pyro.validation_enabled(True):
        warnings.simplefilter("always")
        try:
            result = round(Elbo(max_plate_nesting=nesting).loss(model, guide), 5)
        except (RuntimeError, ValueError):
            result = "refused"
    return result, {warning.category for warning in caught}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("nesting", [0, 1])
def test_the_outcome_is_pyros(name, nesting):
    model, guide = CASES[name]
    if name in MARKED:
        guide = config_enumerate(guide)
    theirs = outcome(TraceEnum_ELBO, model, guide, nesting)
    assert outcome(TraceEnumKL_ELBO, model, guide, nesting) == theirs
