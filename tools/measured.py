"""The measured errors of pairs, which `python -m tools.accuracy --write` stores."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TypedDict

#: The largest relative error of each pair.
ACCURACY = Path(__file__).with_name("accuracy.json")


class Measured(TypedDict):
    """The largest relative error of a pair, rounded up, and over how many values."""

    error: float
    values: int
    reference: str


@cache
def measured() -> dict[str, Measured]:
    """The measured errors, by the pairs' names."""
    table: dict[str, Measured] = json.loads(ACCURACY.read_text())
    return table
