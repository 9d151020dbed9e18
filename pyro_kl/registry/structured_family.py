"""Families of vectors, matrices and sequences: how their members are made, and their pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, transform_to
from torch.distributions.constraints import Constraint

from .pair import Case
from .register import F, register


@dataclass(frozen=True)
class StructuredFamily:
    """How the members of a family are made: `make_p` or `make_q` of `register`.

    Two of them make a pair part of the conformance tests of structured pairs and of
    `pyro_kl.check`, which start from its cases: other parameters are drawn and batched, p is moved
    close to q, the KL is differentiated, compared with samples, and traced.

    Args:
        distribution: the class.
        parameters: the constraint of each real parameter that is drawn and differentiated by.
            Others (a size, a count) stay as in the case.
        make: a function from parameters to a member; by default the class itself.
        batched: whether the class takes parameters with batch dims in front.
        samples: why its samples or densities cannot be used for a check; "" if they can.

    Example:
        >>> from torch.distributions import Dirichlet, constraints
        >>> positive = constraints.independent(constraints.positive, 1)
        >>> family = StructuredFamily(Dirichlet, {"concentration": positive})
        >>> family(concentration=torch.tensor([1.0, 2.0]))
        Dirichlet(concentration: torch.Size([2]))
    """

    distribution: type[Any]
    parameters: Mapping[str, Constraint] = field(default_factory=dict)
    make: Callable[..., Distribution] | None = None
    batched: bool = True
    samples: str = ""

    def __call__(self, **parameters: Any) -> Any:
        """The member with these parameters."""
        return (self.make or self.distribution)(**parameters)

    # The entries of a triangular or positive definite matrix, or of a probability vector, cannot
    # be moved independently: they are moved through torch's maps to their constraints.

    def free(self, parameters: Mapping[str, Any]) -> dict[str, Tensor]:
        """The real parameters in unconstrained coordinates."""
        return {
            name: transform_to(self.parameters[name]).inv(torch.as_tensor(x, dtype=torch.float64))
            for name, x in parameters.items()
            if name in self.parameters
        }

    def bound(
        self, coordinates: Mapping[str, Tensor], fixed: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """The parameters at unconstrained coordinates, with the fixed ones."""
        moved = {name: transform_to(self.parameters[name])(u) for name, u in coordinates.items()}
        return {
            name: moved[name] if name in moved else torch.as_tensor(x, dtype=torch.float64)
            for name, x in fixed.items()
        }

    def drawn(
        self, parameters: Mapping[str, Any], shape: tuple[int, ...], spread: float
    ) -> dict[str, Tensor]:
        """Parameters around given ones, independent along the batch `shape`."""
        moved = {
            name: u + spread * torch.randn((*shape, *u.shape), dtype=torch.float64)
            for name, u in self.free(parameters).items()
        }
        return self.bound(moved, parameters)

    def one_of(self, parameters: Mapping[str, Any], index: tuple[int, ...]) -> dict[str, Any]:
        """One element of a batch that `drawn` has made."""
        return {name: x[index] if name in self.parameters else x for name, x in parameters.items()}


def register_each(
    *pairs: tuple[StructuredFamily, StructuredFamily, Sequence[Case]], **declaration: Any
) -> Callable[[F], F]:
    """Register one formula for several pairs of structured families, as a decorator.

    Args:
        pairs: p's family, q's family and the worked cases of the pair.
        declaration: the keywords of `register` that all pairs share.
    """

    def decorate(formula: F) -> F:
        for p, q, cases in pairs:
            register(
                p.distribution, q.distribution, cases=cases, make_p=p, make_q=q, **declaration
            )(formula)
        return formula

    return decorate
