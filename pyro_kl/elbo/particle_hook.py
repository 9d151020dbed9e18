"""Subclasses of `TraceKL_ELBO` that change the loss of single particles, as Pyro's CEVAE does."""

from __future__ import annotations

import inspect
from typing import Any

from ..messages import see


def hook_of(elbo: Any) -> str:
    """The name of a subclass's `_differentiable_loss_particle`, after a check that it fits.

    Raises:
        TypeError: it was written for another class, to which its `super()` refers.
        ValueError: the objective needs all particles at once.
    """
    cls = type(elbo)
    name = f"{cls.__name__}._differentiable_loss_particle"
    written_for = inspect.getclosurevars(cls._differentiable_loss_particle).nonlocals.get(
        "__class__", cls
    )
    if not issubclass(cls, written_for):
        raise TypeError(
            f"{name} is a method of {written_for.__name__}, which calls super(): derive from "
            f"both, class {cls.__name__}({written_for.__name__}, TraceKL_ELBO)."
            + see("elbo-subclass")
        )
    if not elbo.objective.is_linear or elbo.control_variate is not None:
        raise ValueError(
            f"{name} changes the loss of single particles: free_bits, capacity and "
            "control_variate, which look at all of them at once, cannot be used with it."
            + see("elbo-subclass")
        )
    return name
