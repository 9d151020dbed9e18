"""The report holds what the loss is made of, whatever model, guide, settings and engine."""

import json
import math
import subprocess
import sys
from types import MappingProxyType

import pandas
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import autoguide as ag
from pyro.infer.autoguide import AutoDelta, AutoIAFNormal, AutoMultivariateNormal, AutoNormal
from torch.distributions import constraints

import pyro_kl
from pyro_kl import JitTraceKL_ELBO, TraceKL_ELBO

from .models import eight_schools

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning",
    "ignore::torch.jit.TracerWarning",
    "ignore:Found (non-auxiliary )?vars in:UserWarning",
    "ignore:The (guide|model) samples:UserWarning",
    "ignore:Scale or mask of:UserWarning",
)

DATA = torch.tensor([0.0, 1.0, 1.0, 0.0])


def local():
    """A global and a local latent, a scale, a mask, a factor."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    pyro.factor("bonus", -0.1 * w.sum(-1))
    with pyro.plate("data", 4):
        with poutine.scale(scale=2.5), poutine.mask(mask=DATA < 0.5):
            z = pyro.sample("z", dist.Gamma(2.0, 1.0))
        pyro.sample("y", dist.Bernoulli(logits=z - w.sum(-1, keepdim=True)), obs=DATA)


def local_guide():
    loc = pyro.param("loc", torch.tensor([0.3, 0.7]))
    shape = pyro.param("shape", torch.tensor([1.0, 2.0, 3.0, 4.0]))
    pyro.sample("w", dist.Normal(loc, 0.5).to_event(1))
    with pyro.plate("data", 4), poutine.scale(scale=2.5), poutine.mask(mask=DATA < 0.5):
        pyro.sample("z", dist.Gamma(shape, 1.3))


def partly_hidden():
    with pyro.plate("data", 4):
        x = pyro.sample("x", dist.Normal(0.0, 1.0), obs=DATA, obs_mask=torch.arange(4) % 2 == 0)
        pyro.sample("y", dist.Normal(x, 1.0), obs=DATA)


def hierarchy():
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.LogNormal(a, 1.0))
    with pyro.plate("data", 4):
        pyro.sample("y", dist.Normal(b, 1.0), obs=DATA)


def scored_by_the_guide():
    """As CEVAE's and SCANVI's guides score data of their own."""
    logit = pyro.param("logit", torch.tensor(0.4))
    with pyro.plate("data", 4):
        pyro.sample("y", dist.Bernoulli(logits=logit), obs=DATA, infer={"is_auxiliary": True})
    pyro.sample("a", dist.Normal(logit, 0.5))
    pyro.sample("b", dist.LogNormal(logit, 0.5))


def of_its_own():
    """A factor and an undeclared variable of the guide; b only in the model."""
    loc = pyro.param("loc", torch.tensor(0.4))
    pyro.sample("a", dist.Normal(loc, 0.5))
    pyro.sample("only", dist.Normal(loc, 1.0))
    pyro.factor("penalty", loc.square(), has_rsample=True)


def discrete():
    k = pyro.sample("k", dist.Bernoulli(0.3))
    a = pyro.sample("a", dist.Normal(k, 1.0))
    with pyro.plate("data", 4):
        pyro.sample("y", dist.Normal(a, 1.0), obs=DATA)


def discrete_guide():
    q = pyro.param("q", torch.tensor(0.6))
    k = pyro.sample("k", dist.Bernoulli(q))
    pyro.sample("a", dist.Normal(q + k, 0.5))


def one_sided_scale():
    pyro.sample("a", dist.Normal(pyro.param("q", torch.tensor(0.6)), 0.5))
    with poutine.scale(scale=0.3):
        pyro.sample("b", dist.LogNormal(0.0, 0.5))


CASES = {
    "plates, scale, mask": (local, lambda: local_guide),
    "observation mask": (partly_hidden, lambda: AutoNormal(partly_hidden)),
    "data in the guide": (hierarchy, lambda: scored_by_the_guide),
    "one side only": (hierarchy, lambda: of_its_own),
    "scale on one side": (hierarchy, lambda: one_sided_scale),
    "score function": (discrete, lambda: discrete_guide),
    "point": (hierarchy, lambda: AutoDelta(hierarchy)),
    "mapped": (hierarchy, lambda: AutoNormal(hierarchy)),
    "joint": (hierarchy, lambda: AutoMultivariateNormal(hierarchy)),
    "joint and local": (local, lambda: AutoMultivariateNormal(poutine.block(local, hide=["y"]))),
    "not recognised": (hierarchy, lambda: AutoIAFNormal(hierarchy, hidden_dim=[8])),
}
SETTINGS = [
    {},
    {"beta": 0.3},
    {"beta": pyro_kl.LinearWarmup(10)},
    {"free_bits": 0.7, "beta": 2.0},
    {"capacity": 1.5},
    {"mean_field": "never"},
]
ENGINES = [
    {},
    {"num_particles": 3},
    {"num_particles": 3, "vectorize_particles": True, "max_plate_nesting": 1},
]
#: Each setting with one engine and the next: all pairs would be thrice the time.
ELBOS = [(setting, ENGINES[(i + j) % 3]) for i, setting in enumerate(SETTINGS) for j in (0, 1)]


def check(report, loss):
    """The rows come to the whole, and the whole to the loss."""
    close = dict(rel=2e-5, abs=2e-5)
    likelihood = sum(row.nats for row in report if row.kind == "likelihood")
    penalty = sum(row.nats for row in report if row.kind != "likelihood")
    assert report.loss == pytest.approx(loss, **close)
    assert report.elbo == pytest.approx(likelihood - penalty, **close)
    assert (report.log_likelihood, report.kl) == pytest.approx((likelihood, penalty), **close)
    assert len({(row.site, row.kind == "likelihood") for row in report}) == len(report)
    for row in report:
        assert all(type(size) is int for size in row.shape)
        assert row.raw * row.scale == pytest.approx(row.nats, **close)
    lines = [json.loads(line) for line in report.to_json_lines().splitlines()]
    assert lines[-1]["loss"] == report.loss
    return report


@pytest.mark.filterwarnings("ignore:The KL of these sites is sampled:UserWarning")
@pytest.mark.parametrize("case", CASES)
def test_report_and_loss_agree(case):
    model, make = CASES[case]
    guide = make()
    for settings, engine in ELBOS:
        elbo = TraceKL_ELBO(**settings, **engine)
        elbo.step_count = 4
        for evaluate in (elbo.loss_and_grads, elbo.differentiable_loss):
            loss = torch.as_tensor(evaluate(model, guide)).item()
            check(elbo.report, loss)


@pytest.mark.filterwarnings("ignore:The KL of these sites is sampled:UserWarning")
@pytest.mark.parametrize("case", [case for case in CASES if case != "not recognised"])  # no jit
def test_the_report_of_a_traced_step_is_that_of_the_same_eager_step(case):
    """At other parameters than it was traced at, and after another model was."""
    model, make = CASES[case]
    guide = make()
    TraceKL_ELBO().loss(model, guide)  # makes the parameters
    settings = {"beta": pyro_kl.LinearWarmup(10), "num_particles": 2}
    traced, eager = JitTraceKL_ELBO(ignore_jit_warnings=True, **settings), TraceKL_ELBO(**settings)
    traced.loss_and_grads(model, guide)
    traced.loss_and_grads(discrete, discrete_guide)
    with torch.no_grad():
        for parameter in pyro.get_param_store()._params.values():
            parameter.mul_(1.2)
    reports = []
    for elbo in (traced, eager):
        pyro.set_rng_seed(3)
        elbo.step_count = 7
        loss = elbo.loss_and_grads(model, guide)
        reports.append(check(elbo.report, loss))
    ours, theirs = reports
    assert (ours.step, ours.objective) == (theirs.step, theirs.objective)
    assert ours.elbo_standard_error == pytest.approx(theirs.elbo_standard_error, rel=1e-3)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.site, a.kind, a.method, a.shape) == (b.site, b.kind, b.method, b.shape)
        for name in ("nats", "raw", "weight", "scale", "masked"):
            number = getattr(b, name)
            expected = pytest.approx(number, rel=1e-4, abs=1e-5, nan_ok=True)
            assert getattr(a, name) == expected, name
        assert (a.per_dimension is None) == (b.per_dimension is None)
        if a.per_dimension is not None:
            torch.testing.assert_close(
                torch.tensor(a.per_dimension), torch.tensor(b.per_dimension), rtol=1e-4, atol=1e-4
            )


def test_data_that_the_guide_scores_has_a_row_of_its_own():
    elbo = TraceKL_ELBO()
    elbo.loss(hierarchy, scored_by_the_guide)
    rows = [(row.site, row.kind, row.method) for row in elbo.report if row.site == "y"]
    assert rows == [("y", "likelihood", "observed"), ("y", "auxiliary", "observed")]
    expected = dist.Bernoulli(logits=torch.tensor(0.4)).log_prob(DATA).sum().item()
    assert elbo.report.kls["y"] == pytest.approx(expected, rel=1e-6)
    assert elbo.report["y"].kind == "likelihood"
    assert all(math.isnan(row.standard_error) for row in elbo.report)


# --- the report ---------------------------------------------------------------------------------


def test_the_report_prints_and_exports():
    elbo = TraceKL_ELBO(beta=0.5)
    with pytest.raises(RuntimeError, match="No report yet"):
        _ = elbo.report
    report = elbo.evaluate(eight_schools, ag.AutoNormal(eight_schools), num_particles=20)
    text = str(report)
    assert text.splitlines()[0].split() == [
        "site", "kind", "nats", "+-", "s.e.", "weight", "scale", "shape", "method",
    ]  # fmt: skip
    assert "ELBO" in text
    assert "beta = 0.5" in text
    assert "<table>" in report._repr_html_()
    import json

    lines = [json.loads(line) for line in report.to_json_lines().splitlines()]
    assert [line.get("site") for line in lines] == ["y", "mu", "log_tau", "theta", None]
    assert lines[-1]["elbo"] == pytest.approx(report.elbo)
    assert len(lines[3]["per_dimension"]) == 8
    assert sum(lines[3]["per_dimension"]) == pytest.approx(report["theta"].nats, rel=1e-5)
    assert len(report) == 4
    with pytest.raises(KeyError, match="no site 'nu'; there are y, mu"):
        report["nu"]


def test_the_report_as_a_dataframe():
    report = TraceKL_ELBO().evaluate(eight_schools, ag.AutoNormal(eight_schools), num_particles=5)
    frame = report.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.loc["theta", "method"] == "closed form"


def test_pandas_is_imported_only_when_asked_for():
    code = "import sys, pyro_kl; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_per_dimension_kls_of_a_vector():
    def model():
        pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    def guide():
        pyro.sample("w", dist.Normal(torch.tensor([0.0, 1.0, 2.0]), 1.0).to_event(1))

    report = TraceKL_ELBO(num_particles=2).evaluate(model, guide, num_particles=3)
    assert report["w"].per_dimension == pytest.approx([0.0, 0.5, 2.0])
    assert report["w"].standard_error == 0
    assert report["w"].shape == (3,)


def test_an_elbo_that_rounds_to_zero_is_printed_without_a_sign():
    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    def guide():
        pyro.sample("z", dist.Normal(1e-4, 1.0))

    text = str(TraceKL_ELBO().evaluate(model, guide, num_particles=2))
    assert "ELBO 0.0000 +- 0 = log likelihood 0.0000 - KL 0.0000" in text


def test_an_infinite_kl_is_told():
    def model():
        pyro.sample("z", dist.Uniform(-10.0, 10.0))

    def guide():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.warns(UserWarning, match=r"KL of z is infinite"):
        assert TraceKL_ELBO().loss(model, guide) == math.inf


def test_a_pair_without_a_formula_is_told_once():
    class Strange(dist.TorchDistribution):
        arg_constraints = MappingProxyType({})
        support = constraints.real
        has_rsample = True

        def rsample(self, sample_shape=()):
            return torch.randn(sample_shape)

        def log_prob(self, x):
            return -x.abs()

    def both():
        pyro.sample("z", Strange())

    elbo = TraceKL_ELBO()
    with pytest.warns(UserWarning, match=r"sampled.*\n  z: .*Strange"):
        elbo.loss(both, both)
    elbo.loss(both, both)  # silent: warnings are errors here
