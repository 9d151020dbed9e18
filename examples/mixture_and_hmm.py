"""Discrete latents summed out beside exact KLs: a mixture of galaxies, a hidden Markov model.

The mixture has unknown weights, locations and scales; the hidden Markov model has the earthquakes
of 107 years and three states with unknown rates and transitions. `TraceEnumKL_ELBO` sums over the
components and over all paths of states, and reports the KL of every latent, that of the exact
posterior of the discrete ones included. Run ``python -m examples.mixture_and_hmm --help``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import infer_discrete
from pyro.infer.autoguide import AutoNormal, init_to_value
from torch import Tensor

import pyro_kl
from models import earthquakes, galaxies

from .hierarchical import heading, run_command, wrap

REPORT, DATA, PICTURE = "report.txt", "sites.jsonl", "mixture_and_hmm.png"


@dataclass(frozen=True)
class Fit:
    """A fitted model.

    Attributes:
        report: Every term of the ELBO.
        medians: Of the guide, by site.
        states: The most probable values of the discrete sites at the medians.
    """

    report: pyro_kl.KLReport
    medians: dict[str, Tensor]
    states: Tensor


def fit(
    model: Callable[[], None],
    discrete: Sequence[str],
    start: dict[str, Tensor],
    nesting: int,
    steps: int,
    draws: int,
) -> Fit:
    """Fit a mean-field guide of the continuous latents, and decode the discrete ones."""
    pyro.clear_param_store()
    continuous = poutine.block(model, hide=list(discrete))
    guide = AutoNormal(continuous, init_loc_fn=init_to_value(values=start), init_scale=0.1)
    elbo = pyro_kl.TraceEnumKL_ELBO(max_plate_nesting=nesting)
    rate = pyro.optim.ClippedAdam({"lr": 0.03, "lrd": 0.1 ** (1 / steps)})
    pyro_kl.SVI(model, guide, rate, elbo).run(steps, progress=True)
    report = elbo.evaluate(model, guide, num_particles=draws)
    medians = {name: value.detach() for name, value in guide.median().items()}
    known = poutine.condition(model, data=medians)
    decoded = infer_discrete(known, first_available_dim=-1 - nesting, temperature=0)
    trace = poutine.trace(decoded).get_trace()
    states = torch.stack([trace.nodes[name]["value"] for name in discrete]).squeeze(0)
    return Fit(report, medians, states)


def fit_galaxies(steps: int, draws: int) -> Fit:
    """Fit the mixture."""
    locs = torch.tensor(galaxies.START)
    start = {"locs": locs, "scales": torch.ones_like(locs), "weights": torch.ones_like(locs) / 4}
    return fit(galaxies.model, ["component"], start, 1, steps, draws)


def fit_earthquakes(steps: int, draws: int) -> Fit:
    """Fit the hidden Markov model."""
    start = {
        "rates": torch.tensor(earthquakes.START),
        "moves": 0.1 + 0.7 * torch.eye(len(earthquakes.START)),
    }
    hidden = [f"state_{t}" for t in range(len(earthquakes.COUNT))]
    return fit(earthquakes.model, hidden, start, 0, steps, draws)


# --------------------------------------------------------------------------------------
# Report and picture
# --------------------------------------------------------------------------------------


def components(one: Fit) -> str:
    """Return the table of components."""
    lines = [f"{'weight':>8}{'velocity':>12}{'scale':>8}{'galaxies':>10}"]
    columns = [one.medians[name].tolist() for name in ("weights", "locs", "scales")]
    for k, (weight, loc, scale) in enumerate(zip(*columns, strict=True)):
        count = int((one.states == k).sum())
        lines.append(f"{weight:8.2f}{loc:12.1f}{scale:8.1f}{count:10d}")
    return "\n".join(lines) + "\n"


def decades(one: Fit) -> str:
    """Return the rates, the transitions, and the state of each year."""
    rates = "  ".join(f"{k}: {rate:.1f}" for k, rate in enumerate(one.medians["rates"].tolist()))
    lines = [f"Earthquakes in a year, by state   {rates}", "Probability of the next state:"]
    for k, row in enumerate(one.medians["moves"].tolist()):
        lines.append(f"  from {k}:" + "".join(f"{p:7.2f}" for p in row))
    lines.append("The most probable state of each year:")
    states = "".join(str(int(k)) for k in one.states)
    for i in range(0, len(states), 10):
        lines.append(f"  {earthquakes.FIRST_YEAR + i}s  {states[i : i + 10]}")
    return "\n".join(lines) + "\n"


def latents(report: pyro_kl.KLReport) -> str:
    """Return a report without its rows of single years."""
    kept = [line for line in str(report).splitlines() if not line.startswith("count_")]
    return "\n".join(kept)


def draw(mixture: Fit, chain: Fit) -> Any:
    """Draw both data with what was fitted to them."""
    from matplotlib.figure import Figure

    figure = Figure((8.0, 6.0), dpi=150, layout="constrained")
    above, below = figure.subplots(2, 1)
    above.hist(galaxies.VELOCITY, bins=40, density=True, color="0.85")
    at = torch.linspace(8.0, 36.0, 400)
    columns = [mixture.medians[name] for name in ("weights", "locs", "scales")]
    for weight, loc, scale in zip(*columns, strict=True):
        density = weight * torch.distributions.Normal(loc, scale).log_prob(at).exp()
        above.plot(at, density, label=f"{loc:.1f} +- {scale:.1f}")
    above.set(title="82 galaxies: four components", xlabel="1000 km/s", ylabel="density")
    above.legend(frameon=False)
    years = [earthquakes.FIRST_YEAR + t for t in range(len(earthquakes.COUNT))]
    below.plot(years, earthquakes.COUNT, "o", color="0.6", markersize=3)
    below.step(years, chain.medians["rates"][chain.states], where="mid", label="rate of the state")
    below.set(title="Earthquakes of magnitude 7 or more", xlabel="year", ylabel="in the year")
    below.legend(frameon=False)
    return figure


# --------------------------------------------------------------------------------------
# The command
# --------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.mixture_and_hmm", description=__doc__.split("\n")[0]
    )
    add = parser.add_argument
    add("--steps", type=int, help="gradient steps of the mixture (600); the chain takes a quarter")
    add("--seed", type=int, default=0, help="seed of fits and draws (0)")
    add("--out", type=Path, default=Path("out/mixture_and_hmm"), help="output folder")
    add("--smoke", action="store_true", help="a few seconds: few steps, few draws")
    return parser


def run(args: argparse.Namespace) -> int:
    """Fit, report, draw; return the exit code."""
    steps = args.steps or (20 if args.smoke else 600)
    draws = 5 if args.smoke else 100
    pyro.set_rng_seed(args.seed)
    text = ""

    def say(part: str) -> None:  # each part is printed when it is known
        nonlocal text
        lines = "".join(f"{line}\n" for line in wrap(part.rstrip("\n")))
        print(lines, flush=True)
        text += lines + "\n"

    say(heading("A mixture of galaxies", "="))
    mixture = fit_galaxies(steps, draws)
    say(str(mixture.report))
    say(components(mixture))
    say(heading("A hidden Markov model of earthquakes", "="))
    chain = fit_earthquakes(max(steps // 4, 1), max(draws // 5, 2))
    say(latents(chain.report))
    say(decades(chain))
    (args.out / REPORT).write_text(text, encoding="utf-8")
    data = mixture.report.to_json_lines() + chain.report.to_json_lines()
    (args.out / DATA).write_text(data, encoding="utf-8")
    draw(mixture, chain).savefig(args.out / PICTURE)
    print("Written:", *[f"  {args.out / name}" for name in (REPORT, DATA, PICTURE)], sep="\n")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
