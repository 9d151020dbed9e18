"""Does the exact KL lower the variance of the gradient? Where it helps, and where it hurts.

    python -m benchmarks.elbo_variance [--write]

prints the table of docs/explanations/elbo_variance.md, or replaces it there.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoMultivariateNormal

from pyro_kl import TraceKL_ELBO

PAGE = Path(__file__).parent.parent / "docs" / "explanations" / "elbo_variance.md"
STAGES = {"start": 0, "midway": 150, "converged": 3000}


def regression(rows, dim, seed=0):
    """A logistic regression with unit Normal priors, on synthetic data."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, dim, generator=generator)
    w = torch.randn(dim, generator=generator) / dim**0.5 * 2
    y = (torch.rand(rows, generator=generator) < torch.sigmoid(x @ w)).float()

    def model():
        weights = pyro.sample("w", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
        with pyro.plate("data", rows):
            pyro.sample("y", dist.Bernoulli(logits=x @ weights), obs=y)

    return model


def hierarchy(groups=20, seed=0):
    """Group means with a common mean and a log-Normal spread."""
    generator = torch.Generator().manual_seed(seed)
    y = 1.0 + 0.7 * torch.randn(groups, generator=generator)

    def model():
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
        log_tau = pyro.sample("log_tau", dist.Normal(0.0, 1.0))
        with pyro.plate("groups", groups):
            theta = pyro.sample("theta", dist.Normal(mu, log_tau.exp()))
            pyro.sample("y", dist.Normal(theta, 0.5), obs=y)

    return model


MODELS = {
    "regression, 500 rows, 20 weights": regression(500, 20),
    "regression, 50 rows, 200 weights": regression(50, 200),
    "hierarchy, 20 groups": hierarchy(),
}
GUIDES = {"diagonal": AutoDiagonalNormal, "full": AutoMultivariateNormal}


def gradient_noise(elbo, model, guide, draws):
    """Variance of the gradient, summed over coordinates, and sd of the loss, of one draw."""
    gradients, losses = [], []
    for _ in range(draws):
        losses.append(elbo.loss_and_grads(model, guide))
        parameters = [p for _, p in sorted(pyro.get_param_store().named_parameters())]
        # TraceGraph_ELBO keeps the averages of its baselines as parameters without a gradient
        found = [p.grad.reshape(-1) for p in parameters if p.grad is not None]
        gradients.append(torch.cat(found))
        for parameter in parameters:
            parameter.grad = None
    variance = torch.stack(gradients).var(0).sum()
    return float(variance), float(torch.tensor(losses).std())


def replace_table(header, lines):
    """Put a table in the place of that of the page with the same header."""
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split(header)
    rest = after.splitlines()
    while rest and (not rest[0] or rest[0].startswith("|")):
        del rest[0]
    made = "\n".join([*lines, "", *rest]).rstrip() + "\n"
    PAGE.write_text(before + made, encoding="utf-8")


def rows(draws):
    """Lines of the table."""
    for model_name, model in MODELS.items():
        for guide_name, guide_type in GUIDES.items():
            pyro.clear_param_store()
            pyro.set_rng_seed(0)
            guide = guide_type(model)
            guide()
            trained = 0
            svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), TraceKL_ELBO(num_particles=2))
            for stage, steps in STAGES.items():
                for _ in range(steps - trained):
                    svi.step()
                trained = max(steps, trained)
                trace = gradient_noise(Trace_ELBO(), model, guide, draws)
                exact = gradient_noise(TraceKL_ELBO(), model, guide, draws)
                control = TraceKL_ELBO(control_variate=True)
                gradient_noise(control, model, guide, 100)  # learns its coefficient
                coefficient = control.control_variate.coefficient
                mixed = gradient_noise(control, model, guide, draws)
                yield (
                    f"| {model_name} | {guide_name} | {stage} | {exact[0] / trace[0]:.2f} "
                    f"| {mixed[0] / trace[0]:.2f} ({coefficient:+.1f}) "
                    f"| {trace[1]:.2f} | {exact[1]:.2f} |"
                )


HEADER = """\
| model | guide | stage | gradient variance, exact KL / sampled | with control variate (c) | sd of loss, Trace_ELBO | sd of loss, TraceKL_ELBO |
|---|---|---|---|---|---|---|"""  # noqa: E501


def main(header, rows, argv=None):
    """Print a table, and replace that of the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--write", action="store_true", help="replace the table of the page")
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    lines = [header]
    print(header)
    with pyro.validation_enabled(False):
        for line in rows(args.draws):
            print(line, flush=True)
            lines.append(line)
    if args.write:
        replace_table(header, lines)


if __name__ == "__main__":
    main(HEADER, rows)
