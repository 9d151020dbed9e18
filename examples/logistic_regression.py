"""Bayesian logistic regression: fit exactly, report every KL, see SVI arrive, draw pictures.

`pyro_kl.glm` finds the optimum of the ELBO without sampling. Every KL of the report stands beside
a sampled one, and the whole fit beside one by SVI, which comes to the same numbers.

Run ``python -m examples.logistic_regression --help`` for the options. Exit codes: 0 for a
complete fit, 130 for a fit cut short by Ctrl-C (the report of what there is is still printed
and saved), 2 for bad options or bad data.
"""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pyro
import pyro.distributions as dist
import torch

import pyro_kl
from models.data import DataError, Dataset, load_breast_cancer, load_csv, split, standardise
from models.logistic_regression import (
    GUIDES,
    PRIORS,
    STUDENT_T_DF,
    Fit,
    KLRow,
    LogisticRegression,
    Prediction,
    coefficient_kls,
    elbo_report,
    expected_log_likelihood,
    fit_exact,
    fit_svi,
    joint_kl,
    predict,
    site_kls,
    total_correlation,
)

PICTURES = ("elbo_terms.png", "prior_posterior.png", "convergence.png")
REPORT = "report.txt"
INTERRUPTED = 130
BAD_INPUT = 2
SMOKE_STEPS = 150


@dataclass(frozen=True)
class Sampling:
    """How many draws the sampled columns and the convergence picture take."""

    table: int
    picture: int


