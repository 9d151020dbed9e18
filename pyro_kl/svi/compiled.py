"""Steps of SVI by a record of the first one, and by Pyro's own run where the record fails."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..elbo.guides.plan import Run
from ..elbo.trace_kl_elbo import TraceKL_ELBO
from ..messages import see, without_link
from ..registry.warnings import warn
from .aot import AotRunner, block_of
from .arguments import Arguments
from .eager import Eager
from .faster import Faster
from .fx import FxRunner
from .not_finite import sites_not_finite
from .optimiser import Optimiser
from .random_state import random_state_kept
from .record import levels_of, why_not_recorded
from .recorder import Entry, Recorder
from .tensor_reads import Declined

_MODES = ("fx", "aot", "auto")
#: Records of one fit, and steps after which there may be one more.
_MOST_RECORDS, _STEPS_OF_RECORD = 8, 200
#: A record that fails so often in a row, though the loss is finite, is made anew.
_MOST_FAILURES = 3
#: The most steps that are taken as usual after a record has failed, before it is tried again.
_LONGEST_PAUSE = 1024


class Compiled:
    """A stepper that runs model and guide once, and then takes steps by a record of that run.

    Args:
        model: the model.
        guide: the guide.
        elbo: a TraceKL_ELBO, Trace_ELBO or TraceMeanField_ELBO.
        optimiser: the optimiser of all parameters.
        eager: takes the steps that the record cannot take.
        mode: "fx": operation by operation; "aot": by a package of compiled code, for which the
            first step waits; "auto": by a package that is built in the background if that pays,
            and operation by operation until it is there.
        steps_per_call: the most steps of one call of a package.

    Attributes:
        remaining: steps still to come in a fit, or None; whether a build pays depends on it.
        is_single: whether steps come one by one, as by `SVI.step` or with batches.
        declined: why steps are not recorded; empty if they are.

    Raises:
        ValueError: there is no such mode, or less than one step in a call.
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
            raise ValueError(
                f"compile must be None or one of {', '.join(_MODES)}, got {mode!r}" + see("option")
            )
        if steps_per_call < 1:
            raise ValueError(
                f"steps_per_call must be at least 1, got {steps_per_call}" + see("option")
            )
        self.model, self.guide, self.elbo = model, guide, elbo
        self.optimiser, self.eager = optimiser, eager
        self.mode, self.steps_per_call = mode, steps_per_call
        self.remaining: int | None = None
        self.is_single = True
        self.declined = ""
        self._recorder = Recorder(model, guide, elbo, optimiser)
        self._made = self._steps = 0
        self._entries: dict[str, Entry] = {}
        self._choices: dict[str, list[Any]] = {}
        #: Places of floats among the arguments that change; None if none can be an input.
        self._numbers: set[int] | None = set()
        self._arguments: Arguments | None = None
        #: Arguments with other floats than those that the next record is made for.
        self._floats: Arguments | None = None
        self._active: FxRunner | AotRunner | None = None
        self._said: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes its records anew: they hold the tensors of this fit."""
        self.settle()
        own: dict[str, Any] = {
            "_recorder": None,
            "_entries": {},
            "_arguments": None,
            "_floats": None,
        }
        return {**self.__dict__, **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._recorder = Recorder(self.model, self.guide, self.elbo, self.optimiser)

    @property
    def names(self) -> set[str]:
        """Of the parameters that were read in any step."""
        return self.eager.names

    def state_dict(self) -> dict[str, Any]:
        """What a record depends on beside model, guide and parameters: numbers and texts."""
        return {"choices": self._choices}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Record as before `state` was saved."""
        self._choices = dict(state.get("choices", {}))  # an eager fit has none

    def settle(self) -> None:
        """Give parameters and optimiser the state of the steps taken so far."""
        if self._active is not None:
            self._active.settle()
            self._active = None

    # --- steps --------------------------------------------------------------------------------

    def take(self, count: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[float]:
        """Take steps with the same arguments; their losses, in nats.

        The first step with arguments of one form is taken as usual, since it may make parameters,
        and is recorded after that.
        """
        losses: list[float] = []
        while len(losses) < count:
            left = count - len(losses)
            given = self._read(args, kwargs)
            if given is None:
                losses += self._eagerly(left, args, kwargs)
                continue
            entry = self._entry(given)
            if entry is None and given.name not in self._choices:
                losses += self._eagerly(1, args, kwargs)
                self._record(given)
            elif entry is None:
                self._record(given)  # as before a checkpoint was saved
            elif entry.pause or entry.has_gradients:
                usual = min(max(entry.pause, 1), left)
                entry.pause = max(entry.pause - usual, 0)
                losses += self._eagerly(usual, args, kwargs)
            else:
                losses += self._by_record(entry, left, given)
        self._steps += count
        return losses

    def _read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        """The arguments; None if steps are not recorded, or not with such arguments.

        A float that was another one in an earlier step becomes an input.
        """
        if self.declined:
            return None
        if self._arguments is not None:
            renewed = self._arguments.renewed(args, kwargs)
            if renewed is not None:
                self._arguments = renewed
                return renewed
        try:
            given = Arguments(args, kwargs, self._numbers or ())
        except Declined as declined:
            self._decline(declined)
            return None
        if self._numbers is not None and given.name not in self._entries:
            apart = given.floats_apart([entry.key for entry in self._entries.values()])
            if apart:
                self._numbers |= apart
                given = Arguments(args, kwargs, self._numbers)
                self._floats = self._arguments
        self._arguments = given
        return given

    def _eagerly(self, count: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[float]:
        self.settle()
        return self.eager.take(count, args, kwargs)

    def _by_record(self, entry: Entry, count: int, given: Arguments) -> list[float]:
        """Take some steps by a record, or as usual if the record fails."""
        levels = [levels_of(self.elbo)]
        fixed = [*given.tensors, *entry.recording.captured]
        runner, faster = self._runner(entry, levels[0], fixed)
        steps = min(count, runner.steps)
        levels += [levels_of(self.elbo, i) for i in range(1, steps)]
        generator, start = torch.get_rng_state(), time.perf_counter()
        losses = runner.take(levels, fixed)
        if losses is None:
            torch.set_rng_state(generator)
            return self._again(entry, steps, given)
        entry.failures = 0
        if faster is not None:
            faster.took(steps, time.perf_counter() - start)
        if isinstance(self.elbo, TraceKL_ELBO):
            self.elbo.steps_taken_elsewhere(
                steps, Run(self.model, self.guide, given.args, given.kwargs)
            )
        return losses

    def _runner(
        self, entry: Entry, levels: list[float], fixed: list[Tensor]
    ) -> tuple[FxRunner | AotRunner, Faster | None]:
        """What takes the next steps, given the state of parameters and optimiser; who decides."""
        faster = self._faster(entry, levels, fixed)
        runner: FxRunner | AotRunner = entry.fx
        if faster is not None:
            if self._active not in (None, entry.fx, faster.aot):
                self.settle()  # a package that is compared takes over the optimiser's state
            runner = faster.runner(self.remaining, levels, fixed)
            if faster.reason:
                self._say(f"The steps are recorded, but not compiled: {faster.reason}.")
        if runner is not self._active:
            self.settle()
            self._active = runner
        return runner, faster

    def _faster(self, entry: Entry, levels: list[float], fixed: list[Tensor]) -> Faster | None:
        """What takes the steps by a package; None if there can be none.

        A call of a package takes the time of all its steps, so that single steps have their own.
        """
        if self.mode == "fx":
            return None
        steps = 1 if self.is_single else self.steps_per_call
        if steps not in entry.faster:
            self.settle()
            entry.faster[steps] = self._package(entry, steps, levels, fixed)
        return entry.faster[steps]

    def _package(
        self, entry: Entry, steps: int, levels: list[float], fixed: list[Tensor]
    ) -> Faster | None:
        """The package of so many steps in one call, or the reason why there is none."""
        block, reason = block_of(entry.recording, self.optimiser, steps)
        if block is None:
            self._say(f"The steps are recorded, but not compiled: {reason}.")
            return None
        with random_state_kept():
            aot = AotRunner(block, entry.recording, self.optimiser, levels, fixed)
        if aot.build.notice:
            self._say(aot.build.notice)
        return Faster(entry.fx, aot, wait=self.mode == "aot")

    def _again(self, entry: Entry, count: int, given: Arguments) -> list[float]:
        """Take the steps as usual that a record has failed to take, with the same draws."""
        entry.failures += 1
        entry.pause = min(2**entry.failures, _LONGEST_PAUSE)
        self.settle()
        losses: list[float] = []
        while len(losses) < count and all(map(math.isfinite, losses)):
            leaves = [*entry.recording.parameters.values()]
            before = torch.get_rng_state(), [leaf.detach().clone() for leaf in leaves]
            losses += self.eager.take(1, given.args, given.kwargs)
        if all(map(math.isfinite, losses)):
            self._say(entry.why_again, "again")
            if entry.failures >= _MOST_FAILURES:
                self._forget(given)
        else:
            self._say_not_finite(losses[-1], leaves, before, given)
            losses += self._eagerly(count - len(losses), given.args, given.kwargs)
        return losses

    # --- records ------------------------------------------------------------------------------

    def _entry(self, given: Arguments) -> Entry | None:
        """The record for these arguments; None if there is none that fits."""
        entry = self._entries.get(given.name)
        if entry is None:
            return None
        changed = self._recorder.changed(entry)
        if changed:
            self._say(f"A step is recorded again: {changed}.", changed.split(" was ")[0])
            self._forget(given)
            return None
        return entry

    def _record(self, given: Arguments) -> None:
        """Make the record for these arguments, or decline."""
        self.settle()
        try:
            reason = why_not_recorded(self.elbo)
            if reason:
                raise Declined(reason)
            if self._made >= _MOST_RECORDS + self._steps // _STEPS_OF_RECORD:
                raise Declined(f"{self._made} records were needed for {self._steps} steps")
            self._made += 1
            found, notices = self._recorder.set_up(given)
        except Declined as declined:
            self._decline(declined)
            return
        for notice in notices:
            self._say(notice)
        self.names.update(found.names)
        try:
            entry = self._recorder.record(found, given, self._choices.get(given.name, ()))
            if given.has_numbers and self._floats is not None:
                other = Arguments(self._floats.args, self._floats.kwargs, self._numbers or ())
                self._recorder.compare(entry, other)
            self._entries[given.name] = entry
            self._choices[given.name] = list(entry.recording.choices)
            levels = levels_of(self.elbo)
            # a package is waited for here
            self._runner(entry, levels, [*given.tensors, *entry.recording.captured])
        except Exception as error:  # whatever cannot be recorded runs as Pyro runs it
            if given.has_numbers:
                # a float that decides something is a constant of a record
                self._numbers = self._arguments = None
            else:
                self._decline(error)

    def _decline(self, error: Exception) -> None:
        """Take all steps as usual from now on, and say why."""
        kind = "" if isinstance(error, Declined) else f"{type(error).__name__}: "
        self.declined = f"{kind}{without_link(error)}"
        self._say(f"The steps are not compiled, and taken as usual: {self.declined}.")

    def _forget(self, given: Arguments) -> None:
        """Make the record for these arguments anew."""
        self.settle()
        self._entries.pop(given.name, None)
        self._choices.pop(given.name, None)

    # --- notices ------------------------------------------------------------------------------

    def _say(self, message: str, about: str = "") -> None:
        """Warn once of what a message is about; by default, of itself."""
        about = about or message
        if about not in self._said:
            self._said.add(about)
            warn(message + see("compiled-steps"))

    def _say_not_finite(
        self,
        loss: float,
        leaves: list[Tensor],
        before: tuple[Tensor, list[Tensor]],
        given: Arguments,
    ) -> None:
        """Name the sites of a step whose loss is not finite.

        Args:
            loss: of the step.
            leaves: the parameters.
            before: the state of the generator and the values of the parameters before the step.
            given: the arguments of model and guide.
        """
        if f"not finite {loss}" in self._said:
            return
        self._said.add(f"not finite {loss}")
        sites = []
        if isinstance(self.elbo, TraceKL_ELBO):
            sites = [row.site for row in self.elbo.report if not math.isfinite(row.nats)]
        if not sites:
            with random_state_kept(), torch.no_grad():
                torch.set_rng_state(before[0])
                after = [leaf.detach().clone() for leaf in leaves]
                torch._foreach_copy_(leaves, before[1])
                sites = sites_not_finite(self.model, self.guide, given.args, given.kwargs)
                torch._foreach_copy_(leaves, after)
        where = f" at {', '.join(sites)}" if sites else ""
        warn(
            f"The loss of a compiled step is {loss}{where}: such a step is taken as usual."
            + see("loss-not-finite")
        )
