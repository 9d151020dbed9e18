"""Which priors depend on a latent's own draw: what a plan cannot decide once for all runs.

A plan is kept for many runs, but what depends on what may change with an argument, a batch or a
branch. A `Layout` holds the latents for which this matters and decides for each run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.transforms import Transform, _InverseTransform

from ...numerics.concrete import is_recorded
from ...registry.tensors import content, is_foreign
from ..traces import Site, Trace
from .guide_site import FromPrior, GuideSite
from .joint import JointBlock
from .recognise import Recognised
from .validity import Watch


@dataclass
class Layout:
    """How each latent of one structure is drawn, and which dependences have to be found out.

    Attributes:
        recognised: how each latent is drawn.
        late: latent -> the latents that are before it in the model and not in the guide; only
            where there are any.
        blocks: sites of a joint guide whose prior may or may not depend on the sites before.
        free: block -> its prior as it was when a watched run last saw it depend on no site.
        moved: whether a block has to be watched: no run was, or a prior has changed.
    """

    recognised: Recognised
    late: dict[str, list[str]]
    blocks: list[str]
    free: dict[str, list[Any]] = field(default_factory=dict)
    moved: bool = True

    @property
    def watches(self) -> bool:
        """Whether the next run has to be watched.

        A late site is watched in every run. A block is not, as long as its prior stays the same;
        where the prior has changed, the block counts as dependent, which is valid in any case,
        until a run has been watched.
        """
        tracing = is_recorded()  # values of another run are no constants
        return bool(self.late or (self.blocks and (self.moved or tracing)))

    def dependent(self, model_trace: Trace, watch: Watch | None) -> dict[str, list[str]]:
        """The late sites and blocks whose prior depends on their own draw -> through which sites.

        Args:
            model_trace: of the model.
            watch: what was seen in this run; without it every dependence is assumed.
        """
        found: dict[str, list[str]] = {}
        if watch is not None:
            self.moved = False
        sites = self.recognised.sites
        for name in {**self.late, **dict.fromkeys(self.blocks)}:
            own, others = sites[name].parts, self.late.get(name, [])
            node = model_trace.nodes[name]
            if watch is None:
                if name in self.late or not self._is_as_it_was(node):
                    found[name] = others
                continue
            traced = is_recorded()  # the values of a traced run are none of the next run's
            # read before `reached_by` computes a density with it
            prior = [] if traced else _prior_of(node)
            parts = {part: other for other in others for part in sites[other].parts}
            seen = watch.reached_by(node, {*own, *parts, *others})
            self.free.pop(name, None)
            if seen.intersection(own):
                by = {parts.get(part, part) for part in seen}
                found[name] = [other for other in others if other in by] or others
            elif traced or is_foreign([node["fn"]]):
                self.moved = True  # a prior that cannot be compared is watched in every run
            else:
                self.free[name] = [
                    x.detach().clone() if isinstance(x, Tensor) else x for x in prior
                ]
        return found

    def _is_as_it_was(self, node: Site) -> bool:
        """Whether a block's prior is the one that was seen to depend on nothing."""
        before = self.free.get(node["name"])
        if before is None:
            return False
        now = _prior_of(node)
        same = len(now) == len(before) and all(map(_same, before, now))
        self.moved |= not same
        return same


def late_sites(sites: Mapping[str, GuideSite], guide_trace: Trace) -> dict[str, list[str]]:
    """The latents that fail the test by order -> the latents that make them fail.

    These are before it in the model, but not before it in the guide.
    """
    index = {name: i for i, name in enumerate(guide_trace.nodes)}
    position: dict[str, tuple[float, int]] = {}  # of the first part, and inside of a joint site
    late: dict[str, list[str]] = {}
    for name, site in sites.items():
        order = site.order if isinstance(site, JointBlock) else 0
        here = min((index[part] for part in site.parts), default=float("inf")), order
        others = [other for other, there in position.items() if not there < here]
        if others and not isinstance(site, FromPrior):
            late[name] = others
        position[name] = here
    return late


def _prior_of(node: Site) -> list[Any]:
    """Everything that a site's distribution, scale and mask are made of."""
    found: list[Any] = []
    for part in (node["fn"], node["scale"], node["mask"]):
        _add_leaves(part, found)
    return found


def _add_leaves(part: Any, found: list[Any]) -> None:
    if isinstance(part, Tensor):
        found.append(_without_copies(part))
    elif isinstance(part, torch.Size):
        pass  # with more particles the prior is still the same
    elif isinstance(part, _InverseTransform):
        _add_leaves(part.inv, found)
    elif isinstance(part, (Distribution, Transform)):
        found.append(type(part))
        for name, value in content(part).items():
            if name != "_validate_args":  # `expand` changes it
                _add_leaves(value, found)
    elif isinstance(part, (list, tuple)):
        for value in part:
            _add_leaves(value, found)
    else:
        found.append(part)


def _without_copies(x: Tensor) -> Tensor:
    """A tensor without the dims along which it was expanded, as over particles."""
    dims = zip(x.shape, x.stride(), strict=True)
    index = [0 if size == 1 or (size and not stride) else slice(None) for size, stride in dims]
    return x[tuple(index)] if 0 in index else x


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        both = isinstance(a, Tensor) and isinstance(b, Tensor)
        return both and a.dtype == b.dtype and torch.equal(a, b)
    return bool(a == b)
