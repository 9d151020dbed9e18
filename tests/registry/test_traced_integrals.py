"""A recorded integral whose parameters have moved since: right, or it says how far it is off."""

from __future__ import annotations

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.util import zero_grads
from torch.distributions import constraints

import pyro_kl
from pyro_kl.registry import warnings as caller

from ..conformance.cases import F64, QUADRATURE, counts_of, draw, is_ordered, without_validation

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:KL.*tolerance:UserWarning"),
]

#: Members of each side, and every how many-th pair is tried: they share their code.
COUNT, EVERY = 6, 16


def value_and_error(duo, p, q):
    def function(*values):
        a = dict(zip(p, values[: len(p)], strict=True))
        b = dict(zip(q, values[len(p) :], strict=True))
        found = pyro_kl.kl(duo.p.distribution(**a), duo.q.distribution(**b))
        return found.value, found.value * 0 if found.error is None else found.error

    return function


@pytest.mark.parametrize("duo", QUADRATURE[::EVERY], ids=lambda duo: duo.id)
def test_parameters_that_move_far(duo):
    if counts_of(duo.p) or counts_of(duo.q) or is_ordered(duo):
        pytest.skip("a count is read from a tensor")
    near = [draw(family, COUNT, 0.4) for family in (duo.p, duo.q)]
    far = [draw(family, COUNT, 2.5) for family in (duo.p, duo.q)]
    function = value_and_error(duo, *near)
    with without_validation():
        first = tuple(x for side in near for x in side.values())
        traced = torch.jit.trace(function, first, check_trace=False)
        moved = [x for side in far for x in side.values()]
        value, error = traced(*moved)
        right, own = function(*moved)
    finite = right.isfinite()
    assert torch.equal(value[~finite], right[~finite])
    assert ((value - right).abs() <= error + own + 1e-12 * right.abs())[finite].all()
    # which is small almost always
    assert (error <= 1e-6 * value.abs() + 1e-12)[finite].sum() >= finite.sum() - 1


def test_a_traced_step_is_the_plain_one():
    """Loss and gradient, wherever the parameters have gone."""

    def model():
        pyro.sample("z", dist.Cauchy(0.0, 1.0))

    def guide():
        loc = pyro.param("loc", torch.tensor(0.1))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
        pyro.sample("z", dist.Normal(loc, scale))

    traced, plain = pyro_kl.JitTraceKL_ELBO(), pyro_kl.TraceKL_ELBO()
    for loc, scale in ((0.1, 1.0), (5.0, 0.05), (0.0, 50.0), (-300.0, 0.001), (0.0, 3000.0)):
        if "loc" in pyro.get_param_store():
            pyro.get_param_store()["loc"] = torch.tensor(loc)
            pyro.get_param_store()["scale"] = torch.tensor(scale)
        found = []
        for elbo in (traced, plain):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loss = elbo.loss_and_grads(model, guide)
            leaves = [pyro.param(name).unconstrained() for name in ("loc", "scale")]
            found.append([loss, *(x.grad.item() for x in leaves)])
            zero_grads(leaves)
        assert found[0] == pytest.approx(found[1], rel=2e-5, abs=1e-6), (loc, scale)


def test_a_traced_step_says_that_it_is_short(monkeypatch):
    monkeypatch.setattr(caller, "_warned", set())

    def model():
        pyro.sample("z", dist.SkewLogistic(0.0, 1.0, 2.0))

    def guide():
        scale = pyro.param("scale", torch.tensor(1.0, dtype=F64), constraint=constraints.positive)
        pyro.sample("z", dist.LogNormal(0.0, scale))

    traced = pyro_kl.JitTraceKL_ELBO()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced.loss_and_grads(model, guide)
    pyro.get_param_store()["scale"] = torch.tensor(25.0, dtype=F64)
    with pytest.warns(UserWarning, match="traced step keeps its number of nodes"):
        traced.loss_and_grads(model, guide)
