"""Whether a tensor is an affine function of Normal draws, and its mean and variance if it is.

Both come from autograd's graph. A tensor is affine in the draws if each operation between them and
it is linear, and each product has one factor that does not depend on them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)

from ..registry.subclasses import is_a

#: A node of autograd's graph, and the number of its output.
_Edge = tuple[Any, int]

# Names of nodes, without "Backward" and the number of the overload.
_LINEAR = frozenset(
    "Add Alias AsStrided Cat Clone Cumsum Expand Gather Index IndexSelect Mean Movedim Narrow Neg "
    "Permute Repeat ReshapeAlias Rsub Select Slice Split SplitWithSizes Squeeze Stack Sub Sum T "
    "ToCopy Transpose Unbind UnsafeView Unsqueeze View".split()
)
#: Products: the inputs of which one alone may depend on the draws; all others may.
_PRODUCTS = {
    "Mul": (0, 1), "Mm": (0, 1), "Mv": (0, 1), "Bmm": (0, 1), "Dot": (0, 1), "Linear": (0, 1),
    "Addmm": (1, 2), "Addmv": (1, 2), "Baddbmm": (1, 2),
}  # fmt: skip


# The factor of a draw's covariance is a matrix with this many rows and columns at most.
_MOST_COORDINATES = 4096


class NotAffineError(Exception):
    """Why a tensor is not known to be affine in Normal draws."""


@dataclass(frozen=True)
class NormalDraw:
    """A draw of the guide: value = loc + sum_k columns_k noise_k.

    Attributes:
        name: of the guide's site.
        value: the draw.
        distribution: a Normal, a MultivariateNormal or a LowRankMultivariateNormal.
    """

    name: str
    value: Tensor
    distribution: Any

    @classmethod
    def of(cls, name: str, distribution: Distribution, value: Tensor) -> NormalDraw | None:
        """The draw of a Normal that has a gradient, or None."""
        while is_a(distribution, Independent):
            distribution = distribution.base_dist
        of_vectors = is_a(distribution, (MultivariateNormal, LowRankMultivariateNormal))
        one_vector = of_vectors and value.numel() == value.shape[-1]
        if value.grad_fn is not None and (one_vector or is_a(distribution, Normal)):
            return cls(name, value, distribution)
        return None

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The mean, and what the covariance is made of."""
        q = self.distribution
        if is_a(q, Normal):
            return q.loc, q.scale
        if is_a(q, MultivariateNormal):
            return q.loc, q._unbroadcasted_scale_tril
        return q.loc, q._unbroadcasted_cov_factor, q._unbroadcasted_cov_diag

    def columns(self) -> Tensor:
        """A factor of the covariance: columns of the value's shape, along a new first dim.

        Raises:
            NotAffineError: the draw has too many coordinates for a matrix.
        """
        if self.value.numel() > _MOST_COORDINATES:
            raise NotAffineError(
                f"the guide's {self.name} has {self.value.numel()} coordinates, and more than "
                f"{_MOST_COORDINATES} are too many"
            )
        _, *parts = self.parameters
        if is_a(self.distribution, Normal):
            columns = torch.diag(parts[0].expand(self.value.shape).reshape(-1))
        elif is_a(self.distribution, MultivariateNormal):
            columns = parts[0].mT
        else:
            columns = torch.cat([parts[0].mT, torch.diag_embed(parts[1].sqrt())], -2)
        return columns.reshape(-1, *self.value.shape)


def affine_in(start: _Edge, draws: Collection[NormalDraw]) -> list[NormalDraw]:
    """The draws that the output of a node is an affine function of.

    Raises:
        NotAffineError: an operation between some draw and the output is not known to be linear.
    """
    sources = {_edge(draw.value): draw for draw in draws}
    depends: dict[Any, bool] = {}
    stack = [start]
    while stack:
        edge = stack[-1]
        node = edge[0]
        if node is None or edge in sources or node in depends:
            stack.pop()
            continue
        following = [e for e in node.next_functions if e not in sources and e[0] is not None]
        waiting = [e for e in following if e[0] not in depends]
        if waiting:
            stack += waiting
            continue
        inputs = [e in sources or depends.get(e[0], False) for e in node.next_functions]
        depends[node] = any(inputs)
        if depends[node]:
            _check_linear(node, inputs)
    reached = [start, *(e for node in depends if depends[node] for e in node.next_functions)]
    return list({sources[e].name: sources[e] for e in reached if e in sources}.values())


def _edge(x: Tensor) -> _Edge:
    return x.grad_fn, x.output_nr


def operation(node: Any) -> str:
    """The name of a node's operation; the whole name of one that is not torch's own."""
    named = re.fullmatch(r"(\w+)Backward\d+", node.name())
    return named[1] if named else str(node.name())


def _check_linear(node: Any, depends: Sequence[bool]) -> None:
    """Check that an operation is linear in the inputs that depend on the draws."""
    name = operation(node)
    factors = [i for i in _PRODUCTS.get(name, ()) if i < len(depends) and depends[i]]
    if name in _LINEAR or (name in _PRODUCTS and len(factors) < 2):
        return
    if name == "Div" and not any(depends[1:]):
        return
    raise NotAffineError(f"{name} is between the guide's draws and the predictor")


def check_independent(draws: Sequence[NormalDraw]) -> None:
    """Check that no draw's distribution depends on another draw.

    Raises:
        NotAffineError: one does.
    """
    for draw in draws:
        for parameter in draw.parameters:
            if parameter.grad_fn is not None and depends_on(parameter, draws):
                raise NotAffineError(f"the guide's {draw.name} depends on another draw")


def depends_on(x: Tensor, draws: Collection[NormalDraw]) -> bool:
    """Whether a tensor depends on some draw, in any way."""
    sources = {_edge(draw.value) for draw in draws}
    stack, seen = [_edge(x)], set()
    while stack:
        edge = stack.pop()
        if edge in sources:
            return True
        if edge[0] is not None and edge[0] not in seen:
            seen.add(edge[0])
            stack += edge[0].next_functions
    return False


def mean_and_scale(x: Tensor, draws: Sequence[NormalDraw]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a tensor that is affine in draws, with their graph.

    The derivative J is not made: J t is the derivative of J' v in v, along t.
    """
    v = torch.zeros_like(x, requires_grad=True)
    values = [draw.value for draw in draws]
    pulled = torch.autograd.grad(x, values, v, create_graph=True)
    gaps = [draw.value - draw.distribution.loc for draw in draws]
    (gap,) = torch.autograd.grad(pulled, v, gaps, create_graph=True)
    variance: Any = 0.0
    for part, draw in zip(pulled, draws, strict=True):
        (columns,) = torch.autograd.grad(
            part, v, draw.columns(), create_graph=True, is_grads_batched=True
        )
        variance = variance + columns.square().sum(0)
    # The root of 0 has no derivative; the derivative of an expectation in it is 0.
    certain = variance == 0
    scale = torch.where(certain, 0.0, torch.where(certain, 1.0, variance).sqrt())
    return x - gap, scale
