"""What needs torch: the KL of examples of two classes, by `pyro_kl.kl` and `pyro_kl.compare`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

import pyro
import pyro.distributions
import torch
from torch.distributions import Distribution, Independent

from pyro_kl import compare, kl
from pyro_kl.divergence.classes import members
from pyro_kl.registry.reduction import describe, no_formula_for
from pyro_kl.registry.register import pair_of
from pyro_kl.registry.warnings import quiet

from .index import index
from .refused import Refused


def explained_by_kl(p: str, q: str) -> str:
    """The result of `kl` for the classes' examples."""
    from .explain import explained

    a, b, found = next(_answered(p, q, kl, _examples(_class(p), _class(q))))
    example = f"p = {_one_line(a)}\n             q = {_one_line(b)}\n             {found}"
    pair = pair_of(type(a), type(b))
    stored = pair and index().pair_of(pair.p.__name__, pair.q.__name__)
    if stored:
        return f"{explained(stored)}\n\n  example    {example}"
    name = f"KL({describe(a)} || {describe(b)})"
    return f"{name}\n  method     {found.method}\n  example    {example}"


def run_compare(arguments: argparse.Namespace) -> str:
    """Exact against sampled."""
    p, q = (_class(index().class_named(name)) for name in (arguments.p, arguments.q))
    pyro.set_rng_seed(0)
    examples = list(_examples(p, q))[: min(len(members(p)), len(members(q)))]
    return "\n".join(
        f"p = {_one_line(a)}, q = {_one_line(b)}\n{comparison}"
        for a, b, comparison in _answered(p.__name__, q.__name__, compare, examples)
    )


def _class(name: str) -> type[Any]:
    return getattr(pyro.distributions, name)


def _answered(
    p: str,
    q: str,
    function: Callable[[Distribution, Distribution], Any],
    examples: Iterable[tuple[Distribution, Distribution]],
) -> Iterator[tuple[Distribution, Distribution, Any]]:
    """The examples for which there is a KL, each with the function's result.

    Raises:
        Refused: there is none.
    """
    declined, answers = "", 0
    for a, b in examples:
        try:
            with quiet():  # the printed reason has the warning's text
                found = function(a, b)
        except NotImplementedError as missing:
            declined = declined or str(missing)
            continue
        answers += 1
        yield a, b, found
    if not answers:
        raise Refused(declined or no_formula_for(p, q))


def _examples(p: type[Any], q: type[Any]) -> Iterator[tuple[Distribution, Distribution]]:
    """Members of both classes on one space; first the i-th of each, or the i-th and the next.

    Raises:
        Refused: one of the classes has no density.
    """
    try:
        left, right = members(p), members(q)
    except LookupError as error:
        name = f"{p.__name__} || {q.__name__}"
        raise Refused(f"No formula for KL({name}). {error.args[0]}") from None
    step, size = int(p is q), max(len(left), len(right))
    cells = product(range(len(left)), range(len(right)))
    for i, j in sorted(cells, key=lambda cell: (cell[0] + step - cell[1]) % size != 0):
        a, b = left[i], right[j]
        n, m = len(a.event_shape), len(b.event_shape)
        a, b = _made_wider(a, b.event_shape[: m - n]), _made_wider(b, a.event_shape[: n - m])
        if a.event_shape == b.event_shape:
            yield a, b


def _made_wider(distribution: Distribution, shape: torch.Size) -> Distribution:
    """A product of independent copies with the missing dimensions, if there are any."""
    if not shape:
        return distribution
    wide = torch.broadcast_shapes(distribution.batch_shape, shape)
    return Independent(distribution.expand(wide), len(shape))


def _one_line(distribution: Distribution) -> str:
    return " ".join(repr(distribution).split())
