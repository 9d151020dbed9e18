"""Derivatives of every registered pair: differences, far apart, at ends, beside infinite rows."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import constraints

from ..conformance.cases import (
    DECADES,
    DUOS,
    F64,
    FINITE,
    bounds_of,
    constraints_of,
    counts_of,
    draw_finite,
    function_of,
    gradients_of,
    interior,
    is_told_exact,
    kl_of,
    leaves,
    over,
    reads_a_count,
    tensors,
    without_validation,
)

#: A rule that cannot do what it is asked says so, once for each pair.
pytestmark = [
    pytest.mark.usefixtures("fine"),
    pytest.mark.filterwarnings("ignore:KL.*tolerance:UserWarning"),
]


@over(FINITE)
def test_gradcheck(duo):
    p, q = interior(duo)
    function = function_of(duo, p, q)
    inputs = leaves(duo, p, q)
    assert gradcheck(function, inputs, atol=1e-6, rtol=1e-4)
    assert gradgradcheck(function, inputs, atol=1e-5, rtol=1e-3)


# torch's own forward mode compiles a few decompositions, the first time.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@over(duo for duo in DUOS if duo.finite_rows() and not reads_a_count(duo))
def test_hessian(duo):
    """By `torch.func.hessian`, forward over reverse, and by autograd twice: the same."""
    rows = sorted(duo.finite_rows(), key=lambda row: abs(row.kl - 1))
    row = next((row for row in rows if not on_an_end(row)), rows[0])
    p, q = tensors(row.p), tensors(row.q)
    if not is_told_exact(duo, p, q):
        pytest.skip("the integral itself is short of its tolerance, and says so")
    counts = [*(n in counts_of(duo.p) for n in p), *(n in counts_of(duo.q) for n in q)]
    free = tuple(i for i, is_count in enumerate(counts) if not is_count)
    function, inputs = function_of(duo, p, q), leaves(duo, p, q)
    with without_validation():
        found = torch.func.hessian(function, argnums=free)(*(x.detach() for x in inputs))
    wanted = [inputs[i] for i in free]
    slopes = torch.autograd.grad(
        function(*inputs), wanted, create_graph=True, allow_unused=True, materialize_grads=True
    )
    for block, x, slope in zip(found, wanted, slopes, strict=True):
        assert all(h.shape == x.shape + y.shape for h, y in zip(block, wanted, strict=True))
        again = zeros_or_gradients(slope.sum(), wanted)
        for h, twice in zip(block, again, strict=True):
            total = h.reshape(max(x.numel(), 1), -1).sum(0).reshape(twice.shape)
            # what transforms go through has one number of nodes for all distributions
            rtol = 1e-2 if duo.pair.method == "quadrature" else 1e-6
            assert torch.allclose(total, twice, rtol=rtol, atol=rtol * 1e-2)


def located(duo):
    """Whether both distributions have a loc that can be put in one place."""
    return "loc" in duo.p.examples[0] and "loc" in duo.q.examples[0]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@over(duo for duo in FINITE if located(duo))
def test_second_derivatives_where_the_locs_are_one(duo):
    """There kinks, centres and ends of pieces fall together; differences know nothing of it."""
    if duo.p.name == "GeneralizedPareto" and duo.q.kinks:
        pytest.skip("q's kink is at the end of p's support: one second derivative on each side")
    p, q = (
        tensors(duo.p.examples[0]),
        {**tensors(duo.q.examples[0]), "loc": tensors(duo.p.examples[0])["loc"]},
    )
    if not kl_of(duo, p, q).isfinite() or not is_told_exact(duo, p, q):
        pytest.skip("infinite, or the integral is short of its tolerance and says so")
    function, inputs = function_of(duo, p, q), leaves(duo, p, q)
    place = len(p) + [*q].index("loc")

    def slope_at(shift):
        moved = [x.detach() for x in inputs]
        moved[place] = (moved[place] + shift).requires_grad_()
        return gradients_of(function(*moved), moved)[place]

    h = 1e-4
    difference = (slope_at(h) - slope_at(-h)) / (2 * h)
    (slope,) = torch.autograd.grad(function(*inputs), inputs[place], create_graph=True)
    twice = zeros_or_gradients(slope, [inputs[place]])[0]
    with without_validation():
        forward = torch.func.hessian(function, argnums=place)(*(x.detach() for x in inputs))
    assert torch.allclose(twice, difference, rtol=1e-3, atol=1e-6)
    assert torch.allclose(forward, difference, rtol=1e-2, atol=1e-6)


def on_an_end(row):
    """Whether a probability is 0 or 1 or a rate 0, where a second derivative may be infinite."""
    ends = ("gate", "probs", "rate", "concentration")  # 0: a tail that changes its kind
    given = [v for side in (row.p, row.q) for n, v in side.items() if n in ends]
    return any(np.any(np.isin(v, (0.0, 1.0))) for v in given)


def zeros_or_gradients(value, inputs):
    """The gradient; zeros if nothing depends on anything."""
    if not value.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    return torch.autograd.grad(
        value, inputs, retain_graph=True, allow_unused=True, materialize_grads=True
    )


@over(FINITE)
def test_gradient_at_far_apart_parameters(duo):
    """Over decades, where a formula changes branches, against central differences."""
    p, q, _ = draw_finite(duo, 40, DECADES)
    function = function_of(duo, p, q)
    inputs = leaves(duo, p, q)
    kl = function(*inputs)
    gradients = gradients_of(kl.sum(), inputs)
    for i, x in enumerate(inputs):
        if x.dim() > 1 or not x.requires_grad:
            continue  # the elements of a vector are not free to move alone
        step = 1e-5 * x.detach().abs().clamp(min=1e-3)
        if (x.detach() > 0).all() and (x.detach() < 1).all():
            step = step * (1 - x.detach())
        moved = [list(inputs), list(inputs)]
        moved[0][i], moved[1][i] = x + step, x - step
        up, down = function(*moved[0]), function(*moved[1])
        both = up.isfinite() & down.isfinite()
        difference = ((up - down) / (2 * step)).detach()
        noise = 1e-14 * (1 + kl.detach().abs()) / step + 1e-6 * difference.abs()
        scale = noise + 1e-5 * gradients[i].abs() + 1e-8
        # next to the largest float64 a derivative is larger than it
        assert gradients[i][kl < 1e150].isfinite().all()
        both &= kl < 1e150
        assert ((gradients[i] - difference).abs() <= 10 * scale)[both].all()


@over(duo for duo in FINITE if duo.pair.method != "quadrature")
def test_one_node_is_the_formula(duo):
    """What runs a formula at once agrees with its operations one by one, as `torch.func` does."""
    p, q, _ = draw_finite(duo, 40, DECADES)
    function, inputs = function_of(duo, p, q), leaves(duo, p, q)
    value = function(*inputs)
    slopes = gradients_of(value.sum(), inputs)
    free = [i for i, x in enumerate(inputs) if x.requires_grad]

    def of_the_free(*given):
        moved = dict(zip(free, given, strict=True))
        return function(*(moved.get(i, x) for i, x in enumerate(inputs)))

    with without_validation():
        plain, vjp = torch.func.vjp(of_the_free, *(inputs[i].detach() for i in free))
        expected = vjp(torch.ones_like(plain))
    assert torch.allclose(value, plain, rtol=1e-11, atol=1e-15)
    # next to the largest float64 a derivative is larger than it
    for i, right in zip(free, expected, strict=True):
        assert torch.allclose(slopes[i], right, rtol=1e-9, atol=1e-11, equal_nan=True)


def ends_of_q(duo):
    """Rows where a parameter of q is at an end that leaves atoms without mass: it, and the end."""
    given = constraints_of(duo.q)
    for row in duo.finite_rows():
        for name, end in tensors(row.q).items():
            if name in (*counts_of(duo.q), "gate"):
                continue  # the logarithm of 1 - gate has no slope at 1
            highest = {constraints.unit_interval: 1, constraints.nonnegative: 0}.get(given[name])
            if highest is not None and end in (0, highest):
                yield row, name, end


@over(duo for duo in FINITE if duo.p.support.discrete and any(ends_of_q(duo)))
def test_slope_at_the_ends_of_q(duo):
    """Where q's own parameter leaves atoms without mass, the slope is the one-sided one."""
    for row, name, end in ends_of_q(duo):
        at = end.clone().requires_grad_()
        (slope,) = torch.autograd.grad(kl_of(duo, row.p, {**row.q, name: at}), at)
        step = 1e-7 * (1 - 2 * end)
        moved = kl_of(duo, row.p, {**row.q, name: end + step})
        assert slope.item() == pytest.approx(((moved - row.kl) / step).item(), rel=1e-4), row


