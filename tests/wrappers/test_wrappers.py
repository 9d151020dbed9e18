"""Points, products and maps: rules that call other formulas; what Pyro's ELBO makes of them."""

from __future__ import annotations

import contextlib
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.infer import TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from torch.distributions import kl_divergence
from torch.distributions import transforms as t

import pyro_kl
from pyro_kl.registry.register import upstream_formula

from ..conformance.cases import newer_compile

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def point(v, log_density=0.0, event_dim=0):
    return dist.Delta(torch.as_tensor(v), torch.as_tensor(log_density), event_dim)


# --- a point ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "q", "value"),
    [
        (point(0.0, 2.0), dist.Normal(0.0, 1.0), 2 + HALF_LOG_TAU),
        (point(0.0, 2.0), point(0.0, 2.0), 0.0),
        (point(0.0, 2.0), point(1.0, 2.0), math.inf),
        (point(0.0), torch.distributions.Normal(0.0, 1.0), HALF_LOG_TAU),
        (point(2.0, -1.0), torch.distributions.Exponential(0.5), -1 + 1 + math.log(2)),
        (point(1.0), torch.distributions.Bernoulli(0.25), math.log(4)),
        (point(-1.0), dist.Gamma(2.0, 1.0), math.inf),
        (point(2.0), dist.Beta(2.0, 1.0), math.inf),
        (point(0.5), dist.Poisson(1.0), math.inf),
        (point(3.0), torch.distributions.Uniform(0.0, 1.0), math.inf),
        (
            point([0.0, 0.0], 3.0, 1),
            dist.Normal(torch.zeros(2), 1.0).to_event(1),
            3 + 2 * HALF_LOG_TAU,
        ),
        (
            point([0.0, 0.0], [3.0, 1.0]).to_event(1),
            dist.Normal(torch.zeros(2), 1.0).to_event(1),
            4 + 2 * HALF_LOG_TAU,
        ),
        (
            point([1.0, 0.0], [1.0, 2.0]).to_event(1),
            dist.MultivariateNormal(torch.zeros(2), torch.eye(2)),
            3.5 + 2 * HALF_LOG_TAU,
        ),
    ],
)  # fmt: skip
def test_point(p, q, value):
    kl = kl_divergence(p, q)
    assert kl.shape == ()
    assert kl.item() == pytest.approx(value, abs=1e-6)


def test_independent_points_against_a_vector():
    q = dist.Dirichlet(torch.ones(3))
    inside, outside = point([0.2, 0.3, 0.5]).to_event(1), point([0.2, 0.3, 0.4]).to_event(1)
    assert kl_divergence(inside, q).item() == pytest.approx(-math.log(2))
    assert kl_divergence(outside, q) == math.inf


def test_independent_points_against_a_multivariate_normal():
    """Pyro's rule dropped the log density: 2.7568 instead of 5.7568."""
    log_density = torch.tensor([1.0, 2.0, 0.0])
    p = dist.Delta(torch.zeros(3), log_density).to_event(1)
    q = dist.MultivariateNormal(torch.zeros(3), torch.eye(3))
    assert kl_divergence(p, q).item() == pytest.approx(3 + 3 * HALF_LOG_TAU, rel=1e-6)
    assert kl_divergence(p, q).item() == pytest.approx(5.7568155996140185, rel=1e-6)


