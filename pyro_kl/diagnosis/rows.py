"""Where all sites are in one plate, each row of the plate has importance weights of its own.

The guide and the posterior are then products over the rows: the log evidence, the ELBO and the KL
are sums over them. The weights of a row have a much lighter tail than those of all rows together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ..divergence.estimate import Estimate
from ..elbo.loss import Particle
from .diagnosis import ByRow, SiteDiagnosis
from .estimates import Estimates

#: The probability that a Normal is below it is 95 %.
_ONE_SIDED = 1.645


@dataclass(frozen=True)
class Rows:
    """The plate that all sites of a model and a guide are in.

    Attributes:
        plate: its name.
        dim: of the batch shape of each site, from the right.
        size: the number of rows.
        axes: latent -> the axis of its value.
        dims: latent -> the number of dimensions of its value.
    """

    plate: str
    dim: int
    size: int
    axes: dict[str, int]
    dims: dict[str, int]

    def of(self, value: Tensor, name: str, row: int) -> Tensor:
        """One row of a latent's value, which may have the draws as its first dimension."""
        return value.select(self.axes[name] + value.dim() - self.dims[name], row)


def rows_of(particle: Particle) -> Rows | None:
    """The plate of one run, without a plate of draws; None if there is none.

    Of several plates it is the one with the most rows.
    """
    nodes = [
        node
        for trace in particle.traces
        for node in trace.nodes.values()
        if node["type"] == "sample"
    ]
    frames = set.intersection(*(_frames(node) for node in nodes))
    if not frames:
        return None
    size, dim, plate = max(frames)
    terms = [term.value for term in particle.collected.terms]
    if not all(x.dim() >= -dim and x.shape[dim] == size for x in terms):
        return None
    sites = {name: particle.traces.guide.nodes[name] for name in particle.plan.decisions}
    return Rows(
        plate,
        dim,
        size,
        {name: x["value"].dim() - x["fn"].event_dim + dim for name, x in sites.items()},
        {name: x["value"].dim() for name, x in sites.items()},
    )


def _frames(node: Any) -> set[tuple[int, int, str]]:
    return {
        (frame.size, frame.dim, frame.name)
        for frame in node["cond_indep_stack"]
        if frame.vectorized and frame.size > 1
    }


def by_row(rows: Rows, found: list[Estimates]) -> ByRow:
    """What is known of each row."""
    kls = [x.kl_posterior for x in found]
    return ByRow(
        rows.plate,
        torch.tensor([x.khat for x in found], dtype=torch.float64),
        torch.stack([x.value for x in kls]),
        torch.stack([x.standard_error for x in kls]),
    )


def total(estimates: list[Estimate], rows: Rows | None) -> Estimate:
    """The sum of the estimates of all rows, which are independent."""
    if rows is None:
        return estimates[0]
    methods = [x.method for x in estimates]
    method = next((m for m in ("infinite", "unknown") if m in methods), methods[0])
    reasons = [x.reason for x in estimates if x.method == method and x.reason]
    reason = ""
    if method in ("infinite", "unknown"):
        reason = f"{len(reasons):,} of {len(methods):,} rows of {rows.plate!r}: {reasons[0]}"
    return Estimate(
        torch.stack([x.value for x in estimates]).sum(0),
        torch.stack([x.standard_error for x in estimates]).square().sum(0).sqrt(),
        method,
        estimates[0].num_samples,
        reason or estimates[0].reason,
    )


def at_least(found: list[Estimates]) -> float:
    """A bound on the KL from below, by the rows whose KL is known: no KL is negative."""
    if len(found) == 1:
        return found[0].kl_at_least
    known = [x.kl_posterior for x in found if x.kl_posterior.method == "monte carlo"]
    if any(x.kl_posterior.method == "infinite" for x in found):
        return math.inf
    error = math.hypot(*(float(x.standard_error) for x in known))
    return max(0.0, sum(float(x.value) for x in known) - _ONE_SIDED * error)


def together(rows: Rows, parts: list[SiteDiagnosis]) -> SiteDiagnosis:
    """One latent, from its rows."""
    name = parts[0].site
    tensors = {
        field.name: torch.stack([getattr(part, field.name) for part in parts], rows.axes[name])
        for field in fields(SiteDiagnosis)
        if isinstance(getattr(parts[0], field.name), Tensor)
    }
    kl = total([part.prior_kl for part in parts], rows)
    return SiteDiagnosis(site=name, prior_kl=kl, **tensors, histograms=None, covariances=None)
