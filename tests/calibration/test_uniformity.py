"""The test of ranks: its size under uniformity, and that it finds what is not uniform."""

import numpy as np
import pytest

from pyro_kl.calibration.calibration import SiteCalibration
from pyro_kl.calibration.uniformity import band, counts_at_most, p_value, statistic

RANDOM = np.random.default_rng(1)


@pytest.mark.parametrize(("count", "draws"), [(100, 99), (20, 3)])
def test_the_p_value_is_the_share_of_uniform_samples(count, draws):
    found = np.sort(statistic(RANDOM.integers(0, draws + 1, size=(count, 4000)), draws))
    for i in (40, 200, 800, 2000):
        share = np.mean(found <= found[i] * (1 + 1e-9))
        p = p_value(found[i], count, draws)
        assert share == pytest.approx(p, abs=4 * (p * (1 - p) / 4000) ** 0.5)


def test_the_statistic_is_the_smallest_binomial_tail():
    ranks = np.array([[0, 3], [1, 3], [1, 3], [0, 3]])
    # P(4 of 4 are at most 1), by a share of 1/2; P(0 of 4 are at most 2), by one of 3/4
    assert statistic(ranks, 3) == pytest.approx([1 / 2**4, 1 / 4**4])


@pytest.mark.parametrize(
    ("ranks", "verdict"),
    [
        (RANDOM.beta(0.5, 0.5, size=100), "too narrow"),
        (RANDOM.beta(2.5, 2.5, size=100), "too wide"),
        (RANDOM.beta(1.0, 2.0, size=100), "draws too large"),
        (RANDOM.beta(2.0, 1.0, size=100), "draws too small"),
        (RANDOM.beta(1.0, 1.0, size=100), "calibrated"),
    ],
)
def test_the_verdict(ranks, verdict):
    found = SiteCalibration.of("z", (), [[int(100 * x)] for x in ranks], 99)
    assert found.verdict == verdict


def test_the_band_holds_a_uniform_sample_and_decides_as_the_p_value_does():
    ranks = RANDOM.integers(0, 100, size=(100, 2000))
    low, high = band(100, 99, 0.95)
    counts = counts_at_most(ranks, 99)[:-1]
    inside = ((counts >= low[:, None]) & (counts <= high[:, None])).all(0)
    assert inside.mean() == pytest.approx(0.95, abs=4 * (0.05 * 0.95 / 2000) ** 0.5)
    for i in range(20):
        assert inside[i] == (p_value(statistic(ranks[:, [i]], 99)[0], 100, 99) > 0.05)


def test_the_worst_element_of_a_site_is_named():
    ranks = RANDOM.integers(0, 100, size=(100, 6))
    ranks[:, 4] //= 2
    found = SiteCalibration.of("z", (2, 3), ranks.tolist(), 99)
    assert found.worst == (1, 1)
    assert found.element == "[1,1] of 6"
    alone = SiteCalibration.of("z", (), ranks[:, [4]].tolist(), 99)
    assert (found.bias, found.spread) == (alone.bias, alone.spread)
    assert found.p_value == pytest.approx(6 * alone.p_value)
