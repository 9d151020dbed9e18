"""Exact against sampled KL of every site of a fitted model and guide."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..messages import see
from ..results.by_site import BySite
from ..results.table import Table
from .enumeration.plans import EnumerationPlans, has_marks
from .enumeration.trace_enum_kl_elbo import TraceEnumKL_ELBO
from .guides.plan import Run
from .loss import Particle
from .report import reasons, shown_method
from .snapshot import per_particle, terms_shown
from .trace_kl_elbo import TraceKL_ELBO


@dataclass(frozen=True)
class SiteComparison:
    """The KL of one site, by its formula and by sampling, over the same draws.

    Attributes:
        site: name of the site.
        exact: nats, by the formula; averaged over draws where it depends on other sites.
        exact_error: its standard error: 0 where it is the same for all draws.
        sampled: nats, the mean of log q - log p.
        sampled_error: its standard error.
        z_score: (sampled - exact) / standard error of the difference; beyond 4, one of the two
            is wrong.
        method: of the exact value; "monte carlo" where there is none.
        reason: why.
    """

    site: str
    exact: float
    exact_error: float
    sampled: float
    sampled_error: float
    z_score: float
    method: str
    reason: str = ""


@dataclass(frozen=True, repr=False)
class SiteComparisons(BySite[SiteComparison]):
    """A `SiteComparison` for each latent; prints as a table."""

    rows: tuple[SiteComparison, ...]
    num_particles: int

    _rows = "rows"

    @property
    def largest_z(self) -> float:
        """The largest |z| of all sites with a formula."""
        return max(
            (abs(row.z_score) for row in self.rows if row.z_score == row.z_score), default=0
        )

    _index = "site"

    def _table(self) -> Table:
        rows = [
            [
                row.site, _or_dash(row.exact, ".4f"), _or_dash(row.exact_error, ".2g"),
                f"{row.sampled:.4f}", f"{row.sampled_error:.2g}", _or_dash(row.z_score, "+.2f"),
                shown_method(row.method, row.exact_error),
            ]
            for row in self.rows
        ]  # fmt: skip
        notes = [f"{self.num_particles:,} draws; nats", *reasons(self.rows)]
        return Table(_HEADER, rows, "lrrrrrl", notes, _MEANINGS)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary for each site."""
        return [asdict(row) for row in self.rows]


_HEADER = ["site", "exact KL", "+- s.e.", "sampled KL", "+- s.e.", "z", "method"]
_MEANINGS = {"z": "(sampled - exact) / standard error; beyond 4, one of the two is wrong"}


def _or_dash(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def compare_sites(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_particles: int = 1000,
    vectorize_particles: bool = False,
    max_plate_nesting: float = math.inf,
    **kwargs: Any,
) -> SiteComparisons:
    """Compare the exact KL of each latent with a sampled one, over the same draws of the guide.

    Sites that are marked for enumeration are enumerated, as `TraceEnumKL_ELBO` does.

    Args:
        model: the model.
        guide: the guide, fitted or not.
        *args: positional arguments of both.
        num_particles: draws from the guide, at least 2.
        vectorize_particles: whether model and guide can draw them all at once.
        max_plate_nesting: as for `pyro.infer.Trace_ELBO`.
        **kwargs: keyword arguments of both.

    Returns:
        Nats, standard errors and z-scores for each latent; KLs are scaled and masked.

    Raises:
        ValueError: fewer than 2 particles.

    Example:
        >>> def model():
        ...     pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
        >>> def guide():
        ...     pyro.sample("z", pyro.distributions.Normal(1.0, 1.0))
        >>> row = pyro_kl.compare_sites(model, guide, num_particles=500)["z"]
        >>> row.exact, row.exact_error, abs(row.z_score) < 4
        (0.5, 0.0, True)
    """
    if num_particles < 2:
        raise ValueError(
            f"num_particles must be at least 2, for standard errors: {num_particles}"
            + see("option")
        )
    run = Run(model, guide, args, kwargs)
    enumerates = has_marks(run)
    elbo = (TraceEnumKL_ELBO if enumerates else TraceKL_ELBO)(
        num_particles=num_particles,
        vectorize_particles=vectorize_particles,
        max_plate_nesting=max_plate_nesting,
    )
    exact: dict[str, list[Tensor]] = {}
    sampled: dict[str, list[Tensor]] = {}
    methods: dict[str, tuple[str, str]] = {}
    order: list[str] = []
    with torch.no_grad():
        for particle in elbo._particles(run, every_density=True):
            order = list(particle.plan.decisions)
            ratios = _of_sampled_plan(elbo, particle, guide) if enumerates else None
            for term in terms_shown(particle.collected):
                decision = particle.plan.decisions.get(term.name)
                if decision is None or term.kind != "latent" or term.method == "prior":
                    continue
                methods[term.name] = term.method, term.reason
                if ratios is not None:
                    ratio = ratios[term.name]
                else:
                    log_q = decision.site.scaled_log_q(particle.traces.guide)
                    ratio = log_q - particle.traces.model.nodes[term.name]["log_prob"]
                for store, value in ((exact, term.value), (sampled, ratio)):
                    numbers = per_particle(value, elbo._plate, num_particles).double()
                    values = store.setdefault(term.name, [])
                    if particle.collected.continues and len(values):
                        values[-1] = values[-1] + numbers
                    else:
                        values.append(numbers)
    rows = [
        _row(name, torch.cat(exact[name]), torch.cat(sampled[name]), *methods[name])
        for name in sorted(exact, key=order.index)
    ]
    return SiteComparisons(tuple(rows), num_particles)


def _of_sampled_plan(elbo: TraceKL_ELBO, particle: Particle, guide: Any) -> dict[str, Tensor]:
    """Site -> its sampled KL in a pair of traces, as an expectation over what is enumerated."""
    never = copy.copy(elbo)
    never._plans = EnumerationPlans("never")
    levels = never.objective.levels(0)
    terms = terms_shown(never._particle(particle.traces, guide, False, levels).collected)
    return {term.name: term.value for term in terms if term.kind == "latent"}


def _row(name: str, exact: Tensor, sampled: Tensor, method: str, reason: str) -> SiteComparison:
    """Means, their errors, and the paired z-score."""
    root = math.sqrt(exact.numel())
    mean, error = float(sampled.mean()), float(sampled.std() / root)
    if method == "monte carlo":
        return SiteComparison(name, math.nan, math.nan, mean, error, math.nan, method, reason)
    constant = bool((exact == exact[0]).all())
    gap = sampled - exact
    rounding = 1e-6 * (1 + float(exact.abs().mean()))  # the densities' own precision
    z = float(gap.mean()) / math.hypot(float(gap.std()) / root, rounding)
    exact_error = 0.0 if constant else float(exact.std() / root)
    return SiteComparison(name, float(exact.mean()), exact_error, mean, error, z, method, reason)
