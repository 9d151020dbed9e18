"""calibrate: simulation-based calibration of a model and its fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from multiprocessing import get_all_start_methods
from pathlib import Path
from typing import Any

import torch

from ..messages import see
from ..svi.progress import DELAY, interval, is_shown, new_bar
from ..svi.random_state import random_state_kept
from .calibration import Calibration
from .kept import Kept, Ranks
from .processes import TaskError, forked, one_by_one
from .simulate import Refused, Simulation
from .sites import Sites


def calibrate(
    model: Callable[..., Any],
    fit: Callable[[Callable[..., Any]], Callable[..., Any]],
    *args: Any,
    num_simulations: int = 100,
    num_draws: int = 99,
    processes: int = 1,
    path: str | Path | None = None,
    seed: int = 0,
    progress: bool | None = None,
    **kwargs: Any,
) -> Calibration:
    """Simulate data from the model's own prior many times, and fit each: are the fits calibrated?

    Latents are drawn from the prior and data from the model given them. If the fitted guide is the
    posterior, the rank of a latent among draws of the guide is uniform. Of a guide that is too
    narrow the ranks are at both ends, of one that is too wide they are in the middle, and of one
    that is biased they are at one end. The guide's draws are independent: none is left out.

    Args:
        model: the model, with data of the right shapes; they are replaced by simulated ones.
        fit: a function of a model, which fits a new guide to it and returns the guide. The model
            that it is given takes the same arguments as `model` and observes simulated data. A
            guide that reads the data has to take them from there: `args` stay as they are. Turn
            off the progress bars of the fits.
        *args: positional arguments of model and guide.
        num_simulations: how many fits.
        num_draws: of each fitted guide, among which the ranks are found.
        processes: how many fits at a time, each in a process of its own. It needs fork, which
            Windows lacks.
        path: a file that keeps the ranks of each simulation; a run that was stopped, or had fewer
            simulations, goes on from there. None keeps nothing.
        seed: simulation i has the seed `seed` + i, and each fit has one thread, so that the ranks
            are the same for any number of processes. Random generators, Pyro's parameters and the
            number of threads are afterwards what they were.
        progress: whether to show a progress bar on standard error, if it takes longer than two
            seconds; None shows it on a terminal and in a notebook. It needs tqdm.
        **kwargs: keyword arguments of model and guide.

    Returns:
        Ranks and p-values of each latent that is neither summed out nor masked.
        `pyro_kl.plot.ranks` draws them.

    Raises:
        RuntimeError: a simulation failed; the message says which one, and its seed.
        ValueError: fewer than 10 simulations; the model has a factor, a plate with a subsample, or
            sites of different scales, or observes nothing; the guide lacks a latent, or reads the
            data from `args`; the file has simulations of other settings.

    Reference:
        Talts, Betancourt, Simpson, Vehtari & Gelman (2018), "Validating Bayesian inference
        algorithms with simulation-based calibration"; Yao, Vehtari, Simpson & Gelman (2018).

    Example:
        >>> def model(x):
        ...     z = pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
        ...     pyro.sample("x", pyro.distributions.Normal(z, 1.0), obs=x)
        >>> def fit(model):  # finds a guide that is half as wide as the posterior
        ...     x = pyro.poutine.trace(model).get_trace(None).nodes["x"]["value"]
        ...     return lambda _: pyro.sample("z", pyro.distributions.Normal(x / 2, 0.35))
        >>> found = pyro_kl.calibrate(model, fit, torch.tensor(0.0), progress=False)
        >>> found["z"].verdict
        'too narrow'
    """
    _check(num_simulations, num_draws, processes)
    with random_state_kept(), _one_thread():
        sites = Sites.of(model, args, kwargs)
        settings = {"seed": seed, "num_draws": num_draws, "latents": sites.shapes}
        kept = Kept(None if path is None else Path(path), settings)
        simulation = Simulation(model, fit, args, kwargs, num_draws, sites)
        left = [i for i in range(num_simulations) if i not in kept.ranks]
        steps = _run(simulation, seed, left, processes)
        with closing(steps), _bar(num_simulations, len(left), progress) as advance:
            for i, ranks in steps:
                kept.add(i, ranks)
                advance()
    found = [kept.ranks[i] for i in range(num_simulations)]
    return Calibration.of(sites.shapes, found, num_draws, sites.left_out)


def _check(num_simulations: int, num_draws: int, processes: int) -> None:
    for name, value, least in (
        ("num_simulations", num_simulations, 10),
        ("num_draws", num_draws, 1),
        ("processes", processes, 1),
    ):
        if value < least:
            raise ValueError(f"{name}={value} has to be at least {least}." + see("option"))
    if processes > 1 and "fork" not in get_all_start_methods():
        raise ValueError(f"processes={processes} needs fork, which is not here." + see("option"))
    if processes > 1 and torch.cuda.is_initialized():
        raise ValueError(
            f"processes={processes} forks this process, which has used CUDA, and CUDA does not "
            "survive that: use processes=1." + see("option")
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    """The sums of several threads are rounded in another way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run(
    simulation: Simulation, seed: int, numbers: list[int], processes: int
) -> Generator[tuple[int, Ranks], None, None]:
    """The ranks of each simulation, in the order in which they are done."""

    def task(number: int) -> Ranks:
        return simulation.run(seed + number)

    try:
        if processes == 1:
            yield from one_by_one(task, numbers)
        else:
            yield from forked(task, numbers, processes)
    except TaskError as failed:
        if isinstance(failed.error, Refused):
            raise ValueError(str(failed.error)) from None
        own = seed + failed.number
        raise RuntimeError(
            f"Simulation {failed.number} (seed {own}) failed with "
            f"{type(failed.error).__name__}: {failed.error}. To look at it alone, call "
            f"calibrate(..., seed={own}), which begins with it." + see("calibration")
        ) from failed.error


@contextmanager
def _bar(total: int, left: int, progress: bool | None) -> Iterator[Callable[[], None]]:
    """A bar for fits that take longer than two seconds; what is yielded counts one more."""
    shown, bar, start = is_shown(progress), None, time.monotonic()
    done, due = total - left, start + DELAY

    def draw() -> None:
        nonlocal bar
        if bar is None:
            bar = new_bar(total=total, initial=total - left, desc="calibrate", unit="fit")
            bar.start_t -= time.monotonic() - start  # the fits began then
            bar.last_print_t = bar.start_t
        bar.update(done - bar.n)

    def advance() -> None:
        nonlocal done, due
        done += 1
        if shown and time.monotonic() >= due:
            draw()
            due = time.monotonic() + interval()

    try:
        yield advance
    finally:
        if bar is not None:
            draw()
            bar.close()
