"""The example of several ranks, with one: both fits agree."""

import re

import numpy as np

from examples import several_ranks


def test_both_fits_agree(tmp_path, capsys):
    several_ranks.main(tmp_path, rows=2_000, steps=500)
    first = capsys.readouterr().out
    pairs = np.array(re.findall(r"^ +\d+ +(\S+) +(\S+)$", first, re.MULTILINE), dtype=float)
    assert pairs.shape == (10, 2)
    assert np.abs(pairs[:, 0] - pairs[:, 1]).max() < 0.05  # the posterior's sds are 0.055
