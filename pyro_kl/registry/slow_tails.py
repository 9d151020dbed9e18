r"""Power tails of p against a log q that falls linearly: the part of the integral known exactly.

Where p's tail index a is close to 1 and -log q grows like x, the integrand decays like
exp((1 - a) y), y = log x, and most of the integral may lie where x overflows. But the mean of p,
or of the distance

    h(x) = sqrt(r^2 + (x - c)^2),

is known in closed form. With u and l the slopes of -log q above and below,
g = (u + l)/2 h + (u - l)/2 (x - c) has the tails of -log q, and

    E[-log q] = E g - E[log q + g]

where the second expectation has p's own tails only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..numerics.dtypes import Parameters
from .line import LARGEST, Distance, Line, Point

#: A stretch of a window, index / (index - 1), of a tail of index 4; slower tails have more.
_SLOW = 4 / 3


@dataclass(frozen=True)
class SlowTails:
    """The part g of -log q.

    Args:
        distance: of p, as its line declares it.
        above: of q's parameters: the slope of -log q far above.
        below: the same far below; None if p has a lower end.
    """

    distance: Callable[..., Distance]
    above: Callable[..., Tensor]
    below: Callable[..., Tensor] | None

    def of(self, point: Point, a: Parameters, b: Parameters) -> Tensor:
        """The part g at a point."""
        own = self.distance(**a)
        up = self.above(**b)
        if self.below is None or own.radius is None:
            assert point.log_above is not None
            return up * torch.exp(point.log_above.clamp(max=LARGEST))
        down, x = self.below(**b), point.x - own.centre
        return 0.5 * (up + down) * torch.hypot(own.radius, x) + 0.5 * (up - down) * x

    def mean(self, a: Parameters, b: Parameters) -> Tensor:
        """E g: where p has no lower end, p is symmetric and x - c has the mean 0."""
        up = self.above(**b)
        slope = up if self.below is None else 0.5 * (up + self.below(**b))
        return slope * self.distance(**a).mean


def slow_tails(line: Line, q_line: Line) -> SlowTails | None:
    """The part of -log q for p; None if their tails are not of that kind."""
    above, below = q_line.rate[1], q_line.rate[0]
    if line.distance is None or q_line.growth[1] != 1.0 or not callable(above):
        return None
    if line.index[0] is not line.index[1]:  # one tail
        return SlowTails(line.distance, above, None)
    return SlowTails(line.distance, above, below) if callable(below) else None


def is_slow(tail_stretch: tuple[Tensor | float, Tensor | float]) -> Tensor:
    """Whether a window would have to be widened by more than a third."""
    low, high = (torch.as_tensor(x) for x in tail_stretch)
    return torch.maximum(low, high) > _SLOW
