"""Sums over chunks by several ranks, with the same bits as by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from ...messages import see
from ...svi.ranks import device_of_group, gather, num_ranks, this_rank
from .message import Layout, vector_of
from .tree import PartialSums

Item = TypeVar("Item")
#: A message has about this many elements at most, 32 MB, or one subtree.
MESSAGE = 1 << 22


def sum_of_chunks(count: int, value_of: Callable[[int], Any]) -> Any:
    """Return the sum over all chunks; each rank computes a part of them.

    Args:
        count: the number of chunks.
        value_of: from the number of a chunk to its value. All ranks have the same one.
    """
    if count == 1:  # sooner computed than sent
        return value_of(0)
    own: PartialSums[Any] = PartialSums()
    for index in share(range(count)):
        own.add(index, value_of(index))
    return total_of_ranks(own, count)


def share(items: Sequence[Item]) -> Sequence[Item]:
    """Return the items of this rank: neighbours, and at most one more than those of another."""
    first, last = (len(items) * rank // num_ranks() for rank in (this_rank(), this_rank() + 1))
    return items[first:last]


def total_of_ranks(own: PartialSums[Any], count: int) -> Any:
    """Return the sum of the partial sums of all ranks, which are used up.

    The ranks send one another the subtrees that they have finished; neighbours are in few. Each
    rank adds all of them up in the same tree, so that the totals are equal to the last bit.

    Args:
        own: the partial sums of this rank.
        count: the number of leaves of all.
    """
    if num_ranks() == 1:
        return own.total(count)
    sums: PartialSums[Any] = PartialSums()
    layout = Layout.of(next(iter(own.subtrees.values()))) if own.subtrees else None
    for rank, (nodes, of) in enumerate(gather((sorted(own.subtrees), layout))):
        together = max(1, MESSAGE // of.length) if nodes else 1
        for first in range(0, len(nodes), together):
            some = nodes[first : first + together]
            vector = torch.empty(len(some) * of.length, dtype=of.dtype)
            if rank == this_rank():
                torch.cat([vector_of(own.subtrees.pop(node)) for node in some], out=vector)
            parts = _sent(vector, rank).split(of.length)
            for node, part in zip(some, parts, strict=True):
                sums.add(node.position, of.value(part), node.level)
    return sums.total(count)


def _sent(vector: Tensor, rank: int) -> Tensor:
    """Return the vector that one of the ranks has filled, where they are all computed."""
    message = vector.to(device_of_group())
    distributed.broadcast(message, src=rank)
    return message.cpu()


def sent(value: Any, rank: int) -> Any:
    """Return the value that one of the ranks gives to all; those of the others are not used."""
    message = [value if rank == this_rank() else None]
    if num_ranks() > 1:
        distributed.broadcast_object_list(message, src=rank)
    return message[0]


def check_same(fit: Mapping[str, str]) -> None:
    """Refuse ranks that fit other data, or with other settings, than rank 0.

    Args:
        fit: what the fit depends on: name -> description.

    Raises:
        ValueError: one of them differs.
    """
    if num_ranks() == 1:
        return
    first, *others = gather(dict(fit))
    for rank, other in enumerate(others, 1):
        for name in first:
            if other[name] != first[name]:
                raise ValueError(
                    f"The ranks have other fits: {name} {first[name]} on rank 0, {other[name]} on "
                    f"rank {rank}. Give all ranks the same settings and all rows, of a table or a "
                    "memory map; each rank reads its own part of them." + see("ranks")
                )
