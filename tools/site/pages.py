"""Writing generated pages, and the Markdown that they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def write(folder: Path, pages: Mapping[str, str]) -> None:
    """Make a folder hold these pages and no other Markdown; an unchanged page keeps its time.

    Sphinx reads a page again only where its time has changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.md"):
        if old.stem not in pages:
            old.unlink()
    for name, text in pages.items():
        write_page(folder / f"{name}.md", text)


def write_page(path: Path, text: str) -> None:
    """Write a page, unless it has this text already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def toctree(entries: Iterable[str], *, hidden: bool = False, caption: str = "") -> str:
    """A table of contents of pages."""
    options = [":maxdepth: 1", *([":hidden:"] if hidden else [])]
    options += [f":caption: {caption}"] if caption else []
    return "\n".join(["```{toctree}", *options, "", *entries, "```"])


def fence(text: str, language: str = "text") -> str:
    """A block of code or of output."""
    return f"```{language}\n{text.rstrip()}\n```"
