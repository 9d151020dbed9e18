"""When an exact KL may stand for the sampled one.

E_q[log q(z | ...) - log p(z | parents)] is E[KL(q(z | ...) || p(z | parents))] exactly if no
parent of z in the model descends from z in the guide. Three tests, from cheap to dear:

1. by order: all latents before z in the model come before z in the guide too. Causality makes it
   sound, and it costs nothing.
2. by provenance: tensors that remember which sites they were computed from. Finer, but it loses
   the trail at `.item()`, in-place writes and branches.
3. by intervention: z is moved in the guide, all noise kept, and the prior of z is looked at again.
   It sees what provenance misses; a branch that does not flip escapes it.

A site that fails 1 must pass 2 and 3; otherwise it is sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.inspect import TrackProvenance
from pyro.ops.provenance import detach_provenance, get_provenance
from pyro.poutine.messenger import Messenger
from torch import Tensor

from .traces import Site, Trace

__all__ = ["Dependencies", "late_parents"]

#: How often a site is moved before it counts as without influence.
_MOVES = 2


def late_parents(
    latents: Sequence[str], position: Mapping[str, tuple[float, int]]
) -> dict[str, list[str]]:
    """Test 1: for each latent, those before it in the model but not before it in the guide.

    Args:
        latents: in the model's order.
        position: where the guide draws each: index of its first site, place inside of that.
    """
    return {
        name: [other for other in latents[:i] if not position[other] < position[name]]
        for i, name in enumerate(latents)
    }


@dataclass
class Dependencies:
    """What depends on what, found out by running guide and model again.

    Args:
        model: the model.
        guide: the guide; not a GuideMessenger.
        args: their arguments.
        kwargs: their keyword arguments.
        parts: latent -> the guide's sites that draw it.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    parts: Mapping[str, tuple[str, ...]]
    _seed: int = field(default=0)
    _provenance: tuple[Any, Any] | None = field(default=None, repr=False)

    def parents_descend(self, name: str, late: Iterable[str]) -> bool:
        """Whether a parent of `name` in the model may descend from it in the guide.

        Args:
            name: a latent that fails the test by order.
            late: the latents before it in the model but not in the guide.
        """
        try:
            parents, children = self._tracked()
            if parents[name] & set(late) & self._descendants(name, children):
                return True
            return self._moves_own_prior(name)
        except Exception:  # whatever stops the tests, stops the claim
            return True

    def without_parents(self, names: Iterable[str]) -> set[str]:
        """The latents among `names` whose prior depends on no latent at all, by tests 2 and 3."""
        names = list(names)
        try:
            parents, _ = self._tracked()
            free = [name for name in names if not parents[name]]
            return {name for name in free if not self._prior_moves(free)[name]} if free else set()
        except Exception:
            return set()

    # --- provenance ---------------------------------------------------------------------------

    def _tracked(self) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
        """Direct parents in the model by latent, and direct children in the guide by site."""
        if self._provenance is None:
            with _aside(), pyro.validation_enabled(False), TrackProvenance():
                guide_trace = poutine.trace(self.guide).get_trace(*self.args, **self.kwargs)
                replayed = poutine.replay(self.model, trace=guide_trace)
                model_trace = poutine.trace(replayed).get_trace(*self.args, **self.kwargs)
                children: dict[str, set[str]] = {}
                for name, site in _samples(guide_trace):
                    for upstream in _provenance_of(site) - {name}:
                        children.setdefault(upstream, set()).add(name)
                latents = set(self.parts)
                parents = {
                    name: (_provenance_of(site) & latents) - {name}
                    for name, site in _samples(model_trace)
                    if name in latents
                }
            self._provenance = parents, children
        return self._provenance

    def _descendants(self, name: str, children: Mapping[str, set[str]]) -> set[str]:
        """All that the guide computes from the sites that draw `name`."""
        seen: set[str] = set()
        todo = list(self.parts[name])
        while todo:
            for child in children.get(todo.pop(), ()):
                if child not in seen:
                    seen.add(child)
                    todo.append(child)
        return seen - {name}

    # --- intervention -------------------------------------------------------------------------

    def _run(self, moved: Mapping[str, Tensor] | None = None) -> tuple[Trace, Trace]:
        """Guide and model with the noise of this object, and some values of the guide replaced."""
        with _aside(self._seed), pyro.validation_enabled(False):
            with _Moved(moved or {}):
                guide_trace = poutine.trace(self.guide).get_trace(*self.args, **self.kwargs)
            replayed = poutine.replay(self.model, trace=guide_trace)
            return poutine.trace(replayed).get_trace(*self.args, **self.kwargs), guide_trace

    def _moves_own_prior(self, name: str) -> bool:
        """Whether moving `name` in the guide changes its prior in the model."""
        before, guide_trace = self._run()
        if not _same_prior(before.nodes[name], self._run()[0].nodes[name], before.nodes[name]):
            return True  # not reproducible: nothing can be concluded
        first = self.parts[name][0]
        for move in range(_MOVES):
            moved = _another(guide_trace.nodes[first], move)
            after, _ = self._run({first: moved})
            if not _same_prior(before.nodes[name], after.nodes[name], before.nodes[name]):
                return True
        return False

    def _prior_moves(self, names: Sequence[str]) -> dict[str, bool]:
        """Whether the prior of each changes if the guide draws everything anew."""
        before, _ = self._run()
        moves = dict.fromkeys(names, False)
        for move in range(_MOVES):
            other = Dependencies(
                self.model, self.guide, self.args, self.kwargs, self.parts, self._seed + 1 + move
            )
            after, _ = other._run()
            for name in names:
                site = before.nodes[name]
                moves[name] |= not _same_prior(site, after.nodes[name], site)
        return moves


class _Moved(Messenger):
    """Replaces values of sample sites after they were drawn, so that the noise stays in step."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] in self.values:
            msg["value"] = self.values[msg["name"]]


class _aside:
    """Run something without a trace of it: no gradient, no randomness used, no outer handler."""

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed
        self._managers = (torch.random.fork_rng(), torch.no_grad(), poutine.block())

    def __enter__(self) -> None:
        for manager in self._managers:
            manager.__enter__()
        if self.seed is not None:
            torch.manual_seed(self.seed)

    def __exit__(self, *error: Any) -> None:
        for manager in reversed(self._managers):
            manager.__exit__(*error)


def _samples(trace: Trace) -> list[tuple[str, Site]]:
    return [
        (name, site)
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and type(site["fn"]).__name__ != "_Subsample"
    ]


def _provenance_of(site: Site) -> set[str]:
    """The sites that a site's law was computed from."""
    return set(get_provenance(site["fn"].log_prob(detach_provenance(site["value"]))))


def _same_prior(a: Site, b: Site, at: Site) -> bool:
    """Whether two laws give a value the same log density."""
    log_a, log_b = a["fn"].log_prob(at["value"]), b["fn"].log_prob(at["value"])
    return log_a.shape == log_b.shape and torch.equal(
        torch.nan_to_num(log_a), torch.nan_to_num(log_b)
    )


def _another(site: Site, move: int) -> Tensor:
    """Another value that the site's law could have given."""
    with torch.random.fork_rng():
        torch.manual_seed(1_000_003 + move)
        value = site["fn"].sample()
        return (
            value.reshape(site["value"].shape)
            if value.numel() == site["value"].numel()
            else (value.expand(site["value"].shape))
        )
