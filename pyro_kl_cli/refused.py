"""The error of a command that cannot do what it was asked for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Refused(Exception):
    """What was asked for cannot be done; the message says what is wrong and what to do."""


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """A question with up to three known words that are similar, or another sentence.

    Args:
        word: what was typed.
        known: the words that are possible.
        otherwise: the sentence where none is similar.
    """
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), folded, n=3)
    if not close:
        return otherwise
    return f"did you mean {' or '.join(folded[key] for key in close)}?"
