"""Steps by a package: up to as many in one call as its block has."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .block import Block
from .building import Build
from .learning_rates import rate_of
from .optimiser import Optimiser
from .packing import pack, packed_rates, unpack
from .record import Recording
from .update_rules import Layout, update_rule

#: A block has no more operations than that: a build takes seconds for each thousand of them, and
#: a call that takes many operations has little to gain from more steps.
MOST_OPERATIONS = 2_000


def block_of(recording: Recording, optimiser: Optimiser, steps: int) -> tuple[Block | None, str]:
    """Up to `steps` steps as a function that can be compiled, or None and the reason why not."""
    optimiser.add(recording.parameters)
    rule, reason = update_rule(optimiser, layout_of(recording))
    leaves = [*recording.parameters.values()]
    if recording.undrawable:
        reason = f"the draws of {', '.join(recording.undrawable)} depend on parameters or data"
    elif leaves[0].device.type != "cpu":
        reason = f"the parameters are on {leaves[0].device}"
    if reason or rule is None:
        return None, reason
    block = Block(
        recording.step, tuple(leaf.shape for leaf in leaves), len(recording.draws), 1, rule
    )
    steps = max(1, min(steps, MOST_OPERATIONS // max(1, block.num_operations)))
    return dataclasses.replace(block, steps=steps), ""


def layout_of(recording: Recording) -> Layout:
    """Where each parameter is in the packed vector."""
    lengths = [leaf.numel() for leaf in recording.parameters.values()]
    starts = itertools.accumulate(lengths, initial=0)
    named = recording.parameters.items()
    return [(name, start, leaf.shape) for (name, leaf), start in zip(named, starts, strict=False)]


class AotRunner:
    """Takes the steps of a recording by a package, as soon as there is one.

    From the first step on, the leaves of the parameters are views of one vector.

    Args:
        block: of the recording, by `block_of`.
        recording: of one gradient.
        optimiser: of its parameters.
        levels: the ELBO's levels at some step.
        fixed: the tensors of some arguments, and those captured.

    Attributes:
        build: of the package.
        steps: the largest number of steps of one call.
    """

    def __init__(
        self,
        block: Block,
        recording: Recording,
        optimiser: Optimiser,
        levels: Sequence[float],
        fixed: Sequence[Tensor],
    ) -> None:
        self.steps = block.steps
        self._rule, self._optimiser, self._layout = block.rule, optimiser, layout_of(recording)
        self._leaves = [*recording.parameters.values()]
        self._draws = [draw.empty(self.steps) for draw in recording.draws]
        self._redraw = [
            draw.into(memory[i])
            for i in range(self.steps)
            for draw, memory in zip(recording.draws, self._draws, strict=True)
        ]
        for redraw in self._redraw:
            redraw()
        self._counts = [torch.tensor(i) for i in range(self.steps + 1)]
        self._levels: tuple[list[Sequence[float]], Tensor] = [], torch.empty(0)
        self._packed_rates: tuple[list[Any] | None, Tensor] = None, torch.empty(0)
        self._flat = torch.cat([leaf.detach().flatten() for leaf in self._leaves])
        self._views = [
            self._flat[start : start + shape.numel()].view(shape)
            for _, start, shape in self._layout
        ]
        self._addresses = [view.data_ptr() for view in self._views]
        self._state = pack(optimiser, self._rule, self._layout)
        self._is_packed = False
        self.build = Build(block, self._inputs([levels] * self.steps, fixed))

    def _inputs(self, levels: Sequence[Sequence[float]], fixed: Sequence[Tensor]) -> list[Tensor]:
        """The inputs of the block for as many steps as there are levels."""
        padded = [*levels, *[levels[-1]] * (self.steps - len(levels))]
        if padded != self._levels[0]:
            self._levels = padded, torch.tensor(padded, dtype=torch.float64)
        return [
            self._flat,
            *self._state,
            self._counts[len(levels)],
            self._rates(),
            self._levels[1],
            *self._draws,
            *(each.contiguous() for each in fixed),
        ]

    def _rates(self) -> Tensor:
        """The learning rates of the next steps, packed anew if they may not be the last ones."""
        cohorts = self._optimiser.cohorts
        now: list[Any] | None = [
            (rate_of(group), group.get("lrd"))
            for cohort in cohorts
            for group in cohort.optimizer.param_groups
        ]
        if any(cohort.schedule or cohort.user_schedulers for cohort in cohorts):
            now = None
        if now is None or now != self._packed_rates[0]:
            rates = packed_rates(self._optimiser, self._layout, self.steps)
            self._packed_rates = now, rates
        return self._packed_rates[1]

    def take(
        self, levels: Sequence[Sequence[float]], fixed: Sequence[Tensor]
    ) -> list[float] | None:
        """Take a step for each of the first `steps` of `levels`; see `Runner`."""
        assert self.build.package is not None
        levels = levels[: self.steps]
        self._pack()
        for redraw in self._redraw[: len(levels) * len(self._draws)]:
            redraw()
        flat, *state, losses, ok = self.build.package.call(self._inputs(levels, fixed))
        values = losses.tolist()[: len(levels)]
        if not (ok.item() and all(map(math.isfinite, values))):
            return None
        self._flat.copy_(flat)
        self._state = tuple(state)
        self._optimiser.advance(len(levels))
        return values

    def evaluate(self, levels: Sequence[float], fixed: Sequence[Tensor]) -> float:
        """The loss of one step that is not taken, in nats."""
        assert self.build.package is not None
        self._pack()
        for redraw in self._redraw[: len(self._draws)]:
            redraw()
        *_, losses, _ = self.build.package.call(self._inputs([levels], fixed))
        return float(losses[0])

    def _pack(self) -> None:
        """Take over the optimiser's state, and let the leaves be views of the vector.

        They are no views before the first call, or after a user has set the `data` of one.
        """
        if not self._is_packed:
            self._state = pack(self._optimiser, self._rule, self._layout)
            self._is_packed = True
        if [*map(Tensor.data_ptr, self._leaves)] != self._addresses:
            for leaf, view in zip(self._leaves, self._views, strict=True):
                view.copy_(leaf.detach())
                leaf.data = view

    def settle(self) -> None:
        """Give the optimiser its state back."""
        if self._is_packed:
            unpack(self._optimiser, self._rule, self._layout, self._state)
            self._is_packed = False
