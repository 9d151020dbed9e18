"""llms.txt: the pages of the site with their first sentences, for programs that read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes


def write_llms_txt(app: Any) -> None:
    """llms.txt beside index.html, in the order of the table of contents."""
    lines = [f"# {app.config.project}", ""]
    order = ["index", *_below(app.env.toctree_includes, "index")]
    for name in dict.fromkeys(order):
        title = app.env.titles[name].astext()
        found = app.env.get_doctree(name).next_node(nodes.paragraph)
        summary = " ".join(found.astext().split()) if found else ""
        lines.append(f"- [{title}]({name}.html): {summary[:200]}")
    Path(app.outdir, "llms.txt").write_text("\n".join(lines) + "\n")


def _below(includes: dict[str, list[str]], name: str) -> list[str]:
    found = []
    for child in includes.get(name, []):
        found += [child, *_below(includes, child)]
    return found
