"""The tutorials as notebooks: with their outputs, beside the pages, which offer them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

TITLE = re.compile(r"^# .*$", re.MULTILINE)


def offer_notebook(app: Any, docname: str, source: list[str]) -> None:
    """Put a link to the notebook below the title of a tutorial, before Sphinx parses the page."""
    folder, _, name = docname.rpartition("/")
    if folder == "tutorials" and name != "index":
        link = f'<p><a href="{name}.ipynb" download>Download this page as a notebook</a></p>'
        block = f"```{{raw}} html\n{link}\n```"
        source[0] = TITLE.sub(lambda title: f"{title[0]}\n\n{block}", source[0], count=1)


def copy_notebooks(app: Any) -> None:
    """Copy the notebooks that were executed for the pages beside the pages.

    Raises:
        FileNotFoundError: a tutorial has none.
    """
    executed = Path(app.outdir).parent / "jupyter_execute"
    for name in app.env.found_docs:
        if name.startswith("tutorials/") and not name.endswith("/index"):
            shutil.copy(executed / f"{name}.ipynb", Path(app.outdir, f"{name}.ipynb"))
