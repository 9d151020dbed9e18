"""`kl` and `compare`: one number, how it was made, and the habit of checking it."""

from __future__ import annotations

import math
import warnings

import pyro.distributions
import pytest
import torch
from torch.distributions import (
    Categorical,
    Gamma,
    Gumbel,
    HalfCauchy,
    Independent,
    LogNormal,
    MixtureSameFamily,
    Normal,
    Pareto,
    Uniform,
    kl_divergence,
)

import pyro_kl
from pyro_kl import Comparison, Estimate
from pyro_kl.numerics.quadrature.integrate import requested_tolerance
from pyro_kl.registry.family import end_at
from pyro_kl.registry.register import families
from pyro_kl.wrappers.circle import support_of
from pyro_kl.wrappers.transformed.supports import bounds

pytestmark = pytest.mark.usefixtures("nothing_warned")


def mixture(*shape):
    """A distribution in the plane that has no formula as p."""
    centres = torch.tensor([[-1.0, 0.0], [1.5, 0.5]]).expand(*shape, 2, 2)
    return MixtureSameFamily(
        Categorical(torch.ones(*shape, 2)), Independent(Normal(centres, 1.0), 1)
    )


def plane(*shape):
    """A distribution to compare it with."""
    return Independent(Normal(torch.zeros(*shape, 2), 1.0), 1)


ODD, PLANE, NORMAL = mixture(), plane(), Normal(0.0, 1.0)


def test_exact():
    loc = torch.tensor([1.0, 2.0], requires_grad=True)
    estimate = pyro_kl.kl(Normal(loc, 1.0), NORMAL)
    assert estimate.exact
    assert estimate.method == "closed form"
    assert "pyro_kl.families.normal" in estimate.reason
    assert estimate.value.tolist() == [0.5, 2.0]
    assert estimate.standard_error.tolist() == [0.0, 0.0]
    (gradient,) = torch.autograd.grad(estimate.value.sum(), loc)
    assert gradient.tolist() == [1.0, 2.0]


def test_infinite():
    estimate = pyro_kl.kl(NORMAL, Gamma(1.0, 1.0))
    assert estimate.value == math.inf
    assert estimate.method == "infinite"
    assert "inf nats" in str(estimate)


def test_upstream_formula_is_named():
    p, q = Uniform(0.2, 0.4), Uniform(0.0, 1.0)
    estimate = pyro_kl.kl(p, q)
    assert estimate.value == kl_divergence(p, q)
    assert estimate.exact
    assert estimate.reason


def test_missing_formula_names_both_and_the_next_step():
    with pytest.raises(NotImplementedError) as raised:
        pyro_kl.kl(ODD, PLANE)
    message = str(raised.value)
    assert "KL(MixtureSameFamily || Independent(Normal))" in message
    for step in ("pyro_kl.monte_carlo", "num_samples=", "@pyro_kl.register", "registered()"):
        assert step in message


def test_missing_formula_inside_a_wrapper():
    p = Independent(mixture(2), 1)
    q = Independent(plane(2), 1)
    with pytest.raises(NotImplementedError, match=r"MixtureSameFamily.* \|\| .*Normal"):
        pyro_kl.kl(p, q)


def test_samples_stand_in_only_if_allowed_and_say_so_once():
    with pytest.warns(
        UserWarning, match=r"KL\(MixtureSameFamily \|\| .*\) is estimated by Monte"
    ) as w:
        first = pyro_kl.kl(ODD, PLANE, num_samples=4000)
    assert len(w) == 1
    assert w[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = pyro_kl.kl(ODD, PLANE, num_samples=4000)
    for estimate in (first, second):
        assert not estimate.exact
        assert estimate.num_samples == 4000
        assert "4,000 samples of p's components" in estimate.reason
        assert estimate.standard_error > 0
    gap = (first.value - second.value) / torch.hypot(first.standard_error, second.standard_error)
    assert abs(gap) < 4.5


@pytest.mark.filterwarnings("ignore:KL.MixtureSameFamily")
def test_generator_of_the_stand_in():
    runs = [
        pyro_kl.kl(ODD, PLANE, 100, generator=torch.Generator().manual_seed(2)) for _ in range(2)
    ]
    assert torch.equal(runs[0].value, runs[1].value)


def test_samples_are_not_drawn_where_there_is_a_formula():
    state = torch.get_rng_state()
    assert pyro_kl.kl(NORMAL, NORMAL, num_samples=100).exact
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        (NORMAL, Independent(Normal(torch.zeros(2), 1.0), 1), r"event shapes \(\) and \(2,\)"),
        (Normal(torch.zeros(3), 1.0), Normal(torch.zeros(2), 1.0), "do not broadcast"),
    ],
)
def test_shapes(p, q, message):
    with pytest.raises(ValueError, match=message):
        pyro_kl.kl(p, q)


