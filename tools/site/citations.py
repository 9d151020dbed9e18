"""Works that the declarations cite, as citations of docs/references.bib."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

BIB = Path(__file__).parents[2] / "docs/references.bib"
#: Surnames and a year: "Cover & Thomas (2006)", "Takahasi & Mori 1974".
_NAME = r"(?:(?:van|der|de) )*[A-Z][\w-]+"
WORK = re.compile(rf"({_NAME})((?:, {_NAME})*(?: & {_NAME})?)(?: \((\d{{4}})\)| (\d{{4}})(?=\b))")


@cache
def keys() -> frozenset[str]:
    """The keys of the bibliography."""
    return frozenset(re.findall(r"^@\w+\{(\w+),", BIB.read_text(), re.MULTILINE))


def works(text: str) -> list[tuple[str, str]]:
    """The works that a text cites: what it says, and the key that the work has or should have."""
    return [(found[0], _key(found)) for found in WORK.finditer(text)]


def cited(text: str) -> str:
    """The text, with citations in place of the works that the bibliography has."""

    def citation(found: re.Match[str]) -> str:
        return f"{{cite:t}}`{_key(found)}`" if _key(found) in keys() else found[0]

    return WORK.sub(citation, text)


def _key(found: re.Match[str]) -> str:
    return found[1].replace("-", "").lower() + (found[3] or found[4])
