"""`pyro-kl help KIND`: the page of an error or a warning, as the site has it."""

from __future__ import annotations

import argparse
from pathlib import Path

from .package import folder
from .refused import Refused, did_you_mean
from .tables import table


def run(arguments: argparse.Namespace) -> str:
    """One page; without a kind the list of all."""
    pages = {path.stem: path for path in sorted(_folder().glob("*.md"))}
    if arguments.kind is None:
        return table(("kind", "page"), [(kind, _title(page)) for kind, page in pages.items()])
    kind = arguments.kind.lower()
    if kind not in pages:
        hint = did_you_mean(kind, pages, "`pyro-kl help` lists them.")
        raise Refused(f"there is no page {arguments.kind!r}; {hint}")
    return pages[kind].read_text(encoding="utf-8").rstrip()


def _folder() -> Path:
    return folder() / "messages" / "pages"


def _title(page: Path) -> str:
    with page.open(encoding="utf-8") as lines:
        return next((line.lstrip("# ").rstrip() for line in lines if line.startswith("# ")), "")
