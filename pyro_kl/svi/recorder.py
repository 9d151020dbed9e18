"""Makes a record of a step, compares it with the step, and finds out whether it still fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from torch import Tensor

from .arguments import Arguments
from .faster import Faster
from .fx import FxRunner
from .optimiser import Optimiser
from .random_state import generators_kept, random_state_kept
from .record import Recording, levels_of, record
from .set_up import SetUp, set_up
from .surroundings import Surroundings, Taken
from .tensor_reads import Declined


@dataclass
class Entry:
    """A record, how steps are taken by it, and what was found in Python when it was made.

    Attributes:
        key: of the arguments.
        leaves: all parameters, by name; the recording has those that require a gradient.
        faster: by the steps of one call, what takes them by a package.
        failures: how often the record has failed in a row.
        pause: steps to be taken by Pyro's own run before the record is tried again.
    """

    key: Any
    recording: Recording
    fx: FxRunner
    leaves: dict[str, Tensor]
    taken: Taken
    faster: dict[int, Faster | None] = field(default_factory=dict)
    failures: int = 0
    pause: int = 0

    @property
    def has_gradients(self) -> bool:
        """Whether the user has added to gradients before the step."""
        return any([leaf.grad is not None for leaf in self.leaves.values()])

    @property
    def why_again(self) -> str:
        """Why the record may not hold for a step whose loss is finite."""
        reason = "an integral would have needed more nodes"
        if self.recording.places:
            read = "Python would have read another number, such as a branch or a size"
            reason = f"{read} ({'; '.join(self.recording.places)}), or {reason}"
        return f"A compiled step was taken again as usual: in it, {reason}."


class Recorder:
    """Makes records of the steps of one fit.

    Args:
        model: the model.
        guide: the guide.
        elbo: a TraceKL_ELBO, Trace_ELBO or TraceMeanField_ELBO.
        optimiser: the optimiser of all parameters.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        elbo: Any,
        optimiser: Optimiser,
    ) -> None:
        self.model, self.guide, self.elbo, self.optimiser = model, guide, elbo, optimiser
        self._surroundings = Surroundings(model, guide, elbo)

    def set_up(self, given: Arguments) -> tuple[SetUp, list[str]]:
        """Run model and guide, and find out what a run changes in Python by itself.

        This is done for each record: in another branch, another value is read. The random
        generators are put back.

        Returns:
            What the run has found, and what the user should know.

        Raises:
            Declined: model or guide read what they change themselves in each run.
        """
        run = self.model, self.guide, self.elbo, given.args, given.kwargs
        found: list[SetUp] = []

        def run_once() -> None:
            if found:
                with generators_kept():
                    self.elbo.loss(self.model, self.guide, *given.args, **given.kwargs)
            else:
                found.append(set_up(*run))

        with random_state_kept():
            effects = self._surroundings.side_effects(run_once)
        if effects.refusals:
            raise Declined("; ".join(effects.refusals))
        return found[0], effects.notices

    def record(self, found: SetUp, given: Arguments, choices: Sequence[Any]) -> Entry:
        """Record a step, and compare its loss with that of the run before, with the same draws.

        Args:
            found: by `set_up`.
            given: the arguments.
            choices: of an earlier record of the same step.

        Raises:
            Declined: the step cannot be recorded, or the record is not the step.
        """
        trained = {name: x for name, x in found.parameters.items() if x.requires_grad}
        for name, leaf in trained.items():
            if _has_hook(leaf):
                raise Declined(f"the parameter {name!r} has a hook, which a record does not call")
        with random_state_kept():
            recording = record(
                self.model, self.guide, self.elbo, trained, *given.recorded, found.methods, choices
            )
        for name in self.optimiser.names & found.parameters.keys() - recording.parameters.keys():
            raise Declined(
                f"the parameter {name!r} has been trained and has no gradient any more: the "
                "optimiser may still move it"
            )
        levels, fixed = levels_of(self.elbo), [*given.tensors, *recording.captured]
        with random_state_kept():
            fx = FxRunner(recording, self.optimiser, levels, fixed)
        with random_state_kept():
            loss = float(fx.evaluate(levels, fixed)[0])
            end = torch.get_rng_state()
        if not torch.equal(end, found.end):
            raise Declined(
                "torch's generator is moved by something else than draws, such as a seed that is "
                "set in each run"
            )
        _refuse_apart(loss, found.loss, fx.eps)
        return Entry(given.key, recording, fx, found.parameters, self._surroundings.take())

    def compare(self, entry: Entry, other: Arguments) -> None:
        """Compare the record with a run for other arguments: a float may have decided something.

        Args:
            entry: the record.
            other: arguments of the same form, with other floats.

        Raises:
            Declined: the losses differ.
        """
        if other.key != entry.key:
            return
        with random_state_kept():
            usual = float(self.elbo.loss(self.model, self.guide, *other.args, **other.kwargs))
        with random_state_kept():
            fixed = [*other.tensors, *entry.recording.captured]
            loss = float(entry.fx.evaluate(levels_of(self.elbo), fixed)[0])
        _refuse_apart(loss, usual, entry.fx.eps)

    def changed(self, entry: Entry) -> str:
        """What is not as it was recorded; empty if all is."""
        store, recorded = pyro.get_param_store()._params, entry.recording.parameters
        for name, leaf in entry.leaves.items():
            if store.get(name) is not leaf:
                return f"the parameter {name!r} is another tensor"
            if leaf.requires_grad is not (name in recorded):
                return f"requires_grad of the parameter {name!r} has changed"
            if _has_hook(leaf):
                return f"the parameter {name!r} has a hook"
        return self._surroundings.difference(entry.taken) or ""


def _has_hook(leaf: Tensor) -> bool:
    return bool(leaf._backward_hooks or leaf._post_accumulate_grad_hooks)


def _refuse_apart(recorded: float, usual: float, eps: float) -> None:
    """Raise Declined if the losses of a record and of a run with the same draws differ."""
    if abs(recorded - usual) > eps**0.5 * max(1.0, abs(usual)):
        raise Declined(
            f"with the same draws the record has a loss of {recorded:g}, and model and guide of "
            f"{usual:g}: they do not do the same in each run"
        )
