"""EasyGuide: groups of sites, in plates or not, are taken apart as joint guides are."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.contrib.easyguide import easy_guide
from pyro.infer import Trace_ELBO
from pyro.infer import autoguide as ag
from torch.distributions import kl_divergence

from pyro_kl import TraceKL_ELBO

ROWS = 3


def model(rows):
    """A scalar, positive ones and a vector, and one in a plate of its own."""
    drift = pyro.sample("drift", dist.LogNormal(-1.0, 0.5))
    with rows():
        a = pyro.sample("a", dist.Normal(0.5, 2.0))
        b = pyro.sample("b", dist.Gamma(2.0, (0.3 * a).exp()))
        pyro.sample("c", dist.LogNormal(0.0, 1.0).expand([2]).to_event(1))
        v = pyro.sample("v", dist.MultivariateNormal(torch.ones(2), 0.5 * torch.eye(2) + 0.5))
        with pyro.plate("inner", 2, dim=-1):
            t = pyro.sample("t", dist.Normal(v.sum(-1), b))
        pyro.sample("x", dist.Normal(t.sum(-1, keepdim=True), drift), obs=torch.tensor(1.0))


def in_plate():
    return pyro.plate("rows", ROWS, dim=-2)


def no_plate():
    return poutine.scale(scale=1.0)


DISTRIBUTIONS = {
    "diagonal": lambda loc, scale: dist.Normal(loc, scale).to_event(1),
    "dense": lambda loc, scale: dist.MultivariateNormal(loc, scale_tril=tril(scale)),
    "low rank": lambda loc, scale: dist.LowRankMultivariateNormal(
        loc, torch.stack([0.3 * scale, 0.2 * loc], -1), scale.square()
    ),
}


def tril(scale):
    size = scale.shape[-1]
    return torch.diag_embed(scale) + torch.full((size, size), 0.2).tril(-1)


def guide_of(distribution, plate, alike, after):
    """A group of all sites in the plate; alike rows share parameters; a point before or after."""
    shape = (8,) if plate is no_plate or alike else (ROWS, 1, 8)
    start = torch.linspace(-0.5, 0.5, math.prod(shape)).reshape(shape)

    @easy_guide(lambda: model(plate))
    def guide(self):
        if not after:
            self.map_estimate("drift")
        group = self.group(match="[abcvt]$")
        loc = pyro.param("loc", lambda: start.clone())
        scale = pyro.param("scale", lambda: 0.4 + 0.2 * start.abs())
        if plate is no_plate:
            group.sample("joint", DISTRIBUTIONS[distribution](loc, scale))
        else:
            with self.plate("rows", ROWS, dim=-2):
                group.sample("joint", DISTRIBUTIONS[distribution](loc, scale))
        if after:
            self.map_estimate("drift")

    return guide


@pytest.mark.filterwarnings("ignore:The KL of these sites is sampled:UserWarning")
@pytest.mark.parametrize(
    ("distribution", "plate", "alike", "after"),
    [
        ("diagonal", no_plate, True, False),
        ("diagonal", in_plate, False, True),
        ("dense", in_plate, False, False),
        ("dense", in_plate, True, True),
        ("low rank", no_plate, True, True),
        ("low rank", in_plate, False, False),
    ],
)
def test_loss_and_gradient_of_a_group_are_trace_elbos(distribution, plate, alike, after):
    guide = guide_of(distribution, plate, alike, after)
    both = lambda: model(plate)  # noqa: E731
    rows = {}
    kwargs = dict(num_particles=20, vectorize_particles=True, max_plate_nesting=2)
    for elbo in (TraceKL_ELBO(**kwargs), Trace_ELBO(**kwargs)):
        rows[type(elbo)] = []
        for seed in range(12):
            pyro.set_rng_seed(seed)
            loss = elbo.loss_and_grads(both, guide)
            params = dict(sorted(pyro.get_param_store()._params.items()))
            grads = [p.grad.reshape(-1) for p in params.values()]
            rows[type(elbo)].append(torch.cat([torch.tensor([loss]), *grads]))
            for parameter in params.values():
                parameter.grad = None
    ours, theirs = (torch.stack(rows[Elbo]).double() for Elbo in (TraceKL_ELBO, Trace_ELBO))
    gap = ours - theirs
    rounding = 1e-5 * (1 + theirs.abs().mean(0))
    z = gap.mean(0) / (gap.std(0) / math.sqrt(len(gap)) + rounding)
    assert z.abs().max() < 5
    elbo = TraceKL_ELBO(beta={"drift": 0.5, "v": 2.0})  # each can be weighed alone
    elbo.loss(both, guide)
    assert elbo.report["drift"].method == "point density"
    exact = {row.site for row in elbo.report if row.exact}
    late = {"b", "t"} if after else set()  # they depend on a, and drift comes late for them
    assert exact == {"drift", "a", "b", "c", "v", "t"} - late


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_kls_of_a_group_in_a_plate_add_up_to_those_of_its_rows(distribution):
    """Against the closed form of two multivariate Normals for each row, in a subsample too."""
    index = torch.tensor([2, 0])

    def gaussian():
        with pyro.plate("rows", ROWS, subsample=index):
            a = pyro.sample("a", dist.Normal(1.0, 2.0))
            pyro.sample("b", dist.Normal(a.unsqueeze(-1), torch.ones(2)).to_event(1))

    loc = torch.linspace(-1.0, 1.0, 3 * ROWS).reshape(ROWS, 3)
    q = DISTRIBUTIONS[distribution](loc[index], 0.3 + loc[index].abs())

    @easy_guide(gaussian)
    def guide(self):
        group = self.group()
        with self.plate("rows", ROWS, subsample=index):
            group.sample("joint", q)

    # a ~ N(1, 4), b = a + noise: covariance 4 everywhere, 5 on the diagonal of b
    prior = dist.MultivariateNormal(
        torch.ones(3), torch.full((3, 3), 4.0) + torch.diag(torch.tensor([0.0, 1.0, 1.0]))
    )
    if distribution == "diagonal":
        q = dist.MultivariateNormal(q.mean, torch.diag_embed(q.variance))
    expected = kl_divergence(q, prior).sum().item() * ROWS / len(index)
    if distribution == "diagonal":
        q = DISTRIBUTIONS[distribution](loc[index], 0.3 + loc[index].abs())
    report = TraceKL_ELBO().evaluate(gaussian, guide, num_particles=40)
    assert report["a"].standard_error == 0
    assert abs(report.kl - expected) < 4.5 * report.elbo_standard_error


def test_what_is_not_recognised_is_named_with_the_reason_and_ties_its_images_alone():
    def both():
        pyro.sample("m", dist.Normal(0.0, 1.0))
        pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("b", dist.LogNormal(0.0, 1.0))

    @easy_guide(both)
    def guide(self):
        self.map_estimate("m")
        self.group(match="[ab]").sample(
            "heavy", dist.StudentT(5.0, torch.zeros(2), 1.0).to_event(1)
        )

    elbo = TraceKL_ELBO(beta={"m": 0.5})
    pyro.set_rng_seed(0)
    elbo.loss(both, guide)
    assert elbo.report["m"].method == "point density"
    for name in "ab":
        assert "auxiliary site heavy" in elbo.report[name].reason
        assert "Independent(StudentT), is no Normal over a vector" in elbo.report[name].reason
    with pytest.raises(ValueError, match=r"draws heavy \+ a \+ b"):
        TraceKL_ELBO(beta={"a": 0.5}).loss(both, guide)


def test_a_point_beside_an_autonormal_is_a_point():
    def both():
        pyro.sample("a", dist.Gamma(2.0, 1.0))
        pyro.sample("m", dist.Normal(0.0, 1.0))

    guide = ag.AutoGuideList(both)
    guide.append(ag.AutoNormal(poutine.block(both, expose=["a"])))
    guide.append(ag.AutoDelta(poutine.block(both, expose=["m"])))
    elbo = TraceKL_ELBO()
    elbo.loss(both, guide)
    assert {row.site: row.method for row in elbo.report} == {
        "a": "closed form",
        "m": "point density",
    }
