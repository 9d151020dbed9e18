"""The conformance suite of structured pairs: it reads the registry and names no pair.

A pair joins it by being registered with a `StructuredFamily` on each side. Its declared cases
are values made elsewhere; around them parameters are drawn.
"""

from __future__ import annotations

import math
import warnings
from itertools import product

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import kl_divergence

import pyro_kl
from pyro_kl.registry.provenance import EXACTNESS

from ..conformance.cases import newer_compile, over_few, relative_error, without_validation
from ..conformance.structured_cases import (
    F64,
    NO_EXPAND,
    NOT_TRACEABLE,
    STRUCTURED,
    as_tensors,
    bound,
    draw,
    free,
    function_of,
    one_of,
    over,
)

BATCHED = [duo for duo in STRUCTURED if duo.batched]
SAME = [duo for duo in STRUCTURED if duo.same]
#: How far parameters are drawn from a case, in unconstrained coordinates.
SPREAD = 0.3
#: Parameter sets of the Monte Carlo check.
SETS = 10


def tolerance(duo):
    return 1e-12 if duo.exact else 1e-8


def case_of(duo):
    """A finite case whose KL is neither tiny nor huge."""
    return min(duo.finite_cases(), key=lambda case: abs(math.log(case.value or 1e-30)))


def drawn(duo, p_shape, q_shape, spread=SPREAD):
    case = case_of(duo)
    shapes = (p_shape, q_shape)
    return tuple(
        draw(family, parameters, shape, spread)
        for (family, parameters), shape in zip(duo.sides(case), shapes, strict=True)
    )


def skip_if_listed(duo, reasons):
    for family in duo.families:
        if family.distribution.__name__ in reasons:
            pytest.skip(reasons[family.distribution.__name__])


def test_somebody_joined():
    assert len(STRUCTURED) >= 5


# --- values -------------------------------------------------------------------------------------


@pytest.mark.accuracy
@over(STRUCTURED)
def test_declared_cases(duo):
    for case in duo.pair.cases:
        kl = duo.of(as_tensors(case.p), as_tensors(case.q))
        assert kl.shape == ()
        assert kl.dtype == F64
        assert relative_error(kl, case.value) <= tolerance(duo), case


@over(STRUCTURED)
def test_result_names_its_method(duo):
    """An integral is told as one, also by a formula that estimates no error of its own."""
    p, q = (family(**as_tensors(x)) for family, x in duo.sides(case_of(duo)))
    told, declared = pyro_kl.kl(p, q).method, duo.pair.method
    if declared == "rule":
        assert told in EXACTNESS
    elif declared == "quadrature":
        assert told == "quadrature"
    else:
        assert told in (declared, "closed form", "exact sum")


@over(duo for duo in STRUCTURED if not duo.families[0].samples)
# torch's Wishart calls a sample singular that is not, and draws it again
@pytest.mark.filterwarnings("ignore:Singular sample detected:UserWarning")
def test_monte_carlo(duo):
    """Against samples of p and both densities, as the classes have them."""
    if duo.families[1].samples:
        pytest.skip(duo.families[1].samples)
    scores = []
    for _ in range(SETS):
        p, q = drawn(duo, (), ())
        make_p, make_q = duo.families
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that one draw makes up a quarter of the variance
            comparison = pyro_kl.compare(make_p(**p), make_q(**q), num_samples=4000)
        if not comparison.value.isfinite() or comparison.sampled.unreliable is not None:
            continue
        if comparison.standard_error == 0:  # a point, or p equal to q
            assert comparison.value == pytest.approx(comparison.estimate.value, abs=1e-9)
            continue
        scores.append(float(comparison.z_score))
    # ten parameter sets: the largest of ten, and their mean of which the distribution is known
    assert scores
    assert max(abs(z) for z in scores) < 4, scores
    assert abs(sum(scores)) / math.sqrt(len(scores)) < 4, scores


@pytest.mark.accuracy
@over(SAME)
def test_of_itself_is_zero(duo):
    for case in duo.pair.cases:
        for (family, _), parameters in zip(duo.sides(case), (case.p, case.q), strict=True):
            distribution = family(**as_tensors(parameters))
            assert abs(kl_divergence(distribution, distribution)) <= 1e-14
            assert abs(duo.of(as_tensors(parameters), as_tensors(parameters))) <= 1e-14


