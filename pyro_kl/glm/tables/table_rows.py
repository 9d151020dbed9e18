"""Rows of a table on disk or in memory: chunks as tensors, read ahead by a thread."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from ...messages import see
from ..passes.rows import ArrayRows, Chunk, never_empty
from .batches import ROWS, Batches
from .columns import Encoder, scales_of
from .errors import TableError
from .target import Count, Target
from .words import numbers

#: Chunks that a sample takes rows from, at least.
SAMPLED_CHUNKS = 16


class TableRows:
    """Rows of a table; one chunk is in memory, and the next one while it is read ahead.

    Attributes:
        names: of the features; fixed when the table is opened.
        dtype: of the features.
        target: the column of the target, and what its numbers mean.
        shift: what was subtracted from each feature, shape ``(D,)``.
        scale: what each feature was divided by then, shape ``(D,)``.
    """

    def __init__(
        self,
        batches: Batches,
        encoders: Sequence[Encoder],
        target: Target | Count,
        weight: str | None,
        missing: Sequence[str],
        dtype: torch.dtype,
        report: Sequence[str],
    ) -> None:
        self._batches, self._encoders, self._weight = batches, tuple(encoders), weight
        self._missing = tuple(missing)
        self.target, self.dtype, self._told = target, dtype, tuple(report)
        self.names: tuple[str, ...] = tuple(name for one in encoders for name in one.names)
        self.shift, self.scale = map(torch.from_numpy, scales_of(encoders))
        self._columns = [encoder.column for encoder in encoders] + [target.name]
        self._columns += [weight] if weight else []
        self._left_out: dict[int, int] = {}
        self._reader = ThreadPoolExecutor(1, "pyro_kl table")
        self._lock = threading.Lock()
        self._current: Future[Chunk] = Future()
        self._pending: dict[int, Future[Chunk]] = {}
        self._last = -2

    is_in_memory = False
    is_sparse = False

    @property
    def source(self) -> str:
        """What messages call the table."""
        return self._batches.source

    @property
    def num_chunks(self) -> int:
        """The number of chunks."""
        return len(self._batches.sizes)

    @property
    def num_rows(self) -> int:
        """The number of rows, with those that are left out."""
        return sum(size or 0 for size in self._batches.sizes)

    @property
    def num_left_out(self) -> int | None:
        """How many rows are left out for a missing value; None before all chunks were read."""
        if len(self._left_out) < self.num_chunks:
            return None
        return sum(self._left_out.values())

    @property
    def report(self) -> tuple[str, ...]:
        """A line on each thing that was done to the columns, and on rows that were left out."""
        if not self.num_left_out:
            return self._told
        line = f"{self.num_left_out:,} of {self.num_rows:,} rows are left out"
        if 2 * self.num_left_out > self.num_rows:
            line += "; impute fills gaps in, drop leaves out a column"
        return (*self._told, line)

    def chunk(self, index: int) -> Chunk:
        """Return one chunk; where chunks are asked for in order, the next one is read meanwhile.

        Raises:
            TableError: a value is infinite, a level or a value of the target is unknown.
        """
        if not 0 <= index < self.num_chunks:
            raise IndexError(f"there is no chunk {index} of {self.num_chunks}")
        with self._lock:
            is_next = index in (0, self._last + 1)
            if index != self._last:
                ahead, self._pending = self._pending, {}
                self._current = ahead.get(index) or self._submit(index)
                self._last = index
            current, following = self._current, index + 1
            if is_next and following < self.num_chunks and following not in self._pending:
                self._pending[following] = self._submit(following)
        return current.result()

    def _submit(self, index: int) -> Future[Chunk]:
        return self._reader.submit(self._read, index)

    def sample(self, num_rows: int) -> ArrayRows:
        """Return about that many rows, from chunks that are spread over the table."""
        indices = self._batches.spread(max(SAMPLED_CHUNKS, 2 * num_rows // ROWS))
        each = -(-num_rows // len(indices))
        features = torch.empty(each * len(indices), len(self.names), dtype=self.dtype)
        target, weight = torch.empty(2, len(features), dtype=self.dtype)
        stop = 0
        for index in indices:
            chunk = self._submit(index).result()
            count = len(chunk.target)
            taken = min(each, count)
            picked = torch.arange(taken) * count // taken
            start, stop = stop, stop + taken
            features[start:stop] = chunk.features[picked]
            target[start:stop] = chunk.target[picked]
            weight[start:stop] = 1.0 if chunk.weight is None else chunk.weight[picked]
        weight *= self.num_rows / stop
        return ArrayRows(features[:stop], target[:stop], weight[:stop], self.names)

    def _read(self, index: int) -> Chunk:
        batch = self._batches.read(index, self._columns)
        num_rows = batch.num_rows
        block = np.empty((len(self.names), num_rows), str(self.dtype).removeprefix("torch."))
        start = 0
        for encoder in self._encoders:
            stop = start + len(encoder.names)
            encoder.write(batch.column(encoder.column), block[start:stop], self._missing)
            start = stop
        target = self.target.encode(batch.column(self.target.name), self._missing)
        columns = [block, target[None]]
        if self._weight:
            weights = numbers(batch.column(self._weight), self._missing)
            columns.append(weights.astype(np.float64)[None])
        keep = self._complete(index, columns)
        self._left_out[index] = 0 if keep is None else num_rows - int(keep.sum())
        if self.num_left_out == self.num_rows:
            raise TableError(
                f"{self.source}: every row has a missing value; fill values in (impute), or drop "
                "the columns that lack most" + see("table-values")
            )
        if keep is not None:
            columns = [part[:, keep] for part in columns]
        features, *others = [torch.from_numpy(np.ascontiguousarray(part)) for part in columns]
        vectors = [part[0].to(self.dtype) for part in others]
        return never_empty(Chunk(features.T, vectors[0], vectors[1] if self._weight else None))

    def _complete(self, index: int, columns: Sequence[np.ndarray]) -> np.ndarray | None:
        """Which rows have all values; None if all have.

        Raises:
            TableError: a feature is infinite, or a weight negative.
        """
        features, target, *weights = columns
        ones = np.ones(features.shape[1], features.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            is_complete = all(np.isfinite(part @ ones).all() for part in columns)
        if is_complete:
            keep = None  # a sum is finite only if all values are
        else:
            infinite = np.argwhere(np.isinf(features))
            if len(infinite):
                feature, place = infinite[0]
                raise TableError(
                    f"{self.source}: row {self._row(index, int(place))}, column "
                    f"{self.names[feature]!r}: not finite; drop the column or mend the row"
                    + see("table-values")
                )
            keep = ~np.isnan(features).any(axis=0) & ~np.isnan(target[0])
            keep = keep & np.isfinite(weights[0][0]) if weights else keep
        if weights and (weights[0] < 0.0).any():
            place = int(np.argmax(weights[0][0] < 0.0))
            raise TableError(
                f"{self.source}: row {self._row(index, place)}: the weight {self._weight!r} is "
                "negative" + see("table-values")
            )
        return keep

    def _row(self, index: int, place: int) -> int:
        """The number of a row, as messages count."""
        before = sum(size or 0 for size in self._batches.sizes[:index])
        return before + place + self._batches.first_row
