"""`check`: what every pair must do, tried on a pair or a family of the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..numerics.quadrature.integrate import tolerance
from ..registry.family import Family
from ..registry.pair import Pair
from ..registry.register import family_of, pair_of, registered
from ..registry.warnings import quiet
from ..wrappers.transformed.by_search import kl_of_undeclared
from .check_report import CheckReport, CheckResult
from .check_subject import F64, Cell, NotTried, Subject, Wrong, in_words, unvalidated
from .monte_carlo import monte_carlo

#: Beyond so many standard errors a sampled value and another one are two values.
_LARGEST_Z = 5.0
_SAMPLES, _ATOMS = 20_000, 200_000
#: torch gives a probability of 0 the mass 2e-16.
_CLAMPED = math.log(1e-15)
#: Beyond it a coordinate does not move its parameter, which is at an end of where it lives.
_FAR = 30.0


Check = Callable[[Subject], None]
_CHECKS: dict[str, Check] = {}


def _declared(name: str) -> Callable[[Check], Check]:
    def add(function: Check) -> Check:
        _CHECKS[name] = function
        return function

    return add


@_declared("worked cases")
def _cases(subject: Subject) -> None:
    if not subject.pair.cases:
        raise NotTried("derived from two families: no case of its own")
    wrong = [said for said in map(subject.pair.wrong_case, subject.pair.cases) if said]
    if wrong:
        raise Wrong("; ".join(wrong))


@_declared("definition")
def _definition(subject: Subject) -> None:
    """Against the integral, or the sum, of the classes' own densities."""
    if subject.pair.method == "point density":
        raise NotTried("no integral of a density")
    tried = 0
    for cell in subject.cells:
        p, q = subject.made(cell)
        other = _by_definition(p, q)
        if other is None:
            raise NotTried("not univariate: see the samples")
        right, off = other
        if not math.isfinite(right):
            continue
        tried += 1
        value, told = subject.value(cell)
        if not abs(value - right) <= 1e-6 * abs(right) + 10 * off + told + 1e-9:
            how = "the sum" if p.support.is_discrete else "the integral"  # type: ignore[union-attr]
            raise Wrong(f"{value:.9g} nats, and {how} of the densities is {right:.9g}, at {cell}")
    if not tried:
        raise NotTried("no example has a finite integral")


def _by_definition(p: Distribution, q: Distribution) -> tuple[float, float] | None:
    """KL by the densities alone, and how far off it may be; None if they are not univariate."""
    if p.event_shape or q.event_shape:
        return None
    try:
        discrete = p.support.is_discrete, q.support.is_discrete  # type: ignore[union-attr]
    except (NotImplementedError, AttributeError):
        return None
    if not any(discrete):
        with torch.no_grad(), tolerance(1e-9):
            try:
                found = kl_of_undeclared(p, q)
            except NotImplementedError:
                return None
        return None if found is None else (float(found.value), float(found.error.abs()))
    if not all(discrete):
        return math.inf, 0.0
    return _summed(p, q)


def _summed(p: Distribution, q: Distribution) -> tuple[float, float]:
    finite = p.has_enumerate_support
    atoms = p.enumerate_support() if finite else torch.arange(_ATOMS, dtype=F64)
    atoms = atoms.to(F64).reshape(-1)
    if not finite:
        low = getattr(p.support, "lower_bound", 0)
        atoms = atoms + float(low)
    with unvalidated():
        log_p = p.log_prob(atoms)
        inside = q.support.check(atoms)  # type: ignore[union-attr]
        log_q = q.log_prob(torch.where(inside, atoms, atoms[0]))
    if bool((~inside & (log_p > -math.inf)).any()):
        return math.inf, 0.0
    mass = log_p.exp()
    has_mass = log_p > _CLAMPED
    terms = torch.where(has_mass, mass * (log_p - log_q), 0.0)
    if bool((has_mass & inside & (log_q < _CLAMPED)).any()) or abs(1 - float(mass.sum())) > 1e-9:
        return math.nan, 0.0  # torch has clamped a mass of q, or not all atoms are here
    return float(terms.sum()), 1e-12 * float(terms.abs().sum())


