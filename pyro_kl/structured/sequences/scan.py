"""Inclusive prefix "sums" of an associative operation along time, in O(log T) steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: One element of the scan for every time step; time is dim `-3` of each tensor.
Elements = tuple[Tensor, ...]
Combine = Callable[[Elements, Elements], Elements]


def prefixes(combine: Combine, elements: Elements) -> Elements:
    """e_1, e_1 * e_2, ..., e_1 * ... * e_T for an associative `combine(earlier, later)`.

    Pairs first, then the elements between them: about 2 T operations in 2 log2(T) batched calls.

    Reference:
        Blelloch (1990), "Prefix sums and their applications".
    """
    steps = elements[0].shape[-3]
    if steps == 1:
        return elements
    left = tuple(x[..., 0 : steps - 1 : 2, :, :] for x in elements)
    right = tuple(x[..., 1::2, :, :] for x in elements)
    odd = prefixes(combine, combine(left, right))
    first = tuple(x[..., :1, :, :] for x in elements)
    if steps == 2:
        return tuple(torch.cat(pair, -3) for pair in zip(first, odd, strict=True))
    before = tuple(x[..., : (steps - 1) // 2, :, :] for x in odd)
    later = combine(before, tuple(x[..., 2::2, :, :] for x in elements))
    even = tuple(torch.cat(pair, -3) for pair in zip(first, later, strict=True))
    return tuple(_interleaved(a, b) for a, b in zip(even, odd, strict=True))


def suffixes(combine: Combine, elements: Elements) -> Elements:
    """e_1 * ... * e_T, e_2 * ... * e_T, ..., e_T for an associative `combine(earlier, later)`."""

    def backwards(later: Elements, earlier: Elements) -> Elements:
        return combine(earlier, later)

    reverse = tuple(x.flip(-3) for x in elements)
    return tuple(x.flip(-3) for x in prefixes(backwards, reverse))


def _interleaved(even: Tensor, odd: Tensor) -> Tensor:
    """even_0, odd_0, even_1, odd_1, ...; there may be one more even element than odd ones."""
    shared = odd.shape[-3]
    pairs = torch.stack((even[..., :shared, :, :], odd), -3).flatten(-4, -3)
    return torch.cat((pairs, even[..., shared:, :, :]), -3)
