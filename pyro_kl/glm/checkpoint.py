"""Checkpoints of a fit: the sums over the data that it has computed, in the order of its passes.

A fit is determined by its settings and by its sums over the data. A fit that is started again
takes the same steps, with the sums that are in the folder, until it comes to one that is not
there. Nothing else has to be kept and put back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import distributed

from ..likelihoods.likelihood import Likelihood
from ..svi import checkpoint as files
from ..svi.ranks import gather, num_ranks, this_rank, warn_if_alone
from .distributed import check_same, sent, share, total_of_ranks
from .fingerprint import fingerprint
from .rows import Chunk, Rows
from .statistics import Statistics
from .tree import Node, PartialSums

_KIND = "pyro_kl.glm"
#: A pass over the data has at most this many blocks; a process that is killed costs one of them.
NUM_BLOCKS = 32


class Journal:
    """The sums of a fit in a folder, from which any number of ranks can go on.

    A block is a subtree of chunks. A rank writes each block that it has finished, and rank 0 the
    total of each pass, after which the blocks of the pass are removed. A process that is killed
    costs the blocks that the ranks were at.

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
        refused = sent(self._open(dict(fit)) if this_rank() == 0 else "", rank=0)
        if refused:
            raise ValueError(refused)

    def _open(self, fit: dict[str, str]) -> str:
        """Note what the sums are of; why they are not those of this fit, if they are not."""
        path = self.folder / "fit"
        if not path.exists():
            files.write(path, {"fit": fit}, _KIND)
        there = files.read(path, _KIND)["fit"]
        for name in sorted(fit.keys() | there.keys()):
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
        level = max(0, (count - 1) // NUM_BLOCKS).bit_length()
        holders = self._holders(level)
        own: PartialSums[Any] = PartialSums()
        for position, rank in holders.items():
            if rank == this_rank():
                _add(own, self._read_block(Node(level, position)))
        left = [place for place in range(-(-count >> level)) if place not in holders]
        for position in share(left):
            block = Node(level, position)
            part: PartialSums[Any] = PartialSums()
            for index in range(block.start, min(block.stop, count)):
                part.add(index, value_of(index))
            self._write_block(block, part)
            _add(own, part)
        total = total_of_ranks(own, count)
        self._write_total(total)
        return total

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

    def _holders(self, level: int) -> dict[int, int]:
        """The blocks of this pass that are there: position -> the rank that reads it."""
        paths = self.folder.glob(f"pass-{self._pass:05d}.block-{level}-*[0-9]")
        there = [int(path.name.rpartition("-")[2]) for path in paths]
        ranks = gather(there) if num_ranks() > 1 else [there]
        return {place: rank for rank, places in enumerate(ranks) for place in places}

    def _path(self, block: Node) -> Path:
        return self.folder / f"pass-{self._pass:05d}.block-{block.level}-{block.position}"

    def _write_block(self, block: Node, part: PartialSums[Any]) -> None:
        subtrees = [[*node, _plain(value)] for node, value in part.subtrees.items()]
        files.write(self._path(block), {"subtrees": subtrees}, _KIND)

    def _read_block(self, block: Node) -> PartialSums[Any]:
        part: PartialSums[Any] = PartialSums()
        for level, position, value in files.read(self._path(block), _KIND)["subtrees"]:
            part.add(position, _value(value), level)
        return part


class ResumableRows:
    """Rows whose sums are kept; those of samples, which take little time, are computed again.

    Args:
        rows: the data.
        journal: where the sums are.
    """

    def __init__(self, rows: Rows, journal: Journal) -> None:
        self.journal = journal
        self.names, self.dtype = rows.names, rows.dtype
        self._rows = rows

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

    def chunk(self, index: int) -> Chunk:
        """Return one chunk."""
        return self._rows.chunk(index)

    def sample(self, num_rows: int) -> Rows:
        """Return about that many rows, without a journal."""
        return self._rows.sample(num_rows)


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
    """The value that `_plain` was given."""
    if "tensor" in plain:
        return plain["tensor"]
    return Statistics(**{name: plain[name] for name in Statistics.__dataclass_fields__})
