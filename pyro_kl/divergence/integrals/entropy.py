"""The entropy of a univariate distribution: the integral of -log p."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...registry.reduction import describe
from ..found import Found
from .checks import checked, of_empty_batch
from .panels import integrated
from .two_densities import two_densities

#: An absolute error that suffices: the integrand changes its sign.
_FLOOR = 1e-13
#: A log density is hardly larger where x is next to rounding to an end.
_MOST = 40.0


def entropy_by_integral(p: Distribution) -> Found | None:
    """The entropy; None if too little is known of p."""
    densities = two_densities(p, p)
    if densities is None:
        return of_empty_batch(p, p)

    def terms(y: Tensor) -> list[Tensor]:
        log_p, _, log_slope = densities(y)
        gone = torch.isneginf(log_p)
        log_density = torch.where(gone, 0.0, log_p - log_slope)
        return [-torch.exp(log_p) * log_density]

    found = integrated(terms, [densities.peak(densities.log_p)], densities.kinks(), _FLOOR)
    error = found.error[0]
    if densities.is_opaque:
        # mass next to an end to which x has rounded, with a log density of so many nats
        error = error + _MOST * densities.missing_mass(densities.kinks())
    error = torch.where(densities.unknown, 0.0, error)
    value = torch.where(densities.unknown, math.nan, found.value[0])
    short = checked(f"The entropy of {describe(p)}", densities, value, error)
    source = "; ".join(["-log p over p's support", *filter(None, [short])])
    return Found(value, "quadrature", source, error, found.nodes)
