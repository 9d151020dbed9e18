"""VonMises(loc, concentration): angles from -pi to pi."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor
from torch.distributions import VonMises

from ...numerics.autograd.custom import with_partials
from ...numerics.dtypes import Parameters
from ...numerics.special.series import bregman_nearby, slope_difference_nearby
from ...registry.family import Family, Support
from ...registry.line import Line, Point, interval
from ...registry.register import declare, formula

ANGLES = Support(
    "angles from -pi to pi", discrete=False, low=-math.pi, high=math.pi, period=2 * math.pi
)


# --- A = I1/I0, the mean resultant length -------------------------------------------------------


def _large_concentration(count: int) -> tuple[float, ...]:
    """a_1, a_2, ... of A(k) = 1 - sum a_n k^-n, from A' = 1 - A/k - A^2."""
    a = [Fraction(-1)]  # A = -sum a_n k^-n with a_0 = -1
    for n in range(1, count + 1):
        # at k^-n: A' gives (n-1) a_(n-1), A/k gives -a_(n-1), A^2 the convolution
        middle = sum((a[i] * a[n - i] for i in range(1, n)), Fraction(0))
        shift = (n - 1) * a[n - 1] if n > 1 else Fraction(0)
        a.append((shift - a[n - 1] + middle) / 2)
    return tuple(float(x) for x in a[1:])


_LARGE = 30.0  # from here on eighteen terms leave 1e-17
_A = _large_concentration(18)


def _split(k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    large = k >= _LARGE
    return large, 1 / torch.where(large, k, _LARGE), torch.where(large, 1.0, k)


def _resultant_slope(k: Tensor) -> Tensor:
    """A'(k)."""
    large, inverse, little = _split(k)
    series = torch.zeros_like(k)
    for n in range(len(_A), 0, -1):
        series = series * inverse + n * _A[n - 1]
    mean = torch.special.i1e(little) / torch.special.i0e(little)
    return torch.where(large, series * inverse**2, 1 - mean / little - mean * mean)


@with_partials(lambda k: (-_resultant_slope(k),))
def shortfall(k: Tensor) -> Tensor:
    """1 - A(k), the circular variance."""
    large, inverse, little = _split(k)
    series = torch.zeros_like(k)
    for a in reversed(_A):
        series = series * inverse + a
    i0, i1 = torch.special.i0e(little), torch.special.i1e(little)
    return torch.where(large, series * inverse, (i0 - i1) / i0)


@with_partials(lambda k: (-shortfall(k),))
def log_i0e(k: Tensor) -> Tensor:
    """Log I0(k) - k."""
    return torch.log(torch.special.i0e(k))


def _near_enough(k: Tensor, d: Tensor) -> Tensor:
    # A has poles at the zeros of I0, the nearest at +-2.4 i
    return d.abs() <= torch.clamp(0.5 * k, min=2.0)


def _bregman_partials(k: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    d = other - k
    near = _near_enough(k, d)
    close = slope_difference_nearby(_resultant_slope, k, torch.where(near, d, 0.0))
    return -d * _resultant_slope(k), torch.where(near, close, shortfall(k) - shortfall(other))


@with_partials(_bregman_partials)
def bregman_log_i0(k: Tensor, other: Tensor) -> Tensor:
    """Log I0(other) - log I0(k) - (other - k) A(k) >= 0."""
    d = other - k
    near = _near_enough(k, d)
    close = bregman_nearby(_resultant_slope, k, torch.where(near, d, 0.0))
    return torch.where(near, close, log_i0e(other) - log_i0e(k) + d * shortfall(k))


# --- the family ---------------------------------------------------------------------------------


def entropy(loc: Tensor, concentration: Tensor) -> Tensor:
    k = concentration
    around = 0.0 * loc  # nan of an angle that is infinite
    return math.log(2 * math.pi) + log_i0e(k) + k * shortfall(k) + around


def log_density_at(point: Point, loc: Tensor, concentration: Tensor) -> Tensor:
    drop = 2 * torch.sin(0.5 * (point.x - loc)) ** 2
    return -concentration * drop - math.log(2 * math.pi) - log_i0e(concentration)


def at(y: Tensor, **_: Tensor) -> Point:
    return interval(y, -math.pi, math.pi)


def place(x: Tensor, **_: Tensor) -> Tensor:
    return torch.log((math.pi + x) / (math.pi - x))


def logit_centre(loc: Tensor, concentration: Tensor) -> Tensor:
    """Of loc on the circle; an end of the line is close enough to see a peak there."""
    angle = torch.remainder(loc + math.pi, 2 * math.pi) - math.pi
    return place(angle.clamp(-3.14, 3.14))


von_mises = declare(
    Family(
        VonMises,
        parameters=("loc", "concentration"),
        support=ANGLES,
        examples=(
            {"loc": 0.0, "concentration": 1.0},
            {"loc": 2.5, "concentration": 0.1},
            {"loc": -1.0, "concentration": 40.0},
        ),
        reference="Mardia & Jupp (2000), ch. 3",
        entropy=entropy,
        line=Line(
            log_density_at,
            at=at,
            place=place,
            centre=logit_centre,
            width=lambda loc, concentration: torch.ones_like(loc),
            reach=(48.0, 48.0),
            index=(1.0, 1.0),
            peaked=True,
        ),
    )
)


@formula(
    von_mises,
    von_mises,
    cases=[
        ((0.0, 1.0), (1.0, 3.0), 1.0722266455318832403),
        ((2.5, 100.00001), (2.5, 100.0), 2.5126911767840030283e-15),
        ((3.0, 25.0), (-3.0, 0.01), 2.0086756656998505826),
        ((0.0, 3.0), (0.25, 400.0), 83.008365257981551658),
    ],
    reference="Mardia & Jupp (2000), ch. 3; split derived in the docstring",
)
def kl_von_mises_von_mises(p: Parameters, q: Parameters) -> Tensor:
    """KL(VonMises(m, k) || VonMises(mu, l)), as two terms that are never negative.

    With A = I1(k)/I0(k) = (log I0)'(k),

        KL = [log I0(l) - log I0(k) - (l - k) A] + 2 A l sin^2((m - mu)/2)
    """
    half = torch.sin(0.5 * (p["loc"] - q["loc"]))
    length = 1 - shortfall(p["concentration"])
    turned = 2 * length * q["concentration"] * half * half
    return bregman_log_i0(p["concentration"], q["concentration"]) + turned
