"""KLs of distributions on finitely many structures, by going through all of them at 50 digits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations
from typing import Any

from mpmath import mp

from .integrate import WORKING_DIGITS, exact


def trees(vertices: int) -> Iterator[tuple[int, ...]]:
    """All spanning trees of the complete graph, as edges in Pyro's order."""
    edges = [(i, j) for j in range(vertices) for i in range(j)]
    for chosen in combinations(range(len(edges)), vertices - 1):
        part = list(range(vertices))
        for e in chosen:
            i, j = (part[v] for v in edges[e])
            part = [i if x == j else x for x in part]
        if len(set(part)) == 1:
            yield chosen


def matchings(sources: int, destinations: int) -> Iterator[tuple[int, ...]]:
    """All matchings that fill every destination equally."""
    places = [d for d in range(destinations) for _ in range(sources // destinations)]
    yield from dict.fromkeys(permutations(places))


def kl(cls: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    """KL of two members of a class, from the constructor's arguments."""
    with mp.workdps(WORKING_DIGITS):
        if cls == "SpanningTree":
            p, q = (exact(list(side["edge_logits"])) for side in (a, b))
            vertices = next(v for v in range(2, 99) if v * (v - 1) // 2 == len(p))
            scores = [[sum(side[e] for e in tree) for tree in trees(vertices)] for side in (p, q)]
        else:
            p, q = ([exact(list(row)) for row in side["logits"]] for side in (a, b))
            every = list(matchings(len(p), len(p[0])))
            scores = [
                [sum(side[s][d] for s, d in enumerate(match)) for match in every]
                for side in (p, q)
            ]
        return _kl_of_scores(*scores)


def _kl_of_scores(p: Sequence[Any], q: Sequence[Any]) -> Any:
    p_total, q_total = (mp.log(sum(mp.exp(x) for x in side)) for side in (p, q))
    return sum(
        mp.exp(x - p_total) * (x - p_total - y + q_total) for x, y in zip(p, q, strict=True)
    )
