"""The site's generated pages are complete, and no code on a page goes unrun."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pyro_kl
from pyro_kl.likelihoods import LIKELIHOODS
from pyro_kl.registry.register import families
from tools.site.api import public_objects
from tools.site.citations import keys, works
from tools.site.shell import run_shell_blocks

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(
    page for part in ("tutorials", "how_to", "explanations") for page in (DOCS / part).glob("*.md")
)


def test_each_public_object_has_a_page():
    pages = {name for name, _ in public_objects()}
    modules = {"arviz", "glm", "loggers", "plot", "policy"}
    assert {f"pyro_kl.{name}" for name in set(pyro_kl.__all__) - modules} <= pages


def test_each_work_that_a_declaration_cites_is_in_the_bibliography():
    texts = {pair.reference for pair in pyro_kl.registered()}
    texts |= {each.reference for each in (*families(), *LIKELIHOODS)}
    cited = {key for text in texts for _, key in works(text)}
    assert len(cited) > 30
    assert cited <= keys()


def test_works_with_one_two_and_three_authors_are_found():
    found = works(
        "Jones (2009), sec. 2; Takahasi & Mori 1974; Johnson, Kotz & Balakrishnan (1994)"
    )
    assert [key for _, key in found] == ["jones2009", "takahasi1974", "johnson1994"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_each_block_of_python_is_run(page):
    """It is a cell; only what one process cannot run stands in a `{code-block}`."""
    assert not re.findall(r"^```python", page.read_text(), re.MULTILINE)


def test_a_shell_block_is_followed_by_what_it_prints():
    source = [
        "Text.\n\n```shell\npyro-kl explain Gamma HalfCauchy\n```\n\n```shell\nmake site\n```\n"
    ]
    run_shell_blocks(None, "page", source)
    assert "method     quadrature" in source[0]
    assert source[0].endswith("```shell\nmake site\n```\n")


def test_a_notebook_has_no_role_and_no_link_to_a_page():
    pytest.importorskip("nbclient")
    pybtex = pytest.importorskip("pybtex.database")
    from tools.site.notebooks import plain_markdown

    works = pybtex.parse_file(str(DOCS / "references.bib")).entries
    text = (
        "# Title\n\n```{raw} html\n<p>link</p>\n```\n\n"
        "{cite:t}`kullback1951` and {cite:p}`kingma2016`: "
        "[a](vae.md), [b](../how_to/x.md), [c](../how_to/y.md)."
    )
    plain = (
        "# Title\n\nKullback and Leibler (1951) and (Kingma and others 2016): "
        "[a](vae.ipynb), b, c."
    )
    assert plain_markdown(text, works) == plain
