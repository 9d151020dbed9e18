"""What README and documentation say is what the code does."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from pyro_kl.divergence.classes import NO_KL, class_rows, concrete_classes
from tools.measured import measured

from ..conformance.cases import FINITE, kl_of, over, relative_error

# --- the README's numbers are printed by the README's code --------------------------------------


README = Path(__file__).parents[2] / "README.md"


def test_first_example_prints_what_it_says():
    """The first code block prints the block that follows it, to the last digit."""
    text = README.read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    expected = re.search(r"```text\n(.*?)```", text, re.DOTALL)[1]
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == expected


def test_pictures_are_there():
    """A picture that the README shows is in the repository."""
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README.read_text()):
        assert (README.parent / picture).is_file(), picture


# --- every class of pyro.distributions is accounted for -----------------------------------------


def test_all_97_classes_and_at_least_85_deterministic():
    rows = class_rows()  # raises for a class without an example and without a reason
    assert len(rows) >= 97
    assert sum(row.deterministic for row in rows) >= 85
    assert all(row.reason for row in rows)


def test_reasons_name_classes():
    assert set(NO_KL) <= {cls.__name__ for cls in concrete_classes()}


# --- the errors that the docs tell are those that can be measured -------------------------------


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
