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
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch.distributions import kl as torch_kl

import pyro_kl
from models.problems import breast_cancer, fifty_sites
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


def ratios(name, model, guide, data, rounds):
    """Print the medians of one model and guide."""
    pyro.clear_param_store()
    guide(*data)
    elbos = {
        "TraceMeanField": TraceMeanField_ELBO(),
        "Trace": Trace_ELBO(),
        "TraceKL": pyro_kl.TraceKL_ELBO(),
    }

    def maker(elbo):
        def make():
            elbo.loss_and_grads(model, guide, *data)  # fills the memo of torch's dispatch again
            return lambda: elbo.loss_and_grads(model, guide, *data)

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
            problem = fifty_sites()
            for name, guide in {
                "Normal guide": problem.guide,
                "AutoNormal": AutoNormal(problem.model),
                "AutoMultivariateNormal": AutoMultivariateNormal(problem.model),
            }.items():
                ratios(f"50 sites, {name}", problem.model, guide, problem.batch(0), rounds)
            problem = breast_cancer()
            for name, guide in {
                "Normal guide": problem.guide,
                "AutoNormal": AutoNormal(problem.model),
            }.items():
                ratios(f"1 site, {name}", problem.model, guide, problem.batch(0), rounds)


if __name__ == "__main__":
    main()
