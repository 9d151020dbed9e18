"""Integrals over a line that are refused, short of a tolerance, or of an empty batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...messages import see
from ...numerics.quadrature.integrate import short_of
from ...registry.reduction import describe
from ...registry.shapes import broadcast_batch
from ...registry.warnings import warn_once
from ..found import Found
from .two_densities import TwoDensities
from .undeclared import is_on_line

#: An integral with a larger relative error has not seen all of p's mass.
_WORST = 0.01


def of_empty_batch(p: Distribution, q: Distribution) -> Found | None:
    """The integrals of an empty batch; None of another one, or if there are no integrals."""
    shape = broadcast_batch(p, q)
    if shape.numel() or not is_on_line(p, q):
        return None
    empty = torch.zeros(shape, dtype=torch.float64)
    return Found(empty, "quadrature", "an empty batch", empty)


def checked(
    name: str, densities: TwoDensities, value: Tensor, error: Tensor, tolerance: float = 1e-6
) -> str:
    """In words, what an integral is short of; nothing if it is not.

    Args:
        name: what it is, with the names of its distributions.
        densities: both densities.
        value: the integral.
        error: the estimate of its error.
        tolerance: a relative error.

    Raises:
        NotImplementedError: a density is nan, as where a map has rounded x to an end of a support;
            or `log_prob`, all that is known of one, under- or overflows before it is nothing.
    """
    rows = ~densities.unknown & ~densities.apart
    if bool((value.isnan() & rows).any()):
        raise NotImplementedError(
            f"{name}: a density is no number where x has rounded to an end of a support."
            + see("no-integral")
        )
    if not densities.is_opaque:
        return ""
    if bool(((error > _WORST * (1 + value.abs())) & rows).any()):
        raise NotImplementedError(
            f"{name} cannot be told from `log_prob`, which over- or underflows before the "
            "integrand has fallen to nothing." + see("no-integral")
        )
    reason = short_of(
        torch.where(rows, value, 0.0).detach(), torch.where(rows, error, 0.0), tolerance
    )
    if reason:
        warn_once(f"short {name}", f"{name}: {reason}." + see("integral-short-of-tolerance"))
    return reason


def not_on_line(name: str, p: Distribution, q: Distribution) -> NotImplementedError:
    """The error for a pair without a formula, a sum or an integral; what to do instead."""
    return NotImplementedError(
        f"No formula and no integral for {name}({describe(p)} || {describe(q)}). "
        + _INSTEAD[name]
        + see("no-formula")
    )


_INSTEAD = {
    "Jensen-Shannon": "pyro_kl.jensen_shannon(p, q, num_samples=100_000) estimates it.",
    "Renyi": "pyro_kl.kl(p, q) is that of order 1. Samples do not tell whether others are finite.",
}
