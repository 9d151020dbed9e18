"""What all loggers share: which steps they log, and what a row of a log holds."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...elbo.report import KLReport
from ...messages import see


@dataclass(frozen=True)
class Row:
    """One step of a fit.

    Attributes:
        step: its number, from 1.
        loss: the training objective; nats.
        elbo: the ELBO itself, with beta = 1, without free bits and capacity; nats.
        log_likelihood: expected log likelihood; nats.
        kl: sum of the KLs, unweighted; nats.
        kls: site -> KL in nats.
    """

    step: int
    loss: float
    elbo: float
    log_likelihood: float
    kl: float
    kls: dict[str, float]

    @classmethod
    def of(cls, step: int, loss: float, report: KLReport) -> Row:
        """From what a callback of `SVI.run` is given."""
        return cls(step, loss, report.elbo, report.log_likelihood, report.kl, report.kls)

    def cells(self) -> dict[str, float]:
        """The name of each column -> its number: `step`, `loss`, ..., and `kl[site]`."""
        numbers = {name: getattr(self, name) for name in COLUMNS}
        return numbers | {f"kl[{site}]": kl for site, kl in self.kls.items()}


#: The columns of each log. One for each site follows: `kl[site]`.
COLUMNS = ("step", "loss", "elbo", "log_likelihood", "kl")


class Logger:
    """A callback of `pyro_kl.SVI.run` that logs some of the steps; a subclass writes the rows.

    The terms of a row are those that made the step's loss. With `compile=` they are evaluated
    again after the step, with its parameters and draws of their own. Of several steps that are
    taken in one call (`steps_per_call`) the last one alone has a row, since the others have no
    report; `SVIResult.losses` has the loss of each.

    The loss of the fit is a TraceKL_ELBO. On several ranks each logger logs the report of its own
    rank's rows; loggers that write files do so on rank 0 alone.

    Args:
        every: how many steps lie between two rows: 10 logs the steps 10, 20, ...

    Raises:
        TypeError: `every` is no whole number.
        ValueError: it is below 1.

    Example:
        >>> class PrintLogger(pyro_kl.loggers.Logger):
        ...     def log(self, row):
        ...         print(f"step {row.step}: {row.kls}")
    """

    def __init__(self, every: int = 1) -> None:
        self.every = operator.index(every)
        if self.every < 1:
            raise ValueError(
                f"every={every} has to be at least 1: it counts the steps of a row."
                + see("option")
            )
        self._is_due = False

    def __call__(self, step: int, loss: Any, report: Callable[[], KLReport]) -> None:
        """Log a step if it is time to; `SVI.run` calls this after each one."""
        self._is_due |= step % self.every == 0
        if self._is_due and step == getattr(report, "step", step):
            self._is_due = False
            self.log(Row.of(step, float(loss), report()))

    def log(self, row: Row) -> None:
        """Write a row."""
        raise NotImplementedError(f"{type(self).__name__} has to define log(row)." + see("option"))
