"""An exact KL beside a sampled one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..messages import see
from ..registry.reduction import describe
from ..results.batch import batch_dicts, batch_table
from ..results.result import Result
from ..results.table import Table
from ..results.text import WIDTH, columns, fill
from .entropy import cross_entropy
from .estimate import Estimate
from .jensen_shannon import jeffreys, jensen_shannon
from .kl import kl
from .monte_carlo import check_sampling, monte_carlo
from .renyi import renyi
from .sampled import (
    sampled_cross_entropy,
    sampled_jeffreys,
    sampled_jensen_shannon,
    sampled_renyi,
)


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """An exact divergence and a sampled one of the same pair, in nats.

    Attributes:
        name: "p || q".
        divergence: what is compared: "KL", "Renyi(2)", "Jensen-Shannon", ...
        exact: the value by formula or integral.
        sampled: the value by Monte Carlo, with its standard error.
    """

    name: str
    exact: Estimate
    sampled: Estimate
    divergence: str = "KL"

    @property
    def value(self) -> Tensor:
        """The exact value in nats."""
        return self.exact.value

    @property
    def estimate(self) -> Tensor:
        """The sampled value in nats."""
        return self.sampled.value

    @property
    def standard_error(self) -> Tensor:
        """Standard error of the sampled value."""
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
        if self.divergence.startswith("Renyi"):  # samples do not see that a mean is infinite
            unknown = unknown | exact.isinf()
        if self.sampled.unreliable is not None:
            unknown = unknown | self.sampled.unreliable
        return torch.where(unknown, math.nan, z)

    def __str__(self) -> str:
        lines = [
            ("  exact", self.exact.line()),
            ("  sampled", self.sampled.line()),
            ("  z", self.shown_z()),
        ]
        return "\n".join([fill(f"{self.divergence}({self.name})"), columns(lines, WIDTH)])

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
        what = self.divergence
        forms = {"exact": (f"exact {what}", ".6g"), "sampled": (f"sampled {what}", ".6g")}
        forms |= {"standard_error": ("+- s.e.", ".2g"), "z_score": ("z", "+.2f")}
        notes = [f"exact: {self.exact.how()}", f"sampled: {self.sampled.how()}"]
        return batch_table(
            self.to_dicts(), self.z_score.shape, forms, [f"{what}({self.name}), nats", *notes]
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
    *,
    divergence: str = "kl",
    alpha: float | None = None,
) -> Comparison:
    """Compare the exact KL(p || q), or another divergence, with a Monte Carlo estimate of it.

    Args:
        p: the distribution that the expectation is over.
        q: the distribution that it is compared with, on the same space.
        num_samples: number of samples for each element of the batch.
        estimator: "k1", "k2" or "k3", as in `monte_carlo`.
        generator: source of randomness; by default torch's global random state.
        divergence: "kl", "renyi", "jensen-shannon", "jeffreys" or "cross-entropy"; `estimator` is
            that of the KL.
        alpha: the order of "renyi"; orders 0 and infinity are not sampled.

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
    name = f"{describe(p)} || {describe(q)}"
    if (alpha is None) == (divergence == "renyi"):
        raise ValueError(
            f'alpha is the order of divergence="renyi", and of no other: divergence='
            f"{divergence!r}, alpha={alpha!r}" + see("option")
        )
    if divergence == "kl":
        return Comparison(name, kl(p, q), monte_carlo(p, q, num_samples, estimator, generator))
    if divergence == "renyi":
        assert alpha is not None
        estimate = sampled_renyi(p, q, alpha, num_samples, generator)
        return Comparison(name, renyi(p, q, alpha), estimate, f"Renyi({alpha!r})")
    if divergence not in _OTHERS:
        raise ValueError(
            f"divergence must be one of kl, renyi, {', '.join(_OTHERS)}: {divergence!r}"
            + see("option")
        )
    title, exact, sampled = _OTHERS[divergence]
    return Comparison(name, exact(p, q), sampled(p, q, num_samples, generator), title)


_OTHERS: dict[str, tuple[str, Callable[..., Estimate], Callable[..., Estimate]]] = {
    "jensen-shannon": ("Jensen-Shannon", jensen_shannon, sampled_jensen_shannon),
    "jeffreys": ("Jeffreys", jeffreys, sampled_jeffreys),
    "cross-entropy": ("cross-entropy", cross_entropy, sampled_cross_entropy),
}
