"""Tables for binary classification: loading, checking, splitting, standardising."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class DataError(ValueError):
    """The data cannot be used; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Dataset:
    """A binary classification table.

    Attributes:
        features: Shape ``(N, D)``, float64.
        labels: Shape ``(N,)``, float64, each 0 or 1.
        names: The ``D`` feature names.
        target: What label 1 means, for reports.
    """

    features: Tensor
    labels: Tensor
    names: tuple[str, ...]
    target: str

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def rows(self, index: Tensor) -> Dataset:
        """Return the dataset made of the rows at ``index``."""
        return Dataset(self.features[index], self.labels[index], self.names, self.target)


def load_breast_cancer() -> Dataset:
    """Return the breast cancer data bundled with scikit-learn: 569 rows, 30 features.

    Label 1 is a benign tumour. The features are as measured, not standardised.

    Source: Street, Wolberg and Mangasarian (1993), Nuclear feature extraction for breast
    tumor diagnosis.
    """
    from sklearn.datasets import load_breast_cancer as sklearn_breast_cancer

    data = sklearn_breast_cancer()
    return Dataset(
        torch.as_tensor(np.asarray(data.data, dtype=np.float64)),
        torch.as_tensor(np.asarray(data.target, dtype=np.float64)),
        tuple(str(name) for name in data.feature_names),
        "benign",
    )


def load_csv(path: str | Path, target: str) -> Dataset:
    """Read a CSV file with a header line: one binary target column, the others numeric.

    The target may hold any two distinct values; the second in order becomes label 1.

    Args:
        path: The file, UTF-8.
        target: Name of the target column.

    Returns:
        The table, features not standardised.

    Raises:
        DataError: The file cannot be read or used; one line that says why.
    """
    header, rows = _read_csv(Path(path))
    if target not in header:
        known = ", ".join(header[:8]) + (", ..." if len(header) > 8 else "")
        raise DataError(f"{path}: no column {target!r}; the columns are {known}")
    column = header.index(target)
    names = tuple(name for name in header if name != target)
    if not names:
        raise DataError(f"{path}: no feature columns besides the target {target!r}")
    labels, positive = _parse_labels(path, target, [row[column] for row in rows])
    features = [
        [_parse_number(path, line, header[j], cell) for j, cell in enumerate(row) if j != column]
        for line, row in enumerate(rows, start=2)
    ]
    return Dataset(
        torch.tensor(features, dtype=torch.float64),
        torch.tensor(labels, dtype=torch.float64),
        names,
        f"{target} = {positive}",
    )


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a CSV file, every row as long as the header."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a UTF-8 CSV file ({error})") from None
    if not table:
        raise DataError(f"{path}: the file is empty; it needs a header line and rows")
    header, rows = table[0], table[1:]
    if not rows:
        raise DataError(f"{path}: a header line but no rows")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: column {repeated[0]!r} appears more than once; rename one")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DataError(
                f"{path}: row {line} has {len(row)} cells where the header has {len(header)}"
            )
    return header, rows


_MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}


def _parse_number(path: str | Path, line: int, name: str, cell: str) -> float:
    """Return the cell as a finite float."""
    where = f"{path}: row {line}, column {name!r}"
    if cell.lower() in _MISSING:
        raise DataError(f"{where}: missing value; fill it in or drop the row")
    try:
        number = float(cell)
    except ValueError:
        raise DataError(f"{where}: {cell!r} is not a number; encode it or drop it") from None
    if not math.isfinite(number):
        raise DataError(f"{where}: {cell!r} is not finite")
    return number


def _parse_labels(path: str | Path, target: str, cells: Sequence[str]) -> tuple[list[float], str]:
    """Return the labels as 0.0 and 1.0 and the cell that became 1."""
    for line, cell in enumerate(cells, start=2):
        if cell.lower() in _MISSING:
            raise DataError(f"{path}: row {line}: the target {target!r} is missing")
    values = _distinct(cells)
    if len(values) == 1:
        raise DataError(
            f"{path}: the target {target!r} has one class only ({values[0]!r}); two are needed"
        )
    if len(values) > 2:
        raise DataError(
            f"{path}: the target {target!r} is not binary: it has {len(values)} distinct values"
        )
    return [float(cell == values[1]) for cell in cells], values[1]


def _distinct(cells: Sequence[str]) -> list[str]:
    """Return the distinct cells in order, of numbers if all of them are: 9 before 10."""
    values = set(cells)
    try:
        return sorted(values, key=float)
    except ValueError:
        return sorted(values)


def split(dataset: Dataset, held_out: float = 0.25, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Split the rows at random into training and held-out rows, each class in proportion.

    Args:
        dataset: The table to split.
        held_out: Fraction of the rows to hold out, in (0, 1).
        seed: Seed of the split; the global random state is left alone.

    Returns:
        The training rows and the held-out rows, both with both classes.
    """
    if not 0.0 < held_out < 1.0:
        raise ValueError(f"held_out must lie strictly between 0 and 1, got {held_out}")
    generator = torch.Generator().manual_seed(seed)
    train, test = [], []
    for label in (0.0, 1.0):
        index = (dataset.labels == label).nonzero().squeeze(-1)
        if len(index) < 2:
            raise DataError(
                f"only {len(index)} rows have label {label:.0f}; two are needed, "
                "one to train on and one to hold out"
            )
        index = index[torch.randperm(len(index), generator=generator)]
        count = min(max(round(held_out * len(index)), 1), len(index) - 1)
        test.append(index[:count])
        train.append(index[count:])
    return dataset.rows(torch.cat(train)), dataset.rows(torch.cat(test))


def standardise(train: Dataset, *others: Dataset) -> tuple[Dataset, ...]:
    """Give every feature mean 0 and standard deviation 1 on the training rows.

    The other datasets are shifted and scaled by the same, training, statistics. A feature that
    is constant on the training rows is only shifted: its coefficient keeps its prior.
    """
    mean = train.features.mean(0)
    sd = train.features.std(0, correction=0)
    sd = torch.where(sd > 1e-12 * (1.0 + mean.abs()), sd, torch.ones_like(sd))
    return tuple(
        Dataset((data.features - mean) / sd, data.labels, data.names, data.target)
        for data in (train, *others)
    )