# --- compare ------------------------------------------------------------------------------------


EMPTY = MixtureSameFamily(
    Categorical(logits=torch.zeros(0)), Normal(torch.zeros(0), 1.0), validate_args=False
)
ASKS = [pyro_kl.kl, pyro_kl.bounds, pyro_kl.monte_carlo, pyro_kl.compare]


@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.__name__)
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (3.0, TypeError, "between two distributions, not float"),
        (None, TypeError, "not NoneType"),
        (Normal, TypeError, "not the class Normal"),
        (EMPTY, ValueError, "MixtureSameFamily without components"),
    ],
    ids=["number", "None", "class", "empty mixture"],
)
def test_what_is_no_distribution(ask, wrong, error, message):
    for pair in ((NORMAL, wrong), (wrong, NORMAL)):
        with pytest.raises(error, match=message):
            ask(*pair)


@pytest.mark.parametrize("tolerance", [0, -1, 0.0, math.nan, True, "1e-6", None])
def test_a_tolerance_is_a_positive_number(tolerance):
    with pytest.raises(ValueError, match="tolerance must be a positive number"):
        pyro_kl.kl(NORMAL, NORMAL, tolerance=tolerance)
    assert requested_tolerance() == 1e-6


@pytest.mark.parametrize("ask", [pyro_kl.kl, pyro_kl.monte_carlo, pyro_kl.compare])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_samples": 1}, ValueError, "num_samples must be at least 2"),
        ({"num_samples": -5}, ValueError, "num_samples must be at least 2"),
        ({"num_samples": 1e4}, TypeError, "num_samples must be an integer, not 10000.0"),
        ({"num_samples": True}, TypeError, "num_samples must be an integer, not True"),
        ({"num_samples": "100"}, TypeError, "num_samples must be an integer, not '100'"),
        ({"generator": 3}, TypeError, "generator must be a torch.Generator, not int"),
    ],
)
def test_samples_are_counted_in_integers(ask, options, error, message):
    for pair in ((NORMAL, NORMAL), (ODD, PLANE)):
        with pytest.raises(error, match=message):
            ask(*pair, **options)


LINE = MixtureSameFamily(
    Categorical(torch.tensor([0.3, 0.7])), Normal(torch.tensor([-1.0, 1.0]), 0.5)
)


class Undeclared(Normal):
    """A class of which only its own `log_prob` is known."""

    def log_prob(self, value):
        return super().log_prob(value)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)])