@_declared("samples")
def _samples(subject: Subject) -> None:
    """Against the mean of log p - log q over samples of p."""
    why = subject.sides[0].samples or subject.sides[1].samples
    if why:
        raise NotTried(why)
    values = [(cell, *subject.value(cell)) for cell in subject.cells]
    known = [(cell, x, told) for cell, x, told in values if math.isfinite(x)]
    # a KL of about 1: the lighter are the tails of log p - log q, the better is the mean
    known.sort(key=lambda item: abs(math.log(abs(item[1]) + 1e-9)))
    for cell, value, told in known[:3]:
        try:
            sampled = monte_carlo(*subject.made(cell), _SAMPLES)
        except (RuntimeError, ValueError) as why_not:
            raise NotTried(f"{type(why_not).__name__}: {why_not}") from why_not
        mean, spread = float(sampled.value), _LARGEST_Z * float(sampled.standard_error)
        if math.isnan(mean):
            raise NotTried("the densities are nan at samples of p")
        near = (
            math.isfinite(mean) and abs(mean - value) <= spread + told + 1e-6 * abs(value) + 1e-9
        )
        if not near:
            error = spread / _LARGEST_Z
            raise Wrong(f"{value:.6g} nats, and samples say {mean:.6g} +- {error:.2g}, at {cell}")
    if not known:
        raise NotTried("no example has a finite KL")


@_declared("infinity")
def _infinity(subject: Subject) -> None:
    """+inf, and not nan or a number, where p has samples outside q's support."""
    why = subject.sides[0].samples
    if why:
        raise NotTried(why)
    for cell in subject.cells:
        p, q = subject.made(cell)
        try:
            outside = _samples_outside(p, q)
        except NotImplementedError:
            raise NotTried("p has no sampler, or q does not say its support") from None
        value = float(subject.of(cell))
        if outside and value != math.inf:
            raise Wrong(f"{value:.6g} nats, and p has mass outside q's support, at {cell}")
        if math.isnan(value) or value == -math.inf:
            raise Wrong(f"{value} at {cell}")


def _samples_outside(p: Distribution, q: Distribution) -> bool:
    if p.event_shape != q.event_shape or q.support is None or p.support is None:
        return False
    if p.support.is_discrete and not q.support.is_discrete:
        return True
    return not bool(q.support.check(p.sample(torch.Size((200,)))).all())


@_declared("itself")
def _itself(subject: Subject) -> None:
    if subject.pair.p is not subject.pair.q or subject.sides[0].make is not subject.sides[1].make:
        raise NotTried("two classes")
    for cell in subject.cells:
        value, told = subject.value(Cell(cell.q, dict(cell.q)))
        if not abs(value) <= 1e-9 + told:
            raise Wrong(f"{value:.6g} nats of p = q = {in_words(cell.q)}, where 0 is due")


@_declared("sign")
def _sign(subject: Subject) -> None:
    for cell in subject.cells:
        value, told = subject.value(cell)
        if math.isnan(value) or value < -1e-9 - told:
            raise Wrong(f"{value:.6g} nats, which no KL is, at {cell}")


@_declared("shapes")
def _shapes(subject: Subject) -> None:
    """Batches against each other, against one member, and of no rows."""
    if not subject.batched:
        raise NotTried("the class takes no parameters with batch dimensions")
    for p_shape, q_shape in (((3, 1), (2,)), ((2,), ()), ((), (2,)), ((0,), ()), ((), (0,))):
        try:
            cell = subject.draw(p_shape, q_shape)
        except (RuntimeError, IndexError):
            continue  # the class itself takes no such batch
        value, due = subject.of(cell), torch.broadcast_shapes(p_shape, q_shape)
        if value.shape != due:
            raise Wrong(
                f"shape {tuple(value.shape)} of batches {p_shape} and {q_shape}, where "
                f"{tuple(due)} is due"
            )
        for index in product(*map(range, due)):
            p, q = subject.sides
            one = Cell(
                p.one_of(cell.p, _within(p_shape, index)),
                q.one_of(cell.q, _within(q_shape, index)),
            )
            alone, told = subject.value(one)
            if not math.isclose(float(value[index]), alone, rel_tol=1e-6, abs_tol=1e-9 + told):
                raise Wrong(
                    f"{float(value[index]):.9g} nats at {index} of a batch, {alone:.9g} alone, at "
                    f"{one}"
                )


