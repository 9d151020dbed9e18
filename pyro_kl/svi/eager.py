"""Steps of SVI by the loss's own gradient, as in `pyro.infer.SVI`, but with one optimiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.infer import ELBO
from pyro.infer.util import torch_item

from ..messages import see
from .optimiser import Optimiser
from .ranks import num_ranks
from .replicas import Replicas
from .used_parameters import UsedParameters


class Eager:
    """A stepper that runs model and guide at every step.

    As in Pyro's SVI, a step moves the parameters that model and guide have read and that have a
    gradient, and leaves all others of the store alone.

    Args:
        model: the model.
        guide: the guide.
        loss_and_grads: adds the gradient of the loss to that of the parameters, and returns it.
        optimiser: the optimiser of all parameters.
        replicas: takes the means over the ranks, if there are several.

    Attributes:
        names: of the parameters that were read in any step.
        remaining: the steps that a run has still to take; not used here.
        is_single: whether steps come one by one; not used here.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        loss_and_grads: Callable[..., Any],
        optimiser: Optimiser,
        replicas: Replicas,
    ) -> None:
        self.model = model
        self.guide = guide
        self.loss_and_grads = loss_and_grads
        self.optimiser = optimiser
        self.replicas = replicas
        self.names: set[str] = set()
        self.remaining: int | None = None
        self.is_single = True

    def take(self, count: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """Take steps with the same arguments.

        Returns:
            The loss of each, in nats; a tuple of losses for a loss that is one.
        """
        return [self._step(args, kwargs) for _ in range(count)]

    def settle(self) -> None:
        """Nothing to do: the parameters are always where everyone reads them."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: all state is in parameters, optimiser and ELBO."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to do."""

    def _step(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with UsedParameters() as used, self.replicas.running():
            loss = as_numbers(self.loss_and_grads(self.model, self.guide, *args, **kwargs))
        self.names.update(used.leaves)
        leaves = used.distinct()
        if num_ranks() > 1:
            loss, leaves = self.replicas.mean(loss, leaves)
            self.names.update(leaves)
        moved = {}
        for name, leaf in leaves.items():
            if leaf.grad is None:
                if name not in self.optimiser.names:
                    continue
                leaf.grad = torch.zeros_like(leaf)  # it moves by its momentum
            moved[name] = leaf
        self.optimiser.step(moved)
        return loss


def as_numbers(loss: Any) -> Any:
    """A loss as a Python number; a tuple of losses, as of ReweightedWakeSleep, as a tuple."""
    return type(loss)(map(torch_item, loss)) if isinstance(loss, tuple) else torch_item(loss)


def loss_functions(
    loss: Any, loss_and_grads: Callable[..., Any] | None
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The functions that return the loss, without and with its gradient.

    Args:
        loss: an ELBO, or a function.
        loss_and_grads: a function that also adds the gradient; None differentiates `loss`.

    Raises:
        TypeError: the loss is neither.
    """
    if isinstance(loss, type) or (not callable(loss) and not isinstance(loss, ELBO)):
        raise TypeError(
            f"loss must be an ELBO, such as pyro_kl.TraceKL_ELBO(), or a function, got {loss!r}."
            + see("option")
        )
    if isinstance(loss, ELBO):
        elbo: Any = loss
        return elbo.loss, elbo.loss_and_grads
    if loss_and_grads is not None:
        return loss, loss_and_grads

    def differentiated(*args: Any, **kwargs: Any) -> Any:
        value = loss(*args, **kwargs)
        if getattr(value, "requires_grad", False):
            value.backward(retain_graph=True)
        return value

    return loss, differentiated