def neighbours(duo):
    """A finite and an infinite row that share q's parameters, or p's; each may be absent."""
    for shared, own in (("q", "p"), ("p", "q")):
        for good, bad in product(duo.rows, repeat=2):
            mine, theirs = getattr(good, own), getattr(bad, own)
            alike = mine.keys() == theirs.keys() and getattr(good, shared) == getattr(bad, shared)
            same_sizes = alike and all(np.shape(mine[k]) == np.shape(theirs[k]) for k in mine)
            if same_sizes and good.finite and not bad.finite and good.kl > 0:
                yield own, good, bad
                break


@over(duo for duo in FINITE if any(not row.finite for row in duo.rows))
def test_infinite_rows_leave_their_neighbours_alone(duo):
    found = list(neighbours(duo))
    if not found and any(np.ndim(x) for x in (*duo.rows[0].p.values(), *duo.rows[0].q.values())):
        pytest.skip("infinite by the sizes of vectors alone, which a batch shares")
    assert found, "no finite row beside an infinite one: add an example to a family"
    for own, good, bad in found:
        alone = leaves(duo, tensors(good.p), tensors(good.q))
        right = gradients_of(function_of(duo, good.p, good.q)(*alone), alone)
        for share in (True, False):
            p, q = (
                {
                    name: torch.stack([x, tensors(getattr(bad, side))[name]])
                    if side == own or not share
                    else x
                    for name, x in tensors(getattr(good, side)).items()
                }
                for side in ("p", "q")
            )
            check_neighbours(duo, p, q, right)


