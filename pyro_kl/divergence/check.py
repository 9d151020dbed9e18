"""`check`: the conformance checks of this package, on a pair or a family of the user's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.distributions import Distribution

from ..messages import see, without_link
from ..registry.family import Family
from ..registry.pair import Pair
from ..registry.register import family_of, pair_of, registered
from ..registry.warnings import quiet
from .check_behaviour import BEHAVIOUR
from .check_report import CheckReport, CheckResult
from .check_subject import NotTried, Subject, Wrong
from .check_values import VALUES

_CHECKS = {**VALUES, **BEHAVIOUR}


def check(target: Pair | Family | type[Any], q: Family | type[Any] | None = None) -> CheckReport:
    """Run the conformance checks of this package on a pair or a family of your own.

    Each pair is tried at its worked cases, or its families' examples, and at parameters drawn
    around them: the value against the cases, against an independent integral or sum of the
    classes' densities and against samples of p; shapes, broadcasting and empty batches; dtypes;
    gradients against differences; nan in, nan out; 0 where p = q; no negative KL; +inf where p has
    mass outside q's support. The checks have their own seed and leave torch's random state as it
    was.

    Args:
        target: a `Pair` of `registered()`; the class, or the declared family, of p; or, without
            `q`, a family with all pairs that follow from it.
        q: the class or the declared family of q.

    Returns:
        A `CheckReport` that prints as a table; `ok` is whether nothing failed.

    Raises:
        LookupError: no pair of the two is registered, or it has no example.
        TypeError: an argument is neither a pair nor a class nor a family.

    Example:
        >>> class Mine(torch.distributions.Normal): pass
        >>> case = pyro_kl.Case(dict(loc=0., scale=1.), dict(loc=1., scale=1.), 0.5)
        >>> @pyro_kl.register(Mine, Mine, cases=[case], reference="a mistake: no scale")
        ... def kl_mine(p, q):
        ...     return (p.loc - q.loc) ** 2 / 2
        >>> report = pyro_kl.check(Mine, Mine)
        >>> report.ok, [failure.check for failure in report.failures]
        (False, ['definition', 'samples', 'nan'])
    """
    with torch.random.fork_rng(devices=[]), quiet():  # the checks read the reported errors
        torch.manual_seed(0)
        results = [r for subject in _subjects(target, q) for r in _results(subject)]
    return CheckReport(tuple(results))


def _results(subject: Subject) -> Iterator[CheckResult]:
    for name, function in _CHECKS.items():
        try:
            function(subject)
        except NotTried as reason:
            yield CheckResult(subject.name, name, None, str(reason))
        except Wrong as wrong:
            yield CheckResult(subject.name, name, False, str(wrong))
        except Exception as error:
            yield CheckResult(
                subject.name, name, False, f"{type(error).__name__}: {without_link(error)}"
            )
        else:
            yield CheckResult(subject.name, name, True)


def _subjects(target: Any, q: Any) -> list[Subject]:
    if isinstance(target, Pair) and q is None:
        return [Subject(target, target.p, target.q)]
    if q is None:
        family = target if isinstance(target, Family) else family_of(_class(target))
        if family is None:
            raise LookupError(
                f"{target.__name__} is not declared: give p and q, or a family"
                + see("no-such-pair")
            )
        own = family.distribution
        return [Subject(pair, pair.p, pair.q) for pair in registered() if own in (pair.p, pair.q)]
    sides = _class(target), _class(q)
    pair = pair_of(*sides)
    if pair is None:
        raise LookupError(
            f"no pair KL({sides[0].__name__} || {sides[1].__name__}) is registered: "
            "@pyro_kl.register it, or declare a family" + see("no-such-pair")
        )
    return [Subject(pair, *sides)]


def _class(side: Any) -> type[Any]:
    if isinstance(side, Family):
        return side.distribution
    if isinstance(side, type) and issubclass(side, Distribution):
        return side
    raise TypeError(
        f"give a Pair, a declared Family or a class of distributions, not {side!r}"
        + see("no-such-pair")
    )