def _number(kind: type, least: float, below: float = math.inf) -> Callable[[str], float]:
    """Return an argparse type: a number of at least ``least`` and below ``below``."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            word = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {word}") from None
        if not least <= value < below:
            limit = f" and below {below:g}" if value >= below else ""
            raise argparse.ArgumentTypeError(f"must be at least {least:g}{limit}, got {text}")
        return value

    return parse


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = _Parser(
        prog="python -m examples.logistic_regression",
        description="Bayesian logistic regression by variational inference with exact KLs.",
    )
    # Pyro seeds numpy too, which takes 32 bits; the samples use the next seed.
    seed = _number(int, 0, 2**32 - 1)
    add = parser.add_argument
    add("--beta", type=_number(float, 0), default=1.0, help="weight of the KL in the ELBO (1)")
    add("--prior", choices=PRIORS, default="normal", help="prior of the coefficients (normal)")
    add("--guide", choices=GUIDES, default="full-rank", help="the guide (full-rank)")
    add("--steps", type=_number(int, 1), help=f"gradient steps (3000; {SMOKE_STEPS} with --smoke)")
    add("--seed", type=seed, default=0, help="seed of split, fit and samples (0)")
    add("--out", type=Path, default=Path("out/logistic_regression"), help="output folder")
    add("--smoke", action="store_true", help="a few seconds: few steps, few samples")
    add("--csv", type=Path, metavar="FILE", help="a table of your own, with a header line")
    add("--target", metavar="COLUMN", help="the binary column of FILE to predict")
    return parser


def load(args: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """Return training and held-out rows, standardised."""
    if (args.csv is None) != (args.target is None):
        raise DataError("--csv FILE and --target COLUMN go together; give both or neither")
    table = load_breast_cancer() if args.csv is None else load_csv(args.csv, args.target)
    train, held_out = standardise(*split(table, seed=args.seed))
    return train, held_out


# --------------------------------------------------------------------------------------
# The report
# --------------------------------------------------------------------------------------


def rule(title: str) -> list[str]:
    """Return a heading."""
    return ["", title, "-" * len(title)]


def data_section(train: Dataset, held_out: Dataset) -> list[str]:
    """Say what was fitted."""
    rate = float(train.labels.mean())
    return [
        f"{len(train)} training rows, {len(held_out)} held out, {len(train.names)} features.",
        f"Label 1 is {train.target!r}: {100 * rate:.1f}% of the training rows.",
        *(line for note in train.notes for line in textwrap.wrap(note, 80)),
    ]


def fit_section(fit: Fit, seconds: float) -> list[str]:
    """Say which model and guide, and what the fit cost."""
    family = {
        "normal": "Normal(0, s)",
        "laplace": "Laplace(0, s)",
        "studentt": f"StudentT({STUDENT_T_DF:g}, 0, s)",
    }[fit.model.prior]
    scales = fit.model.scales
    return [
        f"Prior: {family} with s = {scales[0]:g} for the bias, {scales[1]:g} for each weight.",
        f"Guide: {fit.guide.name}, fitted without sampling in {fit.steps} passes over the rows, "
        f"{seconds:.3f} s.",
    ]


def elbo_section(fit: Fit, train: Dataset, num_samples: int) -> list[str]:
    """The ELBO and its two terms."""
    likelihood = expected_log_likelihood(fit.guide, train.features, train.labels)
    kl = joint_kl(fit.guide, fit.model, num_samples)
    value, error = float(kl.value), float(torch.as_tensor(kl.standard_error))
    beta = fit.model.beta
    elbo, off = float(likelihood) - beta * value, max(float(likelihood.error), 1e-9)
    kl_error = f" +- {error:.4f}" if error > 0 else ""
    return [
        *rule("ELBO = E_q[log likelihood] - beta * KL(q || prior), training rows, nats"),
        f"  E_q[log likelihood]  {likelihood:12.4f}  {likelihood.method}",
        f"  KL(q || prior)       {value:12.4f}{kl_error}  {kl.method}",
        f"  beta                 {beta:12g}",
        f"  ELBO                 {elbo:12.4f}  = {likelihood:.4f} - {beta:g} * {value:.4f}",
        f"The quadrature is off by less than {off:.0e} nats; it draws no samples.",
        *(
            ["The KL is sampled: there is no formula for this prior and guide."]
            if kl_error
            else []
        ),
    ]


HEADER = [
    f"{'':<23} {'prior':>5} {'posterior':>12}",
    f"{'coefficient':<23} {'sd':>5} {'mean':>6} {'sd':>5} {'KL':>6} {'sampled +-se':>13}"
    f" {'z':>4} method",
]


def kl_line(row: KLRow, prior_sd: float, mean: float, sd: float) -> str:
    """One coefficient: prior, posterior and KL, 80 columns."""
    z = "-" if row.z is None else f"{row.z:.1f}"
    digits = 3 if max(row.value, row.sampled) < 10 else 2 if row.value < 100 else 1
    sampled = f"{row.sampled:.{digits}f} +-{row.standard_error:.{digits}f}"
    return (
        f"{_short_name(row.name, 23):<23} {prior_sd:5.2f} {mean:6.2f} {sd:5.2f} "
        f"{row.value:6.{digits}f} "
        f"{sampled:>13} {z:>4} {short(row.method)}"
    )


def short(method: str) -> str:
    """Return the method without the name of its estimator: "monte carlo"."""
    return method.split(" (")[0]


def joint_line(row: KLRow) -> str:
    """One KL that is not of a single coefficient."""
    z = "-" if row.z is None else f"{row.z:.1f}"
    sampled = f"{row.sampled:.3f} +- {row.standard_error:.3f}"
    return f"{row.name:<20} {row.value:9.3f} {sampled:>18} {z:>5}  {row.method}"


def site_section(rows: Sequence[KLRow]) -> list[str]:
    """The KL of each Pyro site."""
    return [
        *rule("KL by site, nats"),
        f"{'site':<20} {'KL':>9} {'sampled +- s.e.':>18} {'z':>5}  method",
        *map(joint_line, rows),
        "z = (sampled - KL) / s.e.; beyond 4 in size, one of the two would be wrong.",
        *(
            ["'weights | bias' is the KL of the weights' conditional, averaged over the bias;"]
            if rows[1].name != "weights"
            else []
        ),
        "the sites add up to the joint KL by the chain rule.",
    ]


def diagnosis_section(fit: Fit, train: Dataset, num_samples: int) -> list[str]:
    """How far the guide is from the posterior, and what to trust."""
    title = "KL(q || posterior), by importance weights of draws from the guide"
    if fit.model.beta != 1.0:
        return [*rule(title), "With a beta other than 1 the target is not the posterior."]
    found = pyro_kl.diagnose(
        fit.model,
        fit.guide,
        train.features,
        train.labels,
        num_samples=num_samples,
        max_plate_nesting=1,
    )
    return [*rule(title), *found.summary.split("\n")]


def draws_section(fit: Fit, train: Dataset, num_particles: int) -> list[str]:
    """The ELBO over draws from the guide, as the optimiser saw it."""
    report = elbo_report(fit, train, num_particles)
    return [*rule("The same over draws from the guide, by TraceKL_ELBO"), *str(report).split("\n")]


def coefficient_section(fit: Fit, rows: Sequence[KLRow], rest: KLRow, joint: KLRow) -> list[str]:
    """The KL of each coefficient's marginal, and what is left."""
    lines = [*rule("KL by coefficient (marginal against prior), nats"), *HEADER]
    prior_sd, mean, sd = fit.model.prior_sd(), fit.guide.mean(), fit.guide.sd()
    for i, row in enumerate(rows):
        lines.append(kl_line(row, float(prior_sd[i]), float(mean[i]), float(sd[i])))
    total = sum(row.value for row in rows)
    lines += [
        "",
        f"  sum of the marginals' KLs     {total:9.3f}",
        f"  + total correlation           {rest.value:9.3f}  {rest.method}",
        f"  = KL of the joint             {total + rest.value:9.3f}",
    ]
    if joint.z is None:
        lines.append(f"    (sampled jointly: {joint.sampled:.3f} +- {joint.standard_error:.3f})")
    if fit.guide.name == "full-rank":
        lines += [
            "The marginals alone come to less than the joint KL: they do not see the",
            "correlations of the guide, whose price is the total correlation.",
        ]
    else:
        lines.append("A mean-field guide has no correlations: the marginals are all there is.")
    return lines


