"""The result of `kl`, `entropy` and others: a value with its method, its error and its reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ..messages import see
from ..results.batch import batch_dicts, batch_table
from ..results.result import Result
from ..results.table import Table
from ..results.text import fill


class Record:
    """A result of tensors and strings, equal to another if all fields are equal.

    A subclass is a frozen dataclass whose first field is a tensor of the batch's shape.
    """

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        mine, theirs = self._values(), other._values()
        return all(_equal(mine[name], theirs[name]) for name in mine)

    def __hash__(self) -> int:
        values = self._values().values()
        return hash(tuple(x.shape if isinstance(x, Tensor) else x for x in values))

    def _values(self) -> dict[str, Any]:
        """The fields by their names."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary for each element of the batch: its index, and the attributes."""
        values = self._values()
        return batch_dicts(next(iter(values.values())).shape, values)


def _equal(a: Any, b: Any) -> bool:
    """Whether two fields are equal; tensors in shape, dtype, device and every element."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return a is b or (type(a) is type(b) and bool(a == b))
    alike = (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
    return alike and torch.equal(a, b)


@dataclass(frozen=True, eq=False, repr=False)
class Estimate(Record, Result):
    """A KL, another divergence or an entropy, in nats.

    `float(estimate)`, `estimate.item()` and `f"{estimate:.3f}"` give the one number of a result
    without batch dimensions; `estimate[i]` and iteration take a batch apart. Two estimates are
    equal if all of their fields are.

    Attributes:
        value: nats, of the broadcast batch shape.
        standard_error: of the value, same shape; zero where the method is exact.
        method: "closed form", "exact sum", "infinite", "monte carlo (k1)", ...
        num_samples: the number of samples; 0 where the method is exact.
        reason: why this method, or where the formula is; what was not reached of a tolerance.
        error: of an integral, the estimate of its absolute error in nats; None where the method is
            exact up to rounding, or sampled.
        nodes: of an integral, the largest number of nodes.
        unreliable: of a sampled value, the elements whose standard error does not hold, because
            samples were rounded to an end of p's support, one sample has much of the variance, or
            the class samples another distribution; None if there are none. `reason` says which.
    """

    value: Tensor
    standard_error: Tensor
    method: str
    num_samples: int = 0
    reason: str = ""
    error: Tensor | None = None
    nodes: int = 0
    unreliable: Tensor | None = None

    @property
    def exact(self) -> bool:
        """Whether no sampling was involved."""
        return self.num_samples == 0

    def item(self) -> float:
        """The value of a result with one element, in nats.

        Raises:
            ValueError: a batch of several elements, or of none.
        """
        if self.value.numel() != 1:
            raise ValueError(
                f"an Estimate of shape {tuple(self.value.shape)} is not one number: index it, or "
                "use its `value`, a tensor." + see("estimate-of-a-batch")
            )
        return float(self.value.detach())

    __float__ = item

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __getitem__(self, index: Any) -> Estimate:
        parts = ("value", "standard_error", "error", "unreliable")
        given = {name: getattr(self, name) for name in parts}
        return replace(self, **{name: x[index] for name, x in given.items() if x is not None})

    def __iter__(self) -> Iterator[Estimate]:
        if not self.value.dim():
            raise TypeError(
                "an Estimate without batch dimensions has no elements: use float()"
                + see("estimate-of-a-batch")
            )
        return (self[i] for i in range(len(self.value)))

    def __str__(self) -> str:
        return fill(self.line())

    def __repr__(self) -> str:
        return fill(f"Estimate({self.line()})")

    def line(self) -> str:
        """Value, method and reason on one line, however long."""
        if self.method == "unknown":
            return self.how()
        if self.value.numel() != 1:
            middle = f"{short(self.value)} nats"
            if not self.exact:
                middle += f" +- {short(self.standard_error)}"
        else:
            middle = f"{self.value.item():.6g} nats"
            if not self.exact:
                error = self.standard_error.item()
                middle = f"{self.value.item():.6g} +- {error:.2g} nats"
        return f"{middle}  [{self.how()}]"

    def how(self) -> str:
        """Method and reason."""
        return f"{self.method}{': ' + self.reason if self.reason else ''}"

    def _table(self) -> Table:
        columns = {"value": ("nats", ".6g")}
        if not self.exact:
            columns["standard_error"] = ("+- s.e.", ".2g")
        if self.error is not None:
            columns["error"] = ("error", ".2g")
        return batch_table(self.to_dicts(), self.value.shape, columns, [self.how()])


def short(values: Tensor) -> str:
    """A batch on one line: a few numbers and the shape."""
    flat = values.detach().reshape(-1)
    head = ", ".join(f"{x:.4g}" for x in flat[:4].tolist())
    more = ", ..." if flat.numel() > 4 else ""
    return f"[{head}{more}] of shape {tuple(values.shape)}"
