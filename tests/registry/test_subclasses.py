"""Subclasses: those that are the distribution of their parent, and those that are not."""

from __future__ import annotations

import copy
import math
from functools import cache

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints, kl_divergence
from torch.distributions import transforms as t

import pyro_kl
from pyro_kl.registry.provenance import recording
from pyro_kl.registry.register import family_of

from ..conformance.cases import F64, FAMILIES


def derived(distribution, **own):
    """The same object, of a class derived from its own."""
    new = copy.copy(distribution)
    new.__class__ = _class(type(distribution), tuple(own.items()))
    return new


@cache
def _class(parent, own):
    return type(f"My{parent.__name__}", (parent,), dict(own))


def own_log_prob(self, value):
    return super(type(self), self).log_prob(value)


def own_rsample(self, sample_shape=()):
    return super(type(self), self).rsample(sample_shape)


def own_expand(self, batch_shape, _instance=None):
    return super(type(self), self).expand(batch_shape, _instance)


ANOTHER = ({"log_prob": own_log_prob}, {"rsample": own_rsample}, {"support": constraints.real})
THE_SAME = ({"has_rsample": False}, {"expand": own_expand, "note": "a plain attribute"})


def members():
    """p and q of a pair for each class that is registered, against itself if there is such a one.

    torch takes 50 ms to find the formula of a class that it has not seen before.
    """
    chosen = {}
    for pair in pyro_kl.registered():
        if pair.p not in chosen or pair.p is pair.q:
            chosen[pair.p] = pair
    for pair in chosen.values():
        if pair.cases:
            yield pair, *pair.made(pair.cases[0])
        else:
            p, q = FAMILIES[pair.p.__name__], FAMILIES[pair.q.__name__]
            yield pair, p.make(p.examples[0]), q.make(q.examples[0])


def methods(p, q):
    """By what a KL is computed; none where it is not."""
    try:
        with recording() as uses:
            kl_divergence(p, q)
    except NotImplementedError:
        return set()
    return {use.method for use in uses}


def test_another_density_is_not_the_formula_of_its_parent():
    for pair, p, q in members():
        for own in ANOTHER:
            assert methods(derived(p, **own), q) <= {"quadrature", "infinite"}, pair.name
            assert family_of(type(derived(p, **own))) is None
        if pair.p is pair.q:
            other = derived(q, log_prob=own_log_prob)
            assert methods(p, other) <= {"quadrature", "infinite"}, pair.name


def test_the_same_density_keeps_the_formula():
    for pair, p, q in members():
        if pair.method not in ("rule", "quadrature"):
            kl = kl_divergence(p, q)
            for own in THE_SAME:
                new = kl_divergence(derived(p, **own), derived(q, **own))
                assert torch.equal(new, kl), pair.name


FIXED = [
    name
    for name, family in FAMILIES.items()
    if not family.support.discrete
    and family.support.period is None
    and not callable(family.support.low)
    and not callable(family.support.high)
]


@pytest.mark.filterwarnings("ignore:.*tolerance")
@pytest.mark.parametrize("name", FIXED)
def test_another_density_is_integrated(name):
    """A subclass that says it is another member of the family, and is that one for `kl`."""
    family = FAMILIES[name]
    start, said = (family.make(family.examples[i]) for i in (0, -1))
    liar = derived(start)
    liar.__class__ = type("Liar", (type(start),), {"log_prob": lambda _, x: said.log_prob(x)})
    truth = pyro_kl.kl(said, start).value.item()
    found = pyro_kl.kl(liar, start)
    off = abs(found.value.item() - truth)
    assert truth == found.value or off <= 1e-6 * truth or "tolerance" in found.reason, found


class Shifted(dist.Normal):
    """A Normal at loc + 1, whatever its parameters say."""

    def log_prob(self, value):
        return super().log_prob(value - 1.0)

    def rsample(self, sample_shape=()):
        return super().rsample(sample_shape) + 1.0


class ShiftedVector(dist.MultivariateNormal):
    def log_prob(self, value):
        return super().log_prob(value - 1.0)


class Doubled(dist.Independent):
    def log_prob(self, value):
        return 2 * super().log_prob(value)


class DoubledMask(dist.MaskedDistribution):
    def log_prob(self, value):
        return 2 * super().log_prob(value)


