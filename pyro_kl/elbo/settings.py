"""Scale and mask of a latent: whether model and guide agree on them.

An exact KL has one scale and one mask. Where the two sides differ, log q and log p keep their own.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import Independent

from ..registry.subclasses import is_a
from ..wrappers.masked import unmasked
from .guides.guide_site import FromPrior, GuideSite
from .guides.plan import Decision
from .traces import Traces


def agree(how: Decision, traces: Traces) -> bool:
    """Whether model and guide have the same scale and mask at a latent."""
    if isinstance(how.site, FromPrior):
        return True
    node, parts = traces.model.nodes[how.site.name], how.site.parts
    scale, mask = node["scale"], node["mask"]
    if mask is None or not lends_mask(how.site, traces):
        for part in parts:
            of_part = traces.guide.nodes[part]["mask"]
            if of_part is not mask and not _same(of_part, mask):
                return False
    for part in parts:
        of_part = traces.guide.nodes[part]["scale"]
        if of_part is not scale and not _same(of_part, scale):
            return False
    if not how.masked:
        return True
    q, p = traces.guide.nodes[parts[-1]]["fn"], node["fn"]
    of_q, of_p = inner_masks(q), inner_masks(p)
    if of_q is None or of_p is None or len(of_q) != len(of_p):
        return False
    pairs = zip(of_q, of_p, strict=True)
    if not all(a[0] == b[0] and _same(a[1], b[1]) for a, b in pairs):
        return False
    return _same(unmasked(q)[1], unmasked(p)[1])


def lends_mask(site: GuideSite, traces: Traces) -> bool:
    """Whether the guide of a latent should have the model's mask, and has none.

    Pyro's `obs_mask` makes a latent "x_unobserved" whose mask leaves out what is observed;
    autoguides do not carry that mask.
    """
    name, suffix = site.name, "_unobserved"
    if not name.endswith(suffix) or traces.model.nodes[name]["mask"] is None:
        return False
    if any(traces.guide.nodes[part]["mask"] is not None for part in site.parts):
        return False
    return name.removesuffix(suffix) + "_observed" in traces.model.nodes


def inner_masks(distribution: Any) -> list[tuple[int, Any]] | None:
    """The masks inside of a distribution's event, as `.mask(...).to_event(...)` puts them there.

    Returns:
        For each its event dims and the mask; None if one is under more than an Independent, where
        the masked density belongs to no part of the event.
    """
    found: list[tuple[int, Any]] = []
    distribution, _ = unmasked(distribution)
    only_products = True
    while not isinstance(distribution, Delta) and hasattr(distribution, "base_dist"):
        only_products = only_products and is_a(distribution, Independent)
        distribution, mask = unmasked(distribution.base_dist)
        if mask is not True:
            if not only_products:
                return None
            found.append((distribution.event_dim, mask))
    return found


def _same(a: Any, b: Any) -> bool:
    """Whether two scales or two masks are the same, element by element."""
    if a is b:
        return True
    a, b = (1 if x is None or x is True else 0 if x is False else x for x in (a, b))
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        return bool(a == b)
    return bool((torch.as_tensor(a) == torch.as_tensor(b)).all())
