"""The line of a mixture, and the places of its components."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.transforms import Transform

from ...registry.line import half_line, sinh_line
from ...wrappers.transformed.distribution_line import DistributionLine, Mass
from ...wrappers.transformed.line_of import line_of
from ..mixtures import components, is_mixture

#: The panels of a mixture end so many widths from the centre of each component.
_ENDS = (-40.0, -16.0, -4.0, -1.0, 0.0, 1.0, 4.0, 16.0, 40.0)


@torch.no_grad()
def places_of_components(distribution: Distribution) -> list[Tensor]:
    """Points at and next to the components of a mixture; none for another distribution."""
    if not is_mixture(distribution):
        return []
    line = line_of(components(distribution)[1])
    if line is None or line.mass is None:
        return []
    mass, (centre, width) = line.mass(), line.mass().scale(*line.tensors)
    points = [mass.at(centre + k * width, *line.tensors).x for k in _ENDS]
    return [x for point in points for x in torch.atleast_1d(point).unbind(-1)]


def line_of_mixture(p: Distribution) -> tuple[DistributionLine, list[Transform]] | None:
    """The line of a mixture on the real or on the positive line, as wide as its components."""
    line = line_of(p) if is_mixture(p) else None
    if line is None or line.is_opaque or not (_is(line.high, math.inf)):
        return None
    places = places_of_components(p)
    if not places or not (_is(line.low, -math.inf) or _is(line.low, 0.0)):
        return None
    inner = torch.stack([x.expand(p.batch_shape) for x in places]).sort(0).values
    inner = inner.nan_to_num(posinf=1e300, neginf=-1e300)
    start, end = (inner[int(len(inner) * part)] for part in (0.4, 0.6))
    if _is(line.low, 0.0):
        start, end = start.clamp(min=1e-300).log(), end.clamp(min=1e-300).log()
        at, place = (lambda y, *_: half_line(y)), (lambda x, *_: torch.log(x))
        scale = 0.5 * (start + end), (end - start).clamp(min=0.1)
    else:
        loc, unit = 0.5 * (start + end), (end - start).clamp(min=1e-12)
        at, place = (
            (lambda y, *_: sinh_line(y, loc, unit)),
            (lambda x, *_: torch.asinh((x - loc) / unit)),
        )
        scale = torch.zeros_like(loc), torch.ones_like(loc)
    window = (40.0, 40.0)
    return replace(
        line, mass=lambda: Mass(at, place, lambda *_: scale, window, is_peaked=True)
    ), []


def _is(end: Tensor | float, number: float) -> bool:
    return bool((torch.as_tensor(end) == number).all())
