"""Learning rates by step: schedules, and the rates of steps that are not taken yet."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from ..messages import see

#: A factor of the learning rate by step, or what makes one of torch's schedulers.
Schedule = Callable[[int], float] | Callable[[Optimizer], LRScheduler]


def scheduler_of(schedule: Callable[[Any], Any], optimizer: Optimizer) -> LRScheduler:
    """One of torch's schedulers for `optimizer`.

    Args:
        schedule: a function of the optimiser that returns a scheduler, or a function of the step
            that returns a factor of the learning rate (any schedule of `pyro_kl` is one).
        optimizer: whose rates are scheduled.

    Raises:
        ValueError: the optimiser has no learning rate.
        TypeError: the scheduler needs the loss, or `schedule` is neither kind of function.
    """
    if any("lr" not in group for group in optimizer.param_groups):
        raise ValueError(
            f"{type(optimizer).__name__} has no learning rate: give no schedule."
            + see("learning-rate")
        )
    try:
        scheduler = schedule(optimizer)
    except (TypeError, AttributeError) as error:  # a function of the step cannot use an optimiser
        try:
            scheduler = schedule(0)
        except Exception:
            raise error from None
    if isinstance(scheduler, ReduceLROnPlateau):
        raise TypeError(
            "ReduceLROnPlateau needs the loss of each step, which a schedule is not given. Give a "
            "schedule of the step, or pyro.optim.ReduceLROnPlateau as the optimiser and call its "
            "step(loss)." + see("learning-rate")
        )
    if isinstance(scheduler, (int, float)):
        scheduler = LambdaLR(optimizer, schedule)
    if not isinstance(scheduler, LRScheduler):
        raise TypeError(
            "schedule must be a function of the optimiser that returns one of torch's schedulers, "
            f"or a function of the step that returns a number; it returned {scheduler!r}."
            + see("learning-rate")
        )
    never_warn_about_order(optimizer)
    return scheduler


def never_warn_about_order(optimizer: Optimizer) -> None:
    """Let a scheduler go on although `optimizer.step` itself was not called.

    Its parameters are stepped elsewhere: by the optimiser of all of them, or by a recorded graph.
    """
    optimizer._opt_called = True  # type: ignore[attr-defined]


def rate_of(group: dict[str, Any]) -> float:
    """The learning rate of a group; Pyro's AdagradRMSProp calls it eta."""
    return float(group["lr"] if "lr" in group else group["eta"])


def advance(optimizer: Optimizer, scheduler: LRScheduler | None, steps: int) -> list[list[float]]:
    """Move the rates on by `steps` steps, and return those that these steps use.

    Returns:
        For each step the rate of each group.
    """
    groups = optimizer.param_groups
    rates = []
    for _ in range(steps):
        for group in groups:  # Pyro's ClippedAdam and DCTAdam decay the rate before they use it
            if group.get("lrd", 1.0) != 1.0:
                group["lr"] *= group["lrd"]
        rates.append([rate_of(group) for group in groups])
        if scheduler is not None:
            scheduler.step()
    return rates


def rates_ahead(
    optimizer: Optimizer, scheduler: LRScheduler | None, steps: int
) -> list[list[float]]:
    """As `advance`, but the rates stay where they are."""
    groups = optimizer.param_groups
    if scheduler is None and all(group.get("lrd", 1.0) == 1.0 for group in groups):
        return [[rate_of(group) for group in groups]] * steps
    saved_groups = [dict(group) for group in groups]
    saved_scheduler = None if scheduler is None else copy.deepcopy(scheduler.state_dict())
    rates = advance(optimizer, scheduler, steps)
    for group, saved in zip(groups, saved_groups, strict=True):
        group.update(saved)
    if scheduler is not None and saved_scheduler is not None:
        scheduler.load_state_dict(saved_scheduler)
    return rates