def held_out_section(prediction: Prediction) -> list[str]:
    """Accuracy, log loss and calibration."""
    count = len(prediction.probability)
    lines = [
        *rule(f"Held-out rows ({count})"),
        f"  accuracy           {100 * prediction.accuracy:8.1f} %",
        f"  log loss           {prediction.log_loss:8.4f} nats per row "
        f"(base rate alone: {prediction.base_log_loss:.4f})",
        f"  calibration error  {prediction.calibration_error:8.4f} "
        "(expected |frequency - probability|)",
        "",
        f"  {'predicted':>11} {'rows':>6} {'mean predicted':>15} {'observed':>9}",
    ]
    for b in prediction.bins:
        edges = f"{b.lower:.1f} - {b.upper:.1f}"
        lines.append(f"  {edges:>11} {b.count:6d} {b.probability:15.3f} {b.frequency:9.3f}")
    return lines


SVI_HEADER = [
    "",
    f"{'':<26} {'exact':>15}   {'SVI':>15}",
    f"{'coefficient':<26} {'mean':>7} {'sd':>7}   {'mean':>7} {'sd':>7} {'z':>7}",
]


def svi_section(exact: Fit, svi: Fit, train: Dataset, seconds: float) -> list[str]:
    """The fit by SVI beside the exact one: both terms of the ELBO, and each coefficient."""
    both = [_terms(fit, train) for fit in (exact, svi)]
    names = ("E_q[log likelihood]", "KL(q || prior)", "ELBO")
    lines = [
        f"{svi.steps} steps of Adam, {seconds:.1f} s.",
        *(["INTERRUPTED: the fit was stopped early, so these are numbers on the way."]
          if svi.interrupted else []),
        "",
        f"  {'':<20} {'exact':>12} {'SVI':>12}",
        *(f"  {name:<20} {a:12.4f} {b:12.4f}" for name, a, b in zip(names, *both, strict=True)),
        f"SVI is {both[0][-1] - both[1][-1]:.3f} nats below the optimum.",
        *SVI_HEADER,
    ]  # fmt: skip
    columns = exact.guide.mean(), exact.guide.sd(), svi.guide.mean(), svi.guide.sd()
    for name, mean, sd, other, other_sd in zip(
        ("bias", *train.names), *(column.tolist() for column in columns), strict=True
    ):
        z = (other - mean) / sd
        lines.append(
            f"{_short_name(name, 26):<26} {mean:7.2f} {sd:7.2f}   {other:7.2f} {other_sd:7.2f} "
            f"{z:+7.2f}"
        )
    return [*lines, "z = (SVI's mean - mean) / sd, in sds of the posterior."]


def _terms(fit: Fit, train: Dataset) -> tuple[float, float, float]:
    """Expected log likelihood, KL and ELBO, without sampling where there is a formula."""
    likelihood = float(expected_log_likelihood(fit.guide, train.features, train.labels))
    kl = float(joint_kl(fit.guide, fit.model).value)
    return likelihood, kl, likelihood - fit.model.beta * kl


def _short_name(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 3] + "..."


