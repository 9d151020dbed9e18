"""Each page of a message says what is printed, fits a terminal and names what there is."""

from __future__ import annotations

import re
import sys
import warnings
from operator import attrgetter

import pytest

import pyro_kl
from pyro_kl.messages import PAGES, see

KINDS = sorted(page.stem for page in PAGES.glob("*.md"))


def fences(kind, language):
    """The blocks of a page in one language."""
    text = (PAGES / f"{kind}.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def provoked(code, names):
    """The error or the warnings of a page's first block, as Python prints them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            exec(compile(code, "page.py", "exec"), names)
        except Exception as error:
            return [f"{type(error).__name__}: {error.args[0]}"]
    return [f"{warning.category.__name__}: {warning.message}" for warning in caught]


def in_general(message):
    """A message without its line breaks and numbers, which may differ with the machine."""
    return " ".join(re.sub(r"\d[\d.,e+-]*", "#", message).split())


@pytest.fixture
def no_figure_left():
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("nothing_warned", "registries_as_they_were", "no_figure_left")
def test_the_code_of_a_page_provokes_its_message(kind, tmp_path, monkeypatch):
    """The message on the page is the one that is printed, and ends in the page's own link."""
    monkeypatch.chdir(tmp_path)
    first, *rest = fences(kind, "python")
    names = {"__name__": "page"}
    (printed,) = fences(kind, "text")
    assert in_general(printed) in map(in_general, provoked(first, names))
    assert " ".join(printed.split()).endswith(see(kind))
    for code in rest:  # what mends it says nothing: warnings are errors here
        exec(compile(code, "page.py", "exec"), names)


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_fits_a_terminal(kind):
    lines = (PAGES / f"{kind}.md").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert max(map(len, lines)) < 80
    for heading in ("## What it means", "## What to do", "## Example"):
        assert heading in lines


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_page_names_is_public(kind):
    for name in re.findall(r"\bpyro_kl((?:\.\w+)+)", (PAGES / f"{kind}.md").read_text()):
        assert attrgetter(name[1:])(pyro_kl) is not None
