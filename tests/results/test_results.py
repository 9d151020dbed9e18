"""Every result: 80 columns of text, HTML, rich, data frames, JSON, and pickles."""

from __future__ import annotations

import functools
import io
import json
import pickle
import sys
import warnings

import pandas
import pytest

import pyro_kl
from pyro_kl.results.result import Result
from tests.results.examples import MAKE


@functools.cache
def result(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MAKE[name]()


def classes(of=Result):
    """The subclasses of pyro_kl's own that have a table."""
    for cls in of.__subclasses__():
        if cls.__module__.startswith("pyro_kl.") and "_table" in vars(cls):
            yield cls
        yield from classes(cls)


def test_every_class_has_an_example():
    for name in dir(pyro_kl):  # a class is known once its module is imported
        getattr(pyro_kl, name)
    assert {cls.__name__ for cls in classes()} == {name.split()[0] for name in MAKE}
    assert all(type(result(name)).__name__ == name.split()[0] for name in MAKE)


@pytest.mark.parametrize("name", MAKE)
def test_no_line_is_longer_than_80_characters(name):
    for text in (str(result(name)), repr(result(name)), result(name)._table().text()):
        assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", MAKE)
def test_a_notebook_has_a_row_for_each_row_of_the_text(name):
    table = result(name)._table()
    html = result(name)._repr_html_()
    assert html.count("<tr>") == html.count("</tr>") == 1 + len(table.rows)
    assert html.count("<td") == len(table.header) * len(table.rows)


@pytest.mark.parametrize("name", MAKE)
def test_rich_has_every_note(name):
    rich = pytest.importorskip("rich.console")
    console = rich.Console(file=io.StringIO(), width=80)
    console.print(result(name))
    words = console.file.getvalue().split()
    for note in result(name)._table().notes[:20]:
        assert note.split()[0] in words


@pytest.mark.parametrize("name", MAKE)
def test_dictionaries_as_json_and_data_frames(name):
    rows = result(name).to_dicts()
    lines = [json.loads(line) for line in result(name).to_json_lines().splitlines()]
    assert len(lines) - len(rows) in (0, 1)  # a KLReport has a line for the whole
    if rows:
        assert list(lines[0]) == list(rows[0])
    for backend in ("pandas", "polars", "pyarrow"):
        pytest.importorskip(backend)
        frame = result(name).to_dataframe(backend)
        assert type(frame).__module__.partition(".")[0] == backend
        assert frame.shape[0] == len(rows)


@pytest.mark.parametrize("name", MAKE)
def test_a_pickle_is_the_same_result(name):
    again = pickle.loads(pickle.dumps(result(name)))
    assert type(again) is type(result(name))
    assert str(again) == str(result(name))


# --- what the tables say ------------------------------------------------------------------------


def test_sites_of_one_reason_have_one_note():
    report = result("KLReport")
    reasons = [row.reason for row in report if row.reason]
    assert len(reasons) > len(set(reasons))
    assert " ".join(str(report).split()).count("image of the auxiliary site") == 1


def test_columns_that_matter_are_explained():
    text = str(result("KLReport"))
    assert "weight: how much the objective grows with this KL: beta" in text
    assert "scale: of the site's plates and poutine.scale" in text
    html = result("KLReport")._repr_html_()
    assert '<th title="how much the objective grows' in html
    assert "weight:" not in str(result("SiteComparisons"))


def test_an_average_of_exact_kls_says_so():
    comparisons = result("SiteComparisons")
    assert comparisons["theta"].exact_error > 0
    lines = {line.split()[0]: line for line in str(comparisons).splitlines()}
    assert lines["theta"].endswith("closed form, averaged")
    assert lines["mu"].endswith("closed form")
    assert comparisons["theta"].method == "closed form"


def test_two_infinities_have_no_z():
    assert str(result("Comparison of infinities")).splitlines()[-1].split() == ["z", "-"]
    assert result("Comparison of infinities").to_json_lines().count("null") == 4


def test_a_long_batch_shows_its_first_elements():
    text = result("Estimate of a batch")._table().text()
    assert "... and 20 more: to_dicts() has all 60" in text
    rows = result("Estimate of two dimensions").to_dicts()
    assert [(row["index_0"], row["index_1"]) for row in rows] == [
        (i, j) for i in range(2) for j in range(3)
    ]


def test_a_data_frame_of_pandas_is_indexed_by_site():
    assert result("KLReport").to_dataframe().index.name == "site"
    assert isinstance(result("KLReport").to_dataframe(), pandas.DataFrame)
    assert result("KLReport").to_dataframe(pandas).index.name == "site"


def test_the_library_that_is_there_is_used(monkeypatch):
    pytest.importorskip("polars")
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert type(result("Posterior").to_dataframe()).__module__.startswith("polars")
    monkeypatch.setitem(sys.modules, "polars", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"a library of data frames: pip install 'pyro-kl\[rep"):
        result("Posterior").to_dataframe()
    with pytest.raises(ImportError, match="needs pandas: pip install"):
        result("Posterior").to_dataframe("pandas")


def test_a_run_is_shown_in_tenths():
    lines = str(result("SVIResult")).splitlines()
    assert lines[1].split()[:3] == ["1", "to", "6"]
    assert len(lines) == 1 + 10 + 1
    assert "ended by an interrupt" in str(result("SVIResult of tuples"))
