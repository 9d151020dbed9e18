"""How a command ends that cannot do what it was asked for, or whose answer is no."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Refused(Exception):
    """What was asked for cannot be done; the message says what is wrong and what to do."""


class Failed(Exception):
    """The command ran, and its answer is no; the message is the last line of the answer."""


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
