"""The KL divergence worked by hand: as a sum, as an integral, and inside an ELBO.

Run ``python -m examples.kl_by_hand``; the numbers are in nats.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence

import pyro
import torch
from scipy.integrate import quad
from torch.distributions import Bernoulli, Distribution, Normal, kl_divergence

import pyro_kl  # it also registers its formulas with kl_divergence


def scalar(distribution: Callable[..., Distribution], *parameters: float) -> Distribution:
    """Return a scalar distribution in double precision."""
    return distribution(*(torch.tensor(x, dtype=torch.float64) for x in parameters))


def kl_by_sum(p: Sequence[float], q: Sequence[float]) -> float:
    """Return sum_x p(x) log(p(x) / q(x)) over outcomes with p(x) > 0."""
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def normal_density(x: float, loc: float, scale: float) -> float:
    """Return the density of Normal(loc, scale) at x."""
    return math.exp(-0.5 * ((x - loc) / scale) ** 2) / (scale * math.sqrt(2 * math.pi))


def kl_by_integral(loc: float, scale: float, prior_loc: float, prior_scale: float) -> float:
    """Return the integral of p(x) log(p(x) / q(x)) for two Normals, by quadrature."""

    def integrand(x: float) -> float:
        p = normal_density(x, loc, scale)
        q = normal_density(x, prior_loc, prior_scale)
        return p * math.log(p / q)

    value, _ = quad(integrand, loc - 12 * scale, loc + 12 * scale)
    return float(value)


def cross_entropy(x: float, y: int, w: float, b: float) -> float:
    """Return -log p(y | x, w, b) of one datum of logistic regression."""
    logit = w * x + b
    return math.log1p(math.exp(-logit if y == 1 else logit))


def three_ways(definition: float, p: Distribution, q: Distribution, num_samples: int) -> list[str]:
    """Work KL(p || q) by its definition, in closed form and by sampling."""
    closed = float(kl_divergence(p, q))
    sampled = pyro_kl.monte_carlo(p, q, num_samples)
    estimate, error = float(sampled.value), float(sampled.standard_error)
    return [
        f"  by the definition            {definition:.6f} nats",
        f"  closed form (kl_divergence)  {closed:.6f} nats",
        f"  Monte Carlo                  {estimate:.6f} +- {error:.6f} nats",
        f"                               z = {(estimate - closed) / error:+.2f}, "
        f"{num_samples:,} samples",
    ]


def heading(title: str) -> list[str]:
    """Return a title with a rule below it."""
    return ["", title, "-" * len(title)]


def sum_section(num_samples: int) -> list[str]:
    """A fair coin against a coin that falls heads 7 times in 10."""
    fair, loaded = (0.5, 0.5), (0.3, 0.7)
    p, q = scalar(Bernoulli, fair[1]), scalar(Bernoulli, loaded[1])
    return [
        *heading("1. A sum: a fair coin p against a 0.7 coin q"),
        "Throw a coin that is fair (p), believe that it falls heads 0.7 of the time",
        "(q). KL(p || q) is how much worse, per throw, the belief predicts:",
        "",
        "  KL(p || q) = sum over x of p(x) log(p(x) / q(x))",
        "             = 0.5 log(0.5 / 0.3) + 0.5 log(0.5 / 0.7)",
        "             = 0.5 * 0.5108 - 0.5 * 0.3365 = 0.0872 nats",
        "",
        *three_ways(kl_by_sum(fair, loaded), p, q, num_samples),
        "",
        "The other direction asks another question (throw the 0.7 coin, believe it",
        "fair), so it has another answer. KL is not a distance: KL(q || p) is",
        "",
        *three_ways(kl_by_sum(loaded, fair), q, p, num_samples),
    ]


def integral_section(num_samples: int) -> list[str]:
    """A posterior N(1, 1) against a prior N(0, 1)."""
    posterior, prior = scalar(Normal, 1.0, 1.0), scalar(Normal, 0.0, 1.0)
    return [
        *heading("2. An integral: posterior N(1, 1) against prior N(0, 1)"),
        "With densities the sum becomes an integral. For two Normals of the same",
        "scale s it comes to the squared distance of the means over 2 s^2:",
        "",
        "  KL = integral of p(w) log(p(w) / q(w)) dw = (1 - 0)^2 / (2 * 1^2) = 0.5 nats",
        "",
        *three_ways(kl_by_integral(1.0, 1.0, 0.0, 1.0), posterior, prior, num_samples),
    ]


def elbo_section(beta: float = 0.1) -> list[str]:
    """One datum of logistic regression, and the sign of the KL."""
    loss, kl = cross_entropy(x=2.0, y=1, w=1.0, b=0.0), 0.5
    objective = loss + beta * kl
    return [
        *heading("3. Inside an ELBO: one datum of logistic regression"),
        "Datum x = 2, y = 1; model with weight w = 1 and bias b = 0. The logit is",
        "w x + b = 2, the probability of y = 1 is sigmoid(2) = 0.8808, and",
        "",
        f"  cross-entropy  -log p(y | x, w) = -log 0.8808    = {loss:.4f} nats",
        f"  KL(posterior N(1, 1) || prior N(0, 1)), as above = {kl:.4f} nats",
        f"  beta, the weight of the KL                       = {beta:.4f}",
        "",
        'A line often seen is "loss - beta KL = 0.08". It mixes two conventions: the',
        "cross-entropy is to be minimised, but minus beta KL belongs to something to be",
        "maximised. The three numbers one can write down:",
        "",
        f"  loss - beta KL =  {loss:.4f} - {beta} * {kl} = {loss - beta * kl:7.4f}   use neither",
        f"  loss + beta KL =  {loss:.4f} + {beta} * {kl} = {objective:7.4f}   minimise this",
        f"  ELBO           = -{loss:.4f} - {beta} * {kl} = {-objective:7.4f}   maximise this",
        "",
        "Inference minimises loss + beta KL, which is minus the ELBO: a posterior has to",
        "pay for leaving the prior. Minimising the mixed line would reward it for going",
        "as far away as it can. (With beta = 1 the ELBO is a lower bound on the log",
        "evidence; the loss here is taken at the posterior mean w = 1. A full ELBO",
        "averages it over the posterior, as examples.logistic_regression does.)",
    ]


def page(num_samples: int) -> str:
    """Return the whole text."""
    sections: list[Callable[[int], list[str]]] = [sum_section, integral_section]
    lines = [
        "The KL divergence by hand",
        "=========================",
        "KL(p || q) is the mean of log p(x) - log q(x) over draws x from p: how much",
        "log probability is lost, in nats, by describing p with q. It is 0 where the",
        "two agree and above 0 everywhere else.",
    ]
    for section in sections:
        lines += section(num_samples)
    return "\n".join([*lines, *elbo_section()]) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the page; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.kl_by_hand", description="The KL divergence worked by hand."
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples (0)")
    parser.add_argument("--smoke", action="store_true", help="fewer samples")
    args = parser.parse_args(argv)
    if not 0 <= args.seed < 2**32:
        parser.exit(2, f"error: --seed must lie in 0 .. 2**32 - 1, got {args.seed}\n")
    pyro.set_rng_seed(args.seed)
    print(page(10_000 if args.smoke else 1_000_000), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
