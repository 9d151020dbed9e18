"""Samples of a distribution and its log density at them, with the rounding of both.

A sample that is closer to an end of the support than floats are rounds to that end, or to the
float next to it; its density is then that of another point. Of a Gamma of concentration 0.01, two
samples in five are below float32's smallest number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from ..messages import see
from ..registry.reduction import canonicalise, describe
from ..wrappers.circle import ends_of


def draw(p: Distribution, n: int) -> tuple[Tensor, Tensor | None]:
    """n samples of p, moved off the ends of its support, and which of them were rounded there.

    Returns:
        Values of shape (n, *batch, *event), and a mask (n, *batch); None if it is all False.
    """
    with _missing(p, "no sampler: `sample` is not implemented"):
        x = p.sample(torch.Size((n,)))
    ends = (0.0, torch.inf) if _is_simplex(p) else ends_of(p)
    if ends is None or not x.is_floating_point():
        return x, None
    low, high = (torch.as_tensor(end, dtype=x.dtype, device=x.device) for end in ends)
    (least, near_low), (most, near_high) = _next_to(low, 1), _next_to(high, -1)
    at_end = (x <= near_low) | (x >= near_high)
    if not bool(at_end.any()):
        return x, None  # the same object: transforms cache the argument that it was made of
    events = tuple(range(-len(p.event_shape), 0))
    inside = torch.minimum(torch.maximum(x, least), most)
    return inside, at_end.any(events) if events else at_end


def _is_simplex(p: Distribution) -> bool:
    try:
        return p.support is constraints.simplex
    except NotImplementedError:
        return False


def _next_to(end: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The float next to an end, inside the support, and up to where samples may be rounded to it.

    Near 0 torch's samplers return the smallest normal number, and some divide it by a sum.
    """
    info = torch.finfo(end.dtype)
    inside = end + side * torch.where(end == 0, info.tiny, info.eps * end.abs())
    inside = torch.where(end.isinf(), -side / info.tiny, inside)
    near = torch.where(end == 0, inside / info.eps, inside)
    return inside, torch.where(end.isinf(), inside * info.eps, near)


def log_density(
    distribution: Distribution, x: Tensor, log_prob: Callable[[Distribution, Tensor], Tensor]
) -> Tensor:
    """The log density; that of the canonical form if the class has none, as for |x|."""
    with _missing(distribution, "no density at such points: `log_prob` is not implemented"):
        try:
            return log_prob(distribution, x)
        except NotImplementedError:
            plain = canonicalise(distribution)
            if plain is distribution:
                raise
            return log_prob(plain, x)


@contextmanager
def _missing(distribution: Distribution, lacks: str) -> Iterator[None]:
    """Turn a missing method into an error that names the distribution and what to do next."""
    try:
        yield
    except (NotImplementedError, KeyError) as missing:
        transforms = getattr(distribution, "transforms", None)
        if transforms:
            names = ", ".join(type(transform).__name__ for transform in transforms)
            lacks += f", or a transform has no inverse ({names})"
        raise NotImplementedError(
            f"{describe(distribution)} has {lacks}. A sampled KL(p || q) needs draws of "
            "p and both log densities there; give the class what it lacks, or take another one."
            + see("no-sampler")
        ) from missing
