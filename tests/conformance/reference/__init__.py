"""Reference values: KL divergences at 50 digits, from the densities and from nothing else.

`python -m tests.conformance.reference` writes `values.json`; `load` reads it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("values.json")


def load() -> dict[str, list[dict[str, Any]]]:
    """By the name of the pair: rows of parameters `p`, `q` and `kl`, digits or "inf"."""
    return json.loads(PATH.read_text())
