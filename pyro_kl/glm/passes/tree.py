"""Sums in a fixed binary tree, whose rounding does not depend on who has added which part."""

from __future__ import annotations

from operator import iadd
from typing import Generic, NamedTuple, TypeVar

#: Anything with `+`: numbers, tensors, the statistics of chunks. With `+=` the left one of two
#: values takes the sum in its own memory.
Value = TypeVar("Value")


class Node(NamedTuple):
    """A subtree over the leaves `position * 2^level` up to, not with, `(position + 1) * 2^level`.

    Its children are (level - 1, 2 position) and (level - 1, 2 position + 1).
    """

    level: int
    position: int

    @property
    def start(self) -> int:
        """The first leaf."""
        return self.position << self.level

    @property
    def stop(self) -> int:
        """The leaf after the last one."""
        return (self.position + 1) << self.level


def nodes_of(start: int, stop: int) -> list[Node]:
    """The largest complete subtrees over the leaves from `start` up to `stop`, in order.

    There are at most two of each level.

    Args:
        start: the first leaf.
        stop: the leaf after the last one.
    """
    nodes = []
    while start < stop:
        level = (stop - start).bit_length() - 1
        if start:  # a subtree starts at a multiple of its size: the lowest bit that is set
            level = min(level, (start & -start).bit_length() - 1)
        nodes.append(Node(level, start >> level))
        start += 1 << level
    return nodes


class PartialSums(Generic[Value]):
    """The sum of numbered values in a fixed binary tree (pairwise summation).

    Two subtrees are added as soon as both are complete, so that one process that adds n values in
    their order keeps at most log2(n) + 1 of them, as a binary counter keeps its digits. Values
    may be added in any order, and subtrees that another process has finished beside them: each
    bit of the total depends on the values and on their number alone. The rounding error grows with
    log2(n) instead of n.

    Attributes:
        subtrees: the sums of the complete subtrees that have not met their sibling.

    Reference: Higham (1993), The accuracy of floating point summation, SIAM Journal on Scientific
    Computing 14, 783-799, section 4.

    Example:
        >>> sums = PartialSums()
        >>> for index, value in enumerate([0.1, 0.2, 0.3]):
        ...     sums.add(index, value)
        >>> sums.total(3) == (0.1 + 0.2) + 0.3
        True
    """

    def __init__(self) -> None:
        self.subtrees: dict[Node, Value] = {}

    def add(self, index: int, value: Value, level: int = 0) -> None:
        """Add the value of a leaf, or the sum over a subtree.

        Args:
            index: its number among those of its level.
            value: is kept, and may be changed in place.
            level: 0 for a leaf; the subtree has 2^level leaves.

        Raises:
            ValueError: it is there already.
        """
        node = Node(level, index)
        while (sibling := Node(node.level, node.position ^ 1)) in self.subtrees:
            other = self.subtrees.pop(sibling)
            value = iadd(value, other) if node.position < sibling.position else iadd(other, value)
            node = Node(node.level + 1, node.position >> 1)
        if node in self.subtrees:
            raise ValueError(f"The leaves {node.start} to {node.stop - 1} were added twice.")
        self.subtrees[node] = value

    def total(self, count: int) -> Value:
        """The sum over all leaves; the partial sums are used up.

        Args:
            count: the number of leaves, at least 1. What is left at the end of an incomplete tree
                is added from right to left: the smallest subtree first.

        Raises:
            ValueError: leaves are missing, or there are others.
        """
        nodes = nodes_of(0, count)
        if not nodes or self.subtrees.keys() != set(nodes):
            there = sorted(self.subtrees, key=lambda node: node.start)
            raise ValueError(
                f"A sum over {count} leaves needs each of them once, from 0; there are "
                + (", ".join(f"{node.start} to {node.stop - 1}" for node in there) or "none")
            )
        *others, last = nodes
        value = self.subtrees.pop(last)
        for node in reversed(others):
            value = iadd(self.subtrees.pop(node), value)
        return value
