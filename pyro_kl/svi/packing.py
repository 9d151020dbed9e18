"""The state of an optimiser as packed tensors, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .optimiser import Optimiser
from .update_formulas import FORMULAS, State
from .update_rules import Entry, Layout, UpdateRule, entries_of

#: State that is one number for each parameter, and what it is before the first step.
NUMBERS = {"step": 0.0, "started": 0.0, "mu_product": 1.0}


def pack(optimiser: Optimiser, rule: UpdateRule, layout: Layout) -> State:
    """The state that `rule` takes.

    Returns:
        One tensor for each of `rule.state_names`, then the average and how many values it has:
        shape (n,) and the dtype of the parameters, or a number where it is the same for all
        parameters.
    """
    entries = entries_of(optimiser, layout)
    packed = []
    for key in rule.state_names:
        if key in NUMBERS:
            numbers = [_number(entry.state, key) for entry in entries]
            packed.append(_numbers(numbers, entries).to(_dtype(key)))
        else:
            packed.append(torch.cat([_vector(entry, key) for entry in entries]))
    if rule.decay is not None:
        averages = [(entry.name, entry.cohort.average) for entry in entries]
        values = [average.values[name].flatten() for name, average in averages if average]
        counts = [float(average.count) for _, average in averages if average]
        packed += [torch.cat(values), _numbers(counts, entries)]
    return tuple(packed)


def unpack(optimiser: Optimiser, rule: UpdateRule, layout: Layout, state: State) -> None:
    """Write packed state back; the parameters themselves are the caller's."""
    of_keys = dict(zip(rule.state_names, state, strict=False))
    for entry in entries_of(optimiser, layout):
        shape = entry.param.shape
        values = {
            key: _at(tensor, entry.start)
            if key in NUMBERS
            else tensor[entry.start : entry.stop].view(shape).clone()
            for key, tensor in of_keys.items()
        }
        if any(values.get(key) for key in ("step", "started")):  # before, there is no state
            entry.state.update(_as_torch_keeps(values, entry, rule))
        if entry.cohort.average is not None:
            average, count = state[-2:]
            copied = average[entry.start : entry.stop].view(shape).clone()
            entry.cohort.average.values[entry.name] = copied
            entry.cohort.average.count = int(_at(count, entry.start))


def packed_rates(optimiser: Optimiser, layout: Layout, steps: int) -> Tensor:
    """The learning rates of the next `steps` steps.

    Returns:
        float64, shape (steps,) if these rates are the same for all parameters, else (steps, n).
    """
    like = optimiser.params[layout[0][0]]
    of_groups = {rates for cohort in optimiser.cohorts for rates in cohort.rates_by_group(steps)}
    if len(of_groups) == 1:
        return torch.tensor(of_groups.pop(), dtype=torch.float64, device=like.device)
    by_name = optimiser.learning_rates(steps)
    entries = entries_of(optimiser, layout)
    rates = torch.tensor(
        [by_name[entry.name] for entry in entries], dtype=torch.float64, device=like.device
    )
    return rates.repeat_interleave(_lengths(entries), dim=0).t().contiguous()


def _lengths(entries: Sequence[Entry]) -> Tensor:
    """The number of elements of each parameter."""
    device = entries[0].param.device
    return torch.tensor([entry.stop - entry.start for entry in entries], device=device)


def _number(state: dict[str, Any], key: str) -> float:
    """A number of the state of one parameter."""
    if key == "started":
        return float(state.get("momentum_buffer") is not None)
    return float(state.get(key, NUMBERS[key]))


def _dtype(key: str) -> torch.dtype:
    """The dtype of a packed number: that in which torch rounds NAdam's product at each step."""
    return torch.get_default_dtype() if key == "mu_product" else torch.float64


def _numbers(numbers: Sequence[float], entries: Sequence[Entry]) -> Tensor:
    """One number if it is the same for all parameters, else one for each element."""
    packed = torch.tensor(numbers, dtype=torch.float64, device=entries[0].param.device)
    if len(set(numbers)) == 1:
        return packed[0]
    return packed.repeat_interleave(_lengths(entries))


def _vector(entry: Entry, key: str) -> Tensor:
    """A tensor of the state of one parameter, which is zero before the first step."""
    kept = entry.state.get(key)
    kept = torch.zeros_like(entry.param) if kept is None else kept
    return kept.detach().flatten()


def _at(packed: Tensor, index: int) -> float:
    """A number of the parameter that starts at `index`."""
    return float(packed if packed.dim() == 0 else packed[index])


def _as_torch_keeps(values: dict[str, Any], entry: Entry, rule: UpdateRule) -> dict[str, Any]:
    """The state with its numbers in the form of the optimiser: tensors, or Pyro's integers."""
    fused = entry.group.get("fused")
    device = entry.param.device if fused else torch.device("cpu")
    kept = {key: value for key, value in values.items() if key != "started"}
    for key in kept.keys() & NUMBERS.keys():
        if FORMULAS[rule.name].optimizer.__module__.startswith("torch."):
            dtype = torch.float32 if key == "step" else _dtype(key)
            kept[key] = torch.tensor(kept[key], dtype=dtype, device=device)
        else:
            kept[key] = int(kept[key])
    return kept
