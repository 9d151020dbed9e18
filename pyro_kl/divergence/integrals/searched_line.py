"""The line of a distribution whose mass is found by a search for the peak of its density."""

from __future__ import annotations

from dataclasses import replace

import torch
from pyro.distributions import ImproperUniform
from torch import Tensor
from torch.distributions import Distribution

from ...wrappers.transformed.distribution_line import DistributionLine, Mass
from ...wrappers.transformed.line_of import line_of
from .support_line import line_of_support
from .undeclared import search


def searched_line(p: Distribution) -> DistributionLine | None:
    """The line of p, if its density can be computed at any point of a known support."""
    line, on_line = line_of(p), line_of_support(p)
    if line is None or on_line is None or isinstance(p, ImproperUniform):
        return None

    def log_density(y: Tensor) -> Tensor:
        point = on_line.at(y)
        return line.log_density(point, *line.tensors) + point.log_slope

    with torch.no_grad():
        like = log_density(torch.zeros((1, *p.batch_shape), dtype=torch.float64))
        peak = search(log_density, p.batch_shape, like.device, on_line.limits)
    mass = Mass(
        at=lambda y, *_: on_line.at(y),
        place=lambda x, *_: on_line.place(x),
        scale=lambda *_: (peak.centre, peak.width),
        window=(peak.low, peak.high),
        is_peaked=True,
    )
    return replace(line, mass=lambda: mass)