@pytest.mark.parametrize("validate", [True, False])
def test_points_outside_leave_their_neighbours_alone(validate):
    v = torch.tensor([2.0, -1.0], requires_grad=True)
    concentration = torch.tensor(3.0, requires_grad=True)
    q = torch.distributions.Gamma(concentration, torch.tensor(1.0), validate_args=validate)
    kl = kl_divergence(dist.Delta(v), q)
    assert kl.isfinite().tolist() == [True, False]
    assert kl[1] == math.inf
    for loss in (kl[kl.isfinite()].sum(), torch.where(kl.isfinite(), kl, 0.0).sum()):
        by_v, by_c = torch.autograd.grad(loss, (v, concentration), retain_graph=True)
        assert by_v.tolist() == pytest.approx([1 - 2 / 2.0, 0.0])
        assert by_c.item() == pytest.approx(torch.digamma(torch.tensor(3.0)).item() - math.log(2))


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize(
    ("make", "inside", "outside"),
    [
        (lambda v: torch.distributions.OneHotCategorical(torch.ones(3), validate_args=v),
         [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]),
        (lambda v: torch.distributions.Multinomial(2, torch.ones(3), validate_args=v),
         [0.0, 1.0, 1.0], [2.0, 1.0, 0.0]),
        (lambda v: torch.distributions.TransformedDistribution(
            torch.distributions.Exponential(torch.ones(3), validate_args=v),
            torch.distributions.AffineTransform(1.0, 2.0), validate_args=v),
         2.0, 0.5),
        (lambda v: torch.distributions.TransformedDistribution(
            torch.distributions.Independent(
                torch.distributions.Exponential(torch.ones(2), validate_args=v), 1),
            torch.distributions.ExpTransform(), validate_args=v),
         [2.0, 3.0], [2.0, 0.5]),
    ],
)  # fmt: skip
def test_points_outside_of_what_torch_says_too_little_of(make, inside, outside, validate):
    """Vectors of counts, and images of maps that take more than the base has."""
    q = make(validate)
    ndims = len(q.event_shape)
    for v, is_inside in ((inside, True), (outside, False)):
        kl = kl_divergence(point(v, event_dim=ndims), q)
        assert kl.shape == q.batch_shape
        assert torch.equal(kl, torch.broadcast_to(-q.log_prob(torch.tensor(v)), kl.shape)
                           if is_inside else torch.full_like(kl, math.inf))  # fmt: skip


NORMAL = dist.Normal(torch.tensor([0.0, 1.0]), 1.0)


@pytest.mark.parametrize(
    ("p", "q", "value"),
    [
        (NORMAL, point(0.0), [math.inf, math.inf]),
        (NORMAL.mask(torch.tensor([True, False])), point(0.0).mask(
            torch.tensor([True, True])), [math.inf, 0.0]),
        (NORMAL.to_event(1), point([0.0, 0.0]).to_event(1), math.inf),
        (dist.LogNormal(torch.zeros(2), 1.0), point(0.3), [math.inf, math.inf]),
        (dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), point([0.0, 0.0], event_dim=1),
         math.inf),
        (dist.Dirichlet(torch.ones(3)), dist.OneHotCategorical(torch.ones(3)), math.inf),
        (dist.Bernoulli(0.5), dist.TransformedDistribution(dist.Normal(0.0, 1.0), []), math.inf),
        (dist.Bernoulli(0.5),
         dist.TransformedDistribution(
             dist.Normal(0.0, 1.0), torch.distributions.transforms.SigmoidTransform()), math.inf),
        (dist.Gamma(1.0, 1.0), dist.Empirical(torch.tensor([1.0, 2.0]), torch.zeros(2)),
         math.inf),
    ],
)  # fmt: skip
def test_density_against_atoms(p, q, value):
    kl = kl_divergence(p, q)
    assert torch.equal(kl, torch.tensor(value))


def test_point_batches_broadcast():
    p = dist.Delta(torch.zeros(3, 1), torch.tensor([[1.0], [2.0], [3.0]]))
    q = dist.Normal(torch.zeros(4), 1.0)
    kl = kl_divergence(p, q)
    assert kl.shape == (3, 4)
    assert torch.allclose(kl[:, 0], torch.tensor([1.0, 2.0, 3.0]) + HALF_LOG_TAU)


# --- products -----------------------------------------------------------------------------------


def normals(*shape, loc=0.0):
    return dist.Normal(torch.full(shape, loc), 1.0)