@over(duo for duo in FINITE if not duo.p.support.discrete and bounds_of(duo.pair.finite))
def test_boundary_rows_leave_their_neighbours_alone(duo):
    """Exactly on the boundary a moment is 1/0, which is worse than anything beyond it."""
    good = duo.finite_rows()[0]
    p, q = tensors(good.p), tensors(good.q)
    alone = leaves(duo, p, q)
    right = gradients_of(function_of(duo, p, q)(*alone), alone)
    for name, bound, _ in bounds_of(duo.pair.finite):
        if name not in p:
            continue
        on_it = {**p, name: torch.tensor(bound, dtype=F64)}
        pair = {key: torch.stack([p[key], on_it[key]]) for key in p}
        check_neighbours(duo, pair, q, right)


def check_neighbours(duo, p, q, right):
    """Row 0 is finite, row 1 is not: the gradient is row 0's alone, by both ways to mask."""
    for masked in (
        lambda kl: kl[kl.isfinite()].sum(),
        lambda kl: torch.where(kl.isfinite(), kl, 0.0).sum(),
    ):
        inputs = leaves(duo, p, q)
        kl = function_of(duo, p, q)(*inputs)
        assert kl.isfinite().tolist() == [True, False]
        gradients = gradients_of(masked(kl), inputs)
        for x, gradient, wanted in zip(inputs, gradients, right, strict=True):
            own = x.dim() > wanted.dim()
            assert torch.allclose(gradient[0] if own else gradient, wanted, rtol=duo.digits(1e-12))
            if own:
                assert (gradient[1] == 0).all()
