"""The terms of an ELBO: one for each site, in nats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pyro.distributions.util import scale_and_mask
from pyro.util import ignore_jit_warnings
from torch import Tensor

from ..numerics.concrete import is_recorded
from ..wrappers.masked import both
from .traces import Site, is_factor

#: Method of the model's sites that are summed out; their KL has no weight of its own.
SUMMED_OUT = "summed out"


@dataclass
class Term:
    """What one site adds to the ELBO, for one particle or for all of a vectorized run.

    Attributes:
        name: of the site.
        kind: "likelihood" (observed sites and factors; added), "latent" or "auxiliary"
            (subtracted).
        value: nats, scaled and masked, of the site's batch shape.
        surrogate: what is differentiated in its place.
        frames: the plates that the site is in.
        method: "closed form", "exact sum", "quadrature", "monte carlo", ...
        source: where a reader finds the formula.
        reason: why this method.
        score: the site's score function, where its values are not reparametrised.
        score_frames: the plates that the guide's site is in.
        own_cost: whether `value` belongs to the cost of the site's own samples.
        dims: exact KL per element of the event, neither scaled nor masked.
        scale: of the site, as Pyro has collected it.
        mask: of the site.
        shape: of the site's value, batch and event.
        total: the sum of `value`, where it is known already.
        shown_as: the terms that a report shows in place of this one, with its sum.
        together: the sites that are summed out together, whose KL it is.
    """

    name: str
    kind: str
    value: Tensor
    surrogate: Tensor
    frames: tuple[Any, ...]
    method: str
    source: str
    reason: str
    score: Tensor | None
    score_frames: tuple[Any, ...]
    own_cost: bool
    dims: Tensor | None
    scale: Any
    mask: Any
    shape: tuple[int, ...]
    total: Tensor | None = None
    shown_as: Callable[[], list[Term]] | None = None
    together: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        node: Site,
        kind: str,
        value: Any,
        surrogate: Any = None,
        *,
        method: str,
        source: str = "",
        reason: str = "",
        score: Tensor | None = None,
        drawn: Site | None = None,
        own_cost: bool = True,
        dims: Tensor | None = None,
        mask: Any = True,
        total: Tensor | None = None,
    ) -> Term:
        """The term of a site, `node`, of the model for a latent, whose guide's site is `drawn`.

        The surrogate is the value if it is None. The mask is that of the site's distribution,
        beside the one that Pyro has collected. All other arguments are as the attributes.
        """
        shape = node["fn"].batch_shape
        if not is_factor(node):
            shape = shape + node["fn"].event_shape
        if is_recorded():
            with ignore_jit_warnings():  # sizes are tensors
                shape = tuple(map(int, shape))
        return cls(
            name=node["name"],
            kind=kind,
            value=value,
            surrogate=value if surrogate is None else surrogate,
            frames=node["cond_indep_stack"],
            method=method,
            source=source,
            reason=reason,
            score=score,
            score_frames=(node if drawn is None else drawn)["cond_indep_stack"],
            own_cost=own_cost,
            dims=dims,
            scale=node["scale"],
            mask=node["mask"] if mask is True else both_masks(node["mask"], mask),
            shape=tuple(shape),
            total=total,
        )

    @property
    def is_exact(self) -> bool:
        """Whether it is the KL of a latent, without a draw of that latent in it."""
        return self.kind == "latent" and not self.own_cost

    def detached(self) -> Term:
        """The same without its graph."""
        value = self.value.detach()
        dims = None if self.dims is None else self.dims.detach()
        return replace(self, value=value, surrogate=value, score=None, dims=dims, total=None)


def merged(one: Term, other: Term) -> Term:
    """Two parts of the same term, without their graph, as one."""
    value, dims = one.value + other.value, None
    if one.value.shape != other.value.shape:
        value = one.value.sum() + other.value.sum()
    elif one.dims is not None and other.dims is not None:
        dims = one.dims + other.dims
    return replace(one, value=value, surrogate=value, dims=dims)


def scaled(value: Tensor, node: Site, mask: Any = True) -> Tensor:
    """Nats times a site's scale, and zero where the site or `mask` leaves elements out."""
    if mask is not True:
        mask = both_masks(node["mask"], mask)
        return scale_and_mask(value, scale=node["scale"], mask=None if mask is True else mask)
    return scale_and_mask(value, scale=node["scale"], mask=node["mask"])


def both_masks(of_site: Any, mask: Any) -> Any:
    """What both masks let through; the one of a site is None if there is none."""
    return both(True if of_site is None else of_site, True if mask is None else mask)
