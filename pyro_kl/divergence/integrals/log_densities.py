"""The log densities of two declared families on one line, with a graph or recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

from torch import Tensor

from ...numerics.autograd.program import program_of_results
from ...registry.line import Line


@dataclass(frozen=True)
class LogDensities:
    """Log p and log q at places on one of the two lines.

    Args:
        p: the line of p's family.
        q: that of q's.
        names: of the parameters of p, and of q.
    """

    p: Line
    q: Line
    names: tuple[tuple[str, ...], tuple[str, ...]]

    def __call__(self, number: int, y: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """At places on the line of p (number 0) or of q (1); the parameters of p, and of q."""
        n = len(self.names[0])
        a = dict(zip(self.names[0], tensors[:n], strict=True))
        b = dict(zip(self.names[1], tensors[n:], strict=True))
        point = self.q.at(y, **b) if number else self.p.at(y, **a)
        return (
            self.p.log_density(point, **a) + point.log_slope,
            self.q.log_density(point, **b) + point.log_slope,
        )

    def recorded(self, number: int) -> Callable[..., Sequence[Tensor]]:
        """The same for numbers without a graph, as a program if it can be recorded."""
        return _program(self, number) or partial(self, number)


@cache
def _program(function: LogDensities, number: int) -> Callable[..., Sequence[Tensor]] | None:
    """The program; None if the densities are no compositions of known operations."""
    count = 1 + len(function.names[0]) + len(function.names[1])
    recorded = program_of_results(partial(function, number), count)
    return None if recorded is None else lambda *inputs: recorded(inputs)
