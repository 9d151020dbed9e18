"""The tutorials as notebooks: with their outputs, beside the pages, which offer them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbclient.client
import nbformat
from pybtex.database import Entry, parse_file
from traitlets import Bool

TITLE = re.compile(r"^# .*$", re.MULTILINE)
OFFER = re.compile(r"```\{raw\} html\n.*?\n```\n\n", re.DOTALL)
CITATION = re.compile(r"\{cite:([tp])\}`([^`]+)`")
PAGE = re.compile(r"\[([^\]]+)\]\(([^)]+)\.md\)")


class _WholeStreams(nbclient.client.NotebookClient):
    """Joins the pieces of a cell's printed output.

    The kernel sends a piece every 0.2 seconds. MyST-NB's own option `nb_merge_streams` writes a
    line break between two pieces, also in the middle of a line.
    """

    coalesce_streams = Bool(True)


def join_streams() -> None:
    """Let the pages be executed by a client that joins the pieces of printed output."""
    nbclient.client.NotebookClient = _WholeStreams  # type: ignore[misc]


def offer_notebook(app: Any, docname: str, source: list[str]) -> None:
    """Put a link to the notebook below the title of a tutorial, before Sphinx parses the page."""
    folder, _, name = docname.rpartition("/")
    if folder == "tutorials" and name != "index":
        link = f'<p><a href="{name}.ipynb" download>Download this page as a notebook</a></p>'
        block = f"```{{raw}} html\n{link}\n```"
        source[0] = TITLE.sub(lambda title: f"{title[0]}\n\n{block}", source[0], count=1)


def copy_notebooks(app: Any) -> None:
    """Write the notebooks that were executed for the pages beside the pages, without MyST.

    Raises:
        FileNotFoundError: a tutorial has none.
        KeyError: a tutorial cites a work that is not in the bibliography.
    """
    executed = Path(app.outdir).parent / "jupyter_execute"
    works = parse_file(str(Path(app.srcdir, "references.bib"))).entries
    for name in app.env.found_docs:
        if name.startswith("tutorials/") and not name.endswith("/index"):
            notebook = nbformat.read(executed / f"{name}.ipynb", as_version=4)
            for cell in notebook.cells:
                if cell.cell_type == "markdown":
                    cell.source = plain_markdown(cell.source, works)
            nbformat.write(notebook, Path(app.outdir, f"{name}.ipynb"))


def plain_markdown(text: str, works: dict[str, Entry]) -> str:
    """The text of a page as Jupyter shows it: no directive, no role, no link to a page.

    Args:
        text: Markdown with MyST's citations and with links between pages.
        works: the bibliography.

    Returns:
        Citations as names and years; links to other tutorials as links to their notebooks, and
        those to other pages as text.
    """
    text = OFFER.sub("", text)
    text = CITATION.sub(lambda role: cited(works[role[2]], role[1]), text)
    return PAGE.sub(
        lambda link: link[1] if "/" in link[2] else f"[{link[1]}]({link[2]}.ipynb)", text
    )


def cited(work: Entry, role: str) -> str:
    """Names and year of a work: "Kullback and Leibler (1951)"; role "p" puts all in brackets."""
    first, *others = [" ".join(person.last_names) for person in work.persons["author"]]
    names = first if not others else f"{first} and {others[0]}"
    if len(others) > 1:
        names = f"{first} and others"
    year = work.fields["year"]
    return f"{names} ({year})" if role == "t" else f"({names} {year})"
