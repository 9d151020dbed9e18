"""What single structured families owe beyond the conformance suite."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from torch.autograd import gradcheck
from torch.distributions import (
    Independent,
    LowRankMultivariateNormal,
    Multinomial,
    MultivariateNormal,
    Normal,
    RelaxedOneHotCategorical,
    Wishart,
    kl_divergence,
)

from ..conformance.reference.multiprecision import multivariate_normal
from .test_multivariate_normal import dense, diagonal, distribution, low_rank, truth

F64 = torch.float64


@pytest.mark.parametrize("d", [1, 2, 7])
@pytest.mark.parametrize("make_p", [dense, low_rank, diagonal])
@pytest.mark.parametrize("make_q", [dense, low_rank])
def test_gaussians_agree_with_dense_matrices(make_p, make_q, d):
    for _ in range(3):
        p, q = make_p(d), make_q(d)
        assert kl_divergence(distribution(p), distribution(q)).item() == pytest.approx(
            truth(p, q), rel=1e-10
        )


def test_low_ranks_of_different_rank():
    p, q = low_rank(5, rank=1), low_rank(5, rank=3)
    assert kl_divergence(distribution(p), distribution(q)).item() == pytest.approx(
        truth(p, q), rel=1e-11
    )
    assert kl_divergence(distribution(q), distribution(p)).item() == pytest.approx(
        truth(q, p), rel=1e-11
    )


@pytest.mark.parametrize("step", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("make", [dense, low_rank])
def test_near(make, step):
    q = make(4)
    p = {name: x * (1 + step * torch.randn_like(x)) for name, x in q.items()}
    assert kl_divergence(distribution(p), distribution(q)).item() == pytest.approx(
        truth(p, q), rel=1e-9
    )
    single = [{name: x.float() for name, x in side.items()} for side in (p, q)]
    exact = truth(*({name: x.double() for name, x in side.items()} for side in single))
    if exact > 0:
        assert kl_divergence(*map(distribution, single)).item() == pytest.approx(exact, rel=1e-4)


def test_a_large_float32_law_keeps_its_digits():
    """Above the size that is carried in float64 the difference form does the work."""
    q = {name: x.float() for name, x in dense(40, decades=0.1).items()}
    q["scale_tril"] = q["scale_tril"].tril(-1) / 6 + torch.diag(torch.diag(q["scale_tril"]))
    p = {name: x * (1 + 1e-3 * torch.randn_like(x)) for name, x in q.items()}
    exact = truth(*({name: x.double() for name, x in side.items()} for side in (p, q)))
    assert kl_divergence(distribution(p), distribution(q)).item() == pytest.approx(exact, rel=1e-4)


def test_pyro_subclasses_of_the_normal():
    p, q = dense(3), dense(3)
    kl = kl_divergence(distribution(p), distribution(q))
    control = torch.ones(2, 1, 3, dtype=F64)
    made = [
        dist.MultivariateNormal(p["loc"], scale_tril=p["scale_tril"]),
        dist.OMTMultivariateNormal(p["loc"], p["scale_tril"]),
        dist.AVFMultivariateNormal(p["loc"], p["scale_tril"], control),
        dist.NanMaskedMultivariateNormal(p["loc"], scale_tril=p["scale_tril"]),
    ]
    product = Independent(dist.Laplace(p["loc"], torch.ones(3, dtype=F64)), 1)
    masked = dist.NanMaskedNormal(p["loc"], torch.ones(3, dtype=F64)).to_event(1)
    same = dist.Normal(p["loc"], torch.ones(3, dtype=F64)).to_event(1)
    for subclass in made:
        assert torch.allclose(kl_divergence(subclass, distribution(q)), kl)
        assert torch.allclose(
            kl_divergence(subclass, product), kl_divergence(distribution(p), product), rtol=1e-13
        )
        assert torch.allclose(
            kl_divergence(subclass, masked), kl_divergence(distribution(p), same)
        )


@pytest.mark.parametrize("family", [dense, low_rank])
def test_precision_and_covariance_serve_as_well(family):
    p, q = family(3), distribution(dense(3))
    covariance = distribution(p).covariance_matrix
    for given in (
        {"covariance_matrix": covariance},
        {"precision_matrix": torch.linalg.inv(covariance)},
    ):
        other = MultivariateNormal(p["loc"], **given)
        assert torch.allclose(
            kl_divergence(other, q), kl_divergence(distribution(p), q), rtol=1e-9
        )


def test_wishart_batches_and_classes():
    """Rows 36 and 37 of the upstream table, and the gradient to p."""
    scale = torch.eye(2, dtype=F64).expand(2, 2, 2)
    df = torch.tensor([4.0, 4.0], dtype=F64, requires_grad=True)
    p, q = Wishart(df, scale_tril=scale), dist.Wishart(df.detach() + 1, scale_tril=1.2 * scale)
    kl = kl_divergence(p, q)
    alone = kl_divergence(
        Wishart(df[0], scale_tril=scale[0]), Wishart(df[0].detach() + 1, scale_tril=1.2 * scale[0])
    )
    assert kl.shape == (2,)
    assert torch.allclose(kl, alone.expand(2))
    (gradient,) = torch.autograd.grad(kl.sum(), df)
    assert (gradient != 0).all()


def test_temperatures_have_gradients():
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.5, 1.0, 0.2]], dtype=F64)

    def kl(heat, cool):
        p = RelaxedOneHotCategorical(heat, logits=logits[0])
        return kl_divergence(p, RelaxedOneHotCategorical(cool, logits=logits[1]))

    for pair in ((0.7, 0.7), (0.5, 1.1)):
        inputs = [torch.tensor(x, dtype=F64, requires_grad=True) for x in pair]
        assert gradcheck(kl, inputs)
    fixed = [x.detach() for x in inputs]
    assert torch.allclose(kl(*fixed), kl(*inputs), rtol=1e-12)


def test_straight_through_and_nearly_equal_logits():
    """The closed form by divided differences gives -2.73 here."""
    logits = torch.tensor([0.0, 1.0, 2.0], dtype=F64)
    t = torch.tensor([0.5], dtype=F64)
    p = dist.RelaxedOneHotCategoricalStraightThrough(t, logits=logits)
    q = RelaxedOneHotCategorical(t, logits=logits + torch.tensor([1e-3, 0.0, -1e-3], dtype=F64))
    kl = kl_divergence(p, q)
    assert kl.shape == ()
    assert 0 < kl.item() < 1e-6


def test_dirichlet_multinomial_of_several_counts():
    a = torch.tensor([2.0, 0.7, 3.0], dtype=F64)
    n = torch.tensor([0.0, 1.0, 4.0], dtype=F64)
    kl = kl_divergence(dist.DirichletMultinomial(a, n), dist.DirichletMultinomial(a + 0.5, n))
    for i, count in enumerate([0, 1, 4]):
        alone = kl_divergence(
            dist.DirichletMultinomial(a, count), dist.DirichletMultinomial(a + 0.5, count)
        )
        assert torch.allclose(kl[i], alone, rtol=1e-12, atol=1e-16)
    assert kl[0] == 0
    # one draw is a categorical one
    one = kl_divergence(Multinomial(1, a / a.sum()), Multinomial(1, (a + 0.5) / (a + 0.5).sum()))
    assert torch.allclose(kl[1], one, rtol=1e-12)


def test_multinomial_with_a_zero():
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.5, 0.0, 0.5])
    assert kl_divergence(Multinomial(3, p), Multinomial(3, q)) == math.inf
    assert kl_divergence(Multinomial(3, p), Multinomial(3, torch.ones(3) / 3)) == pytest.approx(
        3 * math.log(1.5), rel=1e-6
    )


def test_direction_without_a_direction():
    zero = torch.zeros(3, dtype=F64, requires_grad=True)
    other = torch.tensor([0.3, -0.2, 1.0], dtype=F64)
    for cls in (dist.VonMises3D, dist.ProjectedNormal):
        kl = kl_divergence(cls(zero), cls(other))
        (gradient,) = torch.autograd.grad(kl, zero)
        step = 1e-5 * torch.eye(3, dtype=F64)
        slopes = [
            (kl_divergence(cls(e), cls(other)) - kl_divergence(cls(-e), cls(other))) / 2e-5
            for e in step
        ]
        assert torch.allclose(gradient, torch.stack(slopes), rtol=1e-6)
    with pytest.raises(NotImplementedError, match="ProjectedNormal"):
        kl_divergence(dist.ProjectedNormal(torch.ones(4)), dist.ProjectedNormal(torch.ones(4)))


def test_scale_mixtures_of_other_shapes_have_no_formula():
    ones, two = torch.ones(2), torch.zeros(2)
    p = dist.GaussianScaleMixture(ones, two, ones)
    q = dist.GaussianScaleMixture(2 * ones, two, ones)
    with pytest.raises(NotImplementedError, match="GaussianScaleMixture"):
        kl_divergence(p, q)


def test_gradient_by_a_shared_coordinate_scale():
    """Both sides' scales moved apart: a common factor is what the mixture can tell."""
    coordinates = torch.tensor([1.0, 0.5], dtype=F64, requires_grad=True)
    logits, sizes = torch.zeros(2, dtype=F64), torch.tensor([0.5, 2.0], dtype=F64)
    p = dist.GaussianScaleMixture(coordinates, logits, sizes)
    q = dist.GaussianScaleMixture(coordinates.detach(), logits, sizes + 0.3)
    (gradient,) = torch.autograd.grad(kl_divergence(p, q), coordinates)

    def grown(factor):
        larger = dist.GaussianScaleMixture(coordinates.detach(), logits, sizes * factor)
        return kl_divergence(larger, q)

    slope = (grown(1 + 1e-5) - grown(1 - 1e-5)) / 2e-5
    assert torch.allclose((gradient * coordinates).sum(), slope, rtol=1e-6)


