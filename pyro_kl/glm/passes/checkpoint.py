"""Checkpoints of a fit: the sums over the data that it has computed, in the order of its passes.

A fit is determined by its settings and by its sums over the data. A fit that is started again
takes the same steps, with the sums that are in the folder, until it comes to one that is not
there. Nothing else has to be kept and put back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from torch import Tensor, distributed

from ...likelihoods.likelihood import Likelihood
from ...messages import see
from ...svi import checkpoint as files
from ...svi.ranks import gather, num_ranks, this_rank, warn_if_alone
from .distributed import check_same, sent, share, total_of_ranks
from .fingerprint import fingerprint
from .rows import Rows, RowsOf
from .statistics import Statistics
from .tree import PartialSums

_KIND = "pyro_kl.glm"
#: A rank computes for so many times as long as a write takes before it writes the next block.
WAIT = 20.0


class Journal:
    """The sums of a fit in a folder, from which any number of ranks can go on.

    A block has the chunks that a rank has computed one after another between two writes, added up
    to complete subtrees. Rank 0 writes the total of each pass, after which the blocks of the pass
    are removed. A process that is killed costs the blocks that the ranks were at.

    The folder may be on a disk that all machines share. If each machine has one of its own, the
    blocks are where the ranks were that have written them, and the totals where rank 0 was.

    Args:
        folder: is made if it is not there.
        fit: what the sums depend on: name -> description.

    Raises:
        ValueError: the folder has sums of another fit.
    """

    def __init__(self, folder: str | os.PathLike[str], fit: Mapping[str, str]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._pass = 0
        self._last_write, self._seconds = time.monotonic(), 0.0
        refused = sent(self._open(dict(fit)) if this_rank() == 0 else "", rank=0)
        if refused:
            raise ValueError(refused + see("checkpoint"))

    def _open(self, fit: dict[str, str]) -> str:
        """Note what the sums are of; why they are not those of this fit, if they are not."""
        path = self.folder / "fit"
        if not path.exists():
            files.write(path, {"fit": fit}, _KIND)
        there = files.read(path, _KIND)["fit"]
        for name in {**fit, **there}:
            if fit.get(name) != there.get(name):
                return (
                    f"The checkpoint in {self.folder} is of another fit: {name} {there.get(name)} "
                    f"there, {fit.get(name)} here. Give another folder, or delete this one."
                )
        return ""

    def sum_of_chunks(self, count: int, value_of: Callable[[int], Any]) -> Any:
        """Return the sum over all chunks, as `distributed.sum_of_chunks` does.

        Args:
            count: the number of chunks.
            value_of: from the number of a chunk to its value; is called for those that this rank
                has to compute.
        """
        self._pass += 1
        total = sent(self._read_total() if this_rank() == 0 else None, rank=0)
        if total is not None:
            return total
        own: PartialSums[Any] = PartialSums()
        left = set(range(count))
        for block, rank in self._blocks().items():
            if left.issuperset(block):  # a disk of another machine may have an older block, too
                left.difference_update(block)
                if rank == this_rank():
                    _add(own, self._read_block(block))
        self._compute(share(sorted(left)), value_of, own)
        total = total_of_ranks(own, count)
        self._write_total(total)
        return total

    def _compute(
        self, indices: Sequence[int], value_of: Callable[[int], Any], own: PartialSums[Any]
    ) -> None:
        """Add the values of some chunks to the sums of this rank, and write them in blocks."""
        block: PartialSums[Any] = PartialSums()
        first = indices[0] if indices else 0
        for index, following in zip_longest(indices, indices[1:]):
            block.add(index, value_of(index))
            if following != index + 1 or self._is_due(block):
                if following is not None or num_ranks() > 1:  # one rank has the total at once
                    self._write_block(range(first, index + 1), block)
                _add(own, block)
                block, first = PartialSums(), following

    def _is_due(self, block: PartialSums[Any]) -> bool:
        """Whether a block is worth its write: long in the making, and a file of a few subtrees."""
        elapsed = time.monotonic() - self._last_write
        return elapsed >= WAIT * self._seconds and len(block.subtrees) <= 2

    # --- files --------------------------------------------------------------------------------

    def _read_total(self) -> Any:
        path = self.folder / f"pass-{self._pass:05d}"
        return _value(files.read(path, _KIND)) if path.exists() else None

    def _write_total(self, total: Any) -> None:
        """Keep the total of a pass, which takes the place of its blocks."""
        if this_rank() == 0:
            files.write(self.folder / f"pass-{self._pass:05d}", _plain(total), _KIND)
        if num_ranks() > 1:
            distributed.barrier()
        for path in self.folder.glob(f"pass-{self._pass:05d}.*"):
            path.unlink(missing_ok=True)

    def _blocks(self) -> dict[range, int]:
        """The blocks of this pass that are there: their chunks -> the rank that reads them."""
        names = [path.name for path in self.folder.glob(f"pass-{self._pass:05d}.*-*[0-9]")]
        ranks = gather(names) if num_ranks() > 1 else [names]
        blocks = {}
        for number, name in enumerate(sorted(set().union(*ranks))):
            readers = [rank for rank, there in enumerate(ranks) if name in there]
            first, last = map(int, name.partition(".")[2].split("-"))
            blocks[range(first, last + 1)] = readers[number % len(readers)]
        return blocks

    def _path(self, block: range) -> Path:
        return self.folder / f"pass-{self._pass:05d}.{block[0]:07d}-{block[-1]:07d}"

    def _write_block(self, block: range, sums: PartialSums[Any]) -> None:
        start = time.monotonic()
        subtrees = [[*node, _plain(value)] for node, value in sums.subtrees.items()]
        files.write(self._path(block), {"subtrees": subtrees}, _KIND)
        self._last_write = time.monotonic()
        self._seconds = self._last_write - start

    def _read_block(self, block: range) -> PartialSums[Any]:
        sums: PartialSums[Any] = PartialSums()
        for level, position, value in files.read(self._path(block), _KIND)["subtrees"]:
            sums.add(position, _value(value), level)
        return sums


class ResumableRows(RowsOf):
    """Rows whose sums are kept; those of samples, which take little time, are computed again.

    Args:
        rows: the data.
        journal: where the sums are.
    """

    def __init__(self, rows: Rows, journal: Journal) -> None:
        super().__init__(rows)
        self.journal = journal


def for_ranks(
    rows: Rows,
    checkpoint: str | os.PathLike[str] | None,
    likelihood: Likelihood,
    settings: Mapping[str, Any],
) -> Rows:
    """Return the rows of a fit, as several ranks or a checkpoint need them.

    Args:
        rows: all rows, on every rank; each rank reads its own part.
        checkpoint: a folder for the sums of the fit, or None.
        likelihood: of a target.
        settings: all else that the fit depends on, by name.

    Raises:
        ValueError: the ranks have different rows or settings, or the folder is of another fit.
    """
    warn_if_alone()
    if checkpoint is None and num_ranks() == 1:
        return rows
    fit = fingerprint(rows, likelihood, settings)
    check_same(fit)
    return rows if checkpoint is None else ResumableRows(rows, Journal(checkpoint, fit))


def _add(sums: PartialSums[Any], part: PartialSums[Any]) -> None:
    for node, value in part.subtrees.items():
        sums.add(node.position, value, node.level)


def _plain(value: Any) -> dict[str, Any]:
    """The value of a chunk as a dict of tensors and numbers."""
    return vars(value) if isinstance(value, Statistics) else {"tensor": value}


def _value(plain: dict[str, Any]) -> Any:
    """The value that `_plain` was given, in memory that begins as that of any tensor."""
    copies = {name: x.clone() if isinstance(x, Tensor) else x for name, x in plain.items()}
    if "tensor" in copies:
        return copies["tensor"]
    fields: dict[str, Any] = {name: copies[name] for name in Statistics.__dataclass_fields__}
    return Statistics(**fields)