class Page:
    """The report: each part is printed when it is known."""

    def __init__(self) -> None:
        self.text = ""

    def add(self, lines: Sequence[str]) -> None:
        """Print some lines and keep them."""
        part = "".join(f"{line}\n" for line in lines)
        print(part, end="", flush=True)
        self.text += part


# --------------------------------------------------------------------------------------
# The pictures
# --------------------------------------------------------------------------------------


def draw(
    fit: Fit, svi: Fit, optimum: float, rows: Sequence[KLRow], out: Path, num_samples: int
) -> list[Path]:
    """Write the three pictures and return their paths."""
    from matplotlib.figure import Figure

    from pyro_kl import plot

    figures = [
        Figure(size, dpi=120, layout="constrained")
        for size in ((8.0, 4.8), (9.4, 5.2), (8.0, 4.5))
    ]
    plot.elbo_terms(svi.history, optimum=optimum, ax=figures[0].subplots())
    mean, sd, prior = fit.guide.mean(), fit.guide.sd(), fit.model.coefficient_prior()
    largest = sorted(range(len(rows)), key=lambda i: -rows[i].value)[:6]
    for place, i in enumerate(largest, 1):
        plot.prior_posterior(
            dist.Normal(mean[i], sd[i]),
            _element(prior, i),
            kl=rows[i].value,
            name=rows[i].name,
            ax=figures[1].add_subplot(2, 3, place),
        )
    with torch.no_grad():
        plot.convergence(
            fit.guide.joint(),
            fit.model.joint_prior(),
            num_samples=num_samples,
            names=("posterior", "prior"),
            ax=figures[2].subplots(),
        )
    paths = [out / name for name in PICTURES]
    for figure, path in zip(figures, paths, strict=True):
        figure.savefig(path)
    return paths


def _element(batch: dist.TorchDistribution, index: int) -> dist.TorchDistribution:
    """Return one member of a batch of univariate distributions."""
    parameters = {name: getattr(batch, name)[index] for name in batch.arg_constraints}
    return type(batch)(**parameters)


# --------------------------------------------------------------------------------------
# The command
# --------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """Fit, report, draw; return the exit code."""
    train, held_out = load(args)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--out {args.out}: cannot be made ({error.strerror})") from None
    sampling = Sampling(2_000, 5_000) if args.smoke else Sampling(10_000, 100_000)
    if args.beta == 0:
        raise DataError("--beta 0 leaves the prior out: the best guide would be a single point")
    steps = args.steps or (SMOKE_STEPS if args.smoke else 3000)
    model = LogisticRegression(len(train.names), prior=args.prior, beta=args.beta)
    page, samples = Page(), sampling.table

    title = "Bayesian logistic regression by variational inference"
    page.add([title, "=" * len(title), *data_section(train, held_out)])
    start = time.process_time()
    fit = fit_exact(train, model, args.guide)
    page.add(fit_section(fit, time.process_time() - start))
    pyro.set_rng_seed(args.seed + 1)
    page.add(elbo_section(fit, train, samples))
    sites = site_kls(fit, samples)
    page.add(site_section(sites))
    rows = coefficient_kls(fit, train.names, samples)
    page.add(coefficient_section(fit, rows, total_correlation(fit, samples), sites[-1]))
    page.add(held_out_section(predict(fit.guide, held_out)))
    page.add(draws_section(fit, train, samples))
    page.add(diagnosis_section(fit, train, 10_000))

    page.add(rule("The same by SVI: gradients from draws of the guide, KLs exact"))
    start = time.process_time()
    svi = fit_svi(train, model, args.guide, steps=steps, seed=args.seed)
    page.add(svi_section(fit, svi, train, time.process_time() - start))

    (args.out / REPORT).write_text(page.text, encoding="utf-8")
    likelihood, kl, _ = _terms(fit, train)
    paths = draw(fit, svi, likelihood - kl, rows, args.out, sampling.picture)
    print("\nWritten:", *[f"  {path}" for path in (args.out / REPORT, *paths)], sep="\n")
    return INTERRUPTED if svi.interrupted else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    args = build_parser().parse_args(argv)
    threads = torch.get_num_threads()
    # The matrices are small: on a busy machine several threads mostly wait for one another.
    torch.set_num_threads(1)
    try:
        return run(args)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted outside the fit: the report is not complete", file=sys.stderr)
        return INTERRUPTED
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    sys.exit(main())
