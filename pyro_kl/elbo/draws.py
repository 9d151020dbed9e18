"""Which draws without reparametrisation each cost of an ELBO may depend on.

A cost that a draw cannot change has the expectation zero beside the draw's score function, and
only adds noise to the gradient. What comes before the draw cannot depend on it: the order of the
sites excludes that in every run, at no cost. What comes after it may or may not: a watched run
tells which tensors were computed from which draws. If it tells no more than the order, the next
runs are not watched.

References: Ranganath, Gerrish & Blei (2014), Black Box Variational Inference, sec. 3.1; Schulman
and others (2015), Gradient Estimation Using Stochastic Computation Graphs, theorem 1.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property
from typing import Protocol

from .guides.plan import Plan
from .guides.validity import Watch
from .terms import Term
from .traces import Site, Traces

#: Names of sites that are drawn without reparametrisation.
Draws = frozenset[str]


class _Behind(Protocol):
    """The draws that may change a site's density at its value."""

    def of_model(self, name: str) -> Draws: ...

    def of_guide(self, name: str) -> Draws: ...


class DrawsBehind:
    """The draws behind each cost of one pair of traces.

    Args:
        plan: of the pair.
        traces: of model and guide.
        drawn: the sites that are drawn without reparametrisation.
    """

    def __init__(self, plan: Plan, traces: Traces, drawn: Collection[str]) -> None:
        self._plan, self._drawn = plan, drawn
        watch: Watch | None = getattr(traces.guide, "pyro_kl_watch", None)
        nodes = traces.guide.nodes
        #: Factors of the guide do not say which draws they are about: they stay with every cost.
        self._factors = frozenset(
            name for name in drawn if name in nodes and nodes[name]["is_observed"]
        )
        self._order = _ByOrder(traces, drawn)
        self._best: _Behind = self._order
        if watch is not None and drawn:
            self._best = _ByWatching(traces, drawn, watch)

    def learn(self, terms: Iterable[Term]) -> None:
        """Keep in the plan whether a watched run tells more than the order of the sites."""
        if not self._drawn:
            return
        if self._best is not self._order:
            self._plan.watch_draws = any(
                self._of(term, self._best) != self._of(term, self._order) for term in terms
            )
        elif self._plan.watch_draws is None:
            self._plan.watch_draws = True  # the next run will tell

    def of(self, term: Term) -> Draws:
        """The draws that a term may depend on."""
        return self._factors | self._of(term, self._best)

    def of_model(self, names: Iterable[str]) -> Draws:
        """The draws that the densities of these sites of the model may depend on."""
        return self._factors.union(*map(self._best.of_model, names))

    def of_guide(self, names: Iterable[str]) -> Draws:
        """The draws that the densities of these sites of the guide may depend on."""
        return self._factors.union(*map(self._best.of_guide, names))

    def _of(self, term: Term, behind: _Behind) -> Draws:
        if term.kind == "likelihood":
            return behind.of_model(term.name)
        if term.kind == "auxiliary":
            return behind.of_guide(term.name)
        parts = self._plan.decisions[term.name].site.parts
        draws = behind.of_model(term.name).union(*map(behind.of_guide, parts))
        # an exact KL is an expectation over its own draw
        return draws if term.own_cost else draws.difference(parts)


class _ByOrder:
    """By the order of the sites: what is drawn later changes nothing before it."""

    def __init__(self, traces: Traces, drawn: Collection[str]) -> None:
        self._traces, self._drawn = traces, drawn

    def of_guide(self, name: str) -> Draws:
        return self._until(self._place[name])

    def of_model(self, name: str) -> Draws:
        return self._of_model[name]

    @cached_property
    def _place(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self._traces.guide.nodes)}

    @cached_property
    def _of_model(self) -> dict[str, Draws]:
        """A site may depend on the latents before it, and on what the guide draws before these."""
        last, found, own = -1, {}, frozenset[str]()
        for name, node in self._traces.model.nodes.items():
            if node["type"] != "sample":
                continue
            if not node["is_observed"]:
                last = max(last, self._place.get(name, -1))
                if name in self._drawn and name not in self._place:  # the model draws it
                    own |= {name}
            found[name] = own | self._until(last)
        return found

    def _until(self, place: int) -> Draws:
        """The guide's draws up to a place."""
        return frozenset(name for name in self._drawn if self._place.get(name, place + 1) <= place)


class _ByWatching:
    """By what was computed from what, in a run that was watched."""

    def __init__(self, traces: Traces, drawn: Collection[str], watch: Watch) -> None:
        self._traces, self._watch = traces, watch
        self._bits = {name: watch.bits_of([name]) for name in drawn}
        self._found: dict[int, Draws] = {}  # each site is asked for several times

    def of_guide(self, name: str) -> Draws:
        return self._of(self._traces.guide.nodes[name])

    def of_model(self, name: str) -> Draws:
        return self._of(self._traces.model.nodes[name])

    def _of(self, node: Site) -> Draws:
        found = self._found.get(id(node))
        if found is None:
            sources = self._watch.of_density(node)
            found = frozenset(name for name, bit in self._bits.items() if bit & sources)
            self._found[id(node)] = found
        return found
