"""Steps of SVI by a record of the first one, and by Pyro's own run where the record fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyro
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..elbo.guides.plan import Run
from ..elbo.trace_kl_elbo import TraceKL_ELBO
from ..registry.warnings import warn
from .eager import Eager
from .fx import FxRunner
from .optimiser import Optimiser
from .record import Recording, levels_of, record
from .set_up import SetUp, generators_kept, set_up
from .surroundings import Surroundings, Taken
from .tensor_reads import Declined

_MODES = ("fx",)
#: Records of one fit, and steps after which there may be one more.
_MOST_RECORDS, _STEPS_OF_RECORD = 8, 200
#: A record that fails so often in a row is made anew.
_MOST_FAILURES = 3


class Runner(Protocol):
    """What takes steps by a record."""

    def take(self, levels: Sequence[Sequence[float]], fixed: Sequence[Tensor]) -> Any:
        """Take a step for each of `levels`; their losses, or None if nothing was changed.

        It is None if a loss is not finite or a branch that was taken in the record would not be
        taken again: parameters and optimiser are then what they were.
        """

    def settle(self) -> None:
        """Give the optimiser its state back."""


@dataclass
class _Entry:
    """A record, how steps are taken by it, and what it has found in Python."""

    recording: Recording
    runner: Runner
    taken: Taken
    failures: int = 0
    #: Steps to be taken by Pyro's own run before the record is tried again.
    pause: int = 0


class Compiled:
    """A stepper that runs model and guide once, and then takes steps by a record of that run.

    Args:
        model: the model.
        guide: the guide.
        elbo: a TraceKL_ELBO, Trace_ELBO or TraceMeanField_ELBO.
        optimiser: the optimiser of all parameters.
        eager: takes the steps that the record cannot take.
        mode: "fx": operation by operation.
        steps_per_call: how many steps one call of a compiled package takes.

    Attributes:
        remaining: steps still to come in a run, or None.

    Raises:
        ValueError: there is no such mode.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        elbo: Any,
        optimiser: Optimiser,
        eager: Eager,
        mode: str,
        steps_per_call: int,
    ) -> None:
        if mode not in _MODES:
            raise ValueError(f"compile must be None or one of {', '.join(_MODES)}, got {mode!r}")
        self.model, self.guide, self.elbo = model, guide, elbo
        self.optimiser, self.eager = optimiser, eager
        self.remaining: int | None = None
        self.declined = ""
        self.surroundings = Surroundings(model, guide, elbo)
        self._made = 0
        self._steps = 0
        self._entries: dict[Hashable, _Entry] = {}
        self._said: set[str] = set()

    def take(self, count: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[float]:
        """Take steps with the same arguments; their losses, in nats."""
        losses: list[float] = []
        self._steps += count
        while len(losses) < count:
            entry = None if self.declined else self._entry(args, kwargs)
            if entry is None:
                losses += self._eagerly(count - len(losses), args, kwargs)
            elif entry.pause:
                steps = min(entry.pause, count - len(losses))
                losses += self._eagerly(steps, args, kwargs)
                entry.pause -= steps
            else:
                losses += self._by_record(entry, count - len(losses), args, kwargs)
        return losses

    @property
    def names(self) -> set[str]:
        """Of the parameters that were read in any step."""
        return self.eager.names

    def state_dict(self) -> dict[str, Any]:
        """What a record depends on beside model, guide and parameters."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Record as before `state` was saved."""

    def settle(self) -> None:
        """Give parameters and optimiser the state of the steps taken so far."""
        for entry in self._entries.values():
            entry.runner.settle()

    def _by_record(
        self, entry: _Entry, count: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[float]:
        """Take some steps by a record; one step by Pyro's own run if the record fails."""
        first = getattr(self.elbo, "step_count", 0)
        levels = [levels_of(self.elbo, first)]
        generator = torch.get_rng_state()
        losses = entry.runner.take(levels, entry.recording.fixed(args, kwargs))
        if losses is not None:
            entry.failures = 0
            if isinstance(self.elbo, TraceKL_ELBO):
                run = Run(self.model, self.guide, args, kwargs)
                self.elbo.steps_taken_elsewhere(len(losses), run)
            return losses
        torch.set_rng_state(generator)
        entry.failures += 1
        entry.pause = 2**entry.failures
        losses = self._eagerly(1, args, kwargs)
        self._say(self._why_failed(losses[0]))
        if entry.failures >= _MOST_FAILURES and math.isfinite(losses[0]):
            self._entries.pop(self._signature(args, kwargs), None)
        return losses

    def _why_failed(self, loss: float) -> str:
        """What to tell after a step that was taken by Pyro's own run."""
        if math.isfinite(loss):
            return (
                "A compiled step was taken again as usual: in it, Python would have read another "
                "number from a tensor, such as a branch or a size, or an integral would have "
                "needed more nodes."
            )
        sites = ""
        if isinstance(self.elbo, TraceKL_ELBO):
            rows = [row.site for row in self.elbo.report if not math.isfinite(row.nats)]
            sites = f" at {', '.join(rows)}" if rows else ""
        return f"The loss of a compiled step was not finite{sites}: it was taken again as usual."

    def _eagerly(self, count: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[float]:
        self.settle()
        return self.eager.take(count, args, kwargs)

    # --- records ------------------------------------------------------------------------------

    def _entry(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Entry | None:
        """The record for these arguments, which is made if there is none; None if it cannot be."""
        key = self._signature(args, kwargs)
        entry = self._entries.get(key)
        if entry is not None:
            changed = self._changed(entry)
            if not changed:
                return entry
            self._say(f"A step is recorded again: {changed}.")
        self.settle()
        try:
            if self._made >= _MOST_RECORDS + self._steps // _STEPS_OF_RECORD:
                raise Declined(f"{self._made} records in {self._steps} steps")
            self._made += 1
            entry = self._entries[key] = self._recorded(args, kwargs)
        except Declined as declined:
            self.declined = str(declined)
        except Exception as error:  # whatever cannot be recorded runs as Pyro runs it
            self.declined = f"{type(error).__name__}: {error}"
        if self.declined:
            self._say(f"The steps are not compiled, and taken as usual: {self.declined}.")
            return None
        return entry

    def _changed(self, entry: _Entry) -> str:
        """What is not as it was recorded; empty if all is."""
        store = pyro.get_param_store()._params
        for name, leaf in entry.recording.parameters.items():
            if store.get(name) is not leaf:
                return f"the parameter {name!r} is another tensor"
        return self.surroundings.difference(entry.taken) or ""

    def _set_up(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SetUp:
        """Run model and guide, and find out what a run changes in Python by itself.

        This is done for each record: in another branch, another value is read.

        Raises:
            Declined: model or guide read what they change themselves in each run.
        """
        run = self.model, self.guide, self.elbo, args, kwargs
        found: list[SetUp] = []

        def run_once() -> None:
            if found:
                with generators_kept():
                    self.elbo.loss(self.model, self.guide, *args, **kwargs)
            else:
                found.append(set_up(*run))

        effects = self.surroundings.side_effects(run_once)
        if effects.refusals:
            raise Declined("; ".join(effects.refusals))
        for notice in effects.notices:
            self._say(notice)
        return found[0]

    def _recorded(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Entry:
        found = self._set_up(args, kwargs)
        with generators_kept():
            recording = record(
                self.model, self.guide, self.elbo, found.parameters, args, kwargs, found.methods
            )
        self.names.update(found.parameters)
        levels = levels_of(self.elbo, getattr(self.elbo, "step_count", 0))
        fixed = recording.fixed(args, kwargs)
        with generators_kept():
            runner = FxRunner(recording, self.optimiser, levels, fixed)
        with generators_kept():
            loss = float(runner.evaluate(levels, fixed)[0])
        _check_loss(loss, found.loss, recording)
        return _Entry(recording, runner, self.surroundings.take())

    @staticmethod
    def _signature(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """What a record depends on: structure, shapes and dtypes of the arguments, and numbers."""
        leaves, structure = pytree.tree_flatten((args, kwargs))
        return structure, tuple(map(_form, leaves))

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            warn(message)


def _check_loss(recorded: float, usual: float, recording: Recording) -> None:
    """Raise Declined if the record, with the same draws, has another loss than the run before."""
    dtype = next(iter(recording.parameters.values())).dtype
    apart = abs(recorded - usual) / max(1.0, abs(usual))
    if apart > torch.finfo(dtype).eps ** 0.5:
        raise Declined(
            f"with the same draws the record has a loss of {recorded:g}, and model and guide of "
            f"{usual:g}; they do not do the same in each run"
        )


def _form(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.device, value.requires_grad
    try:
        hash(value)
    except TypeError:
        return id(value)
    return type(value), value
