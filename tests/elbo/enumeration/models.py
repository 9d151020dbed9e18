"""Models with discrete latents, each with a guide."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import config_enumerate
from pyro.ops.indexing import Vindex

DATA = torch.tensor([0.0, 1.0, 10.0, 11.0, 12.0], dtype=torch.float64)


def real(name, value):
    return pyro.param(name, torch.tensor(value))


def positive(name, value):
    return pyro.param(name, torch.tensor(value), constraint=constraints.positive)


def simplex(name, value):
    return pyro.param(name, torch.tensor(value), constraint=constraints.simplex)


def fraction(name, value):
    return pyro.param(name, torch.tensor(value), constraint=constraints.unit_interval)


def mixture_model():
    w = pyro.sample("w", dist.Dirichlet(0.5 * torch.ones(2)))
    s = pyro.sample("s", dist.LogNormal(0.0, 2.0))
    with pyro.plate("components", 2):
        loc = pyro.sample("loc", dist.Normal(torch.tensor([0.0, 8.0]), 3.0))
    with pyro.plate("n", 5):
        k = pyro.sample("k", dist.Categorical(w))
        pyro.sample("x", dist.Normal(loc[k], s), obs=DATA)


def mixture_guide():
    pyro.sample("w", dist.Dirichlet(positive("c", [2.0, 3.0])))
    pyro.sample("s", dist.LogNormal(real("s_loc", 0.3), positive("s_scale", 0.2)))
    with pyro.plate("components", 2):
        pyro.sample("loc", dist.Normal(real("l", [1.0, 9.0]), positive("l_scale", [0.5, 0.3])))


def assigning_guide():
    mixture_guide()
    with pyro.plate("n", 5):
        pyro.sample("k", dist.Categorical(simplex("q", [[0.3, 0.7]] * 5)))


def mixture():
    """The model sums the assignments out."""
    return config_enumerate(mixture_model), mixture_guide


def assigned_mixture():
    """The guide sums the assignments out."""
    return mixture_model, config_enumerate(assigning_guide)


def drawn_mixture():
    """The guide draws the assignments."""
    return mixture_model, assigning_guide


def in_turn():
    """The guide enumerates two sites in turn."""

    def model():
        b = [pyro.sample(f"b{i}", dist.Bernoulli(0.4)) for i in pyro.plate("pair", 2)]
        z = pyro.sample("z", dist.Normal(b[0] + b[1], 1.0))
        pyro.sample("y", dist.Normal(z * b[0], 1.0), obs=torch.tensor(0.7))

    @config_enumerate(default="sequential")
    def guide():
        for i in pyro.plate("pair", 2):
            pyro.sample(f"b{i}", dist.Bernoulli(fraction(f"p{i}", 0.3)))
        pyro.sample("z", dist.Normal(real("z_loc", 0.2), positive("z_scale", 0.6)))

    return model, guide


def prior_inside():
    """The prior of z depends on k, which the model sums out; both are scaled."""

    @config_enumerate
    @poutine.scale(scale=2.0)
    def model():
        with pyro.plate("n", 5):
            k = pyro.sample("k", dist.Categorical(simplex("w", [0.4, 0.6])))
            z = pyro.sample("z", dist.Normal(torch.tensor([-1.0, 2.0])[k], 1.0))
            pyro.sample("x", dist.Normal(z, positive("noise", 0.7)), obs=DATA / 4)

    @poutine.scale(scale=2.0)
    def guide():
        with pyro.plate("n", 5):
            pyro.sample("z", dist.Normal(real("z_loc", [0.1] * 5), positive("z_scale", 0.5)))

    return model, guide


def dependent_guide():
    """Prior and guide of z depend on k, which the guide enumerates; the model sums j out."""

    @config_enumerate
    def model():
        with pyro.plate("n", 5, subsample_size=3) as rows:
            k = pyro.sample("k", dist.Categorical(simplex("w", [0.2, 0.3, 0.5])))
            z = pyro.sample("z", dist.Normal(real("m", [-1.0, 0.0, 2.0])[k], 1.0))
            j = pyro.sample("j", dist.Bernoulli(torch.sigmoid(z)))
            pyro.sample("x", dist.Normal(z + j, positive("noise", 0.7)), obs=DATA[rows] / 4)

    @config_enumerate
    def guide():
        with pyro.plate("n", 5, subsample_size=3) as rows:
            k = pyro.sample("k", dist.Categorical(simplex("q", [[0.3, 0.3, 0.4]] * 5)[rows]))
            loc, scale = real("z_loc", [0.0, 1.0, -0.5]), positive("z_scale", [0.5, 0.3, 1.0])
            pyro.sample("z", dist.Normal(loc[k], scale[k]))

    return model, guide


def nested_plates():
    """Discrete sites of guide and model in nested plates, with a mask."""
    mask = torch.tensor([[True, False, True], [True, True, True]])

    @config_enumerate
    def model():
        a = pyro.sample("a", dist.Bernoulli(0.3))
        g = pyro.sample("g", dist.Gamma(2.0, 1.0))
        with pyro.plate("outer", 3, dim=-1):
            b = pyro.sample("b", dist.Bernoulli(0.2 + 0.5 * a))
            u = pyro.sample("u", dist.Normal(a, 1.0))
            with pyro.plate("inner", 2, dim=-2), poutine.mask(mask=mask):
                c = pyro.sample("c", dist.Bernoulli(0.1 + 0.6 * b))
                y = torch.arange(6.0).reshape(2, 3) / 3
                pyro.sample("y", dist.Normal(c + u, g), obs=y)

    @config_enumerate
    def guide():
        a = pyro.sample("a", dist.Bernoulli(fraction("p", 0.4)))
        pyro.sample("g", dist.Gamma(positive("g0", 2.0), positive("g1", 2.0)))
        with pyro.plate("outer", 3, dim=-1):
            loc = real("u_loc", [0.1, 0.2, 0.3]) + a
            pyro.sample("u", dist.Normal(loc, positive("u_scale", 0.4)))

    return model, guide


def hidden_markov():
    """A chain with unknown transitions and means."""

    @config_enumerate
    def model():
        with pyro.plate("states", 2):
            rows = pyro.sample("rows", dist.Dirichlet(torch.ones(2)))
        loc = pyro.sample("loc", dist.Normal(0.0, torch.ones(2)).to_event(1))
        z = 0
        for t in pyro.markov(range(4)):
            p = Vindex(rows)[z] if t else torch.ones(2) / 2
            z = pyro.sample(f"z{t}", dist.Categorical(p))
            pyro.sample(f"x{t}", dist.Normal(loc[z], 1.0), obs=torch.tensor(t % 3.0))

    def guide():
        with pyro.plate("states", 2):
            pyro.sample("rows", dist.Dirichlet(positive("c", [[2.0, 3.0], [1.0, 1.0]])))
        loc = dist.Normal(real("l", [0.0, 1.0]), positive("l_scale", [0.3, 0.3]))
        pyro.sample("loc", loc.to_event(1))

    return model, guide


def several_draws():
    """The guide draws z four times in parallel."""

    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        y = pyro.sample("y", dist.Normal(z, 1.0))
        with pyro.plate("n", 5):
            pyro.sample("x", dist.Normal(y, 3.0), obs=DATA)

    def guide():
        q = dist.Normal(real("z_loc", 0.2), positive("z_scale", 0.6))
        pyro.sample("z", q, infer={"enumerate": "parallel", "num_samples": 4})
        pyro.sample("y", dist.Normal(real("y_loc", 0.2), positive("y_scale", 0.6)))

    return model, guide


def drawn_component():
    """The guide draws k, on which prior and guide of z depend."""

    def model():
        with pyro.plate("n", 2):
            k = pyro.sample("k", dist.Categorical(simplex("w", [0.2, 0.3, 0.5])))
            z = pyro.sample("z", dist.Normal(real("m", [-1.0, 0.0, 2.0])[k], 1.0))
            pyro.sample("x", dist.Normal(z, positive("noise", 0.7)), obs=DATA[:2])

    def guide():
        with pyro.plate("n", 2):
            k = pyro.sample("k", dist.Categorical(simplex("q", [0.3, 0.3, 0.4])))
            loc, scale = real("z_loc", [0.0, 1.0, -0.5]), positive("z_scale", [0.5, 0.3, 1.0])
            pyro.sample("z", dist.Normal(loc[k], scale[k]))

    return model, guide
