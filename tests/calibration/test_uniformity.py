"""The test of ranks: its size under uniformity, and that it finds what is not uniform."""

import numpy as np
import pytest

from pyro_kl.calibration.calibration import SiteCalibration
from pyro_kl.calibration.uniformity import band, p_values

RANDOM = np.random.default_rng(1)


def test_uniform_ranks_pass():
    """The p-value is below 5 % in 5 % of samples, within the noise of 4,000."""
    p = p_values(RANDOM.integers(0, 100, size=(100, 4000)), 99)
    for level in (0.01, 0.05, 0.2, 0.5):
        error = (level * (1 - level) * 2 / 4000) ** 0.5  # of both this and the reference sample
        assert np.mean(p <= level) == pytest.approx(level, abs=4 * error)


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
    found = SiteCalibration.of("z", [[int(100 * x)] for x in ranks], 99)
    assert found.verdict == verdict


def test_the_band_holds_a_uniform_sample():
    low, high = band(100, 99, 0.95)
    ranks = np.sort(RANDOM.integers(0, 100, size=(100, 2000)), axis=0)
    counts = np.array([np.searchsorted(column, np.arange(100), "right") for column in ranks.T])
    inside = ((counts >= low) & (counts <= high)).all(1).mean()
    assert inside == pytest.approx(0.95, abs=0.03)
