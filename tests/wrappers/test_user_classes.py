"""Maps and distributions that can only be called: their gradients, their state, their exceptions.

Networks, splines, batch normalisation, a user's own: on p's side, on q's and on both, through
`kl_divergence` and through Pyro's ELBOs, which must train them as they did.
"""

from __future__ import annotations

import math
from contextlib import contextmanager

import pyro
import pyro.distributions
import pyro.distributions as dist
import pyro.infer.trace_mean_field_elbo
import pytest
import torch
from pyro.distributions import transforms as flows
from pyro.distributions.torch_transform import TransformModule
from pyro.infer import JitTrace_ELBO, JitTraceMeanField_ELBO, Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import (
    Cauchy,
    HalfCauchy,
    Normal,
    SigmoidTransform,
    TransformedDistribution,
    Uniform,
    constraints,
    kl_divergence,
)
from torch.distributions import transforms as t

import pyro_kl
from pyro_kl.registry.tensors import is_foreign, own_copy
from pyro_kl.registry.user_classes import called, check_pointwise

from ..conformance.cases import F64
from ..conformance.hard_integrals import LogProbOnly

# --- maps with their parameters -----------------------------------------------------------------


class Scaled(t.Transform):
    """X to w + exp(w) x, with w wherever it is kept."""

    domain = codomain = constraints.real
    bijective, sign = True, 1

    def __init__(self, kept, get, cache_size=0):
        super().__init__(cache_size)
        self.kept, self.get = kept, get

    def _call(self, x):
        return self.get(self.kept) + self.get(self.kept).exp() * x

    def _inverse(self, y):
        return (y - self.get(self.kept)) / self.get(self.kept).exp()

    def log_abs_det_jacobian(self, x, y):
        return self.get(self.kept) + 0 * x


class Holder(torch.nn.Module):
    def __init__(self, w):
        super().__init__()
        self.w = w


class Network(TransformModule):
    """X plus steps of tanh: a monotone network; with dropout it is no function."""

    domain = codomain = constraints.real
    bijective = True

    def __init__(self, dropout=0.0):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor([0.1, 0.4], dtype=F64))
        self.bias = torch.nn.Parameter(torch.tensor([-0.5, 0.5], dtype=F64))
        self.dropout = torch.nn.Dropout(dropout)

    def _call(self, x):
        return x + self.dropout(torch.tanh(x.unsqueeze(-1) * self.slope.exp() + self.bias)).sum(-1)

    def _inverse(self, y):
        low, high = y.detach() - 3, y.detach() + 3
        with torch.no_grad():
            for _ in range(30):
                middle = 0.5 * (low + high)
                below = self._call(middle) < y
                low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        # one step of Newton's, with a graph
        return low + (y - self._call(low)) / self.log_abs_det_jacobian(low, y).exp().detach()

    def log_abs_det_jacobian(self, x, y):
        slope = self.slope.exp()
        h = torch.tanh(x.unsqueeze(-1) * slope + self.bias)
        return torch.log1p((slope * (1 - h * h)).sum(-1))


def parameter():
    return torch.nn.Parameter(torch.tensor(0.2, dtype=F64))


def scaled(wrap, get, cache_size=0):
    w = parameter()
    return Scaled(wrap(w), get, cache_size), [w]


def closure():
    w = parameter()
    return Scaled(None, lambda _: w, 1), [w]


def learned(transform):
    transform = transform.to(F64)
    return transform, list(transform.parameters())


def spline(**kwargs):
    """A gentle one: its slope may change by a thousand within a thousandth, and a rule with it."""
    made = flows.Spline(2, count_bins=4, **kwargs).to(F64)
    for parameter in made.parameters():
        parameter.data.mul_(0.3)
    return made


def conditional():
    maker = flows.conditional_spline(2, 3, hidden_dims=[4], count_bins=4).to(F64)
    return maker.condition(torch.randn(3, dtype=F64)), list(maker.parameters())


def composed():
    first, w = spline(order="quadratic"), parameter()
    parts = [first, Scaled({"w": w}, lambda kept: kept["w"]), t.AffineTransform(0.3, 0.8)]
    return t.ComposeTransform(parts), [*first.parameters(), w]


def batch_norm(training):
    norm = flows.BatchNorm(2).to(F64)
    norm.moving_mean.add_(0.3)
    norm.moving_variance.mul_(1.5)
    return norm.train(training), list(norm.parameters())


