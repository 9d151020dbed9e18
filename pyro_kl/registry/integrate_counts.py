r"""Pairs of count distributions: each a Poisson or a NegativeBinomial, perhaps with extra zeros.

Their KL has a closed form but for E log of a rising factorial. Malmsten's formula of log gamma
makes of it an integral over one variable, whatever the mean (Whittaker & Watson 1927, sec. 12.3).
With G(t) = E exp(-t x), s = 1 - exp(-t), h = s p1 / p0 and e(x) = exp(-x) - 1 + x, the terms of
first order cancel analytically, and integrals of positive functions over du = dt / t are left:

    NB(r) || NB(r + d)   E log (r)_x / (r + d)_x = d log p0 + int (1 - G) exp(-r t) e(d t) / s
    NB(r) || Poisson     E log (r)_x / r^x = int exp(-r t) [r (h - log(1 + h)) + e(-log G)] / s
    Poisson || NB(r)     E log (r)_x / r^x = int exp(-r t) e(rate s) / s
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from ..numerics.dtypes import Parameters
from ..numerics.quadrature.integrand import Recorded
from ..numerics.quadrature.integrate import Integral, integrate, requested_tolerance, tolerance
from ..numerics.special.bernoulli import kl_of_logs
from ..numerics.special.divergences import kl_div_from_zero, kl_div_of_difference
from ..numerics.special.logarithms import expm1mx, log1pmx
from ..numerics.special.zero_inflation import Gates, kl_inflated
from .family import Family
from .integrate import report
from .lift import derived_pair
from .pair import Pair
from .register import derivation_rule

#: The tolerance of the integrals that a KL is the sum of.
_FINE = 1e-13
#: Relative rounding error of each term of that sum.
_ROUNDING = 16 * 2.0**-52


@dataclass(frozen=True)
class PoissonCount:
    """A Poisson distribution, with the probabilities of additional zeros if any."""

    mean: Tensor
    gates: Gates | None = None

    @property
    def log_zero(self) -> Tensor:
        """Log of the mass at 0, without additional zeros."""
        return -self.mean

    def safe(self, mask: Tensor) -> PoissonCount:
        """The same where the mask holds, another one elsewhere; without additional zeros."""
        return PoissonCount(torch.where(mask, self.mean, 1.0))


@dataclass(frozen=True)
class NegativeBinomialCount:
    """A NegativeBinomial distribution, with the probabilities of additional zeros if any.

    Args:
        size: number of failures.
        log_p1: log of the probability of the outcome that is counted.
        log_p0: log of the probability of a failure.
        gates: logs of the probability of an additional zero, and of its complement.
    """

    size: Tensor
    log_p1: Tensor
    log_p0: Tensor
    gates: Gates | None = None

    @property
    def odds(self) -> Tensor:
        """p1 / p0."""
        return torch.exp(self.log_p1 - self.log_p0)

    @property
    def mean(self) -> Tensor:
        """The mean, without additional zeros."""
        return self.size * self.odds

    @property
    def log_zero(self) -> Tensor:
        """Log of the mass at 0, without additional zeros."""
        return self.size * self.log_p0

    def safe(self, mask: Tensor) -> NegativeBinomialCount:
        """The same where the mask holds, another one elsewhere; without additional zeros."""
        half = -math.log(2)
        return NegativeBinomialCount(
            torch.where(mask, self.size, 1.0),
            torch.where(mask, self.log_p1, half),
            torch.where(mask, self.log_p0, half),
        )


Count: TypeAlias = PoissonCount | NegativeBinomialCount


@derivation_rule
def count_integral(p: Family, q: Family) -> Pair | None:
    """Both are a Poisson or a NegativeBinomial, perhaps with additional zeros."""
    p_count, q_count = p.count, q.count
    if p_count is None or q_count is None:
        return None
    name, source = f"{p.name} || {q.name}", ", ".join(dict.fromkeys((p.home, q.home)))

    def kl_count_integral(a: Parameters, b: Parameters) -> Tensor:
        p_given, q_given = p_count(**a), q_count(**b)
        value, error, nodes = _kl_of_bases(p_given, q_given)
        if p_given.gates is not None or q_given.gates is not None:
            p_gates, q_gates = _gates(p_given), _gates(q_given)
            value = kl_inflated(value, p_given.log_zero, q_given.log_zero, p_gates, q_gates)
            error = error + _ROUNDING * value.detach().abs()
        known, error = torch.broadcast_tensors(value.detach(), error)
        error = torch.where(known.isfinite(), error, 0.0)
        report(name, source, Integral(known, error, nodes), requested_tolerance())
        return value

    kl_count_integral.__doc__ = "The closed part, and an integral for E log of a rising factorial."
    return derived_pair(
        p,
        q,
        kl_count_integral,
        method="quadrature",
        finite="q has mass wherever p has",
        reference="Whittaker & Watson (1927), sec. 12.3 (Malmsten); derived in the module",
    )


def _gates(count: Count) -> Gates:
    """The gates; without additional zeros they are log 0 and log 1."""
    if count.gates is not None:
        return count.gates
    return torch.full_like(count.mean, -math.inf), torch.zeros_like(count.mean)


class _Sum(NamedTuple):
    """A KL in two parts.

    Args:
        closed: the closed part.
        size: the sum of the absolute values of its terms, for the rounding error.
        integral: the other part.
        sign: that of the integral in the KL.
    """

    closed: Tensor
    size: Tensor
    integral: Integral
    sign: float


def _kl_of_bases(p: Count, q: Count) -> tuple[Tensor, Tensor, int]:
    """KL without additional zeros, its error and the number of nodes.

    It is -log q(0) where p is an atom at 0, and +inf where only q is.
    """
    p_atom, q_atom = p.mean == 0, q.mean == 0
    regular = ~(p_atom | q_atom)
    parts = _parts(p.safe(regular), q.safe(regular))
    value = parts.closed + parts.sign * parts.integral.value
    size = parts.size.detach() + parts.integral.value.detach().abs()
    error = parts.integral.error + _ROUNDING * size
    atoms = torch.where(p_atom, -q.log_zero, math.inf)
    value, error = torch.where(regular, value, atoms), torch.where(regular, error, 0.0)
    return value, error, parts.integral.nodes


def _parts(p: Count, q: Count) -> _Sum:
    if isinstance(p, NegativeBinomialCount):
        if isinstance(q, NegativeBinomialCount):
            return _nb_nb(p, q)
        return _nb_poisson(p, q)
    # two Poissons have a closed form of their own
    assert isinstance(q, NegativeBinomialCount)
    return _poisson_nb(p, q)


def _over_log_time(function: Callable[..., Tensor]) -> Recorded:
    """`function(t, *parameters)` as an integrand over z = log t - centre."""

    def integrand(z: Tensor, centre: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        t = torch.exp(centre + z)
        return torch.zeros_like(t), -function(t, *parameters)

    return Recorded(integrand)


def _integral(
    integrand: Recorded, parameters: tuple[Tensor, ...], fastest: Tensor, slowest: Tensor
) -> Integral:
    """The integral from t well below 1 / fastest to where exp(-slowest t) is negligible."""
    start = -torch.log(fastest.detach().clamp(min=1.0)) - 38.0
    end = torch.log(40.0 / slowest.detach())
    centre = 0.5 * (start + 38.0 + end - math.log(40.0))
    window = centre - start, end - centre
    with tolerance(_FINE):
        return integrate(integrand, (centre, *parameters), window, is_density=False)


@_over_log_time
def _nb_nb_integrand(t: Tensor, r: Tensor, other: Tensor, odds: Tensor) -> Tensor:
    s = -torch.expm1(-t)
    one_minus_g = -torch.expm1(-r * torch.log1p(odds * s))
    x = (other - r) * t
    near = x.abs() < 1
    close = torch.exp(-r * t) * expm1mx(-torch.where(near, x, 0.0))
    far = torch.exp(-other * t) - torch.exp(-r * t) * (1 - x)
    return one_minus_g * torch.where(near, close, far) / s


def _nb_nb(p: NegativeBinomialCount, q: NegativeBinomialCount) -> _Sum:
    d, odds = q.size - p.size, p.odds
    of_trials = torch.exp(-p.log_p0) * p.size * kl_of_logs(p.log_p1, p.log_p0, q.log_p1, q.log_p0)
    cross = d * (p.log_p0 - q.log_p0)
    size = of_trials.abs() + d.abs() * (p.log_p0.abs() + q.log_p0.abs())
    fastest = torch.maximum(torch.maximum(p.mean, odds), torch.maximum(p.size, q.size))
    slowest = torch.minimum(p.size, q.size)
    integral = _integral(_nb_nb_integrand, (p.size, q.size, odds), fastest, slowest)
    return _Sum(of_trials + cross, size, integral, 1.0)


@_over_log_time
def _nb_poisson_integrand(t: Tensor, r: Tensor, odds: Tensor) -> Tensor:
    s = -torch.expm1(-t)
    h = odds * s
    return torch.exp(-r * t) * (expm1mx(-r * torch.log1p(h)) - r * log1pmx(h)) / s


def _nb_poisson(p: NegativeBinomialCount, q: PoissonCount) -> _Sum:
    mean, odds = p.mean, p.odds
    fastest = torch.maximum(mean, torch.maximum(odds, p.size))
    integral = _integral(_nb_poisson_integrand, (p.size, odds), fastest, p.size)
    of_means = kl_div_from_zero(mean, q.mean)
    spread = p.size * kl_div_of_difference(1 + odds, torch.ones_like(odds), odds)
    return _Sum(of_means - spread, of_means + spread, integral, 1.0)


@_over_log_time
def _poisson_nb_integrand(t: Tensor, r: Tensor, rate: Tensor) -> Tensor:
    s = -torch.expm1(-t)
    return torch.exp(-r * t) * expm1mx(-rate * s) / s


def _poisson_nb(p: PoissonCount, q: NegativeBinomialCount) -> _Sum:
    odds = q.odds
    fastest = torch.maximum(p.mean, q.size)
    integral = _integral(_poisson_nb_integrand, (q.size, p.mean), fastest, q.size)
    of_means = kl_div_from_zero(p.mean, q.mean)
    spread = q.size * kl_div_of_difference(1 + odds, torch.ones_like(odds), odds)
    cross = (p.mean - q.mean) * torch.log1p(odds)
    return _Sum(of_means + spread + cross, of_means + spread + cross.abs(), integral, -1.0)