@pytest.mark.parametrize(
    ("p", "q", "names"),
    [
        (normals(3).to_event(1), normals(1).to_event(1), [r"\(3,\)", r"\(1,\)"]),
        (normals(3).to_event(1), normals(3), [r"\(3,\)", r"\(\)"]),
        (normals(2, 3).to_event(2), normals(2, 3).to_event(1), [r"\(2, 3\)", r"\(3,\)"]),
        (point([0.0, 0.0, 0.0], 0.0, 1), normals(3), [r"\(3,\)", r"\(\)"]),
        (
            normals(3).to_event(1),
            dist.MultivariateNormal(torch.zeros(2), torch.eye(2)),
            [r"\(3,\)", r"\(2,\)"],
        ),
        (
            dist.MultivariateNormal(torch.zeros(2), torch.eye(2)),
            normals(1).to_event(1),
            [r"\(2,\)", r"\(1,\)"],
        ),
    ],
)
def test_event_shapes_must_agree(p, q, names):
    with pytest.raises((ValueError, NotImplementedError)) as raised:
        kl_divergence(p, q)
    assert raised.type is ValueError
    raised.match(rf"event shapes {names[0]} and {names[1]} differ")


def test_batch_shapes_must_broadcast():
    with pytest.raises(ValueError, match=r"batch shapes \(3,\) and \(2,\) do not broadcast"):
        kl_divergence(normals(3), normals(2))


def test_different_depths():
    """Independent(MVN) and Independent(Normal, 2) declare the same product."""
    mvn = dist.MultivariateNormal(torch.ones(2, 3), torch.eye(3))
    assert kl_divergence(mvn.to_event(1), normals(2, 3).to_event(2)).item() == pytest.approx(3.0)
    assert kl_divergence(normals(2, 3).to_event(2), mvn.to_event(1)).item() == pytest.approx(3.0)


def test_infinite_coordinates_keep_the_batch():
    p = dist.Normal(torch.zeros(4, 3), 1.0).to_event(1)
    q = dist.Gamma(torch.ones(3), 1.0).to_event(1)
    kl = kl_divergence(p, q)
    assert kl.shape == (4,)
    assert kl.isinf().all()


def test_product_broadcasts():
    p = dist.Normal(torch.zeros(4, 1, 3), 1.0).to_event(1)
    q = dist.Normal(torch.ones(2, 3), 1.0).to_event(1)
    kl = kl_divergence(p, q)
    assert kl.shape == (4, 2)
    assert torch.allclose(kl, torch.tensor(1.5))


def test_expanded_base_inside_a_product():
    base = dist.Normal(torch.tensor(1.0), 1.0).expand((3,))
    assert kl_divergence(base.to_event(1), normals(3).to_event(1)).item() == pytest.approx(1.5)


# --- one map ------------------------------------------------------------------------------------


def test_shared_map():
    tanh = t.TanhTransform()
    p = dist.TransformedDistribution(dist.Normal(torch.tensor([1.0, 2.0]), 1.0), tanh)
    q = dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0), tanh)
    assert torch.allclose(kl_divergence(p, q), torch.tensor([0.5, 2.0]))


def test_different_maps():
    """The sigmoid leads into the image of tanh, and not the other way round."""
    p = dist.TransformedDistribution(dist.Normal(0.0, 1.0), t.SigmoidTransform())
    q = dist.TransformedDistribution(dist.Normal(0.0, 1.0), t.TanhTransform())
    z = torch.randn(200_000)
    terms = p.log_prob(z.sigmoid()) - q.log_prob(z.sigmoid())
    gap = terms.mean() - kl_divergence(p, q)
    assert abs(gap) < 4 * terms.std() / 200_000**0.5


def test_maps_that_are_not_one_to_one_stay():
    """Of x^2 and of a softmax the bases' KLs say nothing: torch answered 0.5 and 1500000."""
    softmax, square = t.SoftmaxTransform(), t.PowerTransform(2.0)
    for transform, shape in ((softmax, (3,)), (square, ())):
        p, q = normals(*shape, loc=1.0), normals(*shape)
        p, q = (dist.TransformedDistribution(x.to_event(len(shape)), transform) for x in (p, q))
        with pytest.raises(NotImplementedError, match="No formula for KL"):
            kl_divergence(p, q)
    p, q = (dist.TransformedDistribution(normals(loc=x), t.AbsTransform()) for x in (1.0, -1.0))
    assert kl_divergence(p, q).item() == pytest.approx(0.0, abs=1e-7)


