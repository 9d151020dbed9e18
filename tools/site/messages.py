"""The pages of errors and warnings, with what their Python blocks print and raise."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .pages import fence, table, toctree, write
from .run import empty_folder, printed

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write_messages(root: Path) -> None:
    """docs/reference/messages: the pages of pyro_kl/messages/pages, and an index."""
    sources = sorted((root / "pyro_kl/messages/pages").glob("*.md"))
    pages = {source.stem: _with_output(source) for source in sources}
    rows = [(f"[{kind}]({kind}.md)", text.partition("\n")[0][2:]) for kind, text in pages.items()]
    pages["index"] = "\n\n".join(
        [
            "# Errors and warnings",
            "A message ends in its kind: `(more: pyro-kl help KIND)`. The command prints the page "
            "of this list in the terminal.",
            table(("kind", "page"), rows),
            toctree(pages, hidden=True),
        ]
    )
    write(root / "docs/reference/messages", pages)


def _with_output(source: Path) -> str:
    """The page; its Python blocks share their names and are run in order."""
    names: dict[str, Any] = {}

    def with_output(block: re.Match[str]) -> str:
        text = printed(block[1], names, title=source.name)
        return block[0] + (f"\n\n{fence(text)}" if text else "")

    text = source.read_text()
    with empty_folder():
        return BLOCK.sub(with_output, text)
