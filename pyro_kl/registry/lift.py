"""From a formula on parameters to one on distributions, and to a derived pair.

The parameters are read from the distributions, carried in float64 and broadcast; the value is
rounded once. Where the formula is elementwise, it is one node of autograd's graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..numerics.autograd.custom import with_partials
from ..numerics.autograd.fused import FusedFormula, Kernel
from ..numerics.dtypes import Parameters
from .family import Family, in_rows
from .pair import Formula, Pair
from .shapes import broadcast_batch, nan_in

Partials = Callable[[Parameters, Parameters], tuple[Tensor, ...]]


def lift(
    kernel: Kernel,
    p_family: Family,
    q_family: Family,
    partials: Partials | None = None,
    *,
    masked: bool = False,
    fused: bool = True,
) -> Formula:
    """From a formula on parameters to one on distributions.

    The parameters are carried in float64 where the device has it, and the value is rounded once,
    to the dtype of torch's promotion: in float32 the KL of close distributions has no digits.

    A parameter that is nan must make its row nan. Arithmetic does, and comparisons are written so
    that nan takes the branch that is computed.

    Args:
        kernel: the formula on parameters.
        p_family: p's family.
        q_family: q's family.
        partials: the derivatives by p's and then q's parameters, if they are written by hand.
        masked: whether the value has to be set to nan where a parameter is nan. Sums over atoms
            need it: their comparisons lose a nan.
        fused: whether the formula is elementwise and can be one node of autograd's graph. Sums
            over atoms and integrals are not.
    """
    on_tensors = FusedFormula(
        kernel if partials is None else _with_partials(kernel, partials, p_family, q_family)
    )
    evaluate = on_tensors if fused else on_tensors.plain
    read_p, read_q = p_family.of, q_family.of
    p_vectors, q_vectors = p_family.vectors, q_family.vectors

    def on_parameters(mine: Parameters, theirs: Parameters) -> Tensor:
        value = evaluate(mine, theirs)
        if masked:
            tensors = in_rows(mine, p_vectors) + in_rows(theirs, q_vectors)
            value = torch.where(nan_in(tensors), torch.nan, value)
        return value

    def formula(p: Distribution, q: Distribution) -> Tensor:
        shape = broadcast_batch(p, q)
        value = on_parameters(read_p(p), read_q(q))
        return value if value.shape == shape else value.expand(shape)

    formula.on_parameters = on_parameters  # type: ignore[attr-defined]
    formula.__module__ = getattr(kernel, "__module__", formula.__module__)
    formula.__name__ = formula.__qualname__ = getattr(kernel, "__name__", "kl")
    formula.__doc__ = kernel.__doc__
    return formula


def _with_partials(
    kernel: Kernel, partials: Partials, p_family: Family, q_family: Family
) -> Kernel:
    """The formula with its derivatives by p's and then q's parameters."""
    p_names, q_names = p_family.parameters, q_family.parameters

    def split(values: Sequence[Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        p = dict(zip(p_names, values[: len(p_names)], strict=True))
        return p, dict(zip(q_names, values[len(p_names) :], strict=True))

    @with_partials(lambda *values: partials(*split(values)))
    def on_values(*values: Tensor) -> Tensor:
        return kernel(*split(values))

    return lambda p, q: on_values(*p.values(), *q.values())


def derived_pair(
    p: Family,
    q: Family,
    kernel: Kernel,
    *,
    method: str,
    finite: str,
    reference: str,
    replaces: str | None = None,
    terms: Mapping[str, Callable[..., Any]] | None = None,
    masked: bool = False,
) -> Pair:
    """A pair that a derivation rule returns.

    Args:
        p: p's family, which may say why torch's formula is replaced.
        q: q's family.
        kernel: the formula on parameters.
        method: as for `register`; so are `finite`, `reference` and `replaces`.
        finite: when the KL is finite.
        reference: where the result can be verified.
        replaces: why torch's or Pyro's formula is replaced.
        terms: the functions that the kernel consists of, by their meaning; `explain` prints them.
        masked: as for `lift`; always True for two discrete families.
    """
    return Pair(
        p.distribution,
        q.distribution,
        method=method,
        finite=finite,
        reference=reference,
        formula=lift(
            kernel,
            p,
            q,
            masked=masked or (p.support.discrete and q.support.discrete),
            fused=method == "closed form",
        ),
        replaces=replaces or p.replaces.get(q.distribution),
        derived=True,
        declared_in=(p.home, q.home),
        terms=terms or {},
    )