def test_low_rank_is_a_dense_law():
    p = low_rank(4)
    as_dense = MultivariateNormal(p["loc"], distribution(p).covariance_matrix)
    q = Independent(Normal(torch.zeros(4, dtype=F64), 1.0), 1)
    assert isinstance(distribution(p), LowRankMultivariateNormal)
    assert torch.allclose(
        kl_divergence(distribution(p), q), kl_divergence(as_dense, q), rtol=1e-11
    )
    assert multivariate_normal.kl(*({k: v.tolist() for k, v in x.items()} for x in (p, p))) == 0


def test_a_retained_graph_is_differentiated_again():
    """The first backward pass overwrites what the forward pass has kept."""
    leaves = [x.requires_grad_() for x in dense(3).values()]
    p = MultivariateNormal(leaves[0], scale_tril=leaves[1])
    for q in (distribution(dense(3)), distribution(diagonal(3))):
        kl = kl_divergence(p, q)
        first = torch.autograd.grad(kl, leaves, retain_graph=True)
        first = [x.clone() for x in first]
        second = torch.autograd.grad(kl, leaves)
        for a, b in zip(first, second, strict=True):
            assert torch.equal(a, b)


def test_products_on_the_torus():
    """Without correlation a SineBivariateVonMises is a product of two VonMises."""
    loc, k = torch.tensor([0.3, -1.0], dtype=F64), torch.tensor([2.0, 5.0], dtype=F64)
    product = Independent(dist.VonMises(loc, k), 1)
    joint = dist.SineBivariateVonMises(*loc, *k, correlation=torch.zeros((), dtype=F64))
    other = Independent(dist.VonMises(loc + 0.5, k.flip(0)), 1)
    assert kl_divergence(product, joint).item() == pytest.approx(0.0, abs=1e-12)
    assert kl_divergence(joint, product).item() == pytest.approx(0.0, abs=1e-12)
    right = kl_divergence(product, other)
    assert torch.allclose(kl_divergence(joint, other), right, rtol=1e-10)
    flat = dist.SineSkewed(product, torch.zeros(2, dtype=F64))
    assert torch.allclose(kl_divergence(flat, other), right, rtol=1e-10)
    assert kl_divergence(product.expand((3,)), joint).shape == (3,)


def test_a_product_that_is_infinitely_far_away():
    """It is not the one at 0 whose place an infinite mean takes in other families."""
    p = Independent(Normal(torch.tensor([math.inf, 0.0]), torch.ones(2)), 1)
    assert not kl_divergence(p, distribution(dense(2))).isfinite()
    assert not kl_divergence(p, distribution(low_rank(2))).isfinite()
