"""P and Q of a command: one distribution for an expression, the examples of a class."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import pyro
import pyro.distributions
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from pyro_kl.divergence.classes import members
from pyro_kl.registry.warnings import quiet

from .expressions.build import build
from .expressions.syntax import is_class_name
from .expressions.values import MOST
from .index import index
from .refused import Refused


@dataclass(frozen=True)
class Operands:
    """Two distributions, and how a user reads them: as typed, or as they print."""

    p: Distribution
    q: Distribution
    p_text: str
    q_text: str


@dataclass(frozen=True)
class Operand:
    """A distribution, and how a user reads it: as typed, or as it prints."""

    p: Distribution
    p_text: str


@contextmanager
def double_precision(seed: int = 0) -> Iterator[None]:
    """Double precision and a seed for what is computed; no warnings, whose text is printed."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    pyro.set_rng_seed(seed)
    try:
        with quiet():
            yield
    finally:
        torch.set_default_dtype(before)


def operands(p: str, q: str) -> Iterator[Operands]:
    """The pairs of distributions that two words or expressions stand for, at least one.

    A class stands for its examples; first come the i-th of both, or the i-th and the next.

    Args:
        p: the name of a class, or an expression.
        q: the same.

    Raises:
        Refused: a word is no class, a class has no density, or an expression is wrong.
    """
    left, right = (_side(text, f"KL({p} || {q})") for text in (p, q))
    step, size = int(p == q), max(len(left), len(right))
    cells = product(range(len(left)), range(len(right)))
    for i, j in sorted(cells, key=lambda cell: (cell[0] + step - cell[1]) % size != 0):
        a, b = left[i], right[j]
        if is_class_name(p):
            a = _made_wider(a, b.event_shape)
        if is_class_name(q):
            b = _made_wider(b, a.event_shape)
        if a.event_shape != b.event_shape and are_examples(p, q):
            continue
        _check_size(a, b)
        yield Operands(a, b, _text(p, a), _text(q, b))


def operand(p: str, name: str) -> Iterator[Operand]:
    """The distributions that a word or an expression stands for, at least one.

    Args:
        p: the name of a class, or an expression.
        name: of what is asked for.

    Raises:
        Refused: as `operands`.
    """
    return (Operand(each, _text(p, each)) for each in _side(p, name))


def _side(text: str, name: str) -> tuple[Distribution, ...]:
    if not is_class_name(text):
        return (build(text),)
    cls: type[Any] = getattr(pyro.distributions, index().class_named(text))
    try:
        return members(cls)
    except LookupError as error:
        raise Refused(f"No formula for {name}. {error.args[0]}") from None


def _made_wider(distribution: Distribution, event_shape: torch.Size) -> Distribution:
    """A product of independent copies with the missing dimensions, if there are any."""
    missing = len(event_shape) - len(distribution.event_shape)
    if missing <= 0:
        return distribution
    shape = torch.broadcast_shapes(distribution.batch_shape, event_shape[:missing])
    return Independent(distribution.expand(shape), missing)


def _check_size(p: Distribution, q: Distribution) -> None:
    """Refuse two batches that are small and have a large KL."""
    try:
        shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    except RuntimeError:
        return  # `kl` says it, with both shapes
    if math.prod((*shape, *p.event_shape)) > MOST:
        raise Refused(f"a KL of batch shape {tuple(shape)} is too large for this command")


def are_examples(p: str, q: str) -> bool:
    """Whether the distributions are examples of a class, of which there may be several."""
    return is_class_name(p) or is_class_name(q)


def _text(typed: str, distribution: Distribution) -> str:
    shown = _shown(distribution) if is_class_name(typed) else typed
    return " ".join(shown.split())


def _shown(distribution: Distribution) -> str:
    """As it prints; LogNormal and others print no parameters, and get them here."""
    shown, name = repr(distribution), type(distribution).__name__
    if shown != f"{name}()":
        return shown
    values = {k: getattr(distribution, k, None) for k in distribution.arg_constraints}
    numbers = [
        f"{k}: {x.item():g}" for k, x in values.items() if isinstance(x, Tensor) and x.numel() == 1
    ]
    return f"{name}({', '.join(numbers)})"
