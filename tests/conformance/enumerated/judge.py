"""Generated models: an enumerating ELBO against `TraceEnum_ELBO`, loss and gradient.

    python -m tests.conformance.enumerated.judge [--count 54] [--seed 0] [--draws 20000]

A seed makes a model: a mixture, an HMM of order one or two, a factorial HMM, topics, nested
plates, chains of discrete and continuous latents, missing covariates. The discrete sites are in
the model, in the guide or in both, summed out or drawn. Both ELBOs see the same draws; judged is
the mean difference of the loss and of every gradient component in standard errors.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.infer import TraceEnum_ELBO

import pyro_kl

from ..paired_gradients import Gaps, gradients
from ..random_models import PyroFails
from . import mixtures, nested, sequences
from .options import EnumeratedModel, Options

TEMPLATES: tuple[Callable[[Options], EnumeratedModel], ...] = (
    mixtures.mixture,
    sequences.hidden_markov,
    nested.plates,
    nested.chain,
    sequences.factorial,
    mixtures.topics,
    sequences.second_order,
    mixtures.autoguide,
    nested.backwards,
    mixtures.gaps,
)


def generated(seed: int) -> EnumeratedModel:
    """The model of a seed."""
    return TEMPLATES[seed % len(TEMPLATES)](Options.random(seed))


@dataclass(frozen=True)
class Verdict:
    """The largest |z| of a model, and whether both ELBOs agree draw by draw.

    Attributes:
        worst: |z| of the worst component; inf if a number is not finite.
        component: its name.
        gap: the largest difference in a batch of draws.
        draws: particles in all.
    """

    worst: float
    component: str
    gap: float
    draws: int


def judge(make: Callable[..., Any], seed: int, draws: int) -> Verdict:
    """Loss and gradient of the model of a seed by both ELBOs, in float64.

    Args:
        make: the class that is judged.
        seed: of the model.
        draws: particles in all; a tenth of them where they come one by one.

    Raises:
        PyroFails: `TraceEnum_ELBO` cannot use the model, or has an infinite loss.
    """
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    one = generated(seed)
    batch = {"vectorized": max(100, draws // 40), "several": 5, "one": 1}[one.options.particles]
    kwargs: dict[str, Any] = dict(
        max_plate_nesting=one.nesting,
        num_particles=batch,
        vectorize_particles=one.options.particles == "vectorized",
        strict_enumeration_warning=False,
    )
    ours, theirs = make(**kwargs), TraceEnum_ELBO(**kwargs)
    if one.title.startswith("Auto"):  # the first call makes its parameters
        one.guide(one.options.index(one.size, 0))
    if one.options.nothing_drawn:
        draws = 2 * batch
    elif one.options.particles != "vectorized":
        draws //= 10
    gaps = Gaps(batch)
    for i in range(max(draws // batch, 2)):
        results = []
        for elbo in (theirs, ours):
            pyro.set_rng_seed(10_000 + i)
            try:
                loss = elbo.loss_and_grads(one.model, one.guide, one.options.index(one.size, i))
            except Exception as problem:
                if elbo is theirs:
                    raise PyroFails(str(problem)) from problem
                raise
            if elbo is theirs and not math.isfinite(loss):
                raise PyroFails(f"the loss is {loss}")
            results.append({"loss": torch.tensor([float(loss)]), **gradients()})
        gaps.add(results[1], results[0])
    worst, component = gaps.worst()
    return Verdict(worst, component, gaps.largest, batch * max(draws // batch, 2))


def run(make: Callable[..., Any], seed: int, draws: int) -> Verdict:
    """`judge` in float64, without warnings."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings(), pyro.validation_enabled(False):
            warnings.simplefilter("ignore")
            return judge(make, seed, draws)
    finally:
        torch.set_default_dtype(before)
        pyro.clear_param_store()


def main(argv: Sequence[str] | None = None) -> int:
    """Run many, print each, and the worst."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--pyro", action="store_true", help="Pyro's class against itself")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    make = TraceEnum_ELBO if args.pyro else pyro_kl.TraceEnumKL_ELBO
    worst, failed, skipped = 0.0, 0, 0
    for seed in range(args.seed, args.seed + args.count):
        try:
            verdict = run(make, seed, args.draws)
            worst = max(worst, verdict.worst)
            text = f"|z| {verdict.worst:5.2f} {verdict.component:14s} gap {verdict.gap:.0e}"
            text += f" {verdict.draws:6d}"
        except PyroFails as problem:
            skipped += 1
            text = f"Pyro fails: {str(problem)[:90]!r}"
        except Exception as problem:
            failed += 1
            text = f"{type(problem).__name__}: {str(problem)[:160]}"
        one = generated(seed)
        print(f"{seed:4d} {text}  [{one.title}: {one.options.title}]", flush=True)
    counts = f"{args.count} models, {skipped} that Pyro cannot run, {failed} errors"
    print(f"{counts}, largest |z| = {worst:.2f}")
    return int(failed > 0 or worst > 4)


if __name__ == "__main__":
    sys.exit(main())
