"""The ranks of the simulations so far, in memory and in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..messages import see

Ranks = dict[str, list[int]]


class Kept:
    """Ranks by the number of their simulation.

    The file has a line of JSON for the settings, and one for each simulation.

    Args:
        path: of the file; None keeps the ranks in memory alone.
        settings: on which the ranks depend.

    Attributes:
        ranks: number of a simulation -> its ranks.

    Raises:
        ValueError: the file has other settings, or was not written by this.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.ranks: dict[int, Ranks] = {}
        self._path = path
        if path is None:
            return
        head, *lines = (path.read_text() if path.exists() else "").splitlines() or [""]
        rows = [row for line in lines if (row := _read(line)) is not None]
        if head and _read(head) != json.loads(json.dumps(settings)):
            raise ValueError(
                f"{path} is the file of another run: it begins with {head[:200]}, and not with "
                f"{json.dumps(settings)}. Give another path." + see("calibration")
            )
        self.ranks = {row["simulation"]: row["ranks"] for row in rows}
        # written anew: the last line is half a line if the run was stopped while it wrote
        part = path.with_name(path.name + ".part")
        part.write_text("".join(json.dumps(row) + "\n" for row in (settings, *rows)))
        part.replace(path)

    def add(self, number: int, ranks: Ranks) -> None:
        """Keep the ranks of a simulation."""
        self.ranks[number] = ranks
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps({"simulation": number, "ranks": ranks}) + "\n")


def _read(line: str) -> Any:
    """What a line says; None if it is not whole."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
