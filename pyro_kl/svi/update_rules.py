"""The step of an optimiser as a pure function of one packed vector of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import torch
from torch import Size, Tensor

from ..messages import see
from .averaging import newest_weight
from .clipping import Clip
from .cohort import Cohort
from .optimiser import Optimiser
from .update_formulas import FORMULAS, State

#: Name, offset and shape of each parameter in the packed vector, in the order of the offsets.
Layout = Sequence[tuple[str, int, Size]]

#: A part of the vector and what belongs to it: (start, stop, values).
Part = tuple[int, int, tuple[Any, ...]]


@dataclass(frozen=True)
class UpdateRule:
    """The new parameters and the new state as a function of tensors, which can be recorded.

    A call takes the vector of parameters, its gradient, the state of `pack` and the learning rate
    of `packed_rates`, and returns the new vector and the new state.

    Args:
        name: the class of the optimiser.
        parts: settings of the parts of the vector that differ in them.
        clips: limits on the gradient of each parameter, or nothing if there are none.
        clip: limits on the whole gradient: norm and value.
        decay: of the average of the parameters, or None.
    """

    name: str
    parts: tuple[Part, ...]
    clips: tuple[Part, ...]
    clip: tuple[float | None, float | None]
    decay: float | None

    def key(self) -> tuple[Any, ...]:
        """All of the rule in numbers and strings: `rule_of(key)` is the same rule."""
        return astuple(self)

    @property
    def state_names(self) -> tuple[str, ...]:
        """The names of the state of the optimiser; the state of an average comes after it."""
        return FORMULAS[self.name].state_names(dict(self.parts[0][2]))

    def __call__(
        self, flat: Tensor, grad: Tensor, state: State, lr: Tensor
    ) -> tuple[Tensor, State]:
        """One step.

        Args:
            flat: parameters, shape (n,).
            grad: their gradient, shape (n,).
            state: as `pack` returns it.
            lr: float64 without a dimension, or shape (n,).

        Returns:
            The new parameters, and the new state with the same shapes.
        """
        grad = self._clipped(grad)
        count = len(self.state_names)
        formula = FORMULAS[self.name]
        stepped = [
            formula.update(
                *(_part(tensor, start, stop) for tensor in (flat, grad, lr)),
                tuple(_part(tensor, start, stop) for tensor in state[:count]),
                **dict(settings),
            )
            for start, stop, settings in self.parts
        ]
        flat = _joined([new for new, _ in stepped])
        of_parts = zip(*(new_state for _, new_state in stepped), strict=True)
        new_state = tuple(_joined(parts) for parts in of_parts)
        if self.decay is None:
            return flat, new_state
        values, number = state[count:]
        number = number + 1
        weight = newest_weight(self.decay, number).to(flat.dtype)
        return flat, (*new_state, torch.lerp(values, flat, weight), number)

    def _clipped(self, grad: Tensor) -> Tensor:
        """The gradient within the limits, those of single parameters first."""
        if self.clips:
            grad = torch.cat(
                [Clip(*limits)(grad[start:stop]) for start, stop, limits in self.clips]
            )
        return Clip(*self.clip)(grad)


def rule_of(key: tuple[Any, ...]) -> UpdateRule:
    """The rule of `UpdateRule.key`."""
    return UpdateRule(*key)


def update_rule(optimiser: Optimiser, layout: Layout) -> tuple[UpdateRule | None, str]:
    """The rule of an optimiser for a packed vector.

    Args:
        optimiser: has seen the parameters of `layout`.
        layout: all parameters that are stepped; they must be of one dtype and device.

    Returns:
        The rule and "", or None and the reason why there is none.
    """
    entries = entries_of(optimiser, layout)
    reason = next(filter(None, map(_obstacle, entries)), "")
    if len({(entry.param.dtype, entry.param.device) for entry in entries}) > 1:
        reason = "the parameters are not all of one dtype and device"
    if reason:
        return None, reason
    name = type(entries[0].cohort.optimizer).__name__
    formula = FORMULAS[name]
    names = formula.settings
    parts: list[Part] = []
    for entry in entries:
        settings = tuple((key, entry.group.get(key, False)) for key in names)
        start = entry.start
        if parts and parts[-1][2] == settings:
            start = parts.pop()[0]
        parts.append((start, entry.stop, settings))
    states = {formula.state_names(dict(settings)) for *_, settings in parts}
    if len(states) > 1:
        return None, f"parameter groups of {name} keep different state"
    clips = [entry.cohort.clips.get(entry.name, Clip()) for entry in entries]
    limits = [
        (entry.start, entry.stop, astuple(clip))
        for entry, clip in zip(entries, clips, strict=True)
        if any(clips)
    ]
    rule = UpdateRule(name, tuple(parts), tuple(limits), astuple(optimiser.clip), optimiser.decay)
    return rule, ""


class Entry(NamedTuple):
    """A parameter of the packed vector and who steps it."""

    name: str
    start: int
    stop: int
    param: Tensor
    cohort: Cohort
    group: dict[str, Any]

    @property
    def state(self) -> dict[str, Any]:
        """The optimiser's state of this parameter."""
        return self.cohort.optimizer.state[self.param]


def entries_of(optimiser: Optimiser, layout: Layout) -> list[Entry]:
    """The parameters of `layout`.

    Raises:
        ValueError: the optimiser has not seen one of them.
    """
    owners = {
        name: (cohort.params[name], cohort, cohort.optimizer.param_groups[index])
        for cohort in optimiser.cohorts
        for name, index in cohort.group_indices().items()
    }
    unknown = [name for name, *_ in layout if name not in owners]
    if unknown:
        raise ValueError(
            f"The optimiser has not seen {unknown}: call add first." + see("optimiser")
        )
    return [
        Entry(name, start, start + shape.numel(), *owners[name]) for name, start, shape in layout
    ]


def _obstacle(entry: Entry) -> str:
    """Why the optimiser of a parameter has no rule, or an empty string."""
    optimizer, group = entry.cohort.optimizer, entry.group
    name = type(optimizer).__name__
    formula = FORMULAS.get(name)
    if formula is None or formula.optimizer is not type(optimizer):
        return f"{name} is not among the optimisers that can be recorded: {', '.join(FORMULAS)}"
    if not entry.param.is_floating_point():
        return f"parameter {entry.name} is {entry.param.dtype}"
    if group.get("maximize"):
        return f"{name} maximises"
    if any(isinstance(group.get(key), Tensor) for key in ("lr", *formula.settings)):
        return f"a setting of {name} is a tensor"
    for scheduler in (entry.cohort.schedule, entry.cohort.user_schedulers.get(entry.name)):
        if getattr(scheduler, "cycle_momentum", False):
            return f"{type(scheduler).__name__} changes the momentum with the learning rate"
    return ""


def _part(tensor: Tensor, start: int, stop: int) -> Tensor:
    """A part of a vector; a number belongs to all parts."""
    if tensor.dim() == 0 or (start, stop) == (0, len(tensor)):
        return tensor
    return tensor[start:stop]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """The vector of these parts; a number is the same in all of them."""
    return parts[0] if len(parts) == 1 or parts[0].dim() == 0 else torch.cat(list(parts))
