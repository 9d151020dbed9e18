"""Some steps of a recording, update included, as one pure function of packed tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Size, Tensor
from torch.fx import GraphModule

from .update_rules import UpdateRule


@dataclass(frozen=True)
class Block:
    """Up to `steps` steps of SVI: gradient by `step`, update by `rule`.

    A call takes `(flat, *state, count, rates, levels, *draws, *fixed)`: packed parameters (n,);
    the state that `rule` keeps; how many of the steps to take, an integer tensor without a
    dimension; learning rates (steps,) or (steps, n); the ELBO's levels (steps, L); draws with
    a first dimension of `steps`; fixed inputs. It returns `(flat, *state, losses, ok)`: losses in
    nats, shape (steps,), of which the first `count` count; and whether `ok` held in each of them.

    One package of `steps` steps thus serves for the remainder of a fit too.

    Args:
        step: `(*parameters, *draws, levels, *fixed) -> (loss, ok, *gradients)`, without mutation
            and randomness.
        shapes: of the parameters, in the order in which they are packed.
        num_draws: the number of draws of one step.
        steps: the largest number of steps in one call.
        rule: of the optimiser.
    """

    step: GraphModule
    shapes: tuple[Size, ...]
    num_draws: int
    steps: int
    rule: UpdateRule

    @property
    def num_state(self) -> int:
        """The number of tensors that the update rule keeps."""
        return len(self.rule.state_names) + (0 if self.rule.decay is None else 2)

    @property
    def num_operations(self) -> int:
        """The number of recorded operations of all steps, updates not counted."""
        return self.steps * sum(node.op == "call_function" for node in self.step.graph.nodes)

    def __call__(self, flat: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Take the steps."""
        state = inputs[: self.num_state]
        count, rates, levels, *rest = inputs[self.num_state :]
        draws, fixed = rest[: self.num_draws], rest[self.num_draws :]
        losses, oks = [], []
        for i in range(self.steps):
            taken = i < count
            loss, ok, *gradients = self.step(
                *self._unpacked(flat), *(draw[i] for draw in draws), levels[i], *fixed
            )
            gradient = torch.cat([each.reshape(-1) for each in gradients])
            new_flat, new_state = self.rule(flat, gradient, state, rates[i])
            flat = torch.where(taken, new_flat, flat)
            pairs = zip(new_state, state, strict=True)
            state = tuple(torch.where(taken, new, old) for new, old in pairs)
            losses.append(loss)
            oks.append(ok | ~taken)
        return flat, *state, torch.stack(losses), torch.stack(oks).all()

    def _unpacked(self, flat: Tensor) -> list[Tensor]:
        """The parameters in their shapes, as views."""
        parts = flat.split([shape.numel() for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]
