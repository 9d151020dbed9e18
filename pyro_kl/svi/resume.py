"""Going on from a checkpoint with a guide and networks that may have no parameters yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..messages import see
from ..registry.warnings import warn
from .parameters import Restore
from .random_state import random_state_kept


class Resume:
    """What a checkpoint holds and is not in its place yet.

    Autoguides, `pyro.param` and `pyro.module` declare parameters when they are called. So model
    and guide are run once before the next step, without a gradient, and what that draws is drawn
    again by the step.

    Args:
        state: what was saved.
        modules: model and guide, whose buffers are restored where they are modules.
    """

    def __init__(self, state: Mapping[str, Any], modules: Mapping[str, Any]) -> None:
        self.restore = Restore(state["parameters"])
        self.restore.put_existing()
        self.is_average = state["is_average"]
        self.is_set_up = False
        self._is_told = False
        self.buffers = state["buffers"]
        self._modules = modules

    def set_up(self, evaluate: Callable[[], Any] | None) -> None:
        """Put everything in its place.

        Args:
            evaluate: runs model and guide; None if they have declared all parameters already.

        Raises:
            ValueError: they declare parameters that the checkpoint has no value for.
        """
        if evaluate is not None:
            with random_state_kept(), torch.no_grad(), self.restore:
                evaluate()
        if self.restore.unknown:
            raise ValueError(
                f"The checkpoint has no value for {_names(self.restore.unknown)}, but for "
                f"{_names(self.restore.waiting) or 'all others'}: it is of another model or guide."
                + see("checkpoint")
            )
        for name, buffer in buffers_of(self._modules).items():
            if name in self.buffers:
                buffer.copy_(self.buffers[name])
        self.is_set_up = True

    def is_done(self) -> bool:
        """Whether the steps under `restore` have declared all; what is left is told once."""
        if self.restore.waiting and not self._is_told:
            self._is_told = True
            warn(
                f"The checkpoint has values for {_names(self.restore.waiting)}, which the last "
                "step did not declare; they are put in place when a step does." + see("checkpoint")
            )
        return not self.restore.waiting


def buffers_of(modules: Mapping[str, Any]) -> dict[str, Tensor]:
    """The buffers of those that are modules, such as the running means of BatchNorm."""
    return {
        f"{role}.{name}": buffer
        for role, module in modules.items()
        if isinstance(module, nn.Module)
        for name, buffer in module.named_buffers()
    }


def _names(names: Any) -> str:
    return ", ".join(sorted(names))
