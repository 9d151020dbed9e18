"""A family inside a wider one, such as Chi2 in Gamma: all that the wider one knows, it knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any

from torch import Tensor

from .family import Family, Moment

Value = Callable[..., Tensor]


def special_case(
    wider: Family,
    to_wider: Callable[..., dict[str, Tensor]],
    *,
    moments: Mapping[str, Moment],
    **declaration: Any,
) -> Family:
    """A `Family` whose entropy, moments, cross-entropy and line are those of `wider`.

    Args:
        wider: the family that contains it.
        to_wider: from its parameters, by keyword, to those of `wider`.
        moments: those whose condition has to be said in its own parameters.
        declaration: the other arguments of `Family`.

    Raises:
        ValueError: a conditional moment of `wider` is missing in `moments`.
    """

    def mapped(value: Value) -> Value:
        @wraps(value)  # the signature too: it names the moments a cross-entropy asks for
        def of_narrower(*arguments: Any, **parameters: Tensor) -> Tensor:
            return value(*arguments, **to_wider(**parameters))

        return of_narrower

    inherited = dict(moments)
    for name, moment in wider.moments.items():
        if name in moments:
            continue
        if moment.finite or moment.argument_below is not None:
            raise ValueError(
                f"E {name} of {wider.name} has a condition on its parameters: declare it in "
                "`moments` by those of the special case."
            )
        inherited[name] = replace(moment, value=mapped(moment.value))
    return Family(
        **declaration,
        support=wider.support,
        entropy=wider.entropy and mapped(wider.entropy),
        cross_entropy=wider.cross_entropy and mapped(wider.cross_entropy),
        moments=inherited,
        line=wider.line and wider.line.mapped(mapped),
        special_case_of=(wider.distribution, to_wider),
    )
