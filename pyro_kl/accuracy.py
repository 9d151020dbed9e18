"""How exact each pair is, as measured against reference values that no formula of ours has seen.

`accuracy.json` is written by `python -m benchmarks.accuracy --write`; a test measures again.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TypedDict

from .pair import Pair

__all__ = ["error_of", "measured"]


class Measured(TypedDict):
    """The largest relative error of a pair, rounded up, and over how many values."""

    error: float
    values: int
    reference: str


@cache
def measured() -> dict[str, Measured]:
    """The measured errors, by the pairs' names."""
    table: dict[str, Measured] = json.loads(
        files(__package__).joinpath("accuracy.json").read_text()
    )
    return table


def error_of(pair: Pair) -> str:
    """In words: the largest relative error and what it was measured against."""
    found = measured().get(pair.name)
    if pair.method == "infinite":
        return "none: decided from the supports and moments"
    if found is None:
        return "not measured here; the worked cases of the pair hold to 1e-12"
    over = f"{found['values']} values ({found['reference']})"
    return f"at most {found['error']:.0e} relative, over {over}"
