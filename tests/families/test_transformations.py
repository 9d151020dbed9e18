"""Every registered pair under broadcasting, dtypes, vmap, torch.compile, traces and pickles."""

from __future__ import annotations

import pickle
from itertools import product

import pytest
import torch
from torch.distributions import kl_divergence

from ..conformance.cases import (
    DECADES,
    F64,
    FINITE,
    SAME,
    counts_of,
    draw,
    function_of,
    gradients_of,
    interior,
    is_ordered,
    kl_of,
    leaves,
    make,
    make_pyro,
    newer_compile,
    over,
    over_few,
    reads_a_count,
    relative_error,
    row_of,
    without_validation,
)

#: A rule that cannot do what it is asked says so, once for each pair.
pytestmark = [
    pytest.mark.usefixtures("fine"),
    pytest.mark.filterwarnings("ignore:KL.*tolerance:UserWarning"),
]


# --- shapes and dtypes --------------------------------------------------------------------------


@over(FINITE)
def test_broadcasting(duo):
    p, q = draw(duo.p, 3, DECADES), draw(duo.q, 4, DECADES)
    column = {name: x.unsqueeze(1) for name, x in p.items()}
    kl = kl_of(duo, column, q)
    assert kl.shape == (3, 4)
    for i, j in product(range(3), range(4)):
        alone = kl_of(duo, row_of(p, i), row_of(q, j))
        assert alone.shape == ()
        assert kl[i, j] == alone or relative_error(kl[i, j], alone.item()) < duo.digits(1e-13)


@over(FINITE)
def test_expand(duo):
    p, q = make(duo.p, duo.p.examples[0]), make(duo.q, duo.q.examples[1])
    kl = kl_divergence(p, q)
    for a, b in ((p.expand((2, 3)), q), (p, q.expand((2, 3))), (p.expand((2, 1)), q.expand((3,)))):
        assert torch.allclose(kl_divergence(a, b), kl.expand(2, 3), rtol=duo.digits(0.0), atol=0)


@over(FINITE)
def test_pyro_class_and_to_event(duo):
    p, q = draw(duo.p, 3, 1.0), draw(duo.q, 3, 1.0)
    kl = kl_of(duo, p, q)
    a, b = make_pyro(duo.p, p), make_pyro(duo.q, q)
    for left, right in ((a, b), (a, make(duo.q, q)), (make(duo.p, p), b)):
        assert torch.allclose(kl_divergence(left, right), kl, rtol=duo.digits(0.0), atol=0)
    product_kl = kl_divergence(a.to_event(1), b.to_event(1))
    assert product_kl.shape == ()
    assert torch.allclose(product_kl, kl.sum(), rtol=duo.digits(1e-14))
    wider = a.expand((2, 3)).to_event(1)
    assert torch.allclose(
        kl_divergence(wider, b.to_event(1)), kl.sum().expand(2), rtol=duo.digits(1e-14)
    )


@pytest.mark.accuracy
@over(FINITE)
def test_dtype(duo):
    """float32 in, float32 out: the float64 answer at the rounded parameters, rounded once."""
    p, q = draw(duo.p, 50, DECADES), draw(duo.q, 50, DECADES)
    single = kl_divergence(make(duo.p, p, torch.float32), make(duo.q, q, torch.float32))
    assert single.dtype == torch.float32
    mixed = kl_divergence(make(duo.p, p, torch.float32), make(duo.q, q))
    assert mixed.dtype == F64
    # the class may change what it is given (a Categorical divides by the sum), so ask it
    distributions = [make(f, x, torch.float32) for f, x in ((duo.p, p), (duo.q, q))]
    rounded = [
        {name: getattr(distribution, name).double() for name in given}
        for distribution, given in zip(distributions, (p, q), strict=True)
    ]
    truth = kl_of(duo, *rounded)
    fits = truth < torch.finfo(torch.float32).max
    assert single[~fits].isinf().all()
    error = (single.double() - truth).abs()[fits]
    assert (error <= 1e-6 * truth[fits].abs() + 1e-14).all()