@over(STRUCTURED)
@pytest.mark.filterwarnings("ignore:SineBivariateVonMises bimodal:UserWarning")
def test_never_negative_never_nan(duo):
    for spread in (0.1, 1.5):
        for _ in range(3):
            kl = duo.of(*drawn(duo, (), (), spread))
            assert not kl.isnan()
            assert kl >= -1e-12


@pytest.mark.accuracy
@over(SAME)
def test_close_to_itself(duo):
    """To second order in the distance h the KL is c h^2: at h = 1e-7 it still has digits.

    The constant is extrapolated from distances where no digit is at risk; the textbook's
    difference of large terms has none left at the last one.
    """
    case = case_of(duo)
    family, parameters = duo.families[1], case.q
    start = free(family, parameters)
    direction = {name: torch.randn_like(u) for name, u in start.items()}

    def scaled(h):
        def there(sign):
            moved = {name: u + sign * h * direction[name] for name, u in start.items()}
            # both sides go through the bijection: its own rounding is none of the formula's
            q = bound(family, start, parameters)
            return duo.of(bound(family, moved, parameters), q)

        return float((there(1) + there(-1)) / (2 * h * h))

    far, near = scaled(4e-3), scaled(2e-3)
    constant = near + (near - far) / 3
    assert scaled(1e-7) == pytest.approx(constant, rel=1e-6)


# --- shapes and dtypes --------------------------------------------------------------------------


@over(BATCHED)
def test_broadcasting(duo):
    p, q = drawn(duo, (3, 1), (4,))
    kl = duo.of(p, q)
    assert kl.shape == (3, 4)
    make_p, make_q = duo.families
    for i, j in product(range(3), range(4)):
        alone = duo.of(one_of(make_p, p, (i, 0)), one_of(make_q, q, (j,)))
        assert alone.shape == ()
        assert relative_error(kl[i, j], alone.item()) < 10 * tolerance(duo)


@over(BATCHED)
def test_expand(duo):
    make_p, make_q = duo.families
    skip_if_listed(duo, NO_EXPAND)
    p, q = drawn(duo, (), ())
    p, q = make_p(**p), make_q(**q)
    kl = kl_divergence(p, q)
    wide_p, wide_q, column, row = (
        distribution.expand(shape)
        for distribution, shape in ((p, (2, 3)), (q, (2, 3)), (p, (2, 1)), (q, (3,)))
    )
    for a, b in ((wide_p, q), (p, wide_q), (column, row), (wide_p, wide_q)):
        assert kl_divergence(a, b).shape == (2, 3)
        assert torch.allclose(kl_divergence(a, b), kl, rtol=1e-13)


@over(STRUCTURED)
def test_event_shapes_must_agree(duo):
    """Where another case has another size, the two do not mix."""
    distributions = [
        tuple(family(**as_tensors(x)) for family, x in duo.sides(case)) for case in duo.pair.cases
    ]
    for (p, _), (_, q) in product(distributions, repeat=2):
        if p.event_shape != q.event_shape:
            with pytest.raises(ValueError, match="event shapes"):
                kl_divergence(p, q)


@over(STRUCTURED)
def test_dtype(duo):
    """float32 in, float32 out, with the digits of float64 inside."""
    p, q = drawn(duo, (), ())
    single = [as_tensors(x, torch.float32) for x in (p, q)]
    kl = duo.of(*single)
    assert kl.dtype == torch.float32
    truth = duo.of(*(as_tensors(x) for x in single))
    assert kl.item() == pytest.approx(truth.item(), rel=1e-4)


# --- gradients ----------------------------------------------------------------------------------


@over(STRUCTURED)
def test_gradcheck(duo):
    function, starts = function_of(duo, case_of(duo))
    inputs = [(u + 0.1 * torch.randn_like(u)).requires_grad_() for u in starts]
    assert gradcheck(function, inputs, atol=1e-6, rtol=1e-4)
    # in random directions: there are hundreds of second derivatives
    assert gradgradcheck(function, inputs, atol=1e-5, rtol=1e-3, fast_mode=True)


