"""Sequences, trees and coalescents against what the classes' own log_prob says."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from numpy.polynomial.legendre import leggauss
from torch.distributions import MultivariateNormal, kl_divergence

import pyro_kl
from pyro_kl.structured.sequences.gamma_gaussian_hmm import _student_t

from ..conformance.reference.multiprecision import coalescent, enumeration, state_space

F64 = torch.float64


def normal(n, *batch):
    root = torch.randn(*batch, n, n, dtype=F64)
    covariance = root @ root.mT + 0.3 * torch.eye(n, dtype=F64)
    return dist.MultivariateNormal(torch.randn(*batch, n, dtype=F64), covariance)


def hmm(n, m, steps, homogeneous=False, cls=dist.GaussianHMM, **kwargs):
    batch = () if homogeneous else (steps,)
    matrix, reads = torch.randn(*batch, n, n, dtype=F64), torch.randn(*batch, n, m, dtype=F64)
    noises = normal(n, *batch), normal(m, *batch)
    cases = (normal(n), 0.5 * matrix, noises[0], reads, noises[1])
    return cls(*cases, duration=steps, **kwargs)


def markov_field(n, m, steps):
    return dist.GaussianMRF(normal(n), normal(2 * n, steps), normal(n + m, steps))


def dense(member):
    """The normal member of the whole sequence, by derivatives of the class's log density."""
    steps, m = member.event_shape
    zero = torch.zeros(steps * m, dtype=F64)

    def log_prob(x):
        return member.log_prob(x.reshape(steps, m))

    precision = -torch.autograd.functional.hessian(log_prob, zero)
    covariance = torch.linalg.inv(0.5 * (precision + precision.mT))
    loc = covariance @ torch.autograd.functional.jacobian(log_prob, zero)
    return MultivariateNormal(loc, 0.5 * (covariance + covariance.mT))


@pytest.mark.parametrize("seed", range(10))
def test_dense_gaussians(seed):
    torch.manual_seed(seed)
    n, k, m, steps = (int(x) for x in torch.randint(1, 5, (4,)))
    updated, _ = hmm(k, m, steps).conjugate_update(normal(m, steps).to_event(1))
    cases = [hmm(n, m, steps), hmm(k, m, steps, homogeneous=True), markov_field(n, m, steps),
            updated]  # fmt: skip
    dense_members = [dense(member) for member in cases]
    for p, dense_p in zip(cases, dense_members, strict=True):
        for q, dense_q in zip(cases, dense_members, strict=True):
            truth = kl_divergence(dense_p, dense_q)
            # the dense matrices are inverses of stored precisions: they are the less exact side
            assert torch.allclose(kl_divergence(p, q), truth, rtol=1e-7, atol=1e-8)


def test_linear_with_long_memory_and_large_means():
    torch.manual_seed(0)
    trend = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=F64)
    start = dist.Normal(torch.zeros(2, dtype=F64), 1.0).to_event(1)
    slow = dist.Normal(torch.zeros(2, dtype=F64), 0.1).to_event(1)
    reads = torch.tensor([[1.0], [0.0]], dtype=F64)

    def member(scale, duration):
        seen = dist.Normal(torch.zeros(1, dtype=F64), scale).to_event(1)
        return dist.GaussianHMM(start, trend, slow, reads, seen, duration=duration)

    assert torch.allclose(
        kl_divergence(member(1.0, 6), member(0.5, 6)),
        kl_divergence(dense(member(1.0, 6)), dense(member(0.5, 6))), rtol=1e-8
    )  # fmt: skip
    long = kl_divergence(member(1.0, 10_000), member(0.5, 10_000))
    assert (long / kl_divergence(member(1.0, 5_000), member(0.5, 5_000)) - 2).abs() < 1e-3


def test_against_a_product_of_other_distributions():
    torch.manual_seed(1)
    p = hmm(2, 2, 3)
    q = dist.Laplace(torch.zeros(3, 2, dtype=F64), 2.0).to_event(2)
    assert abs(pyro_kl.compare(p, q, num_samples=20_000).z_score) < 4


def test_unknown_duration_is_refused():
    eye = torch.eye(1)
    one = dist.Normal(torch.zeros(1), 1.0).to_event(1)
    member = dist.GaussianHMM(one, eye, one, eye, one)
    with pytest.raises(ValueError, match="duration="):
        kl_divergence(member, member)


