"""Diagnosis: how far a guide is from the posterior, and what to trust."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from ..divergence.estimate import Estimate
from ..results.by_site import BySite
from ..results.data_frame import json_lines
from ..results.table import Table, shown_rows
from ..results.text import fill
from .histograms import Histograms
from .verdict import element, verdict


@dataclass(frozen=True)
class LargestWeights:
    """The largest importance weights of the guide's draws, and their fitted distribution.

    All are relative to the mean weight of the guide's draws.

    Attributes:
        log_weights: in rising order.
        log_cut: the tail begins above this log weight.
        khat: the shape of the generalised Pareto distribution of weight - exp(log_cut).
        scale: its scale; nan where the tail is too short to be fitted.
    """

    log_weights: Tensor
    log_cut: float
    khat: float
    scale: float


@dataclass(frozen=True)
class ByRow:
    """Importance weights of each row of a plate, where all sites are in it.

    Attributes:
        plate: its name.
        khat: of the weights of each row; tensors of shape (rows,).
        kl_posterior: the KL of each row in nats; nan where it is unknown.
        kl_posterior_error: its standard error.
    """

    plate: str
    khat: Tensor
    kl_posterior: Tensor
    kl_posterior_error: Tensor


@dataclass(frozen=True)
class Covariances:
    """Between the elements of a site, end to end; tensors of shape (elements, elements).

    Attributes:
        guide: the guide's.
        posterior: the posterior's by importance weights; nan where k-hat says that it is unknown.
        bound: |posterior covariance - guide covariance| is at most this.
    """

    guide: Tensor
    posterior: Tensor
    bound: Tensor


@dataclass(frozen=True)
class SiteDiagnosis:
    """One latent. Tensors have the shape of its value.

    Attributes:
        site: name of the site.
        prior_kl: the KL of the guide to the prior, in nats, as in `KLReport`.
        contraction: 1 - posterior variance / prior variance (Schad, Betancourt & Vasishth 2021);
            nan where the prior's variance is infinite or not known.
        guide_mean: the guide's mean.
        guide_sd: the guide's sd.
        mean: the posterior's mean by importance weights; nan where k-hat says that it is unknown.
        mean_error: its standard error.
        sd: the posterior's sd by importance weights; nan where it is unknown.
        khat: of the weights times squared deviations, whose tail decides whether mean and sd are
            known; nan for sites of thousands of elements.
        mean_bound: |posterior mean - guide mean| is at most this.
        sd_bound: |posterior sd - guide sd| is at most this.
        histograms: densities of prior, guide and posterior; None for discrete sites and for those
            of thousands of elements.
        covariances: of its elements; None where all latents have more than 200 elements.
    """

    site: str
    prior_kl: Estimate
    contraction: Tensor
    guide_mean: Tensor
    guide_sd: Tensor
    mean: Tensor
    mean_error: Tensor
    sd: Tensor
    khat: Tensor
    mean_bound: Tensor
    sd_bound: Tensor
    histograms: Histograms | None
    covariances: Covariances | None

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary for each element."""
        columns = {
            field.name: getattr(self, field.name).reshape(-1).tolist()
            for field in fields(self)
            if isinstance(getattr(self, field.name), Tensor)
        }
        kl, error = float(self.prior_kl.value), float(self.prior_kl.standard_error)
        return [
            {"site": self.site, "index": index, "prior_kl": kl, "prior_kl_error": error}
            | {name: values[i] for name, values in columns.items()}
            for i, index in enumerate(itertools.product(*map(range, self.guide_mean.shape)))
        ]


