"""Enumeration with one Normal latent, against sums and integrals that are written down.

Every ELBO is evaluated at the nodes of a Gauss-Hermite rule, in place of the noise of its draws.
The rows of a plate are independent, so that one noise serves them all.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.distributions import Bernoulli, Categorical, Normal, kl_divergence

from .by_hand import SEEN, P, Y, agree, both, gauss_hermite, positive, real, simplex

pytestmark = pytest.mark.usefixtures("double")


@both
@pytest.mark.parametrize("how", ["parallel", "sequential"])
def test_a_continuous_latent_whose_prior_depends_on_a_label_of_the_guide(Elbo, how, monkeypatch):
    """The KL is one for each label, averaged with the label's probabilities."""

    def q():
        return simplex("q", [[0.3, 0.7], [0.6, 0.4], [0.1, 0.9]])

    def shifts():
        return real("shifts", [-0.2, 0.5]), positive("widths", [0.4, 0.7])

    def locs():
        return real("locs", [-1.0, 0.6]), positive("scales", [0.9, 1.4])

    def model():
        with pyro.plate("rows", 3), poutine.mask(mask=SEEN):
            z = pyro.sample("z", dist.Categorical(P))
            u = pyro.sample("u", dist.Normal(locs()[0][z], locs()[1][z]))
            pyro.sample("y", dist.Normal(u.sin(), 0.7), obs=Y)

    def guide():
        with pyro.plate("rows", 3), poutine.mask(mask=SEEN):
            z = pyro.sample("z", dist.Categorical(q()), infer={"enumerate": how})
            pyro.sample("u", dist.Normal(shifts()[0][z], shifts()[1][z]))

    def by_hand():
        nodes, weights = gauss_hermite(40)
        total = 0.0
        for probs, y in zip(q()[SEEN], Y[SEEN], strict=True):
            total = total - kl_divergence(Categorical(probs), Categorical(P))
            for z in range(2):
                posterior = Normal(shifts()[0][z], shifts()[1][z])
                kl = kl_divergence(posterior, Normal(locs()[0][z], locs()[1][z]))
                u = posterior.loc + posterior.scale * nodes
                total = total + probs[z] * (weights @ Normal(u.sin(), 0.7).log_prob(y) - kl)
        return total

    agree(Elbo, model, guide, by_hand, monkeypatch, nodes=40)


@both
def test_a_continuous_latent_whose_prior_depends_on_a_label_of_the_model(Elbo, monkeypatch):
    """No KL: the prior of u is a mixture, and E log of it is not in closed form."""

    def locs():
        return real("locs", [-1.0, 0.6])

    def u():
        return Normal(real("loc", [0.1, -0.4, 0.3]), positive("width", [0.4, 0.3, 0.5]))

    def model():
        with pyro.plate("rows", 3):
            z = pyro.sample("z", dist.Categorical(P), infer={"enumerate": "parallel"})
            u = pyro.sample("u", dist.Normal(locs()[z], 0.9))
            pyro.sample("y", dist.Normal(u, 0.7), obs=Y)

    def guide():
        with pyro.plate("rows", 3):
            pyro.sample("u", dist.Normal(u().loc, u().scale))

    def by_hand():
        nodes, weights = gauss_hermite(60)
        at = u().loc + u().scale * nodes[:, None]  # nodes x rows
        prior = torch.stack([Normal(m, 0.9).log_prob(at) for m in locs()], -1)
        log_prior = (prior + P.log()).logsumexp(-1)
        return (weights @ (log_prior + Normal(at, 0.7).log_prob(Y))).sum() + u().entropy().sum()

    agree(Elbo, model, guide, by_hand, monkeypatch, nodes=60)


@both
@pytest.mark.parametrize("guided", [False, True])
def test_a_label_whose_probabilities_depend_on_a_continuous_latent(Elbo, guided, monkeypatch):
    """c is exact, and upstream of e."""
    infer = {"enumerate": "parallel"}

    def c():
        return Normal(real("loc", 0.2), positive("width", 0.5))

    def odds():
        return real("odds", [0.3, -0.6])

    def shifts():
        return real("shifts", [-0.6, 0.5])

    def model():
        c = pyro.sample("c", dist.Normal(0.4, 1.3))
        with pyro.plate("rows", 3):
            label = dist.Bernoulli(logits=1.5 * c)
            e = pyro.sample("e", label, infer={} if guided else infer)
            pyro.sample("y", dist.Normal(shifts()[e.long()], 0.7), obs=Y)

    def guide():
        c_ = pyro.sample("c", dist.Normal(c().loc, c().scale))
        if guided:
            with pyro.plate("rows", 3):
                pyro.sample("e", dist.Bernoulli(logits=odds()[0] + odds()[1] * c_), infer=infer)

    def by_hand():
        nodes, weights = gauss_hermite(80)
        at = c().loc + c().scale * nodes
        total = -kl_divergence(c(), Normal(0.4, 1.3))
        for y in Y:
            likelihood = [Normal(shift, 0.7).log_prob(y) for shift in shifts()]
            prior = Bernoulli(logits=1.5 * at)
            joint = [prior.log_prob(torch.tensor(float(e))) + likelihood[e] for e in range(2)]
            if guided:
                q = Bernoulli(logits=odds()[0] + odds()[1] * at)
                logs = [q.log_prob(torch.tensor(float(e))) for e in range(2)]
                value = sum(b.exp() * (a - b) for a, b in zip(joint, logs, strict=True))
            else:
                value = torch.stack(joint).logsumexp(0)
            total = total + weights @ value
        return total

    agree(Elbo, model, guide, by_hand, monkeypatch, nodes=80)


@both
@pytest.mark.filterwarnings("ignore:The KL of these sites is sampled")
def test_a_label_that_the_guide_draws_from_what_the_model_draws_from_the_label(Elbo, monkeypatch):
    """No KL of c is exact: the probabilities of d, which its prior depends on, vary with c."""

    def c():
        return Normal(real("loc", 0.2), positive("width", 0.5))

    def locs():
        return real("locs", [-1.0, 0.6])

    def logits(at):
        return real("slope", 1.5) * at + 0.3

    def model():
        d = pyro.sample("d", dist.Bernoulli(P[1]))
        c = pyro.sample("c", dist.Normal(locs()[d.long()], 0.9))
        pyro.sample("y", dist.Normal(c, 0.7), obs=Y[0])

    def guide():
        at = pyro.sample("c", dist.Normal(c().loc, c().scale))
        d = dist.Bernoulli(logits=logits(at))
        pyro.sample("d", d, infer={"enumerate": "parallel"})

    def by_hand():
        nodes, weights = gauss_hermite(60)
        at = c().loc + c().scale * nodes
        total = c().entropy() + weights @ Normal(at, 0.7).log_prob(Y[0])
        for d, prior in enumerate(P):
            log_q = Bernoulli(logits=logits(at)).log_prob(torch.tensor(float(d)))
            log_p = prior.log() + Normal(locs()[d], 0.9).log_prob(at)
            total = total + weights @ (log_q.exp() * (log_p - log_q))
        return total

    agree(Elbo, model, guide, by_hand, monkeypatch, nodes=60, nesting=0)
