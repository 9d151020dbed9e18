"""Calibration: the ranks of all latents, and whether they are uniform."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..results.by_site import BySite
from ..results.table import Table
from .uniformity import p_value, statistic

#: Below this p-value a fit is not calibrated.
LEVEL = 0.05
#: Of ranks that are not uniform, a mean or a variance this many standard errors off has a name.
_TOLD = 2.5


@dataclass(frozen=True)
class SiteCalibration:
    """One latent.

    Attributes:
        site: name of the site.
        shape: of its value.
        ranks: of each simulation, for each element; nested lists.
        worst: index of the element whose ranks are furthest from uniform.
        p_value: that uniform ranks are this far off at some element, by Bonferroni's bound.
        bias: mean of the ranks' fractions minus 1/2, of the worst element: above 0 the guide's
            draws are too small.
        spread: standard deviation of the fractions relative to a uniform one, of the worst
            element: above 1 the guide is too narrow.
        verdict: in words.
    """

    site: str
    shape: tuple[int, ...]
    ranks: list[list[int]]
    worst: tuple[int, ...]
    p_value: float
    bias: float
    spread: float
    verdict: str

    @classmethod
    def of(
        cls, site: str, shape: tuple[int, ...], ranks: list[list[int]], num_draws: int
    ) -> SiteCalibration:
        """From the ranks of each simulation."""
        found = np.asarray(ranks)
        count, elements = found.shape
        off = statistic(found, num_draws)
        worst = int(off.argmin())
        p = min(1.0, elements * p_value(float(off[worst]), count, num_draws))
        fractions = (found[:, worst] + 0.5) / (num_draws + 1) - 0.5
        bias, spread = fractions.mean(), (fractions**2).mean() * 12
        # 1/12 is the variance of a uniform fraction, 1/180 that of its squared deviation
        z_bias = bias * math.sqrt(12 * count)
        z_spread = (spread - 1) / 12 * math.sqrt(180 * count)
        return cls(
            site,
            shape,
            ranks,
            tuple(map(int, np.unravel_index(worst, shape))),
            p,
            float(bias),
            math.sqrt(spread),
            _words(z_bias, z_spread) if p < LEVEL else "calibrated",
        )

    @property
    def element(self) -> str:
        """The worst element and the number of all of them, in words; empty where there is one."""
        if not self.worst:
            return ""
        return f"[{','.join(map(str, self.worst))}] of {math.prod(self.shape)}"


def _words(z_bias: float, z_spread: float) -> str:
    words = []
    if abs(z_bias) > _TOLD:
        words.append("draws too small" if z_bias > 0 else "draws too large")
    if abs(z_spread) > _TOLD:
        words.append("too narrow" if z_spread > 0 else "too wide")
    return ", ".join(words) or "not uniform"


@dataclass(frozen=True, repr=False)
class Calibration(BySite[SiteCalibration]):
    """Whether the fits of a model to its own simulated data are calibrated.

    Attributes:
        sites: a `SiteCalibration` for each latent.
        num_simulations: how many fits.
        num_draws: of each fitted guide.
        left_out: latents without ranks: the model marks them for enumeration, or masks them.
    """

    sites: tuple[SiteCalibration, ...]
    num_simulations: int
    num_draws: int
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        shapes: Mapping[str, tuple[int, ...]],
        found: Sequence[Mapping[str, list[int]]],
        num_draws: int,
        left_out: tuple[str, ...] = (),
    ) -> Calibration:
        """From the shape of each latent, and its ranks in each simulation."""
        sites = tuple(
            SiteCalibration.of(name, shape, [ranks[name] for ranks in found], num_draws)
            for name, shape in shapes.items()
        )
        return cls(sites, len(found), num_draws, left_out)

    @property
    def p_value(self) -> float:
        """Of all latents together, by Bonferroni's bound."""
        return min(1.0, min(row.p_value for row in self.sites) * len(self.sites))

    @property
    def calibrated(self) -> bool:
        """Whether the p-value is at least 5 %."""
        return self.p_value >= LEVEL

    _index = "site"

    def _table(self) -> Table:
        rows = [
            [
                row.site, row.element, f"{row.p_value:.3g}", f"{row.bias:+.3f}",
                f"{row.spread:.2f}", row.verdict,
            ]
            for row in self.sites
        ]  # fmt: skip
        whole = (
            "No fault is seen: a fault that is small beside the guide's sd needs more simulations."
            if self.calibrated
            else "The fit is not calibrated: its guides are not the posteriors."
        )
        notes = [
            f"{self.num_simulations:,} fits, {self.num_draws:,} draws each; p-value of all "
            f"latents {self.p_value:.3g}",
            whole,
        ]
        if self.left_out:
            notes.append(f"Without ranks, as summed out or masked: {', '.join(self.left_out)}.")
        shown = [0, 1, 2, 3, 4, 5] if any(row.worst for row in self.sites) else [0, 2, 3, 4, 5]
        return Table(
            [_HEADER[i] for i in shown],
            [[row[i] for i in shown] for row in rows],
            "".join("llrrrl"[i] for i in shown),
            notes,
            _MEANINGS,
        )

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary for each latent."""
        return [asdict(row) for row in self.sites]


_HEADER = ["site", "worst element", "p-value", "bias", "spread", "verdict"]
_MEANINGS = {
    "worst element": "the one whose ranks are furthest from uniform; bias and spread are its own",
    "p-value": "that ranks of the true posterior are so far from uniform",
    "bias": "mean rank minus 1/2: above 0 the guide's draws are too small",
    "spread": "sd of the ranks relative to uniform ones: above 1 the guide is too narrow",
}