def mapped(base, *transforms):
    return dist.TransformedDistribution(base, list(transforms))


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (mapped(normals(), t.ExpTransform()), dist.LogNormal(0.0, 1.0)),
        (mapped(normals(), t.AffineTransform(1.0, -2.0)), dist.Normal(1.0, 2.0)),
        (mapped(dist.LogNormal(0.0, 1.0), t.AffineTransform(0.0, 2.0)),
         dist.LogNormal(math.log(2), 1.0)),
        (mapped(dist.LogNormal(0.0, 1.0), t.ExpTransform().inv), normals()),
        (mapped(dist.LogNormal(0.5, 1.0), t.PowerTransform(2.0)), dist.LogNormal(1.0, 2.0)),
        (mapped(dist.Exponential(2.0), t.PowerTransform(0.5)), dist.Weibull(2**-0.5, 2.0)),
        (mapped(dist.Exponential(2.0), t.ExpTransform()), dist.Pareto(1.0, 2.0)),
        (mapped(dist.Gamma(2.0, 3.0), t.PowerTransform(-1.0)), dist.InverseGamma(2.0, 3.0)),
        (mapped(dist.Gamma(2.0, 3.0), t.AffineTransform(0.0, 3.0)), dist.Gamma(2.0, 1.0)),
        (mapped(dist.Logistic(0.5, 2.0), t.SigmoidTransform()),
         dist.RelaxedBernoulli(torch.tensor(0.5), logits=torch.tensor(0.25))),
        (mapped(dist.Uniform(0.0, 1.0), t.SigmoidTransform().inv, t.AffineTransform(1.0, 2.0)),
         dist.Logistic(1.0, 2.0)),
        (mapped(dist.Uniform(0.0, 1.0), t.AffineTransform(1.0, -2.0)), dist.Uniform(-1.0, 1.0)),
        (mapped(dist.Chi2(4.0), t.AffineTransform(0.0, 0.5)), dist.Gamma(2.0, 1.0)),
        (mapped(normals(2).to_event(1), dist.transforms.LowerCholeskyAffine(
            torch.ones(2), torch.eye(2))), dist.MultivariateNormal(torch.ones(2), torch.eye(2))),
        (dist.FoldedDistribution(dist.Normal(0.0, 2.0)), dist.HalfNormal(2.0)),
        (dist.FoldedDistribution(dist.Cauchy(0.0, 2.0)), dist.HalfCauchy(2.0)),
        (dist.FoldedDistribution(dist.Laplace(0.0, 2.0)), dist.Exponential(0.5)),
        (dist.FoldedDistribution(dist.Gamma(2.0, 1.0)), dist.Gamma(2.0, 1.0)),
    ],
)  # fmt: skip
def test_two_names_of_one_law(p, q):
    """Both are the same distribution, said by its density too."""
    x = q.sample((7,)) if q.has_rsample else torch.tensor([0.5])
    if not isinstance(p.base_dist, dist.Gamma):
        assert torch.allclose(p.log_prob(x), q.log_prob(x), rtol=1e-4, atol=1e-4)
    assert kl_divergence(p, q).item() == pytest.approx(0.0, abs=1e-6)
    assert kl_divergence(q, p).item() == pytest.approx(0.0, abs=1e-6)


def test_maps_keep_the_gradient():
    """A shift of 0 that is learned is no identity."""
    loc, scale = torch.tensor(0.0, requires_grad=True), torch.tensor(1.0, requires_grad=True)
    p = mapped(normals(), t.AffineTransform(loc, scale))
    kl_divergence(p, dist.Normal(1.0, 2.0)).backward()
    assert loc.grad.item() == pytest.approx(-0.25)
    assert scale.grad.item() == pytest.approx(0.25 - 1.0)


# --- the table of wrappers ----------------------------------------------------------------------

