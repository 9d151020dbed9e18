r"""Count pairs: any two of the distributions that are a Poisson or a NegativeBinomial, or inflated
at 0.

What keeps them from a closed form is E log of a rising factorial, for which Malmsten's formula of
log gamma gives an integral over one variable whatever the mean (Whittaker & Watson 1927, 12.3).
With G(t) = E exp(-t x), s = 1 - exp(-t) and e(x) = exp(-x) - 1 + x, what is left of it once the
terms of first order are taken out by hand is a sum of positive integrals over du = dt / t:

    NB(r) || NB(r + d)   E log (r)_x / (r + d)_x = d log p0 + int (1 - G) exp(-r t) e(d t) / s
    NB(r) || Poisson     E log (r)_x / r^x = int exp(-r t) [r (h - log(1 + h)) + e(-log G)] / s
    Poisson || NB(r)     the same with e(rate s) alone; h = s p1 / p0
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..numerics.dtypes import Parameters
from ..numerics.quadrature.integrate import Integral, integrate, requested_tolerance, tolerance
from ..numerics.special.bernoulli import kl_of_logs
from ..numerics.special.divergences import kl_div_from_zero, kl_div_of_difference
from ..numerics.special.logarithms import expm1mx, log1pmx
from ..numerics.special.zero_inflation import kl_inflated
from .family import Family
from .integrate import report
from .lift import derived_pair
from .pair import Pair
from .register import derivation_rule

#: Asked of the integrals, from which the KL is put together.
_FINE = 1e-13
#: What rounding leaves of each of the terms that a KL is put together from.
_ROUNDING = 16 * 2.0**-52


@dataclass(frozen=True)
class Count:
    """A Poisson or a NegativeBinomial distribution, perhaps with additional zeros.

    Args:
        mean: of the base distribution.
        size: the NegativeBinomial's number of failures; None for a Poisson.
        log_p1: log of the probability of what is counted.
        log_p0: log of that of a failure.
        gates: log of the probability of an additional zero, and of the base distribution.
    """

    mean: Tensor
    size: Tensor | None = None
    log_p1: Tensor | None = None
    log_p0: Tensor | None = None
    gates: tuple[Tensor, Tensor] | None = None

    @property
    def odds(self) -> Tensor:
        """p1 / p0."""
        assert self.log_p1 is not None
        assert self.log_p0 is not None
        return torch.exp(self.log_p1 - self.log_p0)

    @property
    def log_zero(self) -> Tensor:
        """Log of the base distribution's mass at 0."""
        if self.size is None:
            return -self.mean
        assert self.log_p0 is not None
        return self.size * self.log_p0

    @property
    def both_gates(self) -> tuple[Tensor, Tensor]:
        """The gates, of which a distribution without additional zeros has none."""
        if self.gates is not None:
            return self.gates
        return torch.full_like(self.mean, -math.inf), torch.zeros_like(self.mean)

    def safe(self, mask: Tensor) -> Count:
        """The base distribution where the mask holds, some other one elsewhere."""
        if self.size is None:
            return Count(torch.where(mask, self.mean, 1.0))
        assert self.log_p1 is not None
        assert self.log_p0 is not None
        half = -math.log(2)
        return Count(
            torch.where(mask, self.mean, 1.0),
            torch.where(mask, self.size, 1.0),
            torch.where(mask, self.log_p1, half),
            torch.where(mask, self.log_p0, half),
        )


def negative_binomial_count(
    size: Tensor, log_p1: Tensor, log_p0: Tensor, gates: tuple[Tensor, Tensor] | None = None
) -> Count:
    """NegativeBinomial by the logarithms of its two probabilities."""
    size, log_p1, log_p0 = torch.broadcast_tensors(size, log_p1, log_p0)
    return Count(size * torch.exp(log_p1 - log_p0), size, log_p1, log_p0, gates)


def count_integral(p: Family, q: Family) -> Pair | None:
    """Both are a Poisson or a NegativeBinomial, or that and some zeros."""
    p_count, q_count = p.count, q.count
    if p_count is None or q_count is None:
        return None
    name, source = f"{p.name} || {q.name}", ", ".join(dict.fromkeys((p.home, q.home)))

    def kl_count_integral(a: Parameters, b: Parameters) -> Tensor:
        mine, theirs = p_count(**a), q_count(**b)
        value, error, nodes = _kl_of_bases(mine, theirs)
        if mine.gates is not None or theirs.gates is not None:
            value = kl_inflated(
                value, mine.log_zero, theirs.log_zero, mine.both_gates, theirs.both_gates
            )
            error = error + _ROUNDING * value.detach().abs()
        _tell(name, source, value, error, nodes)
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


def _tell(name: str, source: str, value: Tensor, error: Tensor, nodes: int) -> None:
    shape = torch.broadcast_shapes(value.shape, error.shape)
    known = value.detach().expand(shape)
    error = torch.where(known.isfinite(), error.expand(shape), 0.0)
    report(name, source, Integral(known, error, nodes), requested_tolerance())


