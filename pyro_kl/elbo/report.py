"""KLReport: every term of an ELBO in nats, with the method that made it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from ..messages import see
from ..results.by_site import BySite, shortened
from ..results.data_frame import json_lines
from ..results.table import Table


@dataclass(frozen=True)
class SiteReport:
    """One term of an ELBO.

    Attributes:
        site: name of the site.
        kind: "likelihood", "latent" or "auxiliary".
        nats: expected log likelihood or KL, scaled and masked, as it enters the ELBO.
        raw: the same without the site's scale.
        standard_error: of `nats`, over the particles; 0 where no particle differs, nan where
            there is one only.
        method: "closed form", "exact sum", "quadrature", "monte carlo", "point density", ...
        reason: why this method.
        source: where a reader finds the formula.
        weight: derivative of the training objective by this KL: beta, unless free bits or a
            capacity change it; nan for a likelihood.
        scale: of the site: plates times `poutine.scale`; the mean if it is a tensor.
        masked: fraction of the site's elements that a mask leaves out.
        shape: of the site's value.
        per_dimension: KL of each element of the site, averaged over particles, neither scaled nor
            masked; nested lists, None where the KL was sampled.
    """

    site: str
    kind: str
    nats: float
    raw: float
    standard_error: float
    method: str
    reason: str
    source: str
    weight: float
    scale: float
    masked: float
    shape: tuple[int, ...]
    per_dimension: Any = None

    @property
    def exact(self) -> bool:
        """Whether no sample of this site's own value is in the number."""
        return self.method not in ("monte carlo", "observed", "prior")


@dataclass(frozen=True, repr=False)
class KLReport(BySite[SiteReport]):
    """Every term of an ELBO, and their sums.

    Attributes:
        sites: one `SiteReport` for each site, likelihood first.
        loss: the training objective, to be minimised; nats.
        elbo: the ELBO itself, with beta = 1, without free bits and capacity; nats.
        elbo_standard_error: of `elbo`, over the particles.
        log_likelihood: expected log likelihood; nats.
        kl: sum of the KLs, unweighted; nats.
        num_particles: draws from the guide.
        step: of the schedules.
        objective: what the objective is, in words.
        together: the sites that are summed out together, first that whose row has their KL.
    """

    sites: tuple[SiteReport, ...]
    loss: float
    elbo: float
    elbo_standard_error: float
    log_likelihood: float
    kl: float
    num_particles: int
    step: int
    objective: str
    together: tuple[tuple[str, ...], ...] = ()

    def __getitem__(self, site: str) -> SiteReport:
        for first, *others in self.together:
            if site in others:
                raise KeyError(
                    f"{site!r} has no row of its own: it is summed out together with {first!r}, "
                    f"whose row has the KL of all {1 + len(others)} sites" + see("no-such-site")
                )
        return super().__getitem__(site)

    @property
    def kls(self) -> dict[str, float]:
        """Site -> KL in nats."""
        return {row.site: row.nats for row in self.sites if row.kind != "likelihood"}

    # --- as a table, and as data ----------------------------------------------------------------

    _index = "site"

    def _table(self) -> Table:
        rows = [
            [
                row.site, row.kind, _number(row.nats), _error(row.standard_error),
                "" if math.isnan(row.weight) else f"{row.weight:g}",
                f"{row.scale:g}", "x".join(map(str, row.shape)) or "scalar",
                shown_method(row.method, row.standard_error if row.exact else 0.0),
            ]
            for row in self.sites
        ]  # fmt: skip
        notes = [*self._summary(), *reasons(self.sites), *self._meanings()]
        return Table(_HEADER, rows, "llrrrrll", notes, MEANINGS)

    def _summary(self) -> list[str]:
        error = _error(self.elbo_standard_error)
        lines = [
            f"ELBO {_number(self.elbo)}{' +- ' + error if error else ''} = log likelihood "
            f"{_number(self.log_likelihood)} - KL {_number(self.kl)}",
            f"{self.num_particles:,} draw{'s' if self.num_particles != 1 else ''}; nats",
        ]
        if self.objective:
            lines[1] += f"; objective {_number(self.loss)} at step {self.step}: {self.objective}"
        return lines

    def _meanings(self) -> list[str]:
        """What the columns mean that are not 1 everywhere."""
        names = ("weight", "scale")
        numbers = {name: {getattr(row, name) for row in self.sites} for name in names}
        told = [name for name in names if any(x == x and x != 1 for x in numbers[name])]
        return [f"column {name}: {MEANINGS[name]}" for name in told]

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary for each site."""
        return [asdict(row) for row in self.sites]

    def to_json_lines(self) -> str:
        """One JSON object for each site, and one for the whole; not-a-number becomes null."""
        whole = {name: getattr(self, name) for name in _WHOLE}
        return json_lines([*self.to_dicts(), whole])


_HEADER = ["site", "kind", "nats", "+- s.e.", "weight", "scale", "shape", "method"]
#: What the columns mean whose names do not say it.
MEANINGS = {
    "nats": "expected log likelihood, or KL, as it enters the ELBO",
    "+- s.e.": "standard error of the nats over the draws; empty for one draw",
    "weight": "how much the objective grows with this KL: beta, unless free bits or a capacity "
    "change it",
    "scale": "of the site's plates and poutine.scale; the nats have it already",
    "shape": "of the site's value",
}
_WHOLE = (
    "loss", "elbo", "elbo_standard_error", "log_likelihood", "kl", "num_particles", "step",
    "objective",
)  # fmt: skip


class Reasoned(Protocol):
    """The row of a site, with the reason for its method."""

    @property
    def site(self) -> str: ...
    @property
    def reason(self) -> str: ...


def shown_method(method: str, standard_error: float) -> str:
    """The method of an exact KL; one that differs from draw to draw is an average of exact KLs."""
    return f"{method}, averaged" if standard_error > 0 else method


def reasons(rows: Iterable[Reasoned]) -> list[str]:
    """One note for the sites that share a reason."""
    sites: dict[str, list[str]] = {}
    for row in rows:
        if row.reason:
            sites.setdefault(row.reason, []).append(row.site)
    return [f"{shortened(names)}: {reason}" for reason, names in sites.items()]


def _number(x: float) -> str:
    # adding 0 makes a 0 of what rounds to -0
    return f"{round(x, 4) + 0.0:.4f}" if abs(x) < 1e5 else f"{x:.6g}"


def _error(x: float) -> str:
    """A standard error in text; empty if it is nan."""
    return "" if math.isnan(x) else "0" if x == 0 else f"{x:.2g}"
