"""What `SVI.run` calls after each step, and the report that it gives to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..elbo.report import KLReport
from ..elbo.trace_kl_elbo import TraceKL_ELBO
from ..messages import see

#: Is called after each step with its number (1, 2, ...), its loss in nats and a function that
#: returns the ELBO's report; ends the run if it returns True.
Callback = Callable[[int, Any, Callable[[], KLReport]], Any]


@dataclass(frozen=True)
class ReportOfStep:
    """Returns the ELBO's report when it is called.

    Attributes:
        elbo: the loss of the fit.
        step: the step that the report is of. Of several steps that a package takes in one call
            it is the last one: there is no report of the others.
    """

    elbo: Any
    step: int

    def __call__(self) -> KLReport:
        """The report.

        Raises:
            TypeError: the loss is no TraceKL_ELBO.
        """
        if isinstance(self.elbo, TraceKL_ELBO):
            return self.elbo.report
        raise TypeError(
            f"{type(self.elbo).__name__} has no report: give pyro_kl.TraceKL_ELBO as the loss."
            + see("no-report")
        )
