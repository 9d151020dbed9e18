"""The checks of what a user declares: classes, worked cases, words for the table, examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import pyro.distributions
import torch
from torch.distributions import Distribution

from ..messages import see, without_link
from .family import Family
from .pair import Case, Pair

#: What a pair's `method` may be; after a "rule", the method is that of the pair that it leads to.
METHODS = ("closed form", "exact sum", "quadrature", "rule", "point density", "infinite")


def check_class(cls: object, role: str) -> None:
    known = (Distribution, pyro.distributions.Distribution)
    if not (isinstance(cls, type) and issubclass(cls, known)):
        raise TypeError(
            f"{role} must be a distribution class of torch or Pyro: {cls!r}"
            + see("register-a-pair")
        )


def check_words(name: str, cases: object, finite: str, reference: str, method: str) -> None:
    """Refuse a pair without a worked case, and words that the table of pairs cannot print."""
    due = f"{name}: `cases` takes a list of Case(dict, dict, number), not"
    if not isinstance(cases, Sequence):
        raise TypeError(f"{due} {cases!r}" + see("register-a-pair"))
    if not cases:
        raise ValueError(
            f"{name}: give at least one worked case, `cases=[Case(dict(...), dict(...), value)]`, "
            "from the densities and not from the formula itself." + see("register-a-pair")
        )
    for case in cases:
        if not (isinstance(case, Case) and isinstance(case.value, Real)):
            raise TypeError(f"{due} {case!r}" + see("register-a-pair"))
    for role, words in (("finite", finite), ("reference", reference)):
        if not (isinstance(words, str) and words.strip()):
            raise ValueError(
                f"{name}: `{role}` says in words what a reader can look up: {words!r}"
                + see("register-a-pair")
            )
    if method not in METHODS:
        raise ValueError(
            f"{name}: `method` is one of {', '.join(METHODS)}, not {method!r}"
            + see("register-a-pair")
        )


def check_cases(pair: Pair) -> None:
    """Refuse a formula that disagrees with its worked cases.

    The cases of this package are left to its tests: to evaluate them takes three times as long as
    the rest of the import.
    """
    if _is_ours(pair.formula.__module__):
        return
    wrong = [said for said in map(pair.wrong_case, pair.cases) if said]
    if wrong:
        raise ValueError(
            f"KL({pair.name}): {'; '.join(wrong)}. One of the two is wrong: the value is in nats, "
            "p first, with the parameters of torch's constructor." + see("register-a-pair")
        )


def check_examples(family: Family) -> None:
    """Refuse a family whose functions cannot be evaluated at its own examples."""
    if _is_ours(family.home):
        return
    moments = family.moments.items()
    functions = {f"moment {name!r}": m.value for name, m in moments if not m.takes_argument}
    if family.entropy is not None:
        functions["entropy"] = family.entropy
    for example in family.examples:
        at = f"{family.name}, at the example {dict(example)}"
        member = _tried(f"{at}: the constructor", family.make, example=example)
        given = _tried(f"{at}: reading the parameters", family.of, distribution=member)
        if set(given) != set(family.parameters):
            raise ValueError(
                f"{at}: it reads as {', '.join(given)}; `parameters` declares "
                f"{', '.join(family.parameters)}" + see("declare-a-family")
            )
        shape = torch.broadcast_shapes(*(x.shape for x in given.values()))
        for name, function in functions.items():
            found = torch.as_tensor(_tried(f"{at}: {name}", function, **given)).shape
            if found not in (shape, torch.Size()):
                raise ValueError(
                    f"{at}: {name} has shape {tuple(found)}, its parameters {tuple(shape)}"
                    + see("declare-a-family")
                )


def _tried(where: str, function: Callable[..., Any], **arguments: Any) -> Any:
    """The value of a user's function; if it raises, a ValueError that says where."""
    try:
        return function(**arguments)
    except Exception as error:
        raise ValueError(
            f"{where}: {type(error).__name__}: {without_link(error)}" + see("declare-a-family")
        ) from error


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "pyro_kl"