def _kl_of_bases(p: Count, q: Count) -> tuple[Tensor, Tensor, int]:
    """KL, its error and the nodes; -log q(0) where p is an atom at 0, +inf where only q is."""
    p_atom, q_atom = p.mean == 0, q.mean == 0
    regular = ~(p_atom | q_atom)
    a, b = p.safe(regular), q.safe(regular)
    if a.size is None:
        assert b.size is not None
        closed, found, sign = *_poisson_nb(a, b), -1.0
    elif b.size is None:
        closed, found, sign = *_nb_poisson(a, b), 1.0
    else:
        closed, found, sign = *_nb_nb(a, b), 1.0
    value = closed[0] + sign * found.value
    error = found.error + _ROUNDING * (closed[1].detach() + found.value.detach().abs())
    atoms = torch.where(p_atom, -q.log_zero, math.inf)
    # an integral's rounding must not make a KL negative
    return torch.where(regular, value, atoms), torch.where(regular, error, 0.0), found.nodes


def _over_log_time(
    integrand: object, tensors: tuple[Tensor, ...], fastest: Tensor, slowest: Tensor
) -> Integral:
    """Integrate over u = log t, from well below 1 / fastest to where exp(-slowest t) is gone."""
    start = -torch.log(fastest.detach().clamp(min=1.0)) - 38.0
    end = torch.log(40.0 / slowest.detach())
    centre = 0.5 * (start + 38.0 + end - math.log(40.0))

    def at(z: Tensor, c: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        value = integrand(torch.exp(c + z), *rest)  # type: ignore[operator]
        return torch.zeros_like(value.detach()), -value

    reach = (centre - start, end - centre)
    with tolerance(_FINE):
        return integrate(at, (centre, *tensors), reach, is_density=False)


def _nb_nb(p: Count, q: Count) -> tuple[tuple[Tensor, Tensor], Integral]:
    assert p.size is not None
    assert q.size is not None
    assert p.log_p1 is not None
    assert p.log_p0 is not None
    assert q.log_p1 is not None
    assert q.log_p0 is not None
    d = q.size - p.size
    flips = torch.exp(-p.log_p0) * p.size * kl_of_logs(p.log_p1, p.log_p0, q.log_p1, q.log_p0)
    cross = d * (p.log_p0 - q.log_p0)
    size = flips.abs() + d.abs() * (p.log_p0.abs() + q.log_p0.abs())

    def integrand(t: Tensor, r: Tensor, other: Tensor, odds: Tensor) -> Tensor:
        s = -torch.expm1(-t)
        met = -torch.expm1(-r * torch.log1p(odds * s))
        x = (other - r) * t
        near = x.abs() < 1
        close = torch.exp(-r * t) * expm1mx(-torch.where(near, x, 0.0))
        far = torch.exp(-other * t) - torch.exp(-r * t) * (1 - x)
        return met * torch.where(near, close, far) / s

    found = _over_log_time(
        integrand,
        (p.size, q.size, p.odds),
        torch.maximum(torch.maximum(p.mean, p.odds), torch.maximum(p.size, q.size)),
        torch.minimum(p.size, q.size),
    )
    return (flips + cross, size), found


def _nb_poisson(p: Count, q: Count) -> tuple[tuple[Tensor, Tensor], Integral]:
    assert p.size is not None

    def integrand(t: Tensor, r: Tensor, odds: Tensor) -> Tensor:
        s = -torch.expm1(-t)
        h = odds * s
        return torch.exp(-r * t) * (expm1mx(-r * torch.log1p(h)) - r * log1pmx(h)) / s

    found = _over_log_time(
        integrand, (p.size, p.odds), torch.maximum(p.mean, torch.maximum(p.odds, p.size)), p.size
    )
    means = kl_div_from_zero(p.mean, q.mean)
    spread = p.size * kl_div_of_difference(1 + p.odds, torch.ones_like(p.odds), p.odds)
    return (means - spread, means + spread), found


def _poisson_nb(p: Count, q: Count) -> tuple[tuple[Tensor, Tensor], Integral]:
    assert q.size is not None

    def integrand(t: Tensor, r: Tensor, rate: Tensor) -> Tensor:
        s = -torch.expm1(-t)
        return torch.exp(-r * t) * expm1mx(-rate * s) / s

    found = _over_log_time(integrand, (q.size, p.mean), torch.maximum(p.mean, q.size), q.size)
    means = kl_div_from_zero(p.mean, q.mean)
    spread = q.size * kl_div_of_difference(1 + q.odds, torch.ones_like(q.odds), q.odds)
    cross = (p.mean - q.mean) * torch.log1p(q.odds)
    return (means + spread + cross, means + spread + cross.abs()), found


derivation_rule(count_integral)
