"""Mean and covariance of all observations of a state space model, as dense mpmath matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mpmath
from mpmath import mp, mpf

from .integrate import WORKING_DIGITS, exact

#: Mean (a row) and covariance of the whole sequence.
Dense = tuple[Any, Any]


def hmm(mean: Any, covariance: Any, steps: Sequence[tuple[Any, Any, Any, Any, Any, Any]]) -> Dense:
    """From z_0's moments and (F, b, Q, H, c, R) of every step, rows times matrices."""
    with mp.workdps(WORKING_DIGITS):
        n, m = mean.cols, steps[0][3].cols
        total = n * (len(steps) + 1)
        # every z_t as a row of coefficients of (z_0, noise of step 1, noise of step 2, ...)
        noise = mpmath.zeros(total)
        put(noise, 0, 0, covariance)
        reach = mpmath.zeros(total, n)
        put(reach, 0, 0, mpmath.eye(n))
        means, reads = [], []
        for t, (f, b, q, h, c, _) in enumerate(steps):
            put(noise, n * (t + 1), n * (t + 1), q)
            reach = reach * f
            put(reach, n * (t + 1), 0, mpmath.eye(n))
            mean = mean * f + b
            means.append(mean * h + c)
            reads.append(reach * h)
        size = m * len(steps)
        everything = mpmath.zeros(total, size)
        loc = mpmath.zeros(1, size)
        own = mpmath.zeros(size)
        for t, (read, step) in enumerate(zip(reads, steps, strict=True)):
            put(everything, 0, m * t, read)
            put(loc, 0, m * t, means[t])
            put(own, m * t, m * t, step[5])
        return loc, everything.T * noise * everything + own


def markov_field(init: Dense, transition: Dense, observations: Sequence[Dense]) -> Dense:
    """From the precision matrix of all hidden and observed variables, factor by factor."""
    with mp.workdps(WORKING_DIGITS):
        n, steps = init[0].cols, len(observations)
        m = observations[0][0].cols - n
        hidden = n * (steps + 1)
        precision = mpmath.zeros(hidden + m * steps)
        information = mpmath.zeros(1, hidden + m * steps)
        _add(precision, information, init, list(range(n)))
        for t in range(steps):
            old = list(range(n * t, n * (t + 1)))
            new = list(range(n * (t + 1), n * (t + 2)))
            seen = list(range(hidden + m * t, hidden + m * (t + 1)))
            _add(precision, information, transition, old + new)
            _add(precision, information, observations[t], new + seen)
        covariance = precision**-1
        loc = information * covariance
        return loc[:, hidden:], covariance[hidden:, hidden:]


def _add(precision: Any, information: Any, factor: Dense, where: list[int]) -> None:
    mean, covariance = factor
    inverse = covariance**-1
    row = mean * inverse
    for i, at in enumerate(where):
        information[0, at] += row[0, i]
        for j, to in enumerate(where):
            precision[at, to] += inverse[i, j]


def kl(p: Dense, q: Dense) -> Any:
    """The textbook's KL of two multivariate normals."""
    with mp.workdps(WORKING_DIGITS):
        (p_loc, p_cov), (q_loc, q_cov) = p, q
        inverse, gap = q_cov**-1, q_loc - p_loc
        ratio = inverse * p_cov
        trace = sum((ratio[i, i] for i in range(ratio.rows)), mpf(0))
        log_det = mp.log(mpmath.det(q_cov)) - mp.log(mpmath.det(p_cov))
        return (log_det - ratio.rows + trace + (gap * inverse * gap.T)[0]) / 2


def put(target: Any, row: int, column: int, block: Any) -> None:
    """Write a block into a matrix."""
    for i in range(block.rows):
        for j in range(block.cols):
            target[row + i, column + j] = block[i, j]


def matrix(rows: Any) -> Any:
    """A matrix of exactly these floats; one row for a flat list."""
    rows = rows if isinstance(rows[0], (list, tuple)) else [rows]
    return mpmath.matrix([[exact(x) for x in row] for row in rows])


def diagonal(scale: Any) -> Any:
    """The covariance of independent coordinates with these scales."""
    return mpmath.diag([exact(x) ** 2 for x in scale])


# --- the distributions of the worked cases, from the same parameters ----------------------------


def dense(cls: str, a: Mapping[str, Any]) -> Dense:
    """The distribution that a declared case stands for."""
    with mp.workdps(WORKING_DIGITS):
        return _DENSE[cls](a)


def _state_space(a: Mapping[str, Any]) -> Dense:
    mean = matrix(a["initial"])
    noise = matrix(a["noise"])
    f, h = matrix(a["matrix"]), matrix(a["reads"])
    r = diagonal(a["scale"])
    zero = mpmath.zeros(1, mean.cols)
    steps = [(f, zero, noise * noise.T, h, matrix(loc), r) for loc in a["loc"]]
    return hmm(mean, mpmath.eye(mean.cols), steps)


def _field(a: Mapping[str, Any]) -> Dense:
    n = len(a["initial"])
    transition, observation = matrix(a["transition"]), matrix(a["observation"])
    pair = (mpmath.zeros(1, 2 * n), transition * transition.T)
    seen = [(matrix(loc), observation * observation.T) for loc in a["loc"]]
    return markov_field((matrix(a["initial"]), mpmath.eye(n)), pair, seen)


def _independent(a: Mapping[str, Any]) -> Dense:
    size = len(a["matrix"])
    f = mpmath.diag([exact(x) for x in a["matrix"]])
    zero, eye = mpmath.zeros(1, size), mpmath.eye(size)
    q, r = diagonal(a["noise"]), diagonal(a["scale"])
    return hmm(zero, eye, [(f, zero, q, eye, matrix(loc), r) for loc in a["loc"]])


def _product(a: Mapping[str, Any]) -> Dense:
    flat = {name: [x for row in a[name] for x in row] for name in ("loc", "scale")}
    return matrix(flat["loc"]), diagonal(flat["scale"])


_DENSE = {
    "GaussianHMM": _state_space,
    "LinearHMM": _state_space,
    "GaussianMRF": _field,
    "IndependentHMM": _independent,
    "Independent": _product,
}
