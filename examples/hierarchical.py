"""Eight schools, centred: which sites' KLs are exact, Rao-Blackwellised or sampled, and why.

Eight schools coached for a test; the effects ``y`` and their standard errors ``sigma`` are
Rubin's (1981, Estimation in Parallel Randomized Experiments, table 1)::

    mu     ~ Normal(0, 5)             the mean effect over all schools
    tau    ~ HalfCauchy(5)            how much schools differ
    theta  ~ Normal(mu, tau), 8       the effect of each school: its prior has latent parents
    y      ~ Normal(theta, sigma), 8  observed

Three guides are fitted with the same ELBO, and each is diagnosed: how far is it from the
posterior? The report ends with the same model in non-centred form, where a guide without
correlations is good. Run ``python -m examples.hierarchical --help``.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import Tensor

import pyro_kl
from models.eight_schools import EFFECT, ERROR, SCHOOLS, model, non_centred

REPORT, DATA, PICTURE = "report.txt", "sites.jsonl", "schools.png"
BAD_INPUT, INTERRUPTED = 2, 130


def backwards() -> None:
    """A guide that draws the schools first, and their mean and spread from what they are.

    Such a guide follows the posterior's own dependence, but theta's prior depends on mu and tau,
    which descend from theta here: no formula is valid for theta.
    """

    def parameter(name: str, value: Tensor, constraint: Any = constraints.real) -> Tensor:
        return pyro.param(name, lambda: value.clone(), constraint=constraint)

    n = len(EFFECT)
    loc = parameter("theta_loc", torch.full((n,), 8.0))
    scale = parameter("theta_scale", torch.full((n,), 3.0), constraints.positive)
    with pyro.plate("schools", n, dim=-1):
        theta = pyro.sample("theta", dist.Normal(loc, scale))
    mean = theta.mean(-1, keepdim=theta.dim() > 1)
    spread = theta.std(-1, keepdim=theta.dim() > 1)
    gain = parameter("mu_gain", torch.tensor(0.5))
    mu_scale = parameter("mu_scale", torch.tensor(2.0), constraints.positive)
    pyro.sample("mu", dist.Normal(gain * mean, mu_scale))
    slope, offset = (
        parameter("tau_slope", torch.tensor(0.5)),
        parameter("tau_loc", torch.zeros(())),
    )
    tau_scale = parameter("tau_scale", torch.tensor(0.5), constraints.positive)
    pyro.sample("tau", dist.LogNormal(offset + slope * spread.log(), tau_scale))


#: name -> guide, and what to expect of it.
GUIDES: dict[str, tuple[Callable[[], Any], str]] = {
    "AutoMultivariateNormal": (
        lambda: AutoMultivariateNormal(model),
        "mu and tau have no parents: their KLs are exact. theta's is exact given mu and tau, "
        "averaged over draws of them.",
    ),
    "AutoNormal": (
        lambda: AutoNormal(model),
        "The same without correlations between sites.",
    ),
    "backwards": (
        lambda: backwards,
        "theta is drawn before mu and tau: its KL is sampled, and the ELBO says so.",
    ),
}


# --------------------------------------------------------------------------------------
# Fits
# --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """A fitted guide with its numbers.

    Attributes:
        name: Of the guide.
        guide: The guide.
        told: Warnings that the ELBO gave.
        report: Every term of the ELBO.
        comparison: Exact against sampled KL, site by site.
        noise: Standard deviation of a one-draw loss: TraceKL_ELBO, Trace_ELBO.
        schools: Mean and sd of each school's effect under the guide.
        diagnosis: How far the guide is from the posterior.
    """

    name: str
    guide: Any
    told: list[str]
    report: pyro_kl.KLReport
    comparison: pyro_kl.SiteComparisons
    noise: tuple[float, float]
    schools: tuple[Tensor, Tensor]
    diagnosis: pyro_kl.Diagnosis


def fit(name: str, steps: int, draws: int) -> Fit:
    """Fit one guide and measure it."""
    pyro.clear_param_store()
    guide = GUIDES[name][0]()
    guide()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        elbo = _svi(model, guide, steps)
        report = elbo.evaluate(model, guide, num_particles=draws)
        comparison = pyro_kl.compare_sites(
            model, guide, num_particles=draws, vectorize_particles=True, max_plate_nesting=1
        )
    told = list(dict.fromkeys(str(warning.message) for warning in caught))
    noise = _noise(pyro_kl.TraceKL_ELBO(mean_field="check"), guide), _noise(Trace_ELBO(), guide)
    diagnosis = pyro_kl.diagnose(model, guide, max_plate_nesting=1)
    return Fit(name, guide, told, report, comparison, noise, _schools(guide, draws), diagnosis)


def _svi(model: Callable[[], None], guide: Any, steps: int) -> pyro_kl.TraceKL_ELBO:
    """Fit a guide; its ELBO."""
    elbo = pyro_kl.TraceKL_ELBO(num_particles=8, vectorize_particles=True, max_plate_nesting=1)
    decay = {"lr": 0.05, "lrd": 0.1 ** (1 / steps)}
    svi = pyro_kl.SVI(model, guide, pyro.optim.ClippedAdam(decay), elbo, compile="fx")
    svi.run(steps, progress=True)
    return elbo


def diagnose_non_centred(steps: int) -> pyro_kl.Diagnosis:
    """Fit the non-centred form with a guide without correlations, and diagnose it."""
    pyro.clear_param_store()
    guide = AutoNormal(non_centred)
    _svi(non_centred, guide, steps)
    return pyro_kl.diagnose(non_centred, guide, max_plate_nesting=1)


def _noise(elbo: Trace_ELBO, guide: Any, draws: int = 200) -> float:
    """Standard deviation of the loss of one draw."""
    with warnings.catch_warnings(), pyro.validation_enabled(False):
        warnings.simplefilter("ignore")
        return float(torch.tensor([elbo.loss(model, guide) for _ in range(draws)]).std())


def _schools(guide: Any, draws: int) -> tuple[Tensor, Tensor]:
    """Mean and sd of theta under the guide."""
    with torch.no_grad(), pyro.plate("draws", draws, dim=-2):
        theta = pyro.poutine.trace(guide).get_trace().nodes["theta"]["value"]
    theta = theta.reshape(draws, len(EFFECT))
    return theta.mean(0), theta.std(0)


# --------------------------------------------------------------------------------------
# Report and picture
# --------------------------------------------------------------------------------------


def heading(title: str, line: str = "-") -> str:
    """Return a title and a line under it."""
    return f"{title}\n{line * len(title)}\n"


def section(one: Fit) -> str:
    """Return what the report says of one guide."""
    ours, theirs = one.noise
    told = [f"  {line}" for message in one.told for line in message.splitlines()]
    lines = [
        GUIDES[one.name][1],
        "",
        str(one.report),
        "",
        "Exact against sampled, over the same draws:",
        str(one.comparison),
        *(["Warning from TraceKL_ELBO:", *told] if told else []),
        f"One draw's loss has sd {ours:.2f} with TraceKL_ELBO, {theirs:.2f} with Trace_ELBO.",
        "",
    ]
    return "".join(f"{line}\n" for part in lines for line in wrap(part))


def effects(fits: Sequence[Fit]) -> str:
    """Return the table of schools under each guide."""
    widths = [max(len(one.name), len("-00.0 +- 0.0")) + 2 for one in fits]
    names = [one.name.rjust(width) for one, width in zip(fits, widths, strict=True)]
    lines = [f"{'school':<8}{'measured':>14}{''.join(names)}"]
    for i, school in enumerate(SCHOOLS):
        cells = [f"{one.schools[0][i]:.1f} +- {one.schools[1][i]:.1f}" for one in fits]
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        measured = f"{EFFECT[i]:.0f} +- {ERROR[i]:.0f}"
        lines += [f"{school:<8}{measured:>14}{''.join(padded)}"]
    return heading("Effects, mean +- sd") + "\n".join(lines) + "\n"


def how_far(fits: Sequence[Fit], other: pyro_kl.Diagnosis) -> str:
    """Return the KL of each guide to the posterior, and all that is known of the last one."""
    lines = [f"{'':<36}{'k-hat':>5}  KL(guide || posterior)"]
    rows = [(f"centred, {one.name}", one.diagnosis) for one in fits]
    for name, found in [*rows, ("non-centred, AutoNormal", other)]:
        kl = found.kl_posterior
        told = f"unknown, at least {found.kl_at_least:.2f}"
        if found.known:
            told = f"{float(kl):.2f} +- {float(kl.standard_error):.2f}"
        lines.append(f"{name:<36}{found.khat:5.2f}  {told}")
    title = "\n" + heading("How far is each guide from the posterior?")
    why = "The KLs above are to the prior: they say what a guide claims to know, not how well."
    head = title + "\n".join(wrap(why))
    return "\n".join([head, "", *lines, "", "non-centred, AutoNormal:", str(other), ""])


def wrap(text: str) -> list[str]:
    """Return the lines of a text, none longer than 80 characters."""
    lines = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        lines += textwrap.wrap(line, 80, subsequent_indent=indent) or [""]
    return lines


def draw(fits: Sequence[Fit]) -> Any:
    """Draw the KL of every site under each guide, told apart by method."""
    from matplotlib.figure import Figure

    from pyro_kl import plot

    figure = Figure((8.0, 2.4 * len(fits)), dpi=150, layout="constrained")
    panels = figure.subplots(len(fits), 1, sharex=True, squeeze=False).flat
    for axes, one in zip(panels, fits, strict=True):
        plot.site_kls(one.report, ax=axes)
        axes.set_title(f"{one.name}\n{axes.get_title('left')}", loc="left", fontsize="medium")
    return figure


# --------------------------------------------------------------------------------------
# The command
# --------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = _Parser(prog="python -m examples.hierarchical", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--steps", type=int, help="gradient steps for each guide (2000; 100 with --smoke)")
    add("--seed", type=int, default=0, help="seed of fits and draws (0)")
    add("--out", type=Path, default=Path("out/hierarchical"), help="output folder")
    add("--smoke", action="store_true", help="a few seconds: few steps, few draws")
    return parser


def run(args: argparse.Namespace) -> int:
    """Fit, report, draw; return the exit code."""
    steps = args.steps or (100 if args.smoke else 2000)
    draws = 300 if args.smoke else 4000
    pyro.set_rng_seed(args.seed)
    fits, text = [], ""

    def say(part: str) -> None:  # each part is printed when it is known
        nonlocal text
        print(part, end="", flush=True)
        text += part

    say(heading("Eight schools: the KL of every site, and how it was made", "="))
    say(f"Each guide fitted by SVI for {steps} steps. Nats.\n\n")
    for name in GUIDES:
        say(heading(name))
        fits.append(fit(name, steps, draws))
        say(section(fits[-1]))
    say(effects(fits))
    say(how_far(fits, diagnose_non_centred(min(steps, 1000))))  # it is fitted sooner
    (args.out / REPORT).write_text(text, encoding="utf-8")
    (args.out / DATA).write_text("".join(one.report.to_json_lines() for one in fits))
    draw(fits).savefig(args.out / PICTURE)
    print("\nWritten:", *[f"  {args.out / name}" for name in (REPORT, DATA, PICTURE)], sep="\n")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return run_command(build_parser(), run, argv)


def run_command(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None,
) -> int:
    """Run an example with --steps, --seed and --out, and return the exit code."""
    args = parser.parse_args(argv)
    if args.steps is not None and args.steps < 1:
        parser.error(f"--steps: must be at least 1, got {args.steps}")
    if not 0 <= args.seed < 2**32:
        parser.error(f"--seed: must lie in 0 .. 2**32 - 1, got {args.seed}")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {args.out}: cannot be made ({error.strerror})")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are small
    try:
        return run(args)
    except KeyboardInterrupt:
        print("interrupted: there is no report yet", file=sys.stderr)
        return INTERRUPTED
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    sys.exit(main())