MAPS = {
    "attribute": lambda: scaled(lambda w: w, lambda kept: kept),
    "list": lambda: scaled(lambda w: [w], lambda kept: kept[0]),
    "dict": lambda: scaled(lambda w: {"w": w}, lambda kept: kept["w"]),
    "module": lambda: scaled(Holder, lambda kept: kept.w),
    "cached": lambda: scaled(Holder, lambda kept: kept.w, 1),
    "closure": closure,
    "network": lambda: learned(Network()),
    "spline": lambda: learned(spline()),
    "quadratic spline": lambda: learned(spline(order="quadratic")),
    "conditional spline": conditional,
    "composed": composed,
    "batch norm, frozen": lambda: batch_norm(False),
}
NO_FUNCTIONS = {
    "batch norm": lambda: batch_norm(True),
    "dropout": lambda: learned(Network(0.5)),
}
#: Ties coordinates together: there is no formula, and none may be made up.
VECTORS = {
    name: (lambda make=make: learned(make()))
    for name, make in {
        "affine autoregressive": lambda: flows.affine_autoregressive(2, [4]),
        "affine coupling": lambda: flows.affine_coupling(2, [4]),
        "spline autoregressive": lambda: flows.spline_autoregressive(2, [4], count_bins=4),
        "spline coupling": lambda: flows.spline_coupling(2, hidden_dims=[4], count_bins=4),
        "block autoregressive": lambda: flows.block_autoregressive(2, hidden_factors=[4]),
        "neural autoregressive": lambda: flows.neural_autoregressive(2, [4]),
        "matrix exponential": lambda: flows.matrix_exponential(2),
        "planar": lambda: flows.planar(2),
        "radial": lambda: flows.radial(2),
        "sylvester": lambda: flows.sylvester(2),
        "polynomial": lambda: flows.polynomial(2, [4]),
        "householder": lambda: flows.householder(2),
    }.items()
}


def made(table, name):
    torch.manual_seed(0)
    return table[name]()


def flow(transform, loc=0.1, scale=0.8):
    base = dist.Normal(torch.full((2,), loc, dtype=F64), scale).to_event(1)
    return dist.TransformedDistribution(base, [transform])


def product(loc=0.3, scale=1.2):
    return dist.Normal(torch.full((2,), loc, dtype=F64), scale).to_event(1)


def state(transform, parameters):
    """What a rule must leave as it was."""
    buffers = list(transform.buffers()) if isinstance(transform, torch.nn.Module) else []
    attributes = {k: id(v) for k, v in vars(transform).items() if k != "_inv"}
    return [x.clone() for x in (*parameters, *buffers, torch.get_rng_state())], attributes


def assert_unchanged(before, after):
    assert all(torch.equal(x, y) for x, y in zip(before[0], after[0], strict=True))
    assert before[1] == after[1]


MIDPOINTS = 40_000
#: A spline's slopes by its knots jump there: so many midpoints have them to two digits.
JUMPS = ("spline", "composed")


def by_midpoints(p_base, forward, log_q):
    """E over a univariate base of log p - log q: an independent rule."""
    steps = (torch.arange(MIDPOINTS, dtype=F64) + 0.5) / MIDPOINTS
    u = (p_base.mean + 18 * p_base.stddev * (steps.unsqueeze(-1) - 0.5)).detach()
    weight = 18 * p_base.stddev.detach() / MIDPOINTS
    x, slope = forward(u)
    log_p = p_base.log_prob(u)
    return (weight * log_p.exp() * (log_p - slope - log_q(x))).sum()


# --- the KL itself ------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["p", "q", "both"])
@pytest.mark.parametrize("name", MAPS)
def test_value_and_gradients(name, side):
    transform, parameters = made(MAPS, name)
    other, others = made(MAPS, name)  # equal numbers, other parameters
    normal, distribution = product(), flow(transform)
    sides = {"p": (distribution, normal), "q": (normal, distribution)}
    p, q = sides.get(side, (distribution, flow(other, -0.2, 1.1)))
    wanted = parameters + (others if side == "both" else [])
    before = state(transform, parameters)
    kl = kl_divergence(p, q)
    assert_unchanged(before, state(transform, parameters))
    gradients = torch.autograd.grad(kl, wanted, allow_unused=True)

    def forward(u):
        if side == "q":
            return u, 0.0
        x = transform(u)
        return x, transform.log_abs_det_jacobian(u, x)

    def log_q(x):
        if side == "p":
            return normal.base_dist.log_prob(x)
        return dist.TransformedDistribution(q.base_dist.base_dist, q.transforms).log_prob(x)

    truth = by_midpoints((normal if side == "q" else p.base_dist).base_dist, forward, log_q)
    expected = torch.autograd.grad(truth, wanted, allow_unused=True)
    assert kl.item() == pytest.approx(truth.item(), rel=1e-5)
    digits = 1e-2 if any(word in name for word in JUMPS) else 1e-5
    size = max(x.abs().max() for x in expected if x is not None)
    for x, y in zip(gradients, expected, strict=True):
        assert (x is None) == (y is None)
        assert x is None or torch.allclose(x, y, rtol=digits, atol=digits * size)


