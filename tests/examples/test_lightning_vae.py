"""The Lightning example: its log has the KL of each site, and the fit improves."""

import pytest

pytest.importorskip("lightning")

# Lightning calls a deprecated function of torch, and asks for more workers
pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_log_has_the_kl_and_the_elbo_rises(tmp_path):
    from examples.lightning_vae import fit

    rows = fit(3, tmp_path)
    assert [int(row["step"]) for row in rows] == list(range(4, 45, 5))
    elbo = [float(row["elbo"]) for row in rows]
    assert elbo[-1] > elbo[0] + 5.0
    assert all(float(row["kl/z"]) > 0 for row in rows)