MASK = torch.tensor([True, False, True])
OTHER = torch.tensor([True, True, False])
ONE, ZERO = normals(3, loc=1.0), normals(3)
POINT_ONE, POINT_ZERO = normals(loc=1.0), normals()


def mvn(loc):
    return dist.MultivariateNormal(torch.full((3,), loc), torch.eye(3))


def expanded(distribution):
    return ExpandedDistribution(distribution, (3,))


@pytest.mark.parametrize(
    ("p", "q", "value"),
    [
        (ONE.mask(False), ZERO.mask(False), [0.0, 0.0, 0.0]),
        (ONE.mask(False), ZERO.mask(MASK), [0.0, 0.0, 0.0]),
        (ONE.mask(MASK), ZERO.mask(MASK), [0.5, 0.0, 0.5]),
        (ONE.mask(True), ZERO, [0.5, 0.5, 0.5]),
        (ONE.mask(MASK).mask(OTHER), ZERO.mask(MASK), [0.5, 0.0, 0.0]),
        (ONE.mask(MASK), ZERO.mask(OTHER), [0.5, 0.0, 0.0]),
        (ONE.mask(MASK).to_event(1), ZERO.mask(MASK).to_event(1), 1.0),
        (ONE.mask(True).to_event(1), mvn(0.0), 1.5),
        (ONE.to_event(1).mask(False), mvn(0.0).mask(False), 0.0),
        (torch.distributions.Independent(ONE, 0), ZERO, [0.5, 0.5, 0.5]),
        (ONE, torch.distributions.Independent(ZERO, 0), [0.5, 0.5, 0.5]),
        (expanded(POINT_ONE), expanded(POINT_ZERO), [0.5, 0.5, 0.5]),
        (expanded(POINT_ONE), POINT_ZERO, [0.5, 0.5, 0.5]),
        (POINT_ONE, expanded(POINT_ZERO), [0.5, 0.5, 0.5]),
        (expanded(POINT_ONE).to_event(1), ZERO.to_event(1), 1.5),
        (expanded(POINT_ONE).mask(MASK), expanded(POINT_ZERO).mask(MASK), [0.5, 0.0, 0.5]),
        (dist.Unit(torch.tensor(1.0)), dist.Unit(torch.tensor(1.0)), 0.0),
        (dist.MaskedMixture(MASK, ONE, ZERO), dist.MaskedMixture(MASK, ZERO, ONE), [0.5] * 3),
        (dist.MaskedMixture(MASK, ONE, ZERO), dist.MaskedMixture(OTHER, ONE, ZERO),
         [0.0, 0.5, 0.5]),
        (dist.MaskedMixture(MASK, ONE, ZERO), ZERO, [0.0, 0.5, 0.0]),
        (ZERO, dist.MaskedMixture(MASK, ONE, ZERO), [0.0, 0.5, 0.0]),
        (mapped(POINT_ONE, t.AffineTransform(1.0, 2.0)),
         mapped(POINT_ZERO, t.ComposeTransform([t.AffineTransform(1.0, 2.0)])), 0.5),
        (mapped(POINT_ONE), POINT_ZERO, 0.5),
        (point([0.2, 0.3, 0.5]).to_event(1), dist.Dirichlet(torch.ones(3)), -math.log(2)),
        (point([0.0, 0.0, 0.0], 1.0), ZERO.mask(MASK),
         [1 + HALF_LOG_TAU, 0.0, 1 + HALF_LOG_TAU]),
    ],
)  # fmt: skip
def test_table(p, q, value):
    kl, value = kl_divergence(p, q), torch.as_tensor(value)
    assert kl.shape == value.shape
    assert torch.allclose(kl, value)


def test_masked_elements_do_not_reach_the_gradient():
    loc = torch.tensor([1.0, math.nan], requires_grad=True)
    p = dist.Normal(loc, 1.0, validate_args=False).mask(torch.tensor([True, False]))
    kl = kl_divergence(p, normals(2).mask(torch.tensor([True, False])))
    assert kl.tolist() == [0.5, 0.0]
    assert torch.autograd.grad(kl[0], loc)[0][0] == 1.0