@pytest.mark.parametrize("side", ["p", "q", "both"])
@pytest.mark.parametrize("name", [*NO_FUNCTIONS, *VECTORS])
def test_declined(name, side):
    """Nothing but NotImplementedError, nothing changed, also not the generator's state."""
    transform, parameters = made({**NO_FUNCTIONS, **VECTORS}, name)
    other, _ = made({**NO_FUNCTIONS, **VECTORS}, name)
    p, q = {
        "p": (flow(transform), product()),
        "q": (product(), flow(transform)),
        "both": (flow(transform), flow(other, -0.2, 1.1)),
    }[side]
    before = state(transform, parameters)
    with pytest.raises(NotImplementedError, match=r"\w"):
        kl_divergence(p, q)
    assert_unchanged(before, state(transform, parameters))


class Member(dist.TorchDistribution):
    """A Normal around a number that it gets from somewhere."""

    arg_constraints = {}  # noqa: RUF012
    support = constraints.real
    has_rsample = True

    def __init__(self, get, batch_shape=()):
        self.get = get
        super().__init__(torch.Size(batch_shape))

    def log_prob(self, value):
        return dist.Normal(self.get(value), 1.0).log_prob(value)

    def rsample(self, sample_shape=()):
        return self.get(None) + torch.randn(torch.Size(sample_shape) + self.batch_shape)

    def expand(self, batch_shape, _instance=None):
        return Member(self.get, batch_shape)


def test_distributions_of_others():
    w = parameter()
    kl = kl_divergence(dist.Normal(torch.zeros((), dtype=F64), 1.0), Member(lambda _: w))
    assert kl.item() == pytest.approx(0.02, rel=1e-6)
    assert torch.autograd.grad(kl, w)[0].item() == pytest.approx(0.2, rel=1e-6)


def raise_value_error(_):
    raise ValueError("not today")


def count_calls(calls=torch.zeros(3)):  # noqa: B008
    calls.view(-1)[1:].add_(1.0)
    return 0.0


@pytest.mark.parametrize(
    ("get", "reason"),
    [
        (raise_value_error, "raised ValueError .not today."),
        (lambda _: torch.rand(()), "random numbers"),
        (lambda _: count_calls(), "changes a tensor"),
        (lambda x: x.mean(), "beside other points"),
        (lambda x: x.mean(-1, keepdim=True), "beside other points"),
    ],
)
def test_densities_that_are_none(get, reason):
    """What they raise is the cause; a generator and a counter stay where they were."""
    generator = torch.get_rng_state()
    with pytest.raises(NotImplementedError, match=reason) as caught:
        kl_divergence(dist.Normal(torch.zeros(3), 1.0), Member(get, (3,)))
    assert isinstance(caught.value.__cause__, ValueError) == (get is raise_value_error)
    assert torch.equal(generator, torch.get_rng_state())
    assert torch.equal(count_calls.__defaults__[0], torch.zeros(3))


def test_many_elements_are_left_to_samples():
    w = parameter()
    with pytest.raises(NotImplementedError, match="1000 elements"):
        kl_divergence(dist.Normal(torch.zeros(1000), 1.0), Member(lambda _: w, (1000,)))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2)])
def test_no_rows(shape):
    """A batch without rows is answered without a row, also by user code."""
    p = dist.Normal(torch.zeros(shape, requires_grad=True), 1.0)
    for q in (LogProbOnly(dist.Normal(0.5, 1.0)), LogProbOnly(dist.Laplace(0.0, 1.0))):
        assert kl_divergence(p, q).shape == shape
        assert pyro_kl.kl(p, q).value.shape == shape


