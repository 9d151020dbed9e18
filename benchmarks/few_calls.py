"""A warm KL passes through few Python functions of the package.

    python -m benchmarks.few_calls [--by-module]

Counts, with `sys.setprofile`, the calls of functions that are defined under `pyro_kl`, and the
modules that define them, during the second call: what is made once is there, and what each step
costs in Python is counted alike on every machine.
"""

import argparse
import sys
import warnings
from collections import Counter
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal
from torch.distributions import kl_divergence

import pyro_kl

PACKAGE = str(Path(pyro_kl.__file__).parent)
BATCH = 10


def pair(p, q):
    return lambda: kl_divergence(p, q)


def elbo_step():
    """A gradient with a latent site whose KL is an integral, and one whose KL is closed."""

    def model():
        scale = pyro.sample("scale", dist.HalfCauchy(torch.ones(BATCH)).to_event(1))
        loc = pyro.sample("loc", dist.Normal(torch.zeros(BATCH), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(loc, scale).to_event(1), obs=torch.zeros(BATCH))

    pyro.clear_param_store()
    guide, elbo = AutoNormal(model), pyro_kl.TraceKL_ELBO()
    return lambda: elbo.loss_and_grads(model, guide)


def questions():
    """A name, what is run, and the most calls and modules that it should take."""
    some = torch.linspace(0.5, 1.5, BATCH)
    tall = pair(dist.LogNormal(some - 1.0, some), dist.HalfCauchy(some))
    counts = pair(dist.Binomial(10, some / 2), dist.Poisson(some))
    yield "LogNormal || HalfCauchy", tall, 45, 8
    yield "Binomial || Poisson", counts, 50, 7
    yield "loss_and_grads, AutoNormal", elbo_step(), 200, 15


def calls(run):
    """How often each module's functions are called in the second of two runs."""
    run()
    modules = Counter()

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            modules[frame.f_globals["__name__"]] += 1

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return modules


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--by-module", action="store_true")
    by_module = parser.parse_args(argv).by_module
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    print(f"{'second call, batch of 10':<28} {'calls':>6} {'goal':>5} {'modules':>8} {'goal':>5}")
    for name, run, most_calls, most_modules in questions():
        found = calls(run)
        print(f"{name:<28} {found.total():>6} {most_calls:>5} {len(found):>8} {most_modules:>5}")
        for module, count in found.most_common() if by_module else ():
            print(f"    {module:<50} {count:>4}")


if __name__ == "__main__":
    main()
