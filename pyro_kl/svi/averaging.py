"""A running average of the parameters over the steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from ..messages import see

Count = TypeVar("Count", float, Tensor)


def decay_of(average: str | float | None) -> float | None:
    """The decay that `average=` means: 1 for Polyak's, where all steps weigh the same.

    Raises:
        ValueError: it is neither None, "polyak" nor a number between 0 and 1.
    """
    if average is None:
        return None
    if average == "polyak":
        return 1.0
    if isinstance(average, str) or not 0 < average < 1:
        raise ValueError(
            f'average must be None, "polyak" or a decay between 0 and 1, got {average!r}'
            + see("option")
        )
    return float(average)


def newest_weight(decay: float, count: Count) -> Count:
    """The weight of the newest of `count` values in the average.

    With weights proportional to decay^age the newest has (1 - decay) / (1 - decay^count): the
    exponential average without its bias towards the starting value. Its limit at decay 1 is
    1 / count, the plain mean.

    Reference: Polyak and Juditsky (1992), SIAM Journal on Control and Optimization 30, 838-855,
    for the mean; Kingma and Ba (2015), Adam, section 3, for the correction of the bias.
    """
    if decay == 1.0:
        return 1.0 / count
    return (1.0 - decay) / (1.0 - decay**count)


class Average:
    """Running averages of named parameters.

    Args:
        decay: see `decay_of`.
        params: {name: tensor}; the first update makes the average equal to them.
    """

    def __init__(self, decay: float, params: Mapping[str, Tensor]) -> None:
        self.decay = decay
        self.count = 0
        self.values = {name: param.detach().clone() for name, param in params.items()}

    @torch.no_grad()
    def update(self, params: Mapping[str, Tensor]) -> None:
        """Take the present values of the parameters into the average."""
        self.count += 1
        weight = newest_weight(self.decay, float(self.count))
        torch._foreach_lerp_(
            list(self.values.values()), [params[name] for name in self.values], weight
        )

    def state_dict(self) -> dict[str, object]:
        """The averages and how many values are in them."""
        return {"count": self.count, "values": dict(self.values)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Set the averages of the parameters that `state` and this object have in common."""
        count, values = state["count"], state["values"]
        assert isinstance(count, int)
        assert isinstance(values, Mapping)
        self.count = count
        with torch.no_grad():
            for name in self.values.keys() & values.keys():
                self.values[name].copy_(values[name])