def test_own_bugs_are_not_swallowed(monkeypatch):
    """Only what others raise is taken for an answer."""
    from pyro_kl.wrappers.transformed import by_line as sources

    monkeypatch.setattr(sources, "peak_between", raise_value_error)
    w = parameter()
    with pytest.raises(TypeError):
        kl_divergence(dist.Normal(0.0, 1.0), Member(lambda _: w))


def test_what_is_foreign():
    assert not is_foreign([t.AffineTransform(0.0, torch.ones(2)), t.ExpTransform().inv])
    assert not is_foreign(t.CumulativeDistributionTransform(dist.Normal(0.0, 1.0)))
    assert is_foreign(t.CumulativeDistributionTransform(Member(lambda _: 0.0)))
    assert is_foreign(t.ComposeTransform([t.ExpTransform(), flows.Spline(1)]))
    assert is_foreign(flows.Spline(1).inv)


def test_a_copy_keeps_its_memory_to_itself():
    cached = flows.Spline(1)
    x = torch.zeros(1)
    y = cached(x)
    own_copy(cached.inv)(torch.ones(5, 1))
    assert cached.inv(y) is x


def test_new_tensors_may_be_written_to():
    def density(y):
        z = torch.zeros_like(y)
        z[y > 0] = 1.0
        return z.view(-1).add_(1.0).view_as(y)

    check_pointwise(density, torch.linspace(-1, 1, 5))


def test_exceptions_of_others_name_the_function():
    with pytest.raises(NotImplementedError, match="raise_value_error raised ValueError"):
        called(raise_value_error, None)


# --- Pyro's ELBOs -------------------------------------------------------------------------------


@contextmanager
def without_plugin(monkeypatch):
    """Pyro's mean-field ELBO where no formula is known, as for all of these without the import."""

    def nothing(p, q):
        raise NotImplementedError

    with monkeypatch.context() as patched:
        patched.setattr(pyro.infer.trace_mean_field_elbo, "kl_divergence", nothing)
        yield


TRAINED = {
    **{name: MAPS[name] for name in ("dict", "closure", "network", "composed", "spline")},
    **{name: MAPS[name] for name in ("conditional spline", "batch norm, frozen")},
    **NO_FUNCTIONS,
    **{name: VECTORS[name] for name in ("affine autoregressive", "spline coupling", "planar")},
    "own distribution": lambda: (None, [parameter()]),
}
#: Without an inverse, or with one in float32 alone: no priors in Pyro either.
NO_PRIORS = {"planar", "affine autoregressive"}


def model_and_guide(name, side):
    """One latent; the flow is the prior or the guide."""
    transform, parameters = made(TRAINED, name)
    if transform is None:
        distribution = Member(lambda _: parameters[0], (2,)).to_event(1)
    else:
        distribution = flow(transform)
    prior, posterior = (distribution, product()) if side == "prior" else (product(), distribution)

    def model():
        pyro.sample("z", prior)

    def guide():
        pyro.sample("z", posterior)

    return model, guide, transform, parameters


def gradients_of(elbo, model, guide, parameters, count):
    """Some gradients of the loss, (count, all parameters)."""
    rows = []
    for seed in range(count):
        pyro.set_rng_seed(seed)
        loss = elbo.differentiable_loss(model, guide)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        pairs = zip(found, parameters, strict=True)
        rows.append(
            torch.cat([(torch.zeros_like(y) if x is None else x).flatten() for x, y in pairs])
        )
    return torch.stack(rows)