@over(BATCHED)
def test_gradient_of_a_batch(duo):
    """What is shared by a batch gets the sum of its rows' gradients."""
    function, starts = function_of(duo, case_of(duo))
    count = len(free(*duo.sides(case_of(duo))[0]))
    for batched in (range(count), range(count, len(starts))):
        rows = [torch.randn((3, *u.shape), dtype=F64) * 0.1 for u in starts]
        inputs = [
            (u + rows[i] if i in batched else u.clone()).requires_grad_()
            for i, u in enumerate(starts)
        ]
        together = torch.autograd.grad(function(*inputs).sum(), inputs)
        alone = [
            torch.autograd.grad(
                function(*(x[i] if j in batched else x for j, x in enumerate(inputs))), inputs
            )
            for i in range(3)
        ]
        for total, parts in zip(together, zip(*alone, strict=True), strict=True):
            assert torch.allclose(total, sum(parts), rtol=1e-8, atol=1e-10)


@over(duo for duo in BATCHED if any(math.isinf(case.value) for case in duo.pair.cases))
def test_infinite_rows_leave_their_neighbours_alone(duo):
    good = case_of(duo)
    bad = next(case for case in duo.pair.cases if math.isinf(case.value))
    for (family, a), (_, b) in zip(duo.sides(good), duo.sides(bad), strict=True):
        if any(a[name] != b[name] for name in a if name not in family.parameters):
            pytest.skip("infinite by a number that a batch shares")
    shared = {
        side
        for side in ("p", "q")
        for a, b in [(as_tensors(getattr(good, side)), as_tensors(getattr(bad, side)))]
        if all(torch.equal(a[name], b[name]) for name in a)
    }
    function, alone = function_of(duo, good)
    _, other = function_of(duo, bad)
    owners = [
        side
        for side, (family, parameters) in zip(("p", "q"), duo.sides(good), strict=True)
        for _ in free(family, parameters)
    ]
    alone = [u.requires_grad_() for u in alone]
    wanted = torch.autograd.grad(function(*alone), alone)
    inputs = [
        (u if owner in shared else torch.stack([u, v])).detach().requires_grad_()
        for u, v, owner in zip(alone, other, owners, strict=True)
    ]
    kl = function(*inputs)
    assert kl.isfinite().tolist() == [True, False]
    gradients = torch.autograd.grad(torch.where(kl.isfinite(), kl, 0.0).sum(), inputs)
    for gradient, right, owner in zip(gradients, wanted, owners, strict=True):
        assert torch.allclose(gradient if owner in shared else gradient[0], right, rtol=1e-10)
        if owner not in shared:
            assert (gradient[1] == 0).all()


# --- transformations ----------------------------------------------------------------------------


@over(STRUCTURED)
def test_vmap(duo):
    skip_if_listed(duo, NOT_TRACEABLE)
    function, starts = function_of(duo, case_of(duo))
    inputs = [u + SPREAD * torch.randn((3, *u.shape), dtype=F64) for u in starts]
    with without_validation():
        mapped = torch.func.vmap(function)(*inputs)
        one_by_one = torch.stack([function(*(x[i] for x in inputs)) for i in range(3)])
        assert torch.allclose(mapped, one_by_one, rtol=1e-9)
        every = tuple(range(len(inputs)))
        by_func = torch.func.vmap(torch.func.grad(function, argnums=every))(*inputs)
    for i in range(3):
        own = [x[i].clone().requires_grad_() for x in inputs]
        by_autograd = torch.autograd.grad(function(*own), own)
        for a, b in zip(by_func, by_autograd, strict=True):
            assert torch.allclose(a[i], b, rtol=1e-8, atol=1e-10)


@newer_compile
@over_few(STRUCTURED)
def test_compile(duo):
    skip_if_listed(duo, NOT_TRACEABLE)
    function, inputs = function_of(duo, case_of(duo))
    right = function(*inputs)  # also warms torch's table of dispatched pairs
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    with without_validation():
        assert torch.allclose(compiled(*inputs), right, rtol=1e-12)


@over(STRUCTURED)
# torch deprecates the tracer that Pyro's Jit ELBOs are built on
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_jit_trace(duo):
    skip_if_listed(duo, NOT_TRACEABLE)
    function, inputs = function_of(duo, case_of(duo))
    with without_validation():
        traced = torch.jit.trace(function, tuple(inputs), check_trace=False)
    second = [u + 0.1 * torch.randn_like(u) for u in inputs]
    # the trace keeps the points that an integral was taken at
    rtol = 1e-10 if duo.exact else 1e-6
    assert torch.allclose(traced(*second), function(*second), rtol=rtol)
