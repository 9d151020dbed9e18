"""Tables for binary classification: loading, checking, splitting, standardising."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_kl.glm.passes.rows import in_memory
from pyro_kl.glm.tables import TableError, read_table


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
        notes: What was done to the columns of a file, a line each.
    """

    features: Tensor
    labels: Tensor
    names: tuple[str, ...]
    target: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def rows(self, index: Tensor) -> Dataset:
        """Return the dataset made of the rows at ``index``."""
        return replace(self, features=self.features[index], labels=self.labels[index])


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
    """Read a CSV or Parquet file: a binary target, the other columns encoded as numbers.

    Args:
        path: The file.
        target: Name of the target column.

    Returns:
        The table, features not standardised.

    Raises:
        DataError: The file cannot be read or used; one line that says why.
    """
    try:
        rows = read_table(path, target, dtype=torch.float64)
        table = in_memory(rows)
    except TableError as error:
        raise DataError(error.args[0]) from None
    return Dataset(table.features, table.target, rows.names, rows.target.label, rows.report)


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
    return tuple(replace(data, features=(data.features - mean) / sd) for data in (train, *others))