@pytest.mark.parametrize(
    "base",
    [
        dist.Normal,
        dist.MultivariateNormal,
        dist.TransformedDistribution,
        dist.TorchDistribution,
    ],
)
def test_later_registrations_are_not_ambiguous(base):
    """What GPyTorch does: a class of its own, registered against itself and behind a Delta."""
    from torch.distributions import kl as torch_kl

    mine = type("Mine", (base,), {})
    others = [
        cls
        for cls in vars(dist).values()
        if isinstance(cls, type) and issubclass(cls, torch.distributions.Distribution)
    ]
    before = dict(torch_kl._KL_REGISTRY)
    try:
        anything = torch.distributions.Distribution
        pairs = [(mine, mine), (dist.Delta, mine)]
        if base is dist.TorchDistribution:  # no pair of anybody else's knows it
            pairs += [(mine, anything), (anything, mine)]
            # who answers for anything has to say who comes first where another does, too
            alone = [pair for pair in before if anything in pair and pair[0] is not pair[1]]
            pairs += [(p, mine) for p, q in alone if q is anything]
            pairs += [(mine, q) for p, q in alone if p is anything]
        for pair in pairs:
            torch_kl.register_kl(*pair)(lambda p, q: torch.tensor(7.0))
        for other in others:
            torch_kl._dispatch_kl(mine, other)  # warnings are errors
            torch_kl._dispatch_kl(other, mine)
    finally:
        torch_kl._KL_REGISTRY.clear()
        torch_kl._KL_REGISTRY.update(before)
        torch_kl._KL_MEMOIZE.clear()


def summed(p, q, atoms):
    k = torch.arange(float(atoms))
    log_p, log_q = p.log_prob(k), q.log_prob(k)
    return (log_p.exp() * (log_p - log_q))[log_p > -60].sum().item()


INFLATED = dist.ZeroInflatedDistribution


@pytest.mark.parametrize(
    ("p", "q", "atoms"),
    [
        (INFLATED(dist.Geometric(0.4), gate=torch.tensor(0.3)),
         INFLATED(dist.Poisson(2.0), gate=torch.tensor(0.1)), 60),
        (INFLATED(dist.Poisson(3.0), gate_logits=torch.tensor(0.3)),
         INFLATED(dist.Geometric(0.2), gate=torch.tensor(0.1)), 60),
        (INFLATED(dist.Poisson(3.0), gate=torch.tensor(0.3)), dist.Poisson(2.0), 60),
        (dist.Poisson(3.0), INFLATED(dist.Poisson(2.0), gate=torch.tensor(0.1)), 60),
        (INFLATED(dist.Binomial(5, torch.tensor(0.4)), gate=torch.tensor(0.3)),
         INFLATED(dist.Poisson(2.0), gate=torch.tensor(0.1)), 6),
    ],
)  # fmt: skip
def test_zero_inflation_over_any_count(p, q, atoms):
    assert kl_divergence(p, q).item() == pytest.approx(summed(p, q, atoms), rel=1e-4)


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (ONE.mask(MASK), ZERO),
        (ONE, ZERO.mask(MASK)),
        (ONE.mask(False), dist.ImproperUniform(t.constraints.real, (3,), ())),
        (ONE.mask(MASK).to_event(1), ZERO.to_event(1)),
        (ONE.to_event(1), ZERO.mask(False).to_event(1)),
        (ONE.to_event(1).mask(False), mvn(0.0)),
    ],
)
def test_a_mask_on_one_side_is_left_to_pyro(p, q):
    with pytest.raises(NotImplementedError):
        kl_divergence(p, q)