def _within(shape: tuple[int, ...], index: tuple[int, ...]) -> tuple[int, ...]:
    """What an index into a broadcast batch is in one of that shape."""
    own = index[len(index) - len(shape) :]
    return tuple(i if n > 1 else 0 for i, n in zip(own, shape, strict=True))


@_declared("dtype")
def _dtype(subject: Subject) -> None:
    """float32 in, float32 out, and the value that it has in float64."""
    for cell in subject.examples[:3]:
        rounded = Cell(*(
            {name: torch.as_tensor(x, dtype=torch.float32).to(F64) for name, x in given.items()}
            for given in (cell.p, cell.q)
        ))  # fmt: skip
        single, (right, told) = subject.of(rounded, torch.float32), subject.value(rounded)
        if single.dtype != torch.float32:
            raise Wrong(f"float32 parameters give {single.dtype}, at {cell}")
        if subject.of(rounded).dtype != F64:
            raise Wrong(f"float64 parameters give {subject.of(rounded).dtype}, at {cell}")
        if not math.isclose(float(single), right, rel_tol=1e-3, abs_tol=1e-4 + told):
            raise Wrong(f"{float(single):.6g} nats in float32, {right:.9g} in float64, at {cell}")


@_declared("gradients")
def _gradients(subject: Subject) -> None:
    """By autograd against central differences, in unconstrained coordinates.

    At drawn parameters: at an example a kink of q may lie on the end of p's support.
    """
    tried = 0
    for cell in subject.drawn:
        starts = [s.free(x) for s, x in zip(subject.sides, (cell.p, cell.q), strict=True)]
        flat = [u.clone() for start in starts for u in start.values()]
        if not all(bool((u.abs() < _FAR).all()) for u in flat):
            continue
        names = [f"{side}'s {k}" for side, start in zip("pq", starts, strict=True) for k in start]

        def kl(*coordinates: Tensor, at: Cell = cell, keys: Any = starts) -> Tensor:
            given = iter(coordinates)
            p, q = (
                side.bound({name: next(given) for name in start}, fixed)
                for side, start, fixed in zip(subject.sides, keys, (at.p, at.q), strict=True)
            )
            with tolerance(1e-10):
                return subject.of(Cell(p, q)).reshape(())

        value = kl(*flat)
        if not bool(value.isfinite()) or not flat:
            continue
        tried += 1
        _against_differences(kl, flat, names, cell)
    if not tried:
        raise NotTried("no example has a finite KL with parameters that move")


def _against_differences(
    kl: Callable[..., Tensor], flat: Sequence[Tensor], names: Sequence[str], cell: Cell
) -> None:
    leaves = [u.clone().requires_grad_() for u in flat]
    value, step = kl(*leaves), 1e-4
    slopes: Sequence[Tensor] = [torch.zeros_like(u) for u in leaves]
    if value.requires_grad:
        slopes = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    for i, name in enumerate(names):
        direction = torch.randn_like(flat[i])
        ends = []
        for sign in (1, -1):
            moved = list(flat)
            moved[i] = flat[i] + sign * step * direction
            ends.append(float(kl(*moved).detach()))
        difference = (ends[0] - ends[1]) / (2 * step)
        slope = float((slopes[i] * direction).sum())
        noise = 1e-8 * (1 + abs(float(value))) / step + 1e-5 * (1 + abs(difference))
        if not abs(slope - difference) <= noise + 1e-3 * abs(difference):
            raise Wrong(
                f"the gradient by {name} is {slope:.6g}, and differences say {difference:.6g}, at "
                f"{cell} (in unconstrained coordinates)"
            )