def test_a_batch_of_no_rows(shape):
    empty = Normal(torch.zeros(shape), 1.0)
    mixtures = MixtureSameFamily(
        Categorical(torch.ones(*shape, 2)), Normal(torch.zeros(*shape, 2), 1.0)
    )
    pairs = [(empty, NORMAL), (NORMAL, empty), (mixtures, NORMAL), (empty, LINE)]
    pairs += [(LogNormal(torch.zeros(shape), 1.0), HalfCauchy(1.0)), (LINE, mixtures)]
    for ask in ASKS:
        for p, q in pairs:
            found = ask(p, q)
            value = found.lower if ask is pyro_kl.bounds else found.value
            assert value.shape == shape
            assert value.dtype == torch.float32
            assert str(found)
    odd = mixture(*shape)
    with pytest.warns(UserWarning, match="Monte Carlo"):
        assert pyro_kl.kl(odd, PLANE, 100).value.shape == shape
    with pytest.raises(NotImplementedError):
        pyro_kl.kl(odd, PLANE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_an_integral_keeps_the_dtype_and_the_weights_their_sum(dtype):
    """Weights in half precision do not sum to 1: no part of a KL."""
    weights, locs = torch.tensor([1.0, 1.0], dtype=dtype), torch.tensor([-1.0, 2.0], dtype=dtype)
    scale = torch.ones((), dtype=dtype)
    p, again = (MixtureSameFamily(Categorical(weights), Normal(locs, scale)) for _ in range(2))
    found = pyro_kl.kl(p, again)
    assert (found.value.dtype, found.error.dtype) == (dtype, dtype)
    assert abs(float(found)) < 1e-14
    one = pyro_kl.kl(p, Normal(locs[1], scale))
    exact = pyro_kl.kl(
        MixtureSameFamily(Categorical(weights.double()), Normal(locs.double(), scale.double())),
        Normal(locs[1].double(), scale.double()),
    )
    assert one.value.item() == pytest.approx(exact.value.item(), rel=torch.finfo(dtype).eps)
    own = pyro_kl.kl(Undeclared(locs[0].float(), 1.0), Undeclared(0.0, 1.0))
    assert own.value.dtype == torch.float32


def test_a_mixture_with_nan_is_nan_in_its_row():
    two, one = torch.ones(2, 2), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    bad = one.index_put((torch.tensor(1), torch.tensor(1)), torch.tensor(math.nan))
    off = {"validate_args": False}

    def distribution(weights, locs):
        return MixtureSameFamily(Categorical(weights, **off), Normal(locs, 1.0, **off), **off)

    shifted = Normal(torch.tensor([0.0, math.nan]), 1.0, **off)
    good = distribution(two, one)
    for p, q in (
        (distribution(two + 0 * bad, one), NORMAL),
        (distribution(two, bad), NORMAL),
        (good, shifted),
    ):
        found = pyro_kl.kl(p, q).value
        assert found[0] == pytest.approx(pyro_kl.kl(good, NORMAL)[0].item(), rel=1e-6)
        assert found[1].isnan()


@pytest.mark.parametrize(
    "family",
    [family for family in families() if not family.support.discrete],
    ids=lambda family: family.name,
)
def test_a_support_is_that_of_the_class(family):
    """Also of a class that torch writes as a map, whose base may end where floats do."""
    for example in family.examples:
        distribution = family.make(example)
        mine = (
            torch.as_tensor(end_at(end, family.of(distribution)))
            for end in (family.support.low, family.support.high)
        )
        stated = (torch.as_tensor(end) for end in bounds(support_of(distribution)))
        for a, b in zip(mine, stated, strict=True):
            assert a.double().item() == pytest.approx(b.double().item(), abs=1e-12)


def test_an_undeclared_distribution_against_a_mapped_class():
    p, q = Normal(0.0, 1.0), Gumbel(0.0, 1.0)
    exact = float(pyro_kl.kl(p, q))
    assert float(pyro_kl.kl(Undeclared(0.0, 1.0), q)) == pytest.approx(exact, rel=1e-6)


class Far(Pareto):
    """A distribution whose tail is hardly lighter than a Gamma's log density grows."""

    def log_prob(self, value):
        return super().log_prob(value)


@pytest.mark.filterwarnings("ignore:KL.Far:UserWarning")
@pytest.mark.parametrize("alpha", [1.2, 1.3, 1.5, 2.0])
def test_what_is_cut_off_is_told(alpha):
    p, q = (torch.tensor(x, dtype=torch.float64) for x in ((0.5, alpha), (1.5, 0.5)))
    right = float(pyro_kl.kl(Pareto(*p), Gamma(*q)))
    found = pyro_kl.kl(Far(*p), Gamma(*q))
    assert found.method == "quadrature"
    assert abs(float(found) - right) <= found.error.item() + 1e-12
    assert found.error <= 1e-5


def test_one_object_is_named_as_such():
    assert pyro_kl.kl(ODD, ODD).reason == "p and q are one object"


def test_mixtures_on_the_line_have_one_story():
    """What `kl` integrates, the message of torch's function and `bounds` say that it does."""
    line = LINE
    value = pyro_kl.kl(line, NORMAL)
    assert value.method == "quadrature"
    with pytest.raises(NotImplementedError, match=r"pyro_kl\.kl\(p, q\) integrates"):
        kl_divergence(line, NORMAL)
    between = pyro_kl.bounds(line, NORMAL)
    assert "which pyro_kl.kl(p, q) integrates" in between.reason
    assert between.lower <= value.value <= between.upper
    assert "integrates" not in pyro_kl.bounds(ODD, PLANE).reason


def test_bounds_of_an_exact_pair_are_its_value():
    exact = pyro_kl.bounds(ODD, ODD)
    assert (exact.lower, exact.upper, exact.method) == (0, 0, "exact")
    p, q = LogNormal(0.0, torch.tensor(1.0).double()), HalfCauchy(1.0)
    integral, found = pyro_kl.bounds(p, q), pyro_kl.kl(p, q)
    assert integral.method == "quadrature"
    for gap in (integral.upper - found.value, found.value - integral.lower):
        assert gap.item() == pytest.approx(found.error.item(), rel=1e-2, abs=1e-16)


def test_compare():
    comparison = pyro_kl.compare(Gamma(2.0, 1.0), LogNormal(0.0, 1.0), num_samples=5000)
    assert comparison.exact.exact
    assert comparison.sampled.num_samples == 5000
    gap = comparison.estimate - comparison.value
    assert comparison.z_score.item() == pytest.approx((gap / comparison.standard_error).item())
    assert abs(comparison.z_score) < 4.5
    lines = str(comparison).splitlines()
    assert lines[0] == "KL(Gamma || LogNormal)"
    starts = {line.split()[0]: line for line in lines[1:] if line[2] != " "}
    assert list(starts) == ["exact", "sampled", "z"]
    assert "closed form" in starts["exact"]
    assert "monte carlo (k1): 5,000 samples" in starts["sampled"]
    assert repr(comparison) == str(comparison)


def test_compare_notices_a_wrong_formula():
    right = pyro_kl.compare(Normal(1.0, 1.0), NORMAL, num_samples=5000)
    wrong = Comparison(
        right.name, Estimate(right.value + 0.1, right.value * 0, "wrong"), right.sampled
    )
    assert abs(right.z_score) < 4.5 < abs(wrong.z_score)


def test_compare_of_batches_prints_the_worst():
    comparison = pyro_kl.compare(Normal(torch.ones(5, 2), 1.0), NORMAL, num_samples=500)
    assert comparison.z_score.shape == (5, 2)
    worst = comparison.z_score.abs().max().item()
    assert f"max |z| = {worst:.2f} over the batch" in str(comparison)
    assert "(5, 2)" in str(comparison)


@pytest.mark.parametrize(
    ("p", "q"),
    [(NORMAL, NORMAL), (Uniform(0.0, 1.0), Uniform(0.0, 3.0))],
    ids=["equal", "constant ratio"],
)
def test_z_score_without_spread(p, q):
    """No sample differs from another: the two numbers agree or they do not, z is never nan."""
    comparison = pyro_kl.compare(p, q, num_samples=100)
    assert abs(comparison.z_score) < 4.5
    assert "nan" not in str(comparison)


def test_two_infinities_have_no_z_score():
    comparison = pyro_kl.compare(NORMAL, Gamma(1.0, 1.0), num_samples=100)
    assert comparison.z_score.isnan()
    assert str(comparison).splitlines()[-1].split() == ["z", "-"]
    batch = pyro_kl.compare(Uniform(0.0, torch.tensor([1.0, 3.0])), Uniform(0.0, 2.0), 100)
    assert batch.z_score.isnan().tolist() == [False, True]
    worst = batch.z_score[0].abs().item()
    assert f"max |z| = {worst:.2f} over the batch" in str(batch)


def test_z_score_of_finite_against_infinite():
    finite = Estimate(torch.tensor(1.0), torch.tensor(0.1), "one", 10)
    infinite = Estimate(torch.tensor(math.inf), torch.tensor(0.0), "other")
    assert Comparison("p || q", infinite, finite).z_score == -math.inf


def test_compare_has_nothing_to_compare_without_a_formula():
    with pytest.raises(NotImplementedError, match="MixtureSameFamily"):
        pyro_kl.compare(ODD, PLANE)


def test_integer_parameters_give_nats_of_the_default_dtype():
    p, q = (torch.distributions.Exponential(torch.tensor(rate)) for rate in (2, 3))
    value = torch.distributions.kl_divergence(p, q)
    assert value.dtype == torch.get_default_dtype()
    assert value.item() == pytest.approx(0.5 - math.log(1.5), rel=1e-6)


def test_a_class_whose_parameters_are_not_known_has_no_kl_to_a_mixture():
    p = pyro.distributions.GroupedNormalNormal(
        torch.zeros(1), torch.ones(1), torch.ones(2), torch.tensor([0, 0])
    )
    mixture = MixtureSameFamily(Categorical(torch.ones(2)), Normal(torch.zeros(2), 1.0))
    with pytest.raises(NotImplementedError, match="GroupedNormalNormal"):
        pyro_kl.kl(p, mixture)
