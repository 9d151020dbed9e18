"""The example of a mixture and a hidden Markov model: its report, its files, what it finds."""

import json

import pytest

from examples import mixture_and_hmm as example
from models import earthquakes, galaxies


def test_smoke_writes_a_report_of_80_columns_and_a_picture(tmp_path):
    assert example.main(["--smoke", "--steps", "2", "--out", str(tmp_path)]) == 0
    text = (tmp_path / example.REPORT).read_text()
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("summed out") >= 2
    rows = [json.loads(line) for line in (tmp_path / example.DATA).read_text().splitlines()]
    years = [row for row in rows if row.get("site", "").startswith("count_")]
    assert len(years) == len(earthquakes.COUNT)
    assert (tmp_path / example.PICTURE).stat().st_size > 20_000


def test_a_bad_number_of_steps_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        example.main(["--steps", "0"])
    assert stop.value.code == 2
    assert "at least 1" in capsys.readouterr().err


@pytest.mark.sweep
def test_the_galaxies_are_found_in_four_groups():
    """Three distant galaxies, seven near ones (Roeder 1990), and two groups between."""
    found = example.fit_galaxies(steps=300, draws=10)
    sizes = [int((found.states == k).sum()) for k in range(4)]
    assert sum(sizes) == len(galaxies.VELOCITY)
    assert (sizes[0], sizes[3]) == (7, 3)
    assert found.report["weights"].method == "quadrature"
    assert found.report["component"].method == "summed out"


@pytest.mark.sweep
def test_the_rates_are_those_of_the_book():
    """Zucchini & MacDonald (2009), section 4.2.2: 13.1, 19.7 and 29.7 by maximum likelihood."""
    found = example.fit_earthquakes(steps=150, draws=2)
    rates = found.medians["rates"].tolist()
    assert rates == pytest.approx([13.1, 19.7, 29.7], abs=1.5)
    assert found.report["state_0"].method == "summed out"
