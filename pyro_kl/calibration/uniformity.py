"""Whether ranks are uniform: a test of their empirical distribution function.

Reference: Säilynoja, Bürkner & Vehtari (2022), "Graphical test for discrete uniformity and its
applications in goodness-of-fit evaluation and multiple sample comparison", sec. 2.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]

#: Samples of uniform ranks that give the distribution of the statistic.
_UNIFORM = 4000


def p_values(ranks: Counts, num_draws: int) -> Numbers:
    """The probability that uniform ranks are at least as far from their expectation.

    Args:
        ranks: from 0 to `num_draws`, of shape (simulations, elements).
        num_draws: draws that each rank was found among.

    Returns:
        One number for each element.
    """
    null = _of_uniform(len(ranks), num_draws)
    own = _statistic(ranks, num_draws)
    return (1 + np.searchsorted(null, own, side="right")) / (1 + len(null))


def band(num_simulations: int, num_draws: int, level: float) -> tuple[Numbers, Numbers]:
    """Between which counts all of a uniform sample's distribution function is with a probability.

    Returns:
        The lowest and highest numbers of ranks at most r, for each r.
    """
    from scipy.stats import binom

    gamma = np.quantile(_of_uniform(num_simulations, num_draws), 1 - level)
    at = np.arange(1, num_draws + 2) / (num_draws + 1)
    return (
        binom.ppf(gamma / 2, num_simulations, at),
        binom.ppf(1 - gamma / 2, num_simulations, at),
    )


def _statistic(ranks: Counts, num_draws: int) -> Numbers:
    """Twice the smallest tail probability of the distribution function at any rank."""
    count = len(ranks)
    lower, upper = _tails(count, num_draws)
    places = np.arange(num_draws + 1)
    out = np.empty(ranks.shape[1])
    for i, column in enumerate(ranks.T):
        below = np.searchsorted(np.sort(column), places, side="right")
        out[i] = min(lower[places, below].min(), upper[places, below].min())
    return np.minimum(1.0, 2 * out)


@functools.lru_cache(maxsize=4)
def _tails(count: int, num_draws: int) -> tuple[Numbers, Numbers]:
    """P(at most k) and P(at least k) of Binomial(count, (r + 1) / (num_draws + 1)), by r and k."""
    from scipy.stats import binom

    at = (np.arange(1, num_draws + 2) / (num_draws + 1))[:, None]
    k = np.arange(count + 1)
    return binom.cdf(k, count, at), binom.sf(k - 1, count, at)


@functools.lru_cache(maxsize=4)
def _of_uniform(count: int, num_draws: int) -> Numbers:
    """The statistic of uniform ranks, in rising order."""
    random = np.random.default_rng(0)
    ranks = random.integers(0, num_draws + 1, size=(count, _UNIFORM))
    return np.sort(_statistic(ranks, num_draws))
