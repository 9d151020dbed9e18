"""The elements of a batch, one row each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from .table import Table, shown_rows


def batch_dicts(shape: Sequence[int], columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One dictionary for each element: its index along each dimension, and its numbers.

    Args:
        shape: of the batch.
        columns: tensors that broadcast to it, or a value that all elements share.
    """
    indices = [*itertools.product(*map(range, shape))]
    lists = {
        name: x.detach().expand(tuple(shape)).reshape(-1).tolist()
        if hasattr(x, "expand")
        else [x] * len(indices)
        for name, x in columns.items()
    }
    return [
        {f"index_{d}": i for d, i in enumerate(index)}
        | {name: values[k] for name, values in lists.items()}
        for k, index in enumerate(indices)
    ]


def batch_table(
    rows: Sequence[Mapping[str, Any]],
    shape: Sequence[int],
    columns: Mapping[str, tuple[str, str]],
    notes: Sequence[str],
) -> Table:
    """The table of a batch; of a long one its first elements.

    Args:
        rows: by `batch_dicts`.
        shape: of the batch.
        columns: key of a number -> the name of its column, and how it is formatted.
        notes: for the table.
    """
    index = [f"index_{d}" for d in range(len(shape))]
    shown, more = shown_rows(len(rows))
    cells = [
        [str(rows[k][name]) for name in index]
        + [format(rows[k][name], form) for name, (_, form) in columns.items()]
        for k in shown
    ]
    header = [*index, *(title for title, _ in columns.values())]
    return Table(header, cells, "r" * len(header), [*more, *notes])
