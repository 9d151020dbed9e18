"""Multivariate normals against products, both ways: the dense textbook formula is the truth."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import (
    Gamma,
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    StudentT,
    kl_divergence,
)

import pyro_kl

from ..conformance.reference.multiprecision import multivariate_normal

F64 = torch.float64


def dense(d, decades=0.5):
    scale_tril = torch.randn(d, d, dtype=F64).tril(-1)
    scale_tril = scale_tril + torch.diag(10 ** (decades * torch.randn(d, dtype=F64)))
    return {"loc": torch.randn(d, dtype=F64), "scale_tril": scale_tril}


def low_rank(d, rank=2):
    return {
        "loc": torch.randn(d, dtype=F64),
        "cov_factor": torch.randn(d, rank, dtype=F64),
        "cov_diag": torch.rand(d, dtype=F64) + 0.1,
    }


def diagonal(d):
    return {"loc": torch.randn(d, dtype=F64), "scale": torch.rand(d, dtype=F64) + 0.2}


def distribution(parameters):
    if "scale_tril" in parameters:
        return MultivariateNormal(**parameters)
    if "cov_factor" in parameters:
        return LowRankMultivariateNormal(**parameters)
    return Independent(Normal(**parameters), 1)


def truth(p, q):
    return float(
        multivariate_normal.kl(*({k: v.tolist() for k, v in side.items()} for side in (p, q)))
    )


DIRECTIONS = [(dense, diagonal), (diagonal, dense), (low_rank, diagonal), (diagonal, low_rank)]
both_ways = pytest.mark.parametrize(
    ("make_p", "make_q"), DIRECTIONS, ids=[f"{p.__name__}-{q.__name__}" for p, q in DIRECTIONS]
)


@both_ways
@pytest.mark.parametrize("d", [1, 2, 7])
def test_value(make_p, make_q, d):
    for _ in range(5):
        p, q = make_p(d), make_q(d)
        kl = kl_divergence(distribution(p), distribution(q))
        assert kl.shape == ()
        assert kl.item() == pytest.approx(truth(p, q), rel=1e-12)


@both_ways
def test_monte_carlo(make_p, make_q):
    p, q = distribution(make_p(3)), distribution(make_q(3))
    comparison = pyro_kl.compare(p, q, num_samples=20_000)
    assert comparison.standard_error > 0
    assert abs(comparison.z_score) < 4.5


@both_ways
def test_batches_broadcast(make_p, make_q):
    def stacked(parts, shape):
        distributions = {k: torch.stack([part[k] for part in parts]) for k in parts[0]}
        return distribution({k: v.reshape(shape + v.shape[1:]) for k, v in distributions.items()})

    p, q = [make_p(3) for _ in range(4)], [make_q(3) for _ in range(2)]
    kl = kl_divergence(stacked(p, (4, 1)), stacked(q, (2,)))
    assert kl.shape == (4, 2)
    for i, j in product(range(4), range(2)):
        assert kl[i, j].item() == pytest.approx(truth(p[i], q[j]), rel=1e-12)
    alone = kl_divergence(distribution(p[0]).expand((3,)), distribution(q[0]))
    assert torch.allclose(alone, kl[0, 0].expand(3))
    shared = kl_divergence(distribution(p[0]), distribution(q[0]).expand((3,)))
    assert torch.allclose(shared, kl[0, 0].expand(3))


@both_ways
def test_gradients(make_p, make_q):
    p, q = make_p(3), make_q(3)
    leaves = [x.clone().requires_grad_() for x in (*p.values(), *q.values())]

    def kl(*tensors):
        # an unconstrained matrix moves above its diagonal too: only its triangle is the parameter
        sides = []
        for names, values in (
            (p, tensors[: len(p)]),
            (q, tensors[len(p) :]),
        ):
            side = dict(zip(names, values, strict=True))
            if "scale_tril" in side:
                side["scale_tril"] = side["scale_tril"].tril()
            sides.append(distribution(side))
        return kl_divergence(*sides)

    assert gradcheck(kl, leaves)
    assert gradgradcheck(kl, leaves, atol=1e-5, rtol=1e-3)


def textbook(m, p_tril, mu, q_tril):
    """The difference of log determinants, traces and distances, operation by operation."""
    shape = torch.broadcast_shapes(p_tril.shape, q_tril.shape)
    ratio = torch.linalg.solve_triangular(q_tril, p_tril.expand(shape), upper=False)
    shift = torch.linalg.solve_triangular(q_tril, (m - mu).unsqueeze(-1), upper=False)
    log_det = ratio.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    squares = ratio.square().sum((-2, -1)) + shift.square().sum((-2, -1))
    return 0.5 * (squares - m.shape[-1]) - log_det


BATCHES = [
    ((), (), (), ()),
    ((3,), (3,), (), ()),
    ((2, 3), (), (3,), (1, 1)),
    ((), (3,), (2, 1), (2, 1)),
    ((1,), (2, 3), (), (3,)),
]


@pytest.mark.parametrize("columns_first", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize("make_q", [dense, diagonal])
@pytest.mark.parametrize("batches", BATCHES, ids=str)
@pytest.mark.parametrize("d", [1, 4])
def test_gradients_of_what_is_asked(d, batches, make_q, columns_first):
    """The node's own backward pass, for each set of inputs and each way to broadcast them."""
    m, mu = (torch.randn(*batches[i], d, dtype=F64, requires_grad=True) for i in (0, 2))
    factors = [dense(d)["scale_tril"] * torch.ones(*batches[i], 1, 1, dtype=F64) for i in (1, 3)]
    if columns_first:  # as torch.linalg.cholesky leaves them
        factors = [x.mT.contiguous().mT for x in factors]
    tril, q_tril = (x.requires_grad_() for x in factors)
    p, q = MultivariateNormal(m, scale_tril=tril), MultivariateNormal(mu, scale_tril=q_tril)
    leaves = [m, tril, mu, q_tril]
    if make_q is diagonal:
        leaves[3] = q_tril.detach().diagonal(dim1=-2, dim2=-1).clone().requires_grad_()
        q, q_tril = Independent(Normal(mu, leaves[3]), 1), torch.diag_embed(leaves[3])
    kl, expected = kl_divergence(p, q), textbook(m, tril, mu, q_tril)
    assert kl.shape == expected.shape
    assert torch.allclose(kl, expected, rtol=1e-11)
    weights = torch.randn_like(kl)
    for chosen in ((0, 1, 2, 3), (0, 1), (2, 3), (0,), (1,), (3,)):
        asked = [leaves[i] for i in chosen]
        got = torch.autograd.grad(kl, asked, weights, retain_graph=True)
        right = torch.autograd.grad(expected, asked, weights, retain_graph=True)
        for leaf, x, y in zip(asked, got, right, strict=True):
            lower = y.tril() if leaf is tril or leaf is q_tril else y
            assert torch.allclose(x, lower, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("step", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_near(size, step):
    """A posterior close to its prior, on scales of any size: no digit is lost."""
    d = 4
    q = {"loc": size * torch.randn(d, dtype=F64), "scale": size * (torch.rand(d, dtype=F64) + 0.2)}
    p = {
        "loc": q["loc"] * (1 + step),
        "scale_tril": torch.diag(q["scale"] * (1 - step))
        + size * step * torch.randn(d, d, dtype=F64).tril(-1),
    }
    assert kl_divergence(distribution(p), distribution(q)).item() == pytest.approx(
        truth(p, q), rel=1e-9
    )
    assert kl_divergence(distribution(q), distribution(p)).item() == pytest.approx(
        truth(q, p), rel=1e-9
    )


@pytest.mark.parametrize("step", [1e-2, 1e-4])
def test_near_low_rank(step):
    q = diagonal(4)
    p = {
        "loc": q["loc"] * (1 + step),
        "cov_factor": step * torch.randn(4, 2, dtype=F64),
        "cov_diag": q["scale"] ** 2 * (1 - step),
    }
    # the determinant lemma's log det and the trace cancel to second order
    assert kl_divergence(distribution(p), distribution(q)).item() == pytest.approx(
        truth(p, q), rel=1e-6
    )
    assert kl_divergence(distribution(q), distribution(p)).item() == pytest.approx(
        truth(q, p), rel=1e-6
    )


def test_of_itself_is_zero():
    q = diagonal(3)
    p = MultivariateNormal(q["loc"], scale_tril=torch.diag(q["scale"]))
    assert kl_divergence(p, distribution(q)) == 0
    assert kl_divergence(distribution(q), p) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype(dtype):
    p = MultivariateNormal(torch.ones(2, dtype=dtype), torch.eye(2, dtype=dtype))
    q = Independent(Normal(torch.zeros(2, dtype=dtype), 1.0), 1)
    for a, b in ((p, q), (q, p)):
        assert kl_divergence(a, b).dtype == dtype
        assert kl_divergence(a, b).item() == pytest.approx(1.0)


@pytest.mark.parametrize("make_p", [dense, low_rank])
def test_product_of_other_distributions(make_p):
    """The marginals' KLs plus the total correlation, here against Laplaces by Monte Carlo.

    Normal || Laplace is torch's own formula, or ours where there is one.
    """
    p = distribution(make_p(3))
    q = Independent(Laplace(torch.zeros(3, dtype=F64), torch.ones(3, dtype=F64)), 1)
    comparison = pyro_kl.compare(p, q, num_samples=40_000)
    assert 0 < comparison.standard_error < 0.1 * comparison.value
    assert abs(comparison.z_score) < 4.5


@pytest.mark.parametrize("make_q", [dense, low_rank])
def test_product_of_any_distributions_as_p(make_q):
    """A normal asks of a product for means and variances only: here of other families."""
    q = distribution(make_q(3))
    ones = torch.ones(3, dtype=F64)
    for base in (
        Laplace(torch.randn(3, dtype=F64), 0.5 * ones),
        Gamma(2.0 + ones, 2 * ones),
        StudentT(6 * ones, torch.randn(3, dtype=F64), 0.7 * ones),
    ):
        comparison = pyro_kl.compare(Independent(base, 1), q, num_samples=40_000)
        assert 0 < comparison.standard_error < 0.1 * comparison.value
        assert abs(comparison.z_score) < 4.5


@pytest.mark.parametrize("make_q", [dense, low_rank])
def test_product_without_a_variance_is_infinitely_far(make_q):
    df = torch.tensor([[5.0, 5.0, 5.0], [5.0, 2.0, 5.0], [5.0, 0.5, 5.0]], dtype=F64)
    p = Independent(StudentT(df.requires_grad_()), 1)
    kl = kl_divergence(p, distribution(make_q(3)))
    assert kl.isfinite().tolist() == [True, False, False]
    (gradient,) = torch.autograd.grad(torch.where(kl.isfinite(), kl, 0.0).sum(), df)
    assert gradient[0].isfinite().all()
    assert (gradient[1:] == 0).all()


@pytest.mark.parametrize("make_q", [dense, low_rank])
def test_product_without_means_is_infinitely_far(make_q):
    """torch says that a Cauchy's mean is nan: none of it may reach the KL."""
    loc = torch.zeros(3, dtype=F64, requires_grad=True)
    kl = kl_divergence(
        Independent(torch.distributions.Cauchy(loc, 1.0), 1), distribution(make_q(3))
    )
    assert kl == torch.inf


def test_product_without_formula_says_so():
    weights = torch.distributions.Categorical(torch.ones(2, 3))
    base = torch.distributions.MixtureSameFamily(weights, Normal(torch.zeros(2, 3), 1.0))
    q = MultivariateNormal(torch.zeros(2), torch.eye(2))
    with pytest.raises(NotImplementedError, match=r"KL\(MixtureSameFamily \|\| Normal"):
        kl_divergence(Independent(base, 1), q)


def test_infinite_marginal():
    p = MultivariateNormal(torch.zeros(2), torch.eye(2)).expand((3,))
    q = Independent(torch.distributions.Gamma(torch.ones(2), 1.0), 1)
    kl = kl_divergence(p, q)
    assert kl.shape == (3,)
    assert (kl == math.inf).all()


def test_narrow_normals_keep_their_digits():
    """L_q^-1 L_p - I has rounded to -1 there: the logarithm is that of the ratio itself."""
    scale, d = 1e-12, 3
    loc, eye = torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)
    narrow = MultivariateNormal(loc, scale_tril=scale * eye)
    product = Independent(Normal(loc, torch.ones(d, dtype=torch.float64)), 1)
    exact = d * (-math.log(scale) + 0.5 * scale**2 - 0.5)
    for q in (MultivariateNormal(loc, scale_tril=eye), product):
        assert float(kl_divergence(narrow, q)) == pytest.approx(exact, rel=1e-14)