@pytest.mark.parametrize("seed", range(3))
def test_gamma_gaussian(seed):
    torch.manual_seed(seed)

    def member():
        scale = dist.Gamma(torch.rand((), dtype=F64) + 2, torch.rand((), dtype=F64) + 1)
        return dist.GammaGaussianHMM(
            scale, normal(2), 0.5 * torch.randn(3, 2, 2, dtype=F64), normal(2, 3),
            torch.randn(3, 2, 2, dtype=F64), normal(2, 3),
        )  # fmt: skip

    p, q = member(), member()
    x = _student_t(p).sample((20_000,)).reshape(-1, 3, 2)
    assert torch.allclose(p.log_prob(x), _student_t(p).log_prob(x.flatten(-2)))
    terms = p.log_prob(x) - q.log_prob(x)
    error = terms.std() / len(terms) ** 0.5
    assert abs(terms.mean() - kl_divergence(p, q)) < 4 * error


def test_declared_cases_have_references():
    for pair in pyro_kl.registered():
        names = pair.p.__name__, pair.q.__name__
        for case in pair.cases:
            if set(names) <= {"GaussianHMM", "GaussianMRF", "IndependentHMM", "Independent"}:
                if (
                    "matrix" not in case.p
                    and "transition" not in case.p
                    and "matrix" not in case.q
                ):
                    continue
                truth = state_space.kl(
                    state_space.dense(names[0], case.p), state_space.dense(names[1], case.q)
                )
            elif names[0] in ("SpanningTree", "OneOneMatching", "OneTwoMatching"):
                truth = enumeration.kl(names[0], case.p, case.q)
            else:
                continue
            assert case.value == pytest.approx(float(truth), rel=1e-15)


# --- trees and matchings ------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [1e-5, 0.1, 2.0, 20.0])
@pytest.mark.parametrize(
    ("cls", "name", "shape"),
    [
        (dist.SpanningTree, "edge_logits", (10,)),
        (dist.OneOneMatching, "logits", (4, 4)),
        (dist.OneTwoMatching, "logits", (6, 3)),
    ],
)
def test_enumerated(cls, name, shape, distance):
    torch.manual_seed(0)
    for spread in (1.0, 10.0):
        a = spread * torch.randn(shape, dtype=F64)
        b = a + distance * torch.randn(shape, dtype=F64) + 3.0
        truth = float(enumeration.kl(cls.__name__, {name: a.tolist()}, {name: b.tolist()}))
        kl = kl_divergence(cls(a), cls(b))
        assert kl.item() == pytest.approx(truth, rel=max(1e-10, 1e-12 / distance))


def test_bethe_is_refused():
    with pytest.raises(NotImplementedError, match="bp_iters=None"):
        kl_divergence(*(dist.OneOneMatching(torch.zeros(3, 3), bp_iters=i) for i in (None, 5)))


# --- coalescents --------------------------------------------------------------------------------


def test_coalescent_by_the_density_of_the_class():
    p = dist.CoalescentTimesWithRate(
        torch.tensor([0.0, 0.5, 1.7]).double(), torch.tensor([0.6, 1.4]).double()
    )
    q = dist.CoalescentTimes(torch.tensor([0.2, 0.9, 1.7]).double(), torch.tensor(0.9).double())

    nodes, weights = (torch.as_tensor(x) for x in leggauss(40))
    total = 0.0
    for low, high in ((-40.0, -8.0), (-8.0, 0.0), (0.0, 0.2), (0.2, 0.5)):
        for near, far in ((0.0, 8.0), (8.0, 40.0)):
            last = (low + (high - low) * (nodes + 1) / 2).unsqueeze(-1)
            back = near + (far - near) * (nodes + 1) / 2
            x = torch.stack(torch.broadcast_tensors(last.clamp(max=0.0) - back, last), -1)
            log_p = p.log_prob(x)
            terms = log_p.exp() * (log_p - q.log_prob(x)) * weights * weights.unsqueeze(-1)
            total += float(terms.sum() * (high - low) * (far - near) / 4)
    assert float(kl_divergence(p, q)) == pytest.approx(total, abs=1e-7)


def test_coalescents_that_lack_lineages_are_infinitely_far():
    leaves = torch.tensor([[0.0, 0.5, 2.0], [0.0, 0.7, 2.0]]).double()
    rate = torch.tensor(1.0).double().requires_grad_()
    kl = kl_divergence(
        dist.CoalescentTimes(leaves, rate), dist.CoalescentTimes(leaves[0], 2 * rate)
    )
    assert kl[0].detach().item() == pytest.approx(2 * (1 - math.log(2)))
    assert kl[1].isinf()
    (slope,) = torch.autograd.grad(kl[0], rate)
    assert slope.isfinite()


def test_coalescent_reference():
    a, b = (
        {"rate": 0.7, "leaf_times": [0.0, 0.4, 2.5]},
        {"rate": 1.3, "leaf_times": [0.2, 0.4, 2.5]},
    )
    truth = float(coalescent.kl(a, b))
    p, q = (dist.CoalescentTimes(**{k: torch.tensor(v, dtype=F64) for k, v in s.items()})
            for s in (a, b))  # fmt: skip
    assert float(kl_divergence(p, q)) == pytest.approx(truth, rel=1e-11)
