"""Whether ranks are uniform: a test of their empirical distribution function.

Reference: Säilynoja, Bürkner & Vehtari (2022), "Graphical test for discrete uniformity and its
applications in goodness-of-fit evaluation and multiple sample comparison", sec. 2.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


class Band(NamedTuple):
    """Between which counts a distribution function is.

    Attributes:
        low: the lowest number of ranks at most r, for r = 0, 1, ...
        high: the highest one.
    """

    low: Counts
    high: Counts


def counts_at_most(ranks: Counts, num_draws: int) -> Counts:
    """How many ranks are at most r, for r = 0 ... num_draws.

    Args:
        ranks: from 0 to `num_draws`, of shape (simulations, elements).
        num_draws: draws that each rank was found among.

    Returns:
        Counts of shape (num_draws + 1, elements).
    """
    counts = np.zeros((num_draws + 1, ranks.shape[1]), dtype=np.int64)
    np.add.at(counts, (ranks, np.arange(ranks.shape[1])), 1)
    return counts.cumsum(0)


def statistic(ranks: Counts, num_draws: int) -> Numbers:
    """The smallest probability, over all r, of as few or as many ranks at most r.

    Args:
        ranks: from 0 to `num_draws`, of shape (simulations, elements).
        num_draws: draws that each rank was found among.

    Returns:
        One number for each element; small where the ranks are not uniform.
    """
    fewer, more = _tails(len(ranks), num_draws)
    r, counts = np.arange(num_draws)[:, None], counts_at_most(ranks, num_draws)[:-1]
    return np.minimum(fewer[r, counts], more[r, counts]).min(0)


def p_value(found: float, num_simulations: int, num_draws: int) -> float:
    """The probability that the statistic of uniform ranks is at most this.

    It is exact: the number of ranks at most r, as r rises, is a Markov chain.
    """
    inside = _inside(_band(found, num_simulations, num_draws), num_simulations, num_draws)
    return max(1.0 - inside, found)  # the probability at one r, where the sum's rounding is larger


@functools.lru_cache(maxsize=8)
def band(num_simulations: int, num_draws: int, level: float) -> Band:
    """The narrowest band that has all of a uniform sample's counts with this probability.

    The p-value of a sample is above 1 - level exactly where its counts are in the band.
    """
    low, high = np.log(1e-300), 0.0
    for _ in range(40):
        middle = (low + high) / 2
        counts = _band(float(np.exp(middle)), num_simulations, num_draws)
        if _inside(counts, num_simulations, num_draws) >= level:
            low = middle
        else:
            high = middle
    return _band(float(np.exp(low)), num_simulations, num_draws)


def _band(tail: float, num_simulations: int, num_draws: int) -> Band:
    """Counts whose tail probabilities are both above a number, at each r; none is high < low."""
    # a tail and its mirror image at the other end are equal up to rounding
    both = np.minimum(*_tails(num_simulations, num_draws)) > tail * (1 + 1e-9)
    high = both.shape[1] - 1 - both[:, ::-1].argmax(1)
    return Band(both.argmax(1), np.where(both.any(1), high, -1))


def _inside(counts: Band, num_simulations: int, num_draws: int) -> float:
    """The probability that all counts of uniform ranks are in a band."""
    if (counts.low > counts.high).any():
        return 0.0
    log_factorial = _log_factorials(num_simulations)
    before, mass = np.array([0]), np.array([1.0])
    for r in range(num_draws):
        after = np.arange(counts.low[r], counts.high[r] + 1)
        # of those above r - 1, so many are r: binomial
        left, new = num_simulations - before[:, None], after - before[:, None]
        possible = new >= 0
        new = np.where(possible, new, 0)
        share = 1 / (num_draws + 1 - r)
        log_mass = (
            log_factorial[left] - log_factorial[new] - log_factorial[left - new]
            + new * np.log(share) + (left - new) * np.log1p(-share)
        )  # fmt: skip
        before, mass = after, mass @ np.where(possible, np.exp(log_mass), 0.0)
    return float(mass.sum())


@functools.lru_cache(maxsize=4)
def _log_factorials(count: int) -> Numbers:
    from scipy.special import gammaln

    return gammaln(np.arange(count + 1) + 1.0)


@functools.lru_cache(maxsize=4)
def _tails(count: int, num_draws: int) -> tuple[Numbers, Numbers]:
    """P(at most k) and P(at least k) of Binomial(count, (r + 1) / (num_draws + 1)), by r and k."""
    from scipy.stats import binom

    at = (np.arange(1, num_draws + 1) / (num_draws + 1))[:, None]
    k = np.arange(count + 1)
    return binom.cdf(k, count, at), binom.sf(k - 1, count, at)
