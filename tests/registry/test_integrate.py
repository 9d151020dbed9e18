"""KLs by quadrature: value, told error, derivatives, traces and memory of hard integrals."""

from __future__ import annotations

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import SkewLogistic
from pyro.infer.util import zero_grads
from torch.distributions import (
    ExpTransform,
    Laplace,
    LogNormal,
    Normal,
    TransformedDistribution,
    biject_to,
    constraints,
    kl_divergence,
)

import pyro_kl
from pyro_kl.numerics.quadrature.integrate import tolerance

from ..conformance.cases import (
    F64,
    FAMILIES,
    QUADRATURE,
    SAMPLE,
    counts_of,
    draw,
    draw_finite,
    function_of,
    is_ordered,
    kl_of,
    over,
    tensors,
    without_validation,
)
from ..conformance.hard_integrals import LogProbOnly, Wavy, over_hard
from ..conformance.reference.random_cells import distributions_of, faults, found, leaves_of

pytestmark = [
    # torch deprecates the tracer that Pyro's Jit ELBOs are built on
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:KL.*tolerance:UserWarning"),
]


def hessian(function, inputs):
    slopes = torch.autograd.grad(function(*inputs), inputs, create_graph=True)
    rows = [
        torch.autograd.grad(
            slope, inputs, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for slope in slopes
    ]
    return torch.stack([torch.stack(row) for row in rows])


# --- hard integrals by name ---------------------------------------------------------------------


@pytest.mark.accuracy
@over_hard()
def test_value_error_and_gradient(hard):
    """Each against an integral in extended precision; every one reaches its tolerance."""
    got = found(hard.cell)
    assert got.method == "quadrature"
    assert not got.short
    assert not faults(hard.cell, hard.cell.truth(), got)


@pytest.mark.accuracy
@over_hard(short={"student of df 0.05", "narrow q"})
def test_of_log_prob_alone(hard):
    """The same q of a class that nobody declared: right, or the result says that it is not."""
    right = hard.cell.truth()
    p, q = distributions_of(hard.cell, {k: x.detach() for k, x in leaves_of(hard.cell).items()})
    try:
        got = pyro_kl.kl(p, LogProbOnly(q))
    except NotImplementedError:  # float64 has no place where the integrand has fallen to nothing
        assert hard.tag in ("heavy tail", "end")
        return
    off = abs(got.value.item() - right.kl)
    assert off <= got.error.item() + 1e-15 * right.kl
    assert off <= 1e-6 * right.kl or "tolerance" in got.reason


@pytest.mark.accuracy
@over_hard("smooth", "kink")
def test_second_derivatives(hard):
    """Against differences of the gradient, also through a kink."""
    leaves = leaves_of(hard.cell)
    x = [*leaves.values()]

    def kl(*moved):
        return kl_divergence(*distributions_of(hard.cell, dict(zip(leaves, moved, strict=True))))

    def gradient(i, step):
        moved = [(y.detach() + step * (j == i)).requires_grad_() for j, y in enumerate(x)]
        return torch.stack(torch.autograd.grad(kl(*moved), moved))

    with tolerance(1e-12):
        exact = hessian(kl, x)
        by_steps = [(gradient(i, 1e-5) - gradient(i, -1e-5)) / 2e-5 for i in range(len(x))]
    assert torch.allclose(exact, torch.stack(by_steps), rtol=1e-6, atol=1e-7)


@pytest.mark.accuracy
@pytest.mark.parametrize("depth", [0.5, 0.9])
@pytest.mark.parametrize("frequency", [5.0, 20.0, 60.0])
def test_oscillating(frequency, depth):
    q = Wavy(frequency, depth)
    got = pyro_kl.kl(q.base, q)
    off = abs(got.value.item() - q.kl_from_normal())
    assert off <= got.error
    assert off <= 1e-6 * got.value or "tolerance" in got.reason
    assert frequency > 50 or "tolerance" not in got.reason


@pytest.mark.accuracy
def test_told_error_has_no_bound_beyond_the_floats():
    """E x of a LogNormal is exp(s^2 / 2), the most of it from x around exp(s^2)."""
    q = SkewLogistic(*torch.tensor([0.5, 0.6, 31.0], dtype=F64))
    scale = torch.tensor([10.0, 26.0, 97.0], dtype=F64)
    got = pyro_kl.kl(LogNormal(torch.zeros_like(scale), scale), q)
    assert got.error.isinf().tolist() == [False, True, True]
    assert "tolerance" in got.reason


# --- distributions that nobody declared ---------------------------------------------------------


def own(make):
    """The same as a class of a user's, which has nothing but a log density."""
    return lambda loc, scale: LogProbOnly(make(loc, scale))


def log_laplace(loc, scale):
    return TransformedDistribution(Laplace(loc, scale), [ExpTransform()])


def parameters():
    return [torch.tensor(x, dtype=F64, requires_grad=True) for x in (0.3, 1.2, 0.5, 0.7)]


@pytest.mark.accuracy
@pytest.mark.parametrize(
    ("p", "q", "as_p", "as_q"),
    [
        (Normal, own(Laplace), Normal, Laplace),
        (own(Laplace), own(Laplace), Laplace, Laplace),
        (own(Laplace), own(Normal), Laplace, Normal),
        (LogNormal, own(log_laplace), Normal, Laplace),
        (own(log_laplace), own(log_laplace), Laplace, Laplace),
    ],
)
def test_undeclared(p, q, as_p, as_q):
    """Value and second derivatives through a kink, against the closed form of the declared."""
    x = parameters()

    def by_integral(a, b, c, d):
        return pyro_kl.kl(p(a, b), q(c, d), tolerance=1e-10).value

    def closed(a, b, c, d):
        return kl_divergence(as_p(a, b), as_q(c, d))

    assert torch.allclose(by_integral(*x), closed(*x), rtol=1e-10)
    exact = hessian(closed, x)
    assert (hessian(by_integral, x) - exact).abs().max() <= 1e-6 * exact.abs().max()


@pytest.mark.accuracy
@pytest.mark.parametrize("scale", [0.7, 7e-2, 7e-3, 7e-4])
def test_narrow_undeclared(scale):
    """A user's distribution may have its kink anywhere: the top of its density is looked for."""
    loc, p_scale, q_loc, _ = (x.detach() for x in parameters())
    p, q = Normal(loc, p_scale), Laplace(q_loc, torch.tensor(scale, dtype=F64))
    got, right = pyro_kl.kl(p, LogProbOnly(q)), kl_divergence(p, q)
    assert torch.allclose(got.value, right, rtol=1e-9)
    assert (got.value - right).abs() <= got.error


# --- traced integrals whose parameters have moved -----------------------------------------------

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


@pytest.mark.usefixtures("nothing_warned")
def test_a_traced_step_says_that_it_is_short():
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


# --- programs and memory ------------------------------------------------------------------------


@over(SAMPLE)
def test_program_is_autograd(duo):
    """`torch.func` sees the operations themselves, whose derivatives are autograd's."""
    torch.manual_seed(0)
    p, q, _ = draw_finite(duo, 5, 0.3)
    function, values = function_of(duo, p, q), [*p.values(), *q.values()]
    counts = [name in counts_of(f) for f, x in ((duo.p, p), (duo.q, q)) for name in x]
    free = [i for i, is_count in enumerate(counts) if not is_count]

    def of_the_free(*given):
        moved = dict(zip(free, given, strict=True))
        return function(*(moved.get(i, x) for i, x in enumerate(values)))

    inputs = [values[i].clone().requires_grad_() for i in free]
    with tolerance(1e-11):
        value = of_the_free(*inputs)
        slopes = torch.autograd.grad(
            value.sum(), inputs, allow_unused=True, materialize_grads=True
        )
        with without_validation():
            plain, vjp = torch.func.vjp(of_the_free, *(x.detach() for x in inputs))
            expected = torch.stack(vjp(torch.ones_like(plain)))
    assert value.detach().numpy() == pytest.approx(plain.numpy(), rel=1e-9, abs=1e-13)
    scale = expected.abs().max().item()
    assert torch.stack(slopes).numpy() == pytest.approx(
        expected.numpy(), rel=1e-7, abs=1e-7 * scale
    )


def packed_by_autograd(run):
    """MiB that autograd packs while a KL is computed, for backward passes within it too."""
    packed: dict[int, int] = {}

    def pack(x):
        packed[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        kl = run()
    return sum(packed.values()) / 2**20, kl


def batch_of(family, parameters, rows):
    return {
        name: x.expand(rows, *x.shape).clone().requires_grad_(name not in counts_of(family))
        for name, x in tensors(parameters).items()
    }


def test_most_integrands_run_as_a_program():
    """What does not still integrates, several times slower and with its nodes in autograd."""
    rows, found = 512, {}
    # there are at least 49 nodes, and an integrand takes a dozen operations
    of_rows = 100 * rows * 8 / 2**20
    for duo in QUADRATURE[::3]:
        if duo.p.line is not None and duo.q.line is not None:
            row = duo.finite_rows()[0]
            p, q = batch_of(duo.p, row.p, rows), batch_of(duo.q, row.q, rows)
            found[duo.id], _ = packed_by_autograd(lambda duo=duo, p=p, q=q: kl_of(duo, p, q))
    slow = {name for name, size in found.items() if size > of_rows}
    assert len(slow) <= 0.22 * len(found), slow


def test_memory_of_a_large_site():
    """KL(T(Normal) || a member), T being the map to its support: no more than one block of rows.

    All nodes of all rows would be 600 numbers for each parameter.
    """
    rows, sizes = 5000, {}
    loc, scale = (torch.full((rows,), x, dtype=F64, requires_grad=True) for x in (0.1, 0.2))
    for family in FAMILIES.values():
        if family.line and family.support.period is None:
            one = tensors(family.examples[0])
            prior = family.distribution(**{name: x.expand(rows) for name, x in one.items()})
            guide = TransformedDistribution(Normal(loc, scale), [biject_to(prior.support)])
            size, kl = packed_by_autograd(lambda p=guide, q=prior: kl_divergence(p, q))
            if kl.isfinite().all():
                sizes[family.name] = size
    assert max(sizes.values()) < 32, sizes
    # nothing but tensors of rows, where the integrand is recorded
    of_rows = 20 * rows * 8 / 2**20
    assert sum(size < of_rows for size in sizes.values()) > 0.85 * len(sizes), sizes
