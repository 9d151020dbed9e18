"""The sum in a fixed tree: the same bits in any order, from any number of workers."""

import itertools
import random

import pytest
import torch

from pyro_kl.glm.passes.tree import Node, PartialSums, nodes_of


def by_definition(values):
    """The sum over a tree whose left part has the largest power of two of leaves."""
    if len(values) == 1:
        return values[0]
    left = 1 << ((len(values) - 1).bit_length() - 1)
    return by_definition(values[:left]) + by_definition(values[left:])


def numbers(count, seed=0):
    generator = random.Random(seed)
    return [generator.uniform(-1, 1) * 10 ** generator.uniform(-8, 8) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13, 64, 100, 1000, 1023])
def test_the_total_is_that_of_the_tree_in_any_order(count):
    values = numbers(count)
    order = list(range(count))
    for shuffled in (False, True):
        if shuffled:
            random.Random(1).shuffle(order)
        sums = PartialSums()
        for index in order:
            sums.add(index, values[index])
            assert shuffled or len(sums.subtrees) <= index.bit_length() + 1
        assert sums.total(count) == by_definition(values)


def test_a_plain_sum_has_other_bits():
    values = numbers(1000)
    assert sum(values) != by_definition(values)


@pytest.mark.parametrize("count", [1, 2, 5, 64, 100])
@pytest.mark.parametrize("workers", [1, 2, 3, 7, 150])
def test_any_number_of_workers_has_the_same_bits(count, workers):
    values = numbers(count)
    ends = [count * worker // workers for worker in range(workers + 1)]
    together = PartialSums()
    for start, stop in itertools.pairwise(ends):
        own = PartialSums()
        for index in range(start, stop):
            own.add(index, values[index])
        assert sorted(own.subtrees) == sorted(nodes_of(start, stop))
        for node, value in own.subtrees.items():
            together.add(node.position, value, node.level)
    assert together.total(count) == by_definition(values)


def test_the_nodes_of_a_range_cover_it_once():
    for start in range(40):
        for stop in range(start, 40):
            nodes = nodes_of(start, stop)
            leaves = [leaf for node in nodes for leaf in range(node.start, node.stop)]
            assert leaves == list(range(start, stop))
            levels = [node.level for node in nodes]
            assert all(levels.count(level) <= 2 for level in levels)


def test_tensors_are_added_in_place():
    first = torch.ones(3)
    sums = PartialSums()
    for index, value in enumerate((first, torch.ones(3), torch.ones(3))):
        sums.add(index, value)
    assert sums.total(3) is first
    assert torch.equal(first, torch.full((3,), 3.0))


def test_missing_and_repeated_leaves_are_refused():
    sums = PartialSums()
    with pytest.raises(ValueError, match=r"2 leaves needs .* there are none"):
        sums.total(2)
    for index in (0, 1, 3):
        sums.add(index, 1.0)
    with pytest.raises(ValueError, match="there are 0 to 1, 3 to 3"):
        sums.total(4)
    with pytest.raises(ValueError, match="3 to 3 were added twice"):
        sums.add(3, 1.0)
    with pytest.raises(ValueError, match="there are 0 to 1, 3 to 3"):
        sums.total(2)
    assert Node(3, 2).start == 16
