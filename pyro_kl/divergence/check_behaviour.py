"""Checks of a pair's behaviour: shapes, dtypes, gradients, nan."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ..numerics.quadrature.integrate import tolerance
from .check_subject import F64, Cell, Check, NotTried, Subject, Wrong, unvalidated

#: A parameter whose coordinate is beyond this is at an end of its domain and does not move.
_FAR = 30.0


def _shapes(subject: Subject) -> None:
    """Batches against batches, against one member, and batches without rows."""
    if not subject.batched:
        raise NotTried("the class takes no parameters with batch dimensions")
    for p_shape, q_shape in (((3, 1), (2,)), ((2,), ()), ((), (2,)), ((0,), ()), ((), (0,))):
        try:
            cell = subject.draw(p_shape, q_shape)
        except (RuntimeError, IndexError):
            continue  # the class itself takes no such batch
        value, right = subject.of(cell), torch.broadcast_shapes(p_shape, q_shape)
        if value.shape != right:
            raise Wrong(
                f"shape {tuple(value.shape)} of batches {p_shape} and {q_shape}, where "
                f"{tuple(right)} is due"
            )
        for index in product(*map(range, right)):
            p, q = subject.sides
            one = Cell(
                p.one_of(cell.p, _within(p_shape, index)),
                q.one_of(cell.q, _within(q_shape, index)),
            )
            alone, error = subject.value(one)
            if not math.isclose(float(value[index]), alone, rel_tol=1e-6, abs_tol=1e-9 + error):
                raise Wrong(
                    f"{float(value[index]):.9g} nats at {index} of a batch, {alone:.9g} alone, at "
                    f"{one}"
                )


def _within(shape: tuple[int, ...], index: tuple[int, ...]) -> tuple[int, ...]:
    """An index into a broadcast batch as an index into a batch of that shape."""
    own = index[len(index) - len(shape) :]
    return tuple(i if n > 1 else 0 for i, n in zip(own, shape, strict=True))


def _dtype(subject: Subject) -> None:
    """float32 parameters give float32, and the same value as in float64."""
    for cell in subject.examples[:3]:
        rounded = Cell(*(
            {name: torch.as_tensor(x, dtype=torch.float32).to(F64) for name, x in given.items()}
            for given in (cell.p, cell.q)
        ))  # fmt: skip
        single, (right, error) = subject.of(rounded, torch.float32), subject.value(rounded)
        if single.dtype != torch.float32:
            raise Wrong(f"float32 parameters give {single.dtype}, at {cell}")
        if subject.of(rounded).dtype != F64:
            raise Wrong(f"float64 parameters give {subject.of(rounded).dtype}, at {cell}")
        if not math.isclose(float(single), right, rel_tol=1e-3, abs_tol=1e-4 + error):
            raise Wrong(f"{float(single):.6g} nats in float32, {right:.9g} in float64, at {cell}")


def _gradients(subject: Subject) -> None:
    """By autograd against central differences, in unconstrained coordinates.

    The parameters are drawn: at an example a kink of q may be at an end of p's support.
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


def _nan(subject: Subject) -> None:
    """A parameter that is nan gives nan in its own row and in no other row."""
    if not subject.batched:
        raise NotTried("the class takes no parameters with batch dimensions")
    if subject.pair.method == "infinite":
        raise NotTried("infinite, whatever the parameters are")
    # an infinite KL may stay infinite beside nan
    cell, alone, error = _first_finite(subject)
    for side, family in enumerate(subject.sides):
        for name in family.free((cell.p, cell.q)[side]):
            rows = [
                f.drawn(x, (2,), 0.0) for f, x in zip(subject.sides, (cell.p, cell.q), strict=True)
            ]
            rows[side][name] = rows[side][name].index_fill(0, torch.tensor([1]), math.nan)
            try:
                with unvalidated():
                    distributions = subject.made(Cell(*rows))
            except Exception:  # the class refuses nan, which is as good
                continue
            try:
                value = subject.divergence(*distributions)
            except (ValueError, torch.linalg.LinAlgError):  # type: ignore[attr-defined]
                continue
            whose = f"{'pq'[side]}'s {name}"
            if value.shape != (2,) or not bool(value[1].isnan()):
                raise Wrong(f"{whose} is nan, and the KL is {value.flatten()[-1].item():.6g}")
            if not math.isclose(float(value[0]), alone, rel_tol=1e-6, abs_tol=1e-9 + error):
                raise Wrong(
                    f"{whose} is nan in one row, and another's {alone:.6g} is {value[0]:.6g}"
                )


def _first_finite(subject: Subject) -> tuple[Cell, float, float]:
    """An example, its KL, and the error of that."""
    for cell in subject.examples:
        value, error = subject.value(cell)
        if math.isfinite(value):
            return cell, value, error
    raise NotTried("no example has a finite KL")


#: The checks of this file, by what `check` prints.
BEHAVIOUR: Mapping[str, Check] = {
    "shapes": _shapes,
    "dtype": _dtype,
    "gradients": _gradients,
    "nan": _nan,
}
