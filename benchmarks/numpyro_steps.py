"""A step of NumPyro's jitted SVI on the models of models/problems.py, timed in its own process.

    .venv-numpyro/bin/python -m benchmarks.numpyro_steps PROBLEM data.npz LR

It is asked by lines on standard input, and answers each with the process CPU seconds of one step:
"step 100" calls the jitted `svi.update` 100 times from Python, "run 100" makes 100 steps in one
jitted `lax.scan`, which is the loop of `svi.run`. The first of either compiles. "loss 100" makes
100 steps too and answers with their mean loss.
"""

import os
import sys
import time

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # XLA starts a thread for each core

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax
from jax.example_libraries import stax
from numpyro.distributions import constraints
from numpyro.handlers import scale as scaled
from numpyro.infer import SVI, TraceMeanField_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal, AutoNormal


def logistic_regression(rows, dim):
    def model(x, y):
        w = numpyro.sample("w", dist.Normal(jnp.zeros(dim), 1.0).to_event(1))
        with numpyro.plate("data", len(y)), scaled(scale=rows / len(y)):
            numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)

    def guide(x, y):
        loc = numpyro.param("loc", jnp.zeros(dim))
        scale = numpyro.param("scale", jnp.full(dim, 0.1), constraint=constraints.positive)
        numpyro.sample("w", dist.Normal(loc, scale).to_event(1))

    return model, guide


def fifty_sites(rows, count):
    def model(x, y):
        w = [
            numpyro.sample(f"w{i}", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
            for i in range(count)
        ]
        with numpyro.plate("data", rows):
            numpyro.sample("y", dist.Normal(x @ jnp.stack(w)[:, 0], 1.0), obs=y)

    def guide(x, y):
        for i in range(count):
            loc = numpyro.param(f"loc{i}", jnp.zeros(2))
            scale = numpyro.param(f"scale{i}", jnp.ones(2), constraint=constraints.positive)
            numpyro.sample(f"w{i}", dist.Normal(loc, scale).to_event(1))

    return model, guide


def eight_schools(effect, error):
    def model():
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
        with numpyro.plate("schools", len(effect)):
            theta = numpyro.sample("theta", dist.Normal(mu, tau))
            numpyro.sample("y", dist.Normal(theta, error), obs=effect)

    return model, AutoMultivariateNormal(model)


def hierarchical_logistic(groups, dim):
    def model(x, group, y):
        mean = numpyro.sample("mean", dist.Normal(jnp.zeros(dim), 5.0).to_event(1))
        spread = numpyro.sample("spread", dist.HalfCauchy(jnp.ones(dim)).to_event(1))
        with numpyro.plate("groups", groups):
            w = numpyro.sample("w", dist.Normal(mean, spread).to_event(1))
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Bernoulli(logits=(x * w[group]).sum(-1)), obs=y)

    return model, AutoNormal(model)


def vae(pixels, hidden, latent):
    encoder = stax.serial(stax.Dense(hidden), stax.Softplus, stax.Dense(2 * latent))
    decoder = stax.serial(stax.Dense(hidden), stax.Softplus, stax.Dense(pixels))

    def model(images):
        decode = numpyro.module("decoder", decoder, (len(images), latent))
        with numpyro.plate("images", len(images)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(latent), 1.0).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=images)

    def guide(images):
        encode = numpyro.module("encoder", encoder, images.shape)
        with numpyro.plate("images", len(images)):
            loc, log_scale = jnp.split(encode(images), 2, axis=-1)
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    return model, guide


#: By the names of models/problems.py: model and guide, from the shapes of its data.
PROBLEMS = {
    "breast cancer": lambda x, y: logistic_regression(*x.shape),
    "50 sites": lambda x, y: fifty_sites(*x.shape),
    "minibatches of 1,000": lambda x, y: logistic_regression(100_000, x.shape[1]),
    "eight schools": eight_schools,
    "hierarchical logistic": lambda x, group, y: hierarchical_logistic(
        int(group.max()) + 1, x.shape[1]
    ),
    "VAE": lambda images: vae(images.shape[1], 400, 20),
}


class Fit:
    """A fit that goes on from turn to turn.

    Args:
        columns: The arguments of the model at steps 0, 1, ..., each stacked.
        lr: Adam's learning rate.
    """

    def __init__(self, name, columns, lr):
        model, guide = PROBLEMS[name](*(column[0] for column in columns))
        if name == "eight schools":
            columns = []  # its model and guide have no arguments
        self.columns = columns
        self.count = len(columns[0]) if columns else 1
        self.batches = [[column[i] for column in columns] for i in range(self.count)]
        self.svi = SVI(model, guide, numpyro.optim.Adam(lr), TraceMeanField_ELBO())
        self.state = self.svi.init(jax.random.key(0), *self.batches[0])
        self.update = jax.jit(self.svi.update)
        self.scan = jax.jit(self.scanned, static_argnums=2)

    def scanned(self, state, columns, steps):
        def body(state, step):
            at = step % self.count if self.count > 1 else 0
            return self.svi.update(state, *(column[at] for column in columns))

        return lax.scan(body, state, jnp.arange(steps))

    def step(self, steps):
        for i in range(steps):
            self.state, loss = self.update(self.state, *self.batches[i % self.count])
        return jax.block_until_ready((self.state, loss))

    def run(self, steps):
        self.state, losses = self.scan(self.state, self.columns, steps)
        return jax.block_until_ready(losses)


def main():
    name, path, lr = sys.argv[1:]
    stored = np.load(path)
    fit = Fit(name, [jnp.asarray(stored[key]) for key in stored], float(lr))
    print("ready", flush=True)
    for line in sys.stdin:
        what, steps = line.split()
        start = time.process_time_ns()
        answer = fit.step(int(steps)) if what == "step" else fit.run(int(steps))
        spent = (time.process_time_ns() - start) / 1e9 / int(steps)
        print(float(answer.mean()) if what == "loss" else spent, flush=True)


if __name__ == "__main__":
    main()