@_declared("nan")
def _nan(subject: Subject) -> None:
    """A parameter that is nan gives nan, in its row and in no other."""
    if not subject.batched:
        raise NotTried("the class takes no parameters with batch dimensions")
    if subject.pair.method == "infinite":
        raise NotTried("infinite, whatever the parameters are")
    cell, alone, told = _first_finite(subject)  # what is infinite is so whatever is nan
    for side, family in enumerate(subject.sides):
        for name in family.free((cell.p, cell.q)[side]):
            rows = [
                f.drawn(x, (2,), 0.0) for f, x in zip(subject.sides, (cell.p, cell.q), strict=True)
            ]
            rows[side][name] = rows[side][name].index_fill(0, torch.tensor([1]), math.nan)
            try:
                with unvalidated():
                    distributions = subject.made(Cell(*rows))
            except Exception:  # the class refuses it: as good
                continue
            try:
                value = subject.divergence(*distributions)
            except (ValueError, torch.linalg.LinAlgError):  # type: ignore[attr-defined]
                continue
            whose = f"{'pq'[side]}'s {name}"
            if value.shape != (2,) or not bool(value[1].isnan()):
                raise Wrong(f"{whose} is nan, and the KL is {value.flatten()[-1].item():.6g}")
            if not math.isclose(float(value[0]), alone, rel_tol=1e-6, abs_tol=1e-9 + told):
                raise Wrong(
                    f"{whose} is nan in one row, and another's {alone:.6g} is {value[0]:.6g}"
                )


def _first_finite(subject: Subject) -> tuple[Cell, float, float]:
    """An example, its KL, and how far off that may be."""
    for cell in subject.examples:
        value, told = subject.value(cell)
        if math.isfinite(value):
            return cell, value, told
    raise NotTried("no example has a finite KL")


# --- the public function -------------------------------------------------------------------------


def check(target: Pair | Family | type[Any], q: Family | type[Any] | None = None) -> CheckReport:
    """Try what every pair of this package must do on a pair or a family of your own.

    Each pair is tried at its worked cases, or its families' examples, and at parameters drawn
    around them: the value against the cases, against an independent integral or sum of the
    classes' densities and against samples of p; shapes, broadcasting and empty batches; dtypes;
    gradients against differences; nan in, nan out; 0 where p = q; no negative KL; +inf where p has
    mass outside q's support. Seeded by itself: the random state of torch is as it was.

    Args:
        target: a `Pair` of `registered()`; the class, or the declared family, of p; or, without
            `q`, a family with all pairs that follow from it.
        q: the class or the declared family of q.

    Returns:
        A `CheckReport` that prints as a table; `ok` is whether nothing failed.

    Raises:
        LookupError: no pair of the two is registered, or it has no example to start from.
        TypeError: what is neither a pair nor a class nor a family.

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
    with torch.random.fork_rng(devices=[]), quiet():  # what integrals say is compared
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
            yield CheckResult(subject.name, name, False, f"{type(error).__name__}: {error}")
        else:
            yield CheckResult(subject.name, name, True)


def _subjects(target: Any, q: Any) -> list[Subject]:
    if isinstance(target, Pair) and q is None:
        return [Subject(target, target.p, target.q)]
    if q is None:
        family = target if isinstance(target, Family) else family_of(_class(target))
        if family is None:
            raise LookupError(f"{target.__name__} is not declared: give p and q, or a family")
        own = family.distribution
        return [Subject(pair, pair.p, pair.q) for pair in registered() if own in (pair.p, pair.q)]
    sides = _class(target), _class(q)
    pair = pair_of(*sides)
    if pair is None:
        raise LookupError(
            f"no pair KL({sides[0].__name__} || {sides[1].__name__}) is registered: "
            "@pyro_kl.register it, or declare a family"
        )
    return [Subject(pair, *sides)]


def _class(side: Any) -> type[Any]:
    if isinstance(side, Family):
        return side.distribution
    if isinstance(side, type) and issubclass(side, Distribution):
        return side
    raise TypeError(f"give a Pair, a declared Family or a class of distributions, not {side!r}")
