"""The mean loss with every autoguide and every prior, beside that of Pyro's Trace_ELBO.

    python -m tools.elbo_guides [--draws 20000]

Both ELBOs see the same draws, in batches; z is the mean difference of their losses over its
standard error. Where both are deterministic the difference itself is printed.
"""

from __future__ import annotations

import argparse
import math
import warnings

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.infer import autoguide as ag

import pyro_kl

PRIORS = {
    "Normal": lambda: dist.Normal(0.5, 2.0),
    "StudentT": lambda: dist.StudentT(4.0, 0.0, 1.0),
    "LogNormal": lambda: dist.LogNormal(0.2, 0.7),
    "Gamma": lambda: dist.Gamma(2.0, 1.5),
    "HalfCauchy": lambda: dist.HalfCauchy(1.0),
    "Exponential": lambda: dist.Exponential(1.5),
    "Beta": lambda: dist.Beta(2.0, 3.0),
    "Dirichlet(3)": lambda: dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])),
    "LKJCholesky(3)": lambda: dist.LKJCholesky(3, 1.5),
    "Uniform": lambda: dist.Uniform(-1.0, 2.0),
}
GUIDES = {
    "AutoNormal": ag.AutoNormal,
    "AutoDiagonalNormal": ag.AutoDiagonalNormal,
    "AutoMultivariateNormal": ag.AutoMultivariateNormal,
    "AutoLowRankMultivariateNormal": lambda m, **k: ag.AutoLowRankMultivariateNormal(
        m, rank=2, **k
    ),
    "AutoStructured": ag.AutoStructured,
    "AutoDelta": ag.AutoDelta,
    "AutoNormalMessenger": ag.AutoNormalMessenger,
    "AutoHierarchicalNormalMessenger": ag.AutoHierarchicalNormalMessenger,
}


def with_child(prior):
    """A model with the prior, a plate of it if it is univariate, and a child of the first."""

    def model():
        distribution = prior()
        z = pyro.sample("z", distribution)
        if not distribution.event_shape:
            with pyro.plate("plate", 3, dim=-1):
                pyro.sample("zs", distribution)
            pyro.sample("child", dist.Normal(z, 1.0))
        else:
            first = z.flatten(-distribution.event_dim)[..., 0]
            pyro.sample("child", dist.Normal(first, 1.0))

    return model


def build(name, model, init=None):
    """A guide that has been run once, with its parameters moved to no special place."""
    pyro.clear_param_store()
    pyro.set_rng_seed(1)
    init = init or ag.initialization.init_to_sample
    guide = GUIDES[name](model, init_loc_fn=init)
    with torch.no_grad():
        guide()
        for parameter in pyro.get_param_store()._params.values():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return guide


def difference(model, guide, draws, batches=20):
    """Mean difference of the losses and its standard error, over batches of the same draws."""
    kwargs = dict(num_particles=draws // batches, vectorize_particles=True, max_plate_nesting=1)
    ours, theirs = pyro_kl.TraceKL_ELBO(**kwargs), Trace_ELBO(**kwargs)
    gaps, scale = [], 0.0
    with pyro.validation_enabled(False):
        for seed in range(batches):
            pyro.set_rng_seed(seed)
            a = ours.loss(model, guide)
            pyro.set_rng_seed(seed)
            b = theirs.loss(model, guide)
            gaps.append(a - b)
            scale = max(scale, abs(a))
    gaps = torch.tensor(gaps, dtype=torch.float64)
    rounding = 1e-6 * (1 + scale)
    error = math.hypot(float(gaps.std()) / math.sqrt(batches), rounding)
    return float(gaps.mean()), error, ours.report


def main(argv=None):
    """Print the matrix."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--guide", choices=GUIDES)
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    worst = 0.0
    for guide_name in [args.guide] if args.guide else GUIDES:
        for prior_name, prior in PRIORS.items():
            model = with_child(prior)
            try:
                guide = build(guide_name, model)
                gap, error, report = difference(model, guide, args.draws)
            except (ValueError, NotImplementedError) as problem:
                print(f"{guide_name:<32} {prior_name:<15} Pyro: {str(problem)[:70]!r}")
                continue
            z = gap / error
            worst = max(worst, abs(z))
            methods = " ".join(f"{row.site}: {row.method};" for row in report)
            print(f"{guide_name:<32} {prior_name:<15} {gap:+.5f} z = {z:+5.2f}  {methods}")
    print(f"largest |z| = {worst:.2f}")
    return worst


if __name__ == "__main__":
    main()
