"""A gradient of TraceKL_ELBO takes what one of Pyro's ELBOs takes, or less.

    python -m benchmarks.elbo_as_fast_as_pyros [--rounds 40]

Process CPU time, interleaved, medians. "TraceMeanField" runs on the KLs that torch and Pyro
register themselves, so that the ratio holds all that a change of ELBO brings.
"""

from __future__ import annotations

import argparse
import warnings
from contextlib import contextmanager

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch.distributions import kl as torch_kl

import pyro_kl
from pyro_kl.registry import register as registry

from .timing import medians


@contextmanager
def upstream():
    """The registry of KLs as it was before pyro_kl."""
    ours = dict(torch_kl._KL_REGISTRY)
    torch_kl._KL_REGISTRY.clear()
    torch_kl._KL_REGISTRY.update(registry._UPSTREAM)
    torch_kl._KL_MEMOIZE.clear()
    try:
        yield
    finally:
        torch_kl._KL_REGISTRY.clear()
        torch_kl._KL_REGISTRY.update(ours)
        torch_kl._KL_MEMOIZE.clear()


def many_sites(count=50, rows=500):
    """A regression with a site for each coefficient, and a guide of Normals written by hand."""
    x = torch.randn(rows, count)
    y = x.sum(-1)

    def model():
        w = [
            pyro.sample(f"w{i}", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            for i in range(count)
        ]
        mean = x @ torch.stack(w)[:, 0]
        with pyro.plate("data", rows):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    def guide():
        for i in range(count):
            loc = pyro.param(f"loc{i}", lambda: torch.zeros(2))
            sd = pyro.param(f"sd{i}", lambda: torch.ones(2), constraint=constraints.positive)
            pyro.sample(f"w{i}", dist.Normal(loc, sd).to_event(1))

    return model, guide


def one_site(dim=30, rows=569):
    """A logistic regression."""
    x = torch.randn(rows, dim)
    y = (x[:, 0] > 0).float()

    def model():
        w = pyro.sample("w", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
        with pyro.plate("data", rows):
            pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)

    def guide():
        loc = pyro.param("loc", lambda: torch.zeros(dim))
        sd = pyro.param("sd", lambda: torch.ones(dim), constraint=constraints.positive)
        pyro.sample("w", dist.Normal(loc, sd).to_event(1))

    return model, guide


def ratios(name, model, guide, rounds):
    """Print the medians of one model and guide."""
    pyro.clear_param_store()
    guide()
    elbos = {
        "TraceMeanField": TraceMeanField_ELBO(),
        "Trace": Trace_ELBO(),
        "TraceKL": pyro_kl.TraceKL_ELBO(),
    }

    def maker(elbo):
        def make():
            elbo.loss_and_grads(model, guide)  # fills the memo of torch's dispatch again
            return lambda: elbo.loss_and_grads(model, guide)

        return make

    makers = {key: maker(elbo) for key, elbo in elbos.items()}
    middle = medians(makers, rounds, warm=3, within={"TraceMeanField": upstream})
    mean_field = middle["TraceMeanField"]
    cells = [f"{key} {1e6 * x:8.0f} us ({x / mean_field:.2f})" for key, x in middle.items()]
    print(f"{name:<32} {'  '.join(cells)}", flush=True)


def main(argv=None):
    """Print all ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args(argv).rounds
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for validate in (True, False):
        with pyro.validation_enabled(validate):
            print(f"loss_and_grads (ratio to TraceMeanField), validation {validate}")
            model, guide = many_sites()
            ratios("50 sites, Normal guide", model, guide, rounds)
            ratios("50 sites, AutoNormal", model, AutoNormal(model), rounds)
            joint = AutoMultivariateNormal(model)
            ratios("50 sites, AutoMultivariateNormal", model, joint, rounds)
            model, guide = one_site()
            ratios("1 site, Normal guide", model, guide, rounds)
            ratios("1 site, AutoNormal", model, AutoNormal(model), rounds)


if __name__ == "__main__":
    main()