@dataclass(frozen=True, repr=False)
class Diagnosis(BySite[SiteDiagnosis]):
    """How far a guide is from the posterior.

    Attributes:
        elbo: nats.
        log_evidence: log p(data) in nats; nan where it is unknown.
        kl_posterior: KL(guide || posterior) in nats, which is `log_evidence` - `elbo`; nan where
            it is unknown. Its standard error knows what both have in common.
        kl_at_least: KL(guide || posterior) is larger with a probability of 95 %, also where it is
            unknown.
        khat: shape of the tail of the weights p(data, latents) / guide(latents).
        khat_threshold: above it the evidence is unknown for this number of draws.
        effective_sample_size: draws of the posterior that the weighted draws are worth.
        mean_bound: no posterior mean is further from the guide's than so many of the guide's sds;
            inf where the weights have no variance.
        largest_weights: the tail of the weights, with the distribution whose shape is `khat`.
        sites: one `SiteDiagnosis` for each latent.
        by_row: the weights of each row of a plate, where all sites are in it; None if not. The
            evidence, the ELBO and the KL are then sums over its rows, `khat`, `mean_bound` and
            `largest_weights` those of the worst row, and `effective_sample_size` is the smallest.
        num_samples: draws from the guide.
    """

    elbo: Estimate
    log_evidence: Estimate
    kl_posterior: Estimate
    kl_at_least: float
    khat: float
    khat_threshold: float
    effective_sample_size: float
    mean_bound: float
    largest_weights: LargestWeights
    sites: tuple[SiteDiagnosis, ...]
    num_samples: int
    by_row: ByRow | None = None

    @property
    def known(self) -> bool:
        """Whether the evidence and the KL to the posterior are known."""
        return self.kl_posterior.method != "unknown"

    # --- as a table, and as data ----------------------------------------------------------------

    def _table(self) -> Table:
        elements = self.to_dicts()
        shown, more = shown_rows(len(elements))
        return Table(
            _HEADER,
            [_cells(elements[i]) for i in shown],
            "l" + "r" * (len(_HEADER) - 1),
            [*more, *self._whole(), *verdict(self)],
            _MEANINGS,
        )

    @property
    def summary(self) -> str:
        """The last lines of the table: evidence, KL and k-hat, and what to trust."""
        return "\n".join(fill(line, indent=2) for line in [*self._whole(), *verdict(self)])

    def _whole(self) -> list[str]:
        if self.kl_posterior.method == "unknown":
            kl = f"KL(guide || posterior) unknown: {self.kl_posterior.reason}"
        elif self.kl_posterior.method == "infinite":
            kl = f"KL(guide || posterior) infinite: {self.kl_posterior.reason}"
        else:
            kl = f"KL(guide || posterior) {_with_error(self.kl_posterior)}"
        at_least = self.kl_at_least
        if self.kl_posterior.method == "unknown" and at_least > 0:
            kl += f"; it is at least {at_least:.2g}"
        rows = []
        if self.by_row is not None:
            khat = self.by_row.khat
            heavy = int((khat >= self.khat_threshold).sum())
            rows = [
                f"Each of the {len(khat):,} rows of {self.by_row.plate!r} has weights of its own: "
                f"{heavy:,} with a k-hat above {self.khat_threshold:.2f}; below, the worst row"
            ]
        return [
            f"ELBO {_with_error(self.elbo)}, log evidence {_with_error(self.log_evidence)}",
            kl,
            *rows,
            f"k-hat {self.khat:.2f}; effective sample size {self.effective_sample_size:,.0f} of "
            f"{self.num_samples:,} draws; nats",
        ]

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary for each element of each latent."""
        return [row for site in self.sites for row in site.to_dicts()]

    def to_json_lines(self) -> str:
        """One JSON object for each element, and one for the whole; not-a-number becomes null."""
        whole: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Estimate):
                whole[field.name] = float(value.value)
                whole[f"{field.name}_error"] = float(value.standard_error)
            elif field.name not in ("sites", "largest_weights", "by_row"):
                whole[field.name] = value
        return json_lines([*self.to_dicts(), whole])


_HEADER = ["site", "prior KL", "contraction", "k-hat", "guide mean", "sd", "posterior mean", "sd"]
_MEANINGS = {
    "prior KL": "KL of the whole site to its prior, in nats",
    "contraction": "1 - posterior variance / prior variance",
    "k-hat": "of this element's mean and sd by importance weights; - where it is too large",
    "posterior mean": "by importance weights of the guide's draws",
}


def _cells(row: dict[str, Any]) -> list[str]:
    first = not any(row["index"])
    return [
        element(row),
        f"{row['prior_kl']:.3f}" if first else "",
        _number(row["contraction"], ".3f"),
        _number(row["khat"], ".2f"),
        *(_number(row[name], ".4g") for name in ("guide_mean", "guide_sd", "mean", "sd")),
    ]


def _number(value: float, form: str) -> str:
    """A number in text; - if it is not known."""
    return "-" if math.isnan(value) else format(value, form)


def _with_error(estimate: Estimate) -> str:
    """Value and error, to the digits that the error leaves."""
    value, error = float(estimate.value), float(estimate.standard_error)
    if math.isnan(value):
        return "unknown"
    digits = 4 if not 0 < error < math.inf else min(8, max(0, 1 - math.floor(math.log10(error))))
    return f"{value:.{digits}f} +- {error:.2g}"
