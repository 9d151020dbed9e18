"""The link at the end of an error or a warning, to the page about its kind."""

from __future__ import annotations

import re
from pathlib import Path

#: One page for each kind of cause: KIND.md, which `pyro-kl help KIND` prints.
PAGES = Path(__file__).parent / "pages"

_LINK = re.compile(r" \(more: pyro-kl help [a-z0-9-]+\)")


def see(kind: str) -> str:
    """The end of a message of this kind: a command that prints the page about it."""
    return f" (more: pyro-kl help {kind})"


def without_link(message: object) -> str:
    """The text of a message or an error that is quoted in another one."""
    return _LINK.sub("", str(message))
