"""Text in columns: what is wrapped, and in which order."""

import pytest

from pyro_kl.results.text import columns, fill, places, text_lines

ROWS = [
    ("name", "a long number", "text"),
    ("one", "1.2345678", "some words that can be wrapped"),
    ("a name", "-2.5", "short"),
]


@pytest.mark.parametrize("width", range(3, 61))
def test_any_width_holds_what_there_is(width):
    lines = text_lines(ROWS, width, "lrl")
    least = 3 + 2 * 2  # a character for each column and the gaps
    assert max(map(len, lines)) <= max(width, least)
    shown = "".join("".join(lines).split())
    assert sorted(shown) == sorted("".join("".join("".join(row) for row in ROWS).split()))


def test_numbers_stay_whole_longer_than_words():
    lines = text_lines(ROWS, 32, "lrl")
    assert lines[0].split() == ["name", "a", "long", "text"]
    assert lines[1].split() == ["number"]
    assert "1.2345678" in lines[2]
    assert "1.2345678" in "".join(text_lines(ROWS, 22, "lrl"))


def test_without_a_limit_each_row_is_a_line():
    assert columns(ROWS).splitlines()[1] == "one     1.2345678      some words that can be wrapped"
    assert fill("x " * 100, None) == "x " * 100


def test_a_chinese_character_takes_two_places():
    rows = [("site", "nats"), ("正規分布" * 12, "1.5"), ("z", "12.25")]
    lines = text_lines(rows, 40, "lr")
    assert max(map(places, lines)) == 40
    assert [places(line) for line in lines[:1] + lines[-1:]] == [40, 40]  # the numbers are aligned
    assert "".join("".join(lines).split()).count("正") == 12
    assert max(map(places, fill("正規分布" * 30, 40).splitlines())) <= 40
    assert places("e\u0301") == 1


def test_a_name_stays_on_its_line_and_controls_no_terminal():
    lines = text_lines([("site", "nats"), ("a\nb\x1b[31m\r", "1.5")], 40, "lr")
    assert lines[1] == r"a b\x1b[31m\r   1.5"
    assert fill("a\nb\x07") == r"a b\x07"