NORMAL = dist.Normal(torch.zeros(2, dtype=F64), 1.0)
SHIFTED = Shifted(torch.zeros(2, dtype=F64), 1.0)
DENSE = dist.MultivariateNormal(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
MASK = torch.tensor([True, False])
#: The KL of a Normal shifted by 1 is 1/2.
WRAPPED = {
    "product": (NORMAL.to_event(1), SHIFTED.to_event(1), 1.0),
    "mask": (NORMAL.mask(MASK), SHIFTED.mask(MASK), [0.5, 0.0]),
    "batch": (dist.Normal(torch.zeros(3, 2, dtype=F64), 1.0), SHIFTED, [[0.5, 0.5]] * 3),
    "map": (
        dist.TransformedDistribution(NORMAL, [t.ExpTransform()]),
        dist.TransformedDistribution(SHIFTED, [t.ExpTransform()]),
        [0.5, 0.5],
    ),
}


@pytest.mark.parametrize("which", WRAPPED)
def test_under_wrappers(which):
    p, q, truth = WRAPPED[which]
    assert torch.allclose(kl_divergence(p, q), torch.tensor(truth, dtype=F64), rtol=1e-6)


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (DENSE, SHIFTED.to_event(1)),
        (SHIFTED.to_event(1), DENSE),
        (DENSE, ShiftedVector(DENSE.loc, DENSE.covariance_matrix)),
        (
            dist.TransformedDistribution(
                ShiftedVector(DENSE.loc, DENSE.covariance_matrix), [t.ExpTransform()]
            ),
            dist.LogNormal(NORMAL.loc, NORMAL.scale).to_event(1),
        ),
        (Doubled(NORMAL, 1), NORMAL.to_event(1)),
        (
            dist.TransformedDistribution(
                Doubled(NORMAL, 1), [t.AffineTransform(0.0, 2.0, event_dim=1)]
            ),
            dist.Normal(NORMAL.loc, 2.0).to_event(1),
        ),
        (
            torch.distributions.Independent(Doubled(NORMAL.expand((3, 2)), 1), 1),
            NORMAL.expand((3, 2)).to_event(2),
        ),
        (NORMAL.to_event(1), Doubled(NORMAL, 1)),
        (DoubledMask(NORMAL, True), NORMAL),
    ],
)
def test_what_cannot_be_integrated_is_declined(p, q):
    assert methods(p, q) == set()


@pytest.mark.parametrize("question", [pyro_kl.kl, pyro_kl.bounds])
@pytest.mark.parametrize(
    "p",
    [
        Doubled(NORMAL, 1),
        dist.MixtureSameFamily(
            dist.Categorical(torch.ones(3, dtype=F64)), Doubled(NORMAL.expand((3, 2)), 1)
        ),
    ],
)
def test_no_question_looks_under_another_product(question, p):
    with pytest.raises(NotImplementedError):
        question(p, NORMAL.to_event(1))


class Bent(t.Transform):
    """The map x -> sinh(c x), to be mixed into any class of maps."""

    domain = codomain = constraints.real
    bijective, sign = True, 1
    slope = torch.tensor(1.5, dtype=F64)

    def _call(self, x):
        return torch.sinh(self.slope * x)

    def _inverse(self, y):
        return torch.asinh(y) / self.slope

    def log_abs_det_jacobian(self, x, y):
        return torch.log(self.slope * torch.cosh(self.slope * x))


def bent(parent, *args):
    return type(f"Bent{parent.__name__}", (Bent, parent), {})(*args)


@pytest.mark.parametrize(
    "transform",
    [
        bent(t.AffineTransform, 0.0, 1.0),
        bent(t.PowerTransform, 1.0),
        bent(t.ExpTransform),
        bent(t.SigmoidTransform),
        bent(t.AbsTransform),
        bent(t.IndependentTransform, t.ExpTransform(), 0),
    ],
    ids=lambda transform: type(transform).__mro__[2].__name__,
)
def test_a_map_of_its_own_is_not_its_parents(transform):
    base, prior = dist.Normal(NORMAL.loc[0], 1.0), dist.Normal(NORMAL.loc[0] + 0.3, 2.0)
    plain = dist.TransformedDistribution(base, [Bent()])
    image = dist.TransformedDistribution(base, [transform])
    for p, q, known in ((image, prior, (plain, prior)), (prior, image, (prior, plain))):
        assert pyro_kl.kl(p, q).value.item() == pytest.approx(
            pyro_kl.kl(*known).value.item(), rel=1e-6
        )
    assert kl_divergence(dist.TransformedDistribution(prior, [transform]), image) == (
        pytest.approx(kl_divergence(prior, base).item(), rel=1e-6)
    )


def test_torchs_own_formula():
    class Peaked(dist.Uniform):
        def log_prob(self, value):
            return dist.Beta(2.0, 2.0).log_prob(value)

    q = dist.Normal(0.0, 1.0)
    assert methods(Peaked(0.0, 1.0), q) == set()
    assert pyro_kl.kl(Peaked(0.0, 1.0), q).value.item() == pytest.approx(
        # -H of Beta(2, 2), and E x^2 = 3/10
        (math.log(6) - 5 / 3) + 0.5 * math.log(2 * math.pi) + 0.15, rel=1e-6
    )  # fmt: skip


def test_a_formula_of_its_own_is_used():
    class Mine(dist.Normal):
        def log_prob(self, value):
            return super().log_prob(value)

    @pyro_kl.register(
        Mine,
        Mine,
        reference="the Normal's",
        cases=[pyro_kl.Case({"loc": 0.0, "scale": 1.0}, {"loc": 1.0, "scale": 1.0}, 0.5)],
    )
    def kl_mine(p, q):
        return (p.loc - q.loc) ** 2 / 2

    p, q = Mine(torch.zeros(2), 1.0), Mine(torch.ones(2), 1.0)
    assert methods(p, q) == {"closed form"}
    assert kl_divergence(p.to_event(1), q.to_event(1)) == 1.0
    assert kl_divergence(p.mask(True), q).tolist() == [0.5, 0.5]
