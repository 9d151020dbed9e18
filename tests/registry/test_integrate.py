"""The recorded program of an integrand against autograd on the integrand itself, node by node."""

import pytest
import torch

from pyro_kl.numerics.quadrature import adaptive
from pyro_kl.numerics.quadrature import integrate as quadrature
from pyro_kl.numerics.quadrature.integrand import Recorded
from pyro_kl.numerics.quadrature.sweep import look
from pyro_kl.registry import integrate as integrals

from ..conformance.cases import QUADRATURE, SAMPLE, draw_finite, kl_of, over


@pytest.fixture
def solved(monkeypatch):
    """Every set of nodes that is looked at, with the parameters of its rows."""
    seen = []

    def watched(sweep, nodes, parameters, *rest):
        found = look(sweep, nodes, parameters, *rest)
        seen.append((parameters, found[1]))
        return found

    monkeypatch.setattr(adaptive, "look", watched)
    return seen


def derivatives(duo, p, q):
    inputs = [x.clone().requires_grad_() for x in (*p.values(), *q.values())]
    a = dict(zip(p, inputs[: len(p)], strict=True))
    b = dict(zip(q, inputs[len(p) :], strict=True))
    value = kl_of(duo, a, b)
    found = torch.autograd.grad(value.sum(), inputs, allow_unused=True, materialize_grads=True)
    return value.detach(), torch.stack(found)


@pytest.mark.filterwarnings("ignore:KL")  # that a tolerance is not reached
@over(SAMPLE)
def test_program_is_autograd(duo, monkeypatch, solved):
    torch.manual_seed(0)
    p, q, _ = draw_finite(duo, 5, 0.3)
    with quadrature.tolerance(1e-11):
        value, slopes = derivatives(duo, p, q)
        recorded = bool(solved)
        monkeypatch.setattr(Recorded, "sweep", lambda *_: None)
        plain, expected = derivatives(duo, p, q)
    assert value.numpy() == pytest.approx(plain.numpy(), rel=1e-9, abs=1e-13)
    scale = expected.abs().max().item()
    assert slopes.numpy() == pytest.approx(expected.numpy(), rel=1e-7, abs=1e-7 * scale)
    if not recorded:
        pytest.skip("its integrand is not a composition of recorded operations")


def test_most_integrands_are_recorded():
    """What cannot be recorded still integrates, several times slower."""
    found = []
    for duo in QUADRATURE:
        if duo.p.line is not None and duo.q.line is not None:
            names = tuple(duo.p.parameters), tuple(duo.q.parameters)
            integrand = integrals._recorded(duo.p.line, duo.q.line, names)
            size = sum(map(len, names)) + (0 if duo.p.line.standard else 2)
            size += integrals.slow_tails(duo.p.line, duo.q.line) is not None
            found.append(integrand.sweep((False,) * size) is not None)
    assert sum(found) > 0.6 * len(found)
