"""One optimiser over all parameters of a fit, in place of Pyro's one for each parameter."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..messages import see
from .averaging import Average, decay_of
from .clipping import Clip
from .cohort import Cohort
from .learning_rates import Schedule, scheduler_of
from .torch_optimisers import source_of


class Optimiser:
    """Steps all parameters at once, with the numbers of Pyro's one optimiser for each.

    A Pyro optimiser stays what it is for its user: training that it has done or loaded is
    continued, `get_state` and `save` have the state of the steps taken here, and the user steps a
    Pyro scheduler as before.

    Args:
        optim: a Pyro optimiser, a class of torch.optim (or a functools.partial of one), or a
            function from a list of parameters to a torch.optim.Optimizer.
        optim_args: arguments of a class of torch.optim: a dict, or a function from the name of a
            parameter to a dict.
        clip_norm: largest Euclidean norm of the whole gradient.
        clip_value: largest absolute value of an element of the gradient.
        schedule: a function of the step that returns a factor of the learning rate, or a function
            of the optimiser that returns one of torch's schedulers. It moves on with each step.
        average: "polyak" for the mean of the parameters over all steps, or the decay of an
            exponential average. It is taken where the parameters are unconstrained.

    Raises:
        TypeError: `optim` is none of these, or needs more than one gradient for a step.
        ValueError: `average` is no decay, or two schedules are given.

    Example:
        >>> from pyro_kl.svi.optimiser import Optimiser
        >>> x = torch.ones(2, requires_grad=True)
        >>> optimiser = Optimiser(torch.optim.SGD, optim_args={"lr": 0.1}, clip_value=1.0)
        >>> (3 * x).sum().backward()
        >>> optimiser.step({"x": x})
        >>> x
        tensor([0.9000, 0.9000], requires_grad=True)
    """

    def __init__(
        self,
        optim: Any,
        *,
        optim_args: dict[str, Any] | Callable[[str], dict[str, Any]] | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        schedule: Schedule | None = None,
        average: str | float | None = None,
    ) -> None:
        self.clip = Clip(clip_norm, clip_value)
        self.decay = decay_of(average)
        self.cohorts: list[Cohort] = []
        self.steps = 0
        self._source = source_of(optim, optim_args)
        self._schedule = schedule
        self.params: dict[str, Tensor] = {}  # seen so far
        self._saved: list[dict[str, Any]] = []  # of parameters that are not seen yet
        if schedule is not None and self._source.has_schedule:
            raise ValueError(
                "optim is a Pyro scheduler already: give no other schedule." + see("learning-rate")
            )

    @property
    def names(self) -> set[str]:
        """The parameters that have been stepped, those of a loaded state included."""
        return {*self.params, *(name for saved in self._saved for name in saved["params"])}

    def add(self, params: Mapping[str, Tensor]) -> None:
        """Take in the parameters that are new; a step does so by itself.

        A name whose tensor is another one than before is a new parameter.
        """
        new = {name: param for name, param in params.items() if self.params.get(name) is not param}
        if not new:
            return
        for name in new.keys() & self.params.keys():
            next(cohort for cohort in self.cohorts if name in cohort.params).remove(name)
        self.cohorts = [cohort for cohort in self.cohorts if cohort.params]
        self.params.update(new)
        waiting = []
        for saved in self._saved:
            known = {name: new.pop(name) for name in saved["params"] if name in new}
            if known:
                self.cohorts.append(self._cohort(known, saved))
            rest = {name: of for name, of in saved["params"].items() if name not in known}
            waiting += [{**saved, "params": rest}] if rest else []
        self._saved = waiting
        if new:
            self.cohorts.append(self._cohort(new))

    def _cohort(self, params: dict[str, Tensor], saved: dict[str, Any] | None = None) -> Cohort:
        """The cohort of new parameters, which may have been saved."""
        cohort = self._source.join(params, saved["params"] if saved else {})
        if self._schedule is not None:
            cohort.schedule = scheduler_of(self._schedule, cohort.optimizer)
        if self.decay is not None:
            cohort.average = Average(self.decay, params)
        if saved:
            cohort.load_schedule_and_average(saved)
            for _ in range(self.steps - saved["steps"]):  # these were in no trace since then
                cohort.end_step()
        return cohort

    def step(self, params: Mapping[str, Tensor]) -> None:
        """Take one step with the gradients of `params`, and set all gradients to None.

        Args:
            params: {name: unconstrained leaf} of this step's trace. Parameters that are not among
                them, or have no gradient, keep their values and their state.
        """
        self.add(params)
        for name in self.params.keys() - params.keys():
            self.params[name].grad = None
        for cohort in self.cohorts:
            for name, clip in cohort.clips.items():
                clip.in_place([cohort.params[name]])
        self.clip.in_place(self.params.values())
        for cohort in self.cohorts:
            cohort.step()
        for param in self.params.values():
            param.grad = None
        self.steps += 1

    def learning_rates(self, steps: int) -> dict[str, tuple[float, ...]]:
        """The learning rates of the next `steps` steps by name, without taking them."""
        return {
            name: rates
            for cohort in self.cohorts
            for name, rates in cohort.learning_rates(steps).items()
        }

    def advance(self, steps: int) -> None:
        """Move the schedules on by `steps` steps that were taken elsewhere."""
        for cohort in self.cohorts:
            cohort.advance(steps)
        self.steps += steps

    def averaged(self) -> dict[str, Tensor]:
        """The averages of the parameters by name: unconstrained, each with its shape.

        Raises:
            ValueError: the optimiser was made without `average`.
        """
        if self.decay is None:
            raise ValueError(
                'There are no averages. Give average="polyak" or a decay.' + see("option")
            )
        return {
            name: value
            for cohort in self.cohorts
            if cohort.average is not None
            for name, value in cohort.average.values.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on, by the names of parameters; tensors are not copied."""
        seen = [{**cohort.state_dict(), "steps": self.steps} for cohort in self.cohorts]
        return {"steps": self.steps, "cohorts": seen + self._saved}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; parameters not seen yet get their state when they are."""
        params, self.params, self.cohorts = self.params, {}, []
        self.steps = state["steps"]
        self._saved = copy.deepcopy(state["cohorts"])
        self.add(params)
