"""SVI: fits a guide to a model, step by step or in one run."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ..elbo.state import elbo_state, load_elbo_state
from ..messages import see
from ..registry.warnings import warn
from . import checkpoint as files
from .batches import Arguments, Batches, arguments_by_step
from .callbacks import Callback, ReportOfStep
from .eager import Eager, as_numbers, loss_functions
from .interrupt import InterruptBetweenSteps
from .learning_rates import Schedule
from .optimiser import Optimiser
from .pace import Pace
from .parameters import leaf, saved_parameters
from .progress import Progress
from .random_state import random_state, set_random_state
from .ranks import any_rank, num_ranks, this_rank, warn_if_alone
from .replicas import Replicas
from .result import SVIResult
from .resume import Resume, buffers_of
from .shown_averages import ShownAverages

if TYPE_CHECKING:
    from .compiled import Compiled


class SVI:
    """Stochastic variational inference: `pyro.infer.SVI` with `run`, and one optimiser for all.

    `step` and `evaluate_loss` are Pyro's. `run` takes many steps, shows a progress bar, writes
    checkpoints and returns the losses. Pyro's parameter store holds the parameters, so that
    autoguides, `Predictive` and `elbo.report` see the fit at any time.

    Args:
        model: the model.
        guide: the guide; any of Pyro's kinds.
        optim: an optimiser of `pyro.optim`, a class of `torch.optim` with `optim_args`, or a
            function from a list of parameters to a `torch.optim.Optimizer`.
        loss: an ELBO, or a function of model, guide and their arguments that returns the loss.
        loss_and_grads: beside such a function, one that also adds the gradients to the
            parameters' `.grad`; without it the loss is differentiated.
        optim_args: arguments of a class of `torch.optim`: a dict, or a function from the name of
            a parameter to a dict.
        clip_norm: largest norm of the gradient of all parameters together.
        clip_value: largest absolute value of an element of the gradient.
        schedule: a factor of the learning rate as a function of the step, or a function of the
            optimiser that returns one of torch's schedulers.
        average: "polyak" for the mean of the parameters over all steps, or the decay of an
            exponential average. `run` leaves the averages in the parameter store; the next step
            goes on from where the last one ended, not from them.
        compile: how a step of TraceKL_ELBO, TraceEnumKL_ELBO, Trace_ELBO or TraceMeanField_ELBO
            is taken. None runs model and guide each time. All others run them once, at the first
            step, and again when the arguments change their form or what they read from Python has
            changed:
            "fx" repeats the recorded operations one by one; "aot" builds a package of compiled
            code from them, which the first step waits for, and keeps it in a cache folder;
            "auto" is "fx" with such a package built in the background, if the steps that are
            left pay for it. What cannot be recorded or built is taken as usual, with a warning
            that says why. The draws are those of None. The model's Python code does not run in
            the other steps: it prints nothing, and values outside of a distribution's support
            are not refused. Several ranks take no recorded steps.
        steps_per_call: how many steps a package takes in one call; callbacks are called after
            each call. The results do not depend on it. Without `compile` it is 1.
        sharded: names of the plates of which each rank holds a part of the rows. In the model
            their size is that part's, so that a model with `pyro.plate("data", len(x))` needs no
            change; the parts may have different sizes, and the plate may draw subsamples of its
            part. The latents of such a plate need an amortised guide.

    Under `torchrun` a script calls `torch.distributed.init_process_group` before the first step,
    and each process `step` or `run` with rows of its own. Loss and gradient are the means over
    the ranks, so that each rank's loss has to be an estimate of that of all data: a plate has the
    size of all data and this rank's minibatch as its subsample, as in Pyro, or it is `sharded`.
    The KL is counted once. All ranks start from the parameters of rank 0 and stay equal to it to
    the last bit. Each rank has draws of its own, as if the others were further particles: the
    gradient is unbiased either way, and its variance is smaller than with the same draws for all.
    Buffers, `elbo.report` and `evaluate_loss` are those of each rank's own rows. Rank 0 shows
    progress and writes checkpoints, which any number of ranks may load.

    Raises:
        TypeError: `optim` or `loss` is none of these.
        ValueError: an option has a value that is not allowed. At the first step on several ranks:
            they have different models or guides, or their plates do not make one data set.

    Attributes:
        step_count: steps taken so far, those before a loaded checkpoint included.
        result: of the last `run`, also of one that an interrupt or an error has ended.

    Example:
        >>> def model(x):
        ...     z = pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", pyro.distributions.Normal(z, 1.0), obs=x)
        >>> guide = pyro.infer.autoguide.AutoNormal(model)
        >>> elbo = pyro_kl.TraceKL_ELBO()
        >>> svi = pyro_kl.SVI(model, guide, torch.optim.Adam, elbo, optim_args={"lr": 0.05})
        >>> result = svi.run(200, torch.tensor([1.0, 2.0]))
        >>> result.losses.shape
        torch.Size([200])
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        optim: Any,
        loss: Any,
        loss_and_grads: Callable[..., Any] | None = None,
        *,
        optim_args: dict[str, Any] | Callable[[str], dict[str, Any]] | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        schedule: Schedule | None = None,
        average: str | float | None = None,
        compile: str | None = None,
        steps_per_call: int = 1,
        sharded: Collection[str] = (),
    ) -> None:
        self.model = model
        self.guide = guide
        self.elbo = loss
        self.optimiser = Optimiser(
            optim,
            optim_args=optim_args,
            clip_norm=clip_norm,
            clip_value=clip_value,
            schedule=schedule,
            average=average,
        )
        self.step_count = 0
        self.result: SVIResult | None = None
        self._loss, gradient = loss_functions(loss, loss_and_grads)
        self._is_compiled, self._steps_per_call = compile is not None, 1
        self._replicas = Replicas(sharded)
        self._stepper: Eager | Compiled = Eager(
            model, guide, gradient, self.optimiser, self._replicas
        )
        if compile is not None:
            from .compiled import Compiled  # who takes no compiled steps need not wait for it

            self._steps_per_call = steps_per_call
            self._stepper = Compiled(
                model, guide, loss, self.optimiser, self._stepper, compile, steps_per_call
            )
        self._is_started = False
        self._resume: Resume | None = None  # while a checkpoint is not all in its place
        self._averages = ShownAverages(self.optimiser)

    # --- single steps -------------------------------------------------------------------------

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take a gradient step.

        Args:
            *args: positional arguments of model and guide.
            **kwargs: keyword arguments of both.

        Returns:
            The loss in nats at the parameters before the step; a tuple for a loss that is one.
        """
        (loss,) = self._take(1, args, kwargs)
        return loss

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The loss in nats, without a step.

        Args:
            *args: positional arguments of model and guide.
            **kwargs: keyword arguments of both.

        Returns:
            Nats; a tuple for a loss that is one.
        """
        self._set_up(args, kwargs)
        return self._evaluate(args, kwargs)

    def _evaluate(self, args: Arguments, kwargs: dict[str, Any]) -> Any:
        self._is_started = True
        with torch.no_grad(), self._replicas.running():
            return as_numbers(self._loss(self.model, self.guide, *args, **kwargs))

    def _take(self, count: int, args: Arguments, kwargs: dict[str, Any]) -> list[Any]:
        """Take steps with the same arguments; their losses."""
        self._set_up(args, kwargs)
        self._averages.hide()
        if num_ranks() > 1:
            self._meet_ranks(args, kwargs)
        elif not self._is_started:
            warn_if_alone()
        self._is_started = True
        if self._resume is None:
            losses = self._stepper.take(count, args, kwargs)
        else:
            with self._resume.restore:
                losses = self._stepper.take(count, args, kwargs)
            if self._resume.is_done():
                self._resume = None
        self.step_count += count
        return losses

    def _meet_ranks(self, args: Arguments, kwargs: dict[str, Any]) -> None:
        """Before a step of several ranks: let them start from the same parameters."""
        self._leave_records()
        if not self._replicas.is_set_up:
            evaluate = partial(self._evaluate, args, kwargs)
            with self._resume.restore if self._resume else nullcontext():
                self._replicas.set_up(evaluate, self.guide, self.step_count, args, kwargs)

    def _leave_records(self) -> None:
        """Take the steps of several ranks as usual, and say so."""
        if num_ranks() == 1 or isinstance(self._stepper, Eager):
            return
        warn(
            f"compile={self._stepper.mode!r} is left out: the steps of several ranks are not "
            "recorded, since the ranks exchange their gradients." + see("compiled-steps")
        )
        self._stepper.settle()
        self._stepper, self._is_compiled = self._stepper.eager, False

    # --- many steps ---------------------------------------------------------------------------

    def run(
        self,
        num_steps: int,
        *args: Any,
        progress: bool | None = None,
        batches: Batches | None = None,
        callbacks: Sequence[Callback] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        every: int | None = None,
        **kwargs: Any,
    ) -> SVIResult:
        """Take many steps.

        Ctrl-C ends the run after the step that is being taken, and raises KeyboardInterrupt when
        parameters, optimiser and checkpoint are in order; `result` has the steps until then. A
        second Ctrl-C does not wait for the step.

        Args:
            num_steps: how many; none if it is below 1.
            *args: positional arguments of model and guide at each step.
            progress: whether to show a progress bar on standard error, if the run takes longer
                than two seconds; None shows it on a terminal and in a notebook. It needs tqdm.
            batches: positional arguments that differ from step to step and follow `args`: an
                iterable with those of each step, which is started again when it ends, or a
                function of the number of steps taken before (`step_count`). Only a function goes
                on where it was after a checkpoint.
            callbacks: functions that are called after each step with its number (from 1), its
                loss and a function that returns the ELBO's report. One that returns True ends
                the run. `pyro_kl.loggers` has some that keep the KL of each site.
            checkpoint: a file for `save` at the end of the run, and after Ctrl-C.
            every: how many steps lie between two checkpoints before the end.
            **kwargs: keyword arguments of both, other than those above.

        Returns:
            The losses, as a tensor.

        Raises:
            TypeError: `num_steps` is no whole number.
            ValueError: `every` is given without `checkpoint`, or batches ended.
            FileNotFoundError: the folder of the checkpoint does not exist.
        """
        num_steps = operator.index(num_steps)
        files.check_target(checkpoint, every)
        arguments = arguments_by_step(args, batches)
        self._leave_records()
        losses: list[Any] = []
        stopped: str | None = "error"
        bar = Progress(num_steps, progress if this_rank() == 0 else False)
        pace = Pace(self._steps_per_call, is_free=self._is_compiled and not callbacks)
        if num_steps <= 0:
            self._set_up(arguments(self.step_count), kwargs)
        self._stepper.is_single = batches is not None
        try:
            with InterruptBetweenSteps() as interrupt:
                ended = interrupted = False
                while len(losses) < num_steps and not (ended or interrupted):
                    left = self._stepper.remaining = num_steps - len(losses)
                    until_checkpoint = every - self.step_count % every if every else left
                    count = 1 if batches is not None else min(pace.count, left, until_checkpoint)
                    pace.start()
                    taken = self._take(count, arguments(self.step_count), kwargs)
                    pace.end()
                    losses += taken
                    bar.update(losses)
                    ended = self._tell(callbacks, taken)
                    if checkpoint is not None and every and self.step_count % every == 0:
                        self.save(checkpoint)
                    ended, interrupted = any_rank(ended, interrupt.came)
            interrupted |= interrupt.came  # after the last step, too
            stopped = "interrupt" if interrupted else "callback" if ended else None
        finally:
            self._stepper.remaining, self._stepper.is_single = None, True
            self._stepper.settle()
            self.step_count = self.optimiser.steps
            self.result = SVIResult.of(losses, self.step_count, stopped)
            bar.close(losses)
        if self.optimiser.decay is not None:
            self.use_average()
        if checkpoint is not None:
            self.save(checkpoint)
        if stopped == "interrupt":
            raise KeyboardInterrupt
        return self.result

    def _tell(self, callbacks: Sequence[Callback], losses: Sequence[Any]) -> bool:
        """Call the callbacks for the last steps; whether one of them ends the run."""
        if not callbacks:
            return False
        self._stepper.settle()
        first = self.step_count - len(losses) + 1
        report = ReportOfStep(self.elbo, self.step_count)
        answers = [
            callback(step, loss, report)
            for step, loss in enumerate(losses, first)
            for callback in callbacks
        ]
        return any(answer is True for answer in answers)

    # --- averages -----------------------------------------------------------------------------

    def use_average(self) -> None:
        """Put the averages of the parameters into the parameter store until the next step.

        Raises:
            ValueError: the fit has no averages.
        """
        self._stepper.settle()
        self._averages.show()

    # --- checkpoints --------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that the fit needs to go on to a file, which is never half written.

        It holds parameters, optimiser, schedules, averages, the state of the ELBO, buffers of a
        model or guide that is a module, the number of steps and the states of the random
        generators. Buffers of other modules, which `pyro.module` names, are not in it. A pickle of
        this object has no parameters, since they are in Pyro's store: save the fit instead.

        Args:
            path: the file; a file that is there is replaced.

        Raises:
            RuntimeError: parameters are not in Pyro's store, but local to their modules.
        """
        self._stepper.settle()
        if this_rank() > 0:
            self._replicas.draw_apart(self.step_count)
            return
        parameters = saved_parameters(self._stepper.names)
        for name, value in self._averages.iterates.items():
            parameters[name]["value"] = value
        is_average, buffers = bool(self._averages.iterates), buffers_of(self._modules)
        if self._resume is not None:  # what is not in its place yet is as it was loaded
            parameters.update(self._resume.restore.waiting)
            if not self._resume.is_set_up:
                is_average, buffers = self._resume.is_average, self._resume.buffers
        state = {
            "step_count": self.step_count,
            "parameters": parameters,
            "is_average": is_average,
            "buffers": buffers,
            "optimiser": self.optimiser.state_dict(),
            "elbo": elbo_state(self.elbo),
            "stepper": self._stepper.state_dict(),
            "random": random_state(),
            "seed": self._replicas.seed,
        }
        files.write(path, state)

    def load(self, path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Go on from a checkpoint, as if the fit had not been interrupted.

        Model, guide, optimiser and options are those of the fit that was saved. In a new process
        guide and networks have no parameters yet: they get their values at the first call of
        `step`, `run` or `evaluate_loss`, or here if this is given the arguments of a step.

        The steps are equal to the last bit if they are taken in the same way; compile="auto" may
        change to a package at another step.

        Args:
            path: the file.
            *args: positional arguments of model and guide.
            **kwargs: keyword arguments of both.

        Raises:
            ValueError: the file is no checkpoint, or not one of this model and guide.

        Example:
            >>> svi = pyro_kl.SVI(model, guide, optim, elbo)  # doctest: +SKIP
            >>> if path.exists():  # doctest: +SKIP
            ...     svi.load(path)
            >>> svi.run(10_000 - svi.step_count, x, checkpoint=path, every=500)  # doctest: +SKIP
        """
        state = files.read(path)
        self._stepper.settle()  # nothing of the state before is written later
        self._resume = Resume(state, self._modules)
        self._averages.iterates = {}
        self._stepper.names.update(state["parameters"])
        self.optimiser.load_state_dict(state["optimiser"])
        load_elbo_state(self.elbo, state["elbo"])
        self._stepper.load_state_dict(state["stepper"])
        self.step_count = state["step_count"]
        set_random_state(state["random"])
        self._replicas.seed, self._replicas.is_set_up = state.get("seed"), False
        if args or kwargs or (self._is_started and not self._resume.restore.waiting):
            self._set_up(args, kwargs)

    @property
    def _modules(self) -> dict[str, Any]:
        return {"model": self.model, "guide": self.guide}

    def _set_up(self, args: Arguments, kwargs: dict[str, Any]) -> None:
        """Put a loaded checkpoint in its place, if that has not been done yet."""
        resume = self._resume
        if resume is None or resume.is_set_up:
            return
        is_there = self._is_started and not resume.restore.waiting
        resume.set_up(None if is_there else partial(self._evaluate, args, kwargs))
        if resume.is_average:
            self.optimiser.add({name: leaf(name) for name in self.optimiser.names})
            self.use_average()
        if not resume.restore.waiting:
            self._resume = None
