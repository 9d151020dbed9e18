"""The report of an ELBO whose last steps were taken by a compiled graph."""

from __future__ import annotations

from typing import Any

from pyro.infer import ELBO

from ..elbo.report import KLReport
from ..elbo.trace_kl_elbo import TraceKL_ELBO
from .random_state import random_state_kept


class ReportOnDemand:
    """In the place of an ELBO's snapshot: the report is made when it is read.

    It is that of one evaluation at the parameters as they are then, with fresh draws; what is
    drawn later does not change by it.

    Args:
        elbo: whose report it is.
        model: the model.
        guide: the guide.
        args: positional arguments of the last step.
        kwargs: keyword arguments of the last step.
    """

    def __init__(
        self,
        elbo: TraceKL_ELBO,
        model: Any,
        guide: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._elbo = elbo
        self._run = model, guide, args, kwargs

    def report(self) -> KLReport:
        """Every term of one evaluation, in nats."""
        model, guide, args, kwargs = self._run
        with random_state_kept():
            self._elbo.loss(model, guide, *args, **kwargs)
        return self._elbo.report


def report_of(loss: Any) -> KLReport:
    """The report of the last step.

    Raises:
        TypeError: the loss makes no report.
    """
    if isinstance(loss, TraceKL_ELBO):
        return loss.report
    name = type(loss).__name__ if isinstance(loss, ELBO) else "The loss function"
    raise TypeError(f"{name} has no report: give pyro_kl.TraceKL_ELBO as the loss.")