# --- transformations ----------------------------------------------------------------------------


@over(FINITE)
def test_vmap(duo):
    p, q = draw(duo.p, 5, 1.0), draw(duo.q, 5, 1.0)
    function = function_of(duo, p, q)
    inputs = [*p.values(), *q.values()]
    if is_ordered(duo):
        pytest.skip("Pyro's constructor assigns in place, which vmap refuses")
    with without_validation():
        if reads_a_count(duo):  # one number of atoms for the batch, so that it is not mapped over
            counts = [*(name in counts_of(duo.p) for name in p)]
            counts += [name in counts_of(duo.q) for name in q]
            inputs = [x[0] if is_count else x for x, is_count in zip(inputs, counts, strict=True)]
            dims = tuple(None if is_count else 0 for is_count in counts)
        else:
            dims = tuple(0 for _ in inputs)
        mapped = torch.func.vmap(function, in_dims=dims)(*inputs)
        assert torch.allclose(mapped, function(*inputs), rtol=duo.digits(1e-12))


@over(FINITE)
def test_functional_gradient(duo):
    p, q = interior(duo, n=3)
    function = function_of(duo, p, q)
    inputs = leaves(duo, p, q)
    numbers = tuple(i for i, x in enumerate(inputs) if x.requires_grad)
    if is_ordered(duo):
        pytest.skip("Pyro's constructor assigns in place, which vmap refuses")
    with without_validation():
        by_func = torch.func.vmap(torch.func.grad(function, argnums=numbers))(*inputs)
    every = gradients_of(function(*inputs).sum(), inputs)
    by_autograd = [every[i] for i in numbers]
    for a, b in zip(by_func, by_autograd, strict=True):
        assert torch.allclose(a, b, rtol=duo.digits(1e-10), atol=1e-12)


def check_compiled(duo, backend, **options):
    p, q = draw(duo.p, 3, 1.0), draw(duo.q, 3, 1.0)
    function = function_of(duo, p, q)
    inputs = [*p.values(), *q.values()]
    right = function(*inputs)  # also warms torch's table of dispatched pairs
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend=backend, **options)
    with without_validation():
        assert torch.allclose(compiled(*inputs), right, rtol=duo.digits(1e-12))


@newer_compile
@over_few(duo for duo in FINITE if not reads_a_count(duo))
def test_compile(duo):
    """But for counts: a number of atoms that is read from a tensor breaks the graph."""
    check_compiled(duo, "eager")


@over(SAME[:1])
# inductor's own import defines a class by the deprecated torch.jit.script_method
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_compile_by_inductor(duo):
    # one number at a time: for vectors, torch 2.13 writes C++ that does not compile with
    # ATEN_CPU_CAPABILITY=default
    check_compiled(duo, "inductor", options={"cpp.simdlen": 1})


@over(FINITE)
# torch deprecates the tracer that Pyro's Jit ELBOs are built on; what it warns of beside that is
# that Categorical's number of categories becomes a constant, which it is
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_jit_trace(duo):
    first = [*draw(duo.p, 3, 1.0).values(), *draw(duo.q, 3, 1.0).values()]
    if reads_a_count(duo):
        pytest.skip("a count is read from a tensor: the trace would keep the first")
    function = function_of(duo, duo.p.examples[0], duo.q.examples[0])
    with without_validation():
        traced = torch.jit.trace(function, tuple(first), check_trace=False)
    second = [*draw(duo.p, 3, 1.0).values(), *draw(duo.q, 3, 1.0).values()]
    assert torch.allclose(traced(*second), function(*second), rtol=duo.digits(1e-12))


@over(FINITE)
def test_pickled_distributions(duo):
    p, q = make_pyro(duo.p, duo.p.examples[0]), make_pyro(duo.q, duo.q.examples[0])
    again = [pickle.loads(pickle.dumps(distribution)) for distribution in (p, q)]
    assert torch.equal(kl_divergence(*again), kl_divergence(p, q))