@pytest.mark.parametrize("inside", [True, False])
def test_a_mask_of_the_prior_alone_leaves_mean_field_elbo_as_it_was(inside):
    """E log q over all elements - E log p over those that count: -1.5 - log p of two of three."""

    def model():
        distribution = ZERO.mask(MASK).to_event(1) if inside else ZERO.mask(MASK)
        with pyro.plate("rows", 3) if not inside else contextlib.nullcontext():
            pyro.sample("z", distribution)

    def guide():
        with pyro.plate("rows", 3) if not inside else contextlib.nullcontext():
            pyro.sample("z", ONE.to_event(1) if inside else ONE)

    elbo = TraceMeanField_ELBO(num_particles=20_000, vectorize_particles=True, max_plate_nesting=1)
    entropy = 3 * (0.5 + HALF_LOG_TAU)
    cross = 2 * (1.0 + HALF_LOG_TAU)
    assert elbo.loss(model, guide) == pytest.approx(cross - entropy, abs=0.1)


def test_one_object_against_itself():
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), normals(2))
    assert kl_divergence(mixture, mixture) == 0.0


def test_samples_of_masked_distributions():
    """An element counts if both sides let it, in the estimate as in the exact KL."""
    comparison = pyro_kl.compare(ONE.mask(MASK), ZERO.mask(MASK))
    assert comparison.exact.value.tolist() == [0.5, 0.0, 0.5]
    assert comparison.sampled.value[1] == 0.0
    assert (comparison.z_score.abs() < 4).all()


def masked_kl(loc):
    p = dist.Normal(loc, 1.0, validate_args=False).mask(MASK).to_event(1)
    q = dist.Normal(torch.zeros(3), 1.0, validate_args=False).mask(MASK).to_event(1)
    return kl_divergence(p, q)


def mapped_kl(loc):
    p = mapped(dist.Normal(loc, 1.0, validate_args=False), t.AffineTransform(1.0, 2.0))
    q = dist.Normal(torch.zeros(3), 1.0, validate_args=False)
    return kl_divergence(p, mapped(q, t.AffineTransform(1.0, 2.0), t.ExpTransform(),
                                   t.ExpTransform().inv)).sum()  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # Pyro's constructors
@newer_compile
@pytest.mark.parametrize("function", [masked_kl, mapped_kl])
def test_transformations(function):
    loc = torch.randn(5, 3)
    each = torch.stack([function(x) for x in loc])
    assert torch.allclose(torch.func.vmap(function)(loc), each)
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(loc[0]), each[0])
    traced = torch.jit.trace(function, (loc[0],), check_trace=False)
    assert torch.allclose(traced(loc[1]), each[1])


# --- in Pyro's ELBO -----------------------------------------------------------------------------


def model():
    pyro.sample("x", dist.LogNormal(0.0, 1.0))


def gradient_at_the_prior(draws=2000):
    """d ELBO / d loc of AutoNormal set to the prior itself: mean and standard error."""
    guide = AutoNormal(model, init_scale=1.0, init_loc_fn=lambda site: torch.tensor(1.0))
    guide()
    loc = guide.locs.x_unconstrained if hasattr(guide.locs, "x_unconstrained") else guide.locs.x
    elbo = TraceMeanField_ELBO()
    gradients = []
    for _ in range(draws):
        loc.grad = None
        elbo.differentiable_loss(model, guide).backward()
        gradients.append(loc.grad.item())
    gradients = torch.tensor(gradients, dtype=torch.float64)
    return gradients.mean().item(), gradients.std().item() / math.sqrt(draws)


def test_guide_at_the_prior_has_no_gradient():
    mean, error = gradient_at_the_prior(400)
    assert error < 0.2
    assert abs(mean) < 4.5 * max(error, 1e-6)


def test_without_the_jacobian_it_had(monkeypatch):
    """What Pyro's own rule for a Delta gives: a gradient of 1, and a wrong posterior."""
    from torch.distributions import kl as torch_kl

    key = next(
        k for k in torch_kl._KL_REGISTRY if k[0] is dist.Delta and "pyro" in k[1].__module__
    )
    monkeypatch.setitem(torch_kl._KL_REGISTRY, key, upstream_formula(*key))
    torch_kl._KL_MEMOIZE.clear()
    try:
        mean, error = gradient_at_the_prior(400)
    finally:
        monkeypatch.undo()
        torch_kl._KL_MEMOIZE.clear()
    assert abs(abs(mean) - 1.0) < 4.5 * error
    assert abs(mean) > 10 * error
