"""calibrate: simulation-based calibration of a model and its fit."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any

import torch

from ..messages import see
from .calibration import Calibration
from .simulate import Simulation

Ranks = dict[str, list[int]]


def calibrate(
    model: Callable[..., Any],
    fit: Callable[[Callable[..., Any]], Callable[..., Any]],
    *args: Any,
    num_simulations: int = 100,
    num_draws: int = 99,
    processes: int = 1,
    path: str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
    **kwargs: Any,
) -> Calibration:
    """Simulate data from the model's own prior many times, and fit each: are the fits calibrated?

    Latents are drawn from the prior and data from the model given them. If the fitted guide is the
    posterior, the rank of a latent among draws of the guide is uniform. Of a guide that is too
    narrow the ranks are at both ends, of one that is too wide they are in the middle, and of one
    that is biased they are at one end. The guide's draws are independent: none is left out.

    Args:
        model: the model, with data of the right shapes; they are replaced by simulated ones.
        fit: a function of a model, which fits a guide to it and returns the guide. The model that
            it is given takes the same arguments as `model` and observes simulated data.
        *args: positional arguments of model and guide.
        num_simulations: how many fits.
        num_draws: of each fitted guide, among which the ranks are found.
        processes: how many fits at a time, each in a process of its own. It needs fork, which
            Windows lacks.
        path: a file that keeps the ranks of each simulation; a run that was stopped goes on from
            there. None keeps nothing.
        seed: simulation i has the seed `seed` + i, however many processes there are.
        progress: whether to show a bar, if tqdm is installed.
        **kwargs: keyword arguments of model and guide.

    Returns:
        Ranks and p-values of each latent.

    Raises:
        ValueError: fewer than 10 simulations; the model has a factor, or observes nothing; the
            file has simulations of other settings.

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
    if num_simulations < 10:
        raise ValueError(
            f"num_simulations={num_simulations} has to be at least 10." + see("option")
        )
    simulation = Simulation(model, fit, args, kwargs, num_draws)
    kept = _Kept(None if path is None else Path(path), {"seed": seed, "num_draws": num_draws})
    left = [i for i in range(num_simulations) if i not in kept.ranks]
    for i, ranks in _shown(_run(simulation, seed, left, processes), len(left), progress):
        kept.add(i, ranks)
    found = [kept.ranks[i] for i in range(num_simulations)]
    return Calibration.of(found, num_draws)


def _run(
    simulation: Simulation, seed: int, numbers: list[int], processes: int
) -> Iterator[tuple[int, Ranks]]:
    """The ranks of each simulation, in the order in which they are done."""
    if processes <= 1:
        with torch.random.fork_rng():
            for i in numbers:
                yield i, simulation.run(seed + i)
        return
    if "fork" not in get_all_start_methods():
        raise ValueError(f"processes={processes} needs fork, which is not here." + see("option"))
    # a model of a notebook can be forked and not pickled
    context = get_context("fork")
    _FORKED.append((simulation, seed))
    try:
        # with one thread: a pool of OpenMP's threads does not survive a fork
        with ProcessPoolExecutor(processes, context, torch.set_num_threads, (1,)) as pool:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12's, of threads
                futures = {pool.submit(_one, i): i for i in numbers}
            for future in as_completed(futures):
                yield futures[future], future.result()
    finally:
        _FORKED.pop()


#: What the processes of a pool have from their parent.
_FORKED: list[tuple[Simulation, int]] = []


def _one(i: int) -> Ranks:
    simulation, seed = _FORKED[-1]
    return simulation.run(seed + i)


def _shown(steps: Iterator[Any], total: int, progress: bool) -> Iterator[Any]:
    """The steps, with a bar."""
    if progress and total:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            return steps
        return iter(tqdm(steps, total=total, desc="calibrate"))
    return steps


class _Kept:
    """The ranks that are known, in memory and in a file of JSON lines."""

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self.ranks: dict[int, Ranks] = {}
        self._path = path
        if path is None:
            return
        if not path.exists():
            path.write_text(json.dumps(settings) + "\n")
            return
        text = path.read_text()
        head, *lines = text.splitlines()
        if json.loads(head) != settings:
            raise ValueError(
                f"{path} has simulations of {head}, not of {json.dumps(settings)}: give another "
                "path." + see("calibration")
            )
        for line in lines:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # the run was stopped while it wrote
                continue
            self.ranks[row["simulation"]] = row["ranks"]
        if not text.endswith("\n"):
            path.write_text(text + "\n")

    def add(self, i: int, ranks: Ranks) -> None:
        """Keep the ranks of a simulation."""
        self.ranks[i] = ranks
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps({"simulation": i, "ranks": ranks}) + "\n")
