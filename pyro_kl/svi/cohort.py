"""Parameters that were first seen in the same step, and the one optimiser over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..messages import see
from .averaging import Average
from .clipping import Clip
from .learning_rates import advance, rates_ahead

#: Settings that choose among equal computations; a checkpoint has none of them.
IMPLEMENTATIONS = ("foreach", "fused")


@dataclass(eq=False)
class Cohort:
    """One optimiser over the parameters that were first seen in the same step.

    A parameter that a model declares later starts its own schedule, as it does in Pyro.

    Args:
        params: {name: unconstrained leaf}.
        optimizer: the optimiser that steps them.
        singles: Pyro's optimiser of each parameter, which holds the same state: the user's Pyro
            optimiser can save it and go on with it.
        user_schedulers: Pyro's scheduler of each parameter, which the user steps.
        clips: limits on the gradients of single parameters.
        schedule: the scheduler that is stepped here.
        average: running averages of the parameters.
    """

    params: dict[str, Tensor]
    optimizer: Optimizer
    singles: dict[str, Optimizer] = field(default_factory=dict)
    user_schedulers: dict[str, Any] = field(default_factory=dict)
    clips: dict[str, Clip] = field(default_factory=dict)
    schedule: LRScheduler | None = None
    average: Average | None = None

    def step(self) -> None:
        """Update the parameters that have a gradient, the rates and the averages."""
        self.follow_user_schedulers()
        groups = self.optimizer.param_groups
        # A group without a gradient is not seen, because ClippedAdam decays the rates it sees.
        self.optimizer.param_groups = [
            group for group in groups if any(p.grad is not None for p in group["params"])
        ]
        try:
            self.optimizer.step()
        finally:
            self.optimizer.param_groups = groups
        self.end_step()

    def end_step(self) -> None:
        """Move the schedule and the averages on by a step, which no parameter may have taken."""
        if self.schedule is not None:
            self.schedule.step()
        if self.average is not None:
            self.average.update(self.params)

    def rates_by_group(self, steps: int) -> list[tuple[float, ...]]:
        """The rates of the next `steps` steps of each parameter group."""
        self.follow_user_schedulers()
        by_step = rates_ahead(self.optimizer, self.schedule, steps)
        return [tuple(rates) for rates in zip(*by_step, strict=True)]

    def learning_rates(self, steps: int) -> dict[str, tuple[float, ...]]:
        """The rates of the next `steps` steps of each parameter by name."""
        by_group = self.rates_by_group(steps)
        return {name: by_group[index] for name, index in self.group_indices().items()}

    def advance(self, steps: int) -> None:
        """Move the rates on by steps that are taken elsewhere."""
        advance(self.optimizer, self.schedule, steps)

    def group_indices(self) -> dict[str, int]:
        """The parameter group of each parameter."""
        index = {
            id(param): index
            for index, group in enumerate(self.optimizer.param_groups)
            for param in group["params"]
        }
        return {name: index[id(param)] for name, param in self.params.items()}

    def follow_user_schedulers(self) -> None:
        """Take over what the user's schedulers have set."""
        if not self.user_schedulers:
            return
        names = {id(param): name for name, param in self.params.items()}
        for group in self.optimizer.param_groups:
            if group["params"]:
                (single_group,) = self.singles[names[id(group["params"][0])]].param_groups
                group.update(settings_of(single_group))

    def remove(self, name: str) -> None:
        """Forget a parameter."""
        param = self.params.pop(name)
        for group in self.optimizer.param_groups:
            group["params"] = [other for other in group["params"] if other is not param]
        self.optimizer.state.pop(param, None)
        for of_parameters in (self.singles, self.user_schedulers, self.clips):
            of_parameters.pop(name, None)
        if self.average is not None:
            self.average.values.pop(name)

    def state_dict(self) -> dict[str, Any]:
        """Settings and state of each parameter by its name, the schedule and the averages."""
        self.follow_user_schedulers()
        params: dict[str, dict[str, Any]] = {}
        for name, index in self.group_indices().items():
            params[name] = {
                "state": dict(self.optimizer.state.get(self.params[name], {})),
                "settings": settings_of(self.optimizer.param_groups[index]),
            }
            if name in self.user_schedulers:
                params[name]["scheduler"] = self.user_schedulers[name].state_dict()
        return {
            "params": params,
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_schedule_and_average(self, saved: Mapping[str, Any]) -> None:
        """Set what `state_dict` says beyond the state of parameters.

        Raises:
            ValueError: one has a schedule or averages and the other has not.
        """
        for name, here in (("schedule", self.schedule), ("average", self.average)):
            if (saved[name] is None) != (here is None):
                there, this = ("without", "with") if here else ("with", "without")
                raise ValueError(
                    f"The saved optimiser was made {there} {name}=, this one {this} it. Make it "
                    "as it was when it was saved." + see("checkpoint")
                )
            if here is not None:
                here.load_state_dict(saved[name])
        names = {id(param): name for name, param in self.params.items()}
        for group in self.optimizer.param_groups:  # making a schedule has set the first rates
            group.update(saved["params"][names[id(group["params"][0])]]["settings"])


def settings_of(group: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a parameter group that change its numbers."""
    return {key: value for key, value in group.items() if key not in ("params", *IMPLEMENTATIONS)}
