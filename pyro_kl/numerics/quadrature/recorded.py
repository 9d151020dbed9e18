"""The rule with a number of nodes that was chosen once: for a step that is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..concrete import Choices
from ..dtypes import summed_to
from .adaptive import Solver
from .integrand import evaluation_of
from .rule import evaluate_everywhere


def integrate_recorded(
    choices: Choices, solver: Solver, breakpoints: Sequence[Tensor], parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The integral and its error, with as many nodes as the values at hand need.

    A later step has other values: whoever runs the record compares the error with the tolerance.

    Args:
        choices: of the recording.
        solver: of the problem.
        breakpoints: where the nodes crowd if many of them do not suffice.
        parameters: tensors that broadcast to the solver's shape.
    """
    wanted = tuple([x.requires_grad for x in parameters])

    def level() -> tuple[int, bool]:
        if solver.problem.has_breakpoints:
            solver.place(breakpoints)
        solver.solve([x.detach() for x in parameters], wanted)
        return solver.level

    count, split = choices.next(level)
    value, error = _AtLevel.apply(solver, (count, split), wanted, len(breakpoints),
                                  *breakpoints, *parameters)  # fmt: skip
    return value, error.detach()


class _AtLevel(torch.autograd.Function):
    """Value and error with so many nodes, and the derivatives of the value, in one pass."""

    @staticmethod
    def forward(
        ctx: Any,
        solver: Solver,
        level: tuple[int, bool],
        wanted: tuple[bool, ...],
        num_breakpoints: int,
        *inputs: Tensor,
    ) -> tuple[Tensor, Tensor]:
        count, split = level
        solver.place(inputs[:num_breakpoints])
        problem, parameters = solver.problem, inputs[num_breakpoints:]
        flat = [x.expand(solver.shape).reshape(-1) for x in parameters]
        evaluation = evaluation_of(problem.integrand, wanted, problem.is_density)
        nodes = problem.kept_nodes(evaluation, count, split=split)
        value, error, *slopes = evaluate_everywhere(
            evaluation, nodes, flat, problem.narrow, problem.distance
        )
        ctx.wanted, ctx.num_breakpoints = wanted, num_breakpoints
        ctx.save_for_backward(*parameters, *[x.reshape(solver.shape) for x in slopes])
        return value.reshape(solver.shape), error.reshape(solver.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        parameters = ctx.saved_tensors[: len(ctx.wanted)]
        slopes = iter(ctx.saved_tensors[len(ctx.wanted) :])
        found: list[Tensor | None] = [None] * (4 + ctx.num_breakpoints)
        for x, wanted in zip(parameters, ctx.wanted, strict=True):
            found.append(summed_to(grads[0] * next(slopes), x) if wanted else None)
        return tuple(found)
