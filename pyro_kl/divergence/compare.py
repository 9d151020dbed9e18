"""An exact KL beside a sampled one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..registry.reduction import describe
from ..results.batch import batch_dicts, batch_table
from ..results.result import Result
from ..results.table import Table
from ..results.text import WIDTH, columns, fill
from .estimate import Estimate
from .kl import kl
from .monte_carlo import check_sampling, monte_carlo


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """An exact KL and a sampled one of the same pair, in nats.

    Attributes:
        name: "p || q".
        exact: the value by formula or integral.
        sampled: the value by Monte Carlo, with its standard error.
    """

    name: str
    exact: Estimate
    sampled: Estimate

    @property
    def value(self) -> Tensor:
        """The exact KL in nats."""
        return self.exact.value

    @property
    def estimate(self) -> Tensor:
        """The sampled KL in nats."""
        return self.sampled.value

    @property
    def standard_error(self) -> Tensor:
        """Standard error of the sampled KL."""
        return self.sampled.standard_error

    @property
    def z_score(self) -> Tensor:
        """(sampled - exact) / standard error: beyond 4 or 5, one of the two is wrong.

        The standard error includes the rounding of the mean, which is all that is left where all
        terms are equal. z is nan for two infinities, and where the standard error does not hold
        (`sampled.unreliable`).
        """
        exact, error = self.value.detach(), self.standard_error
        rounding = 8 * torch.finfo(error.dtype).eps * torch.where(exact.isfinite(), exact, 0.0)
        equal = self.estimate == exact
        gap = torch.where(equal, 0.0, self.estimate - exact)
        spread = torch.hypot(error, rounding.to(error.dtype))
        z = torch.where(equal, 0.0, gap / torch.where(equal, 1.0, spread))
        unknown = equal & exact.isinf()
        if self.sampled.unreliable is not None:
            unknown = unknown | self.sampled.unreliable
        return torch.where(unknown, math.nan, z)

    def __str__(self) -> str:
        lines = [
            ("  exact", self.exact.line()),
            ("  sampled", self.sampled.line()),
            ("  z", self.shown_z()),
        ]
        return "\n".join([fill(f"KL({self.name})"), columns(lines, WIDTH)])

    def shown_z(self) -> str:
        """The z-score of largest absolute value; "-" if none is known."""
        z = self.z_score
        known = z[~z.isnan()]
        if not known.numel():
            return "-"
        if z.numel() == 1:
            return f"{z.item():+.2f}"
        return f"max |z| = {known.abs().max().item():.2f} over the batch"

    def _table(self) -> Table:
        forms = {"exact": ("exact KL", ".6g"), "sampled": ("sampled KL", ".6g")}
        forms |= {"standard_error": ("+- s.e.", ".2g"), "z_score": ("z", "+.2f")}
        notes = [f"exact: {self.exact.how()}", f"sampled: {self.sampled.how()}"]
        return batch_table(
            self.to_dicts(), self.z_score.shape, forms, [f"KL({self.name}), nats", *notes]
        )

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary for each element of the batch, in nats; a z that is unknown is nan."""
        numbers = {
            "exact": self.value,
            "sampled": self.estimate,
            "standard_error": self.standard_error,
            "z_score": self.z_score,
            "exact_method": self.exact.method,
            "sampled_method": self.sampled.method,
        }
        return batch_dicts(self.z_score.shape, numbers)


def compare(
    p: Distribution,
    q: Distribution,
    num_samples: int = 10_000,
    estimator: str = "k1",
    generator: torch.Generator | None = None,
) -> Comparison:
    """Compare the exact KL(p || q) with a Monte Carlo estimate of it.

    Args:
        p: the distribution that the expectation is over.
        q: the distribution that it is compared with, on the same space.
        num_samples: number of samples for each element of the batch.
        estimator: "k1", "k2" or "k3", as in `monte_carlo`.
        generator: source of randomness; by default torch's global random state.

    Returns:
        Exact value, estimate and standard error in nats, and z-score, each of the broadcast batch
        shape.

    Raises:
        NotImplementedError: there is neither a formula nor an integral for the pair.
        TypeError: as `monte_carlo`.
        ValueError: as `monte_carlo`.

    Example:
        >>> p, q = torch.distributions.Normal(1.0, 1.0), torch.distributions.Normal(0.0, 1.0)
        >>> comparison = pyro_kl.compare(p, q, num_samples=10_000)
        >>> comparison.value
        tensor(0.5000)
        >>> abs(comparison.z_score) < 5
        tensor(True)
    """
    check_sampling(num_samples, generator)
    exact = kl(p, q)
    sampled = monte_carlo(p, q, num_samples, estimator, generator)
    return Comparison(f"{describe(p)} || {describe(q)}", exact, sampled)
