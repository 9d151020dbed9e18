"""Rows of data, in chunks: the unit of work, of summation and of restart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

#: A chunk's features have about this many bytes: a copy of them stays in the processor's cache.
CHUNK_BYTES = 1 << 22
#: A chunk has at least this many rows: of fewer, the calls cost more than their arithmetic.
LEAST_ROWS = 2048


@dataclass(frozen=True)
class Chunk:
    """Some rows, at least one, in memory.

    Attributes:
        features: shape ``(n, D)``, without a column for the bias; a dense tensor with any strides,
            or a sparse matrix of scipy in rows (CSR).
        target: shape ``(n,)``, in the likelihood's terms: 0 or 1, or counts.
        weight: shape ``(n,)``, at least 0; None where every row counts once.
    """

    features: Any
    target: Tensor
    weight: Tensor | None = None


def never_empty(chunk: Chunk) -> Chunk:
    """Return a chunk, with one row of weight 0 in the place of none."""
    if len(chunk.target):
        return chunk
    row = chunk.features.new_zeros(1, chunk.features.shape[1])
    return Chunk(row, row.new_zeros(1), row.new_zeros(1))


class Rows(Protocol):
    """Where rows come from; chunks are read in any order, and always hold the same rows."""

    names: tuple[str, ...]
    dtype: torch.dtype

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        ...

    @property
    def num_chunks(self) -> int:
        """The number of chunks."""
        ...

    def chunk(self, index: int) -> Chunk:
        """Return one chunk."""
        ...

    @property
    def is_in_memory(self) -> bool:
        """Whether reading a chunk costs nothing."""
        ...

    @property
    def is_sparse(self) -> bool:
        """Whether features are a sparse matrix."""
        ...

    def sample(self, num_rows: int) -> Rows:
        """Return about that many rows, spread over the whole, in memory.

        Their weights are scaled, so that sums over the sample estimate sums over all rows.
        """
        ...


class RowsOf:
    """The rows of another source; a subclass adds to what is done when a chunk is read.

    Args:
        rows: where the chunks come from.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.names, self.dtype = rows.names, rows.dtype

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        return self._rows.num_rows

    @property
    def num_chunks(self) -> int:
        """The number of chunks."""
        return self._rows.num_chunks

    @property
    def is_in_memory(self) -> bool:
        """Whether reading a chunk costs nothing."""
        return self._rows.is_in_memory

    @property
    def is_sparse(self) -> bool:
        """Whether features are a sparse matrix."""
        return self._rows.is_sparse

    def chunk(self, index: int) -> Chunk:
        """Return one chunk."""
        return self._rows.chunk(index)

    def sample(self, num_rows: int) -> Rows:
        """Return about that many rows, spread over the whole, in memory."""
        return self._rows.sample(num_rows)


def chunk_length(num_features: int, dtype: torch.dtype) -> int:
    """Return the number of rows of a chunk in memory."""
    fitting = CHUNK_BYTES // (max(num_features, 1) * dtype.itemsize)
    return max(LEAST_ROWS, 1 << (fitting.bit_length() - 1) if fitting else 0)


class ArrayRows:
    """Rows of arrays in memory; nothing is copied.

    Args:
        features: shape ``(N, D)``, a dense tensor or a sparse matrix of scipy in rows (CSR).
        target: shape ``(N,)``, of any dtype; a chunk has it in that of the features.
        weight: shape ``(N,)`` or None.
        names: of the features.
    """

    def __init__(
        self,
        features: Any,
        target: Tensor,
        weight: Tensor | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.features, self.target, self.weight = features, target, weight
        num_features = features.shape[1]
        self.names = tuple(names) if names else tuple(f"x{j}" for j in range(num_features))
        is_single = str(features.dtype).endswith("float32")
        self.dtype = torch.float32 if is_single else torch.float64
        self._length = chunk_length(num_features, self.dtype)

    is_in_memory = True

    @property
    def is_sparse(self) -> bool:
        """Whether features are a sparse matrix."""
        return not isinstance(self.features, Tensor)

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        return int(self.features.shape[0])

    @property
    def num_chunks(self) -> int:
        """The number of chunks."""
        return -(-self.num_rows // self._length)

    def chunk(self, index: int) -> Chunk:
        """Return one chunk: views of the arrays."""
        part = slice(index * self._length, (index + 1) * self._length)
        weight = None if self.weight is None else self.weight[part]
        return Chunk(self.features[part], self.target[part].to(self.dtype), weight)

    def sample(self, num_rows: int) -> ArrayRows:
        """Return one row of each stratum of equal length."""
        share = num_rows / self.num_rows
        generator = torch.Generator().manual_seed(0)
        within = torch.rand(num_rows, generator=generator, dtype=torch.float64)
        index = ((torch.arange(num_rows) + within) / share).long().clamp(max=self.num_rows - 1)
        weight = torch.full((num_rows,), 1.0 / share, dtype=self.dtype)
        if self.weight is not None:
            weight *= self.weight[index]
        picked = index if isinstance(self.features, Tensor) else index.numpy()
        return ArrayRows(self.features[picked], self.target[index], weight, self.names)


def in_memory(rows: Rows) -> ArrayRows:
    """Return all rows as one array."""
    return joined([rows.chunk(index) for index in range(rows.num_chunks)], rows.names)


def joined(chunks: Sequence[Chunk], names: Sequence[str]) -> ArrayRows:
    """Return chunks as one array."""
    features: Tensor = torch.cat([chunk.features for chunk in chunks]).contiguous()
    target = torch.cat([chunk.target for chunk in chunks])
    weight = None
    if any(chunk.weight is not None for chunk in chunks):
        weights = [torch.ones_like(c.target) if c.weight is None else c.weight for c in chunks]
        weight = torch.cat(weights)
    return ArrayRows(features, target, weight, names)