CASES = [
    (name, side)
    for name in TRAINED
    for side in ("prior", "guide")
    if side == "guide" or name not in NO_PRIORS
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("name", "side"), CASES)
def test_elbos_train_as_they_did(name, side, monkeypatch):
    """Loss, gradients and state of what is declined are those without the plugin, to the bit; of
    what is not, the gradients' expectation is that of Trace_ELBO."""
    runs = []
    for plain in (True, False):
        model, guide, transform, parameters = model_and_guide(name, side)
        pyro.set_rng_seed(1)
        with without_plugin(monkeypatch) if plain else monkeypatch.context():
            loss = TraceMeanField_ELBO().differentiable_loss(model, guide)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        is_module = isinstance(transform, torch.nn.Module)
        kept = transform.state_dict().values() if is_module else ()
        runs.append([loss, *(x for x in found if x is not None), *kept, torch.get_rng_state()])
    if all(torch.equal(x, y) for x, y in zip(*runs, strict=True)):
        return
    assert name not in NO_FUNCTIONS
    assert name not in VECTORS
    model, guide, _, parameters = model_and_guide(name, side)
    sampled = Trace_ELBO(num_particles=500, vectorize_particles=True, max_plate_nesting=0)
    truth = gradients_of(sampled, model, guide, parameters, 20)
    error = truth.std(0) / 20**0.5
    for elbo in (TraceMeanField_ELBO(), pyro_kl.TraceKL_ELBO()):
        (found,) = gradients_of(elbo, model, guide, parameters, 1)
        # where no draw of thousands has fallen, their spread says nothing
        off, rare = (found - truth.mean(0)).abs(), 1e-3 * found.abs().max()
        assert (off <= 5 * error + rare).all(), type(elbo).__name__


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::UserWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("name", ["spline", "batch norm, frozen", "network"])
def test_a_traced_step_samples_what_can_only_be_called(name):
    """The flow remembers tensors of the step before, which was not traced."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    transform, _ = made(MAPS, name)

    def model():
        pyro.module("flow", transform)
        pyro.sample("z", flow(transform))

    def guide():
        loc = pyro.param("loc", torch.full((2,), 0.3, dtype=F64))
        pyro.sample("z", dist.Normal(loc, 1.2).to_event(1))

    def gradient(elbo):
        pyro.set_rng_seed(1)
        loss = elbo.loss_and_grads(model, guide)
        found = [x.grad.clone() for _, x in pyro.get_param_store().named_parameters()]
        pyro.infer.util.zero_grads(x for _, x in pyro.get_param_store().named_parameters())
        return [torch.tensor(loss, dtype=F64), *found]

    gradient(Trace_ELBO())
    right, *found = [
        gradient(elbo)
        for elbo in (JitTrace_ELBO(), JitTraceMeanField_ELBO(), pyro_kl.JitTraceKL_ELBO())
    ]
    for mine in found:
        assert all(torch.allclose(x, y, rtol=1e-5) for x, y in zip(mine, right, strict=True))


# --- distributions that nobody declared: supports decide what is infinite -----------------------


class Own(LogProbOnly):
    """Its log density may end at a floor, below which the density is 0."""

    def __init__(self, base, floor=-math.inf):
        self.floor = floor
        super().__init__(base)

    def log_prob(self, value):
        log_prob = super().log_prob(value)
        return torch.where(log_prob < self.floor, -math.inf, log_prob)


def of(cls, *parameters):
    return cls(*(torch.tensor(x, dtype=F64) for x in parameters))


def test_infinite_where_a_support_ends():
    found = pyro_kl.kl(Own(of(Normal, 0.0, 1.0)), Own(of(Uniform, -1.0, 1.0)))
    assert found.value == math.inf
    assert found.error == 0


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (Own(of(Normal, 0.0, 1.0)), Own(of(Normal, 0.0, 1.0), floor=-5.0)),
        (Own(of(Cauchy, 0.0, 1.0)), Own(of(Normal, 0.0, 1.0))),
    ],
    ids=["underflow", "too heavy"],
)
def test_no_infinity_from_a_number(p, q):
    """Log q is -inf, or overflows, where p has mass: no number, and no infinity either."""
    with pytest.raises(NotImplementedError, match=r"cannot be told.*monte_carlo"):
        pyro_kl.kl(p, q)
    assert pyro_kl.kl(of(Normal, 0.0, 1.0), p.base, num_samples=10).value.isfinite()


def test_a_map_that_saturates():
    """The sigmoid of a heavy tail is 1 in floating point, where most of this KL (+inf) is."""
    p = TransformedDistribution(of(HalfCauchy, 50.0), [SigmoidTransform()])
    with pytest.raises(NotImplementedError):
        pyro_kl.kl(p, Own(of(Uniform, 0.0, 1.0)))


def test_stable_has_no_log_density_to_integrate():
    stable = pyro.distributions.Stable(1.5, 0.0)
    same = pyro.distributions.Stable(1.5, 0.0)
    for p, q in ((stable, same), (stable, of(Cauchy, 0.0, 1.0)), (of(Cauchy, 0.0, 1.0), stable)):
        with pytest.raises(NotImplementedError, match=r"Stable.log_prob"):
            pyro_kl.kl(p, q)


def test_points_that_round_to_an_end_of_a_mapped_family():
    """Of which the class's own validation makes an error."""
    given = (pyro.distributions.AffineBeta, pyro.distributions.SkewLogistic)
    assert pyro_kl.check(*given).ok
