"""The errors that the docs tell are those that can be measured."""

from __future__ import annotations

import pytest

from tools.tables import measured

from ..conformance.cases import FINITE, kl_of, over, relative_error


@pytest.mark.accuracy
# a rule that cannot do what it is asked says so, once for each pair
@pytest.mark.filterwarnings("ignore:KL.*tolerance:UserWarning")
@over(FINITE)
def test_told_error_holds(duo):
    rows = duo.measurable_rows()
    if not rows:
        pytest.skip("all reference values are 0 or infinite")
    told = measured().get(duo.pair.name)
    assert told is not None, "run `python -m tools.accuracy --write`"
    assert told["values"] == len(rows)
    worst = max(relative_error(kl_of(duo, row.p, row.q), row.kl) for row in rows)
    # libraries differ in the last digit of a logarithm
    assert worst <= 4 * told["error"]
