"""The rows of a diagnosis: one for each latent."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from ..divergence.estimate import Estimate
from ..divergence.standard_error import Terms
from .diagnosis import Covariances, SiteDiagnosis
from .draws import Draws
from .estimates import Estimates
from .histograms import Histograms
from .moments import Marginals
from .prior import prior
from .rows import together
from .sums import Sums


def site_rows(draws: Draws, parts: list[Sums], found: list[Estimates]) -> list[SiteDiagnosis]:
    """One row for each latent.

    Args:
        draws: how they were made.
        parts: of all draws together, or of each row of a plate.
        found: the estimates of each part.
    """
    moments, rows = parts[0].moments, draws.rows
    assert moments is not None  # there are draws
    prior_sd, density = prior(draws, None if rows else moments.bins)
    if rows is None:
        prior_columns = {"prior_sd": prior_sd, "prior": density}
        return _sites(draws, parts[0], found[0], draws.shapes, prior_columns)
    sizes = [shape.numel() for shape in draws.shapes.values()]
    whole = {
        name: x.reshape(shape)
        for (name, shape), x in zip(draws.shapes.items(), prior_sd.split(sizes), strict=True)
    }
    found_rows = []
    for i, (sums, own) in enumerate(zip(parts, found, strict=True)):
        sds = {name: rows.of(x, name, i) for name, x in whole.items()}
        shapes = {name: x.shape for name, x in sds.items()}
        column = {"prior_sd": torch.cat([x.reshape(-1) for x in sds.values()])}
        found_rows.append(_sites(draws, sums, own, shapes, column))
    return [together(rows, list(site)) for site in zip(*found_rows, strict=True)]


def _sites(
    draws: Draws,
    sums: Sums,
    found: Estimates,
    shapes: dict[str, Size],
    prior_columns: dict[str, Tensor],
) -> list[SiteDiagnosis]:
    moments, bound = sums.moments, chi(found, draws.num_samples)
    assert moments is not None  # there are draws
    marginals = moments.finish(found.smoothed)
    columns = {name: getattr(marginals, name) for name in Marginals.__dataclass_fields__}
    columns |= prior_columns
    columns["guide"], columns["posterior"] = moments.densities()
    if moments.bins:
        columns["edges"] = moments.bins.edges
    sizes = [shape.numel() for shape in shapes.values()]
    covariances = moments.covariances()
    known = found.kl_posterior.method != "unknown"
    rows = []
    for i, (name, shape) in enumerate(shapes.items()):
        part = {
            key: column.split(sizes)[i].reshape((*shape, *column.shape[1:]))
            for key, column in columns.items()
        }
        trusted = torch.as_tensor(known) & ~(part["khat"] >= found.threshold)
        mean, error, sd = (
            torch.where(trusted, part[key], math.nan) for key in ("mean", "mean_error", "sd")
        )
        best = torch.where(trusted, part["sd"], part["guide_sd"])
        prior_sd = part["prior_sd"]
        rows.append(
            SiteDiagnosis(
                site=name,
                prior_kl=_prior_kl(draws, name, sums.kls),
                contraction=torch.where(prior_sd > 0, 1 - (best / prior_sd).square(), math.nan),
                guide_mean=part["guide_mean"],
                guide_sd=part["guide_sd"],
                mean=mean,
                mean_error=error,
                sd=sd,
                khat=part["khat"],
                **_bounds(part["guide_sd"], part["guide_fourth"], bound),
                histograms=_histograms(part, trusted) if name in draws.continuous else None,
                covariances=covariances
                and _covariances(
                    [x.split(sizes)[i].split(sizes, -1)[i] for x in covariances],
                    trusted.reshape(-1),
                    part["guide_fourth"].reshape(-1),
                    bound,
                ),
            )
        )
    return rows


def _covariances(both: list[Tensor], trusted: Tensor, fourth: Tensor, chi: float) -> Covariances:
    """Covariances with their bound, by h = (z_i - mean_i) (z_j - mean_j) as in `_bounds`."""
    guide, posterior = both
    sd = guide.diagonal().clamp(min=0).sqrt()
    bound = fourth.outer(fourth).clamp(min=0) ** 0.25 * chi + sd.outer(sd) * chi**2
    known = trusted[:, None] & trusted
    return Covariances(guide, torch.where(known, posterior, math.nan), bound)


def _histograms(part: dict[str, Tensor], trusted: Tensor) -> Histograms | None:
    if "edges" not in part or "prior" not in part:
        return None
    posterior = torch.where(trusted[..., None], part["posterior"], math.nan)
    return Histograms(part["edges"], part["prior"], part["guide"], posterior)


def _prior_kl(draws: Draws, name: str, kls: dict[str, Terms]) -> Estimate:
    how, kl = draws.plan.decisions[name], kls[name]
    return Estimate(kl.mean, kl.variance.sqrt(), how.method, draws.num_samples, how.reason)


def _bounds(sd: Tensor, fourth: Tensor, chi: float) -> dict[str, Tensor]:
    """Bounds on the differences of means and sds between the posterior and the guide.

    For any h, E_posterior h - E_guide h is the covariance of h and the normalised weight under the
    guide, at most sd(h) chi (Cauchy-Schwarz; Hammersley, Chapman and Robbins). With h = z the mean
    is bounded, with h = (z - guide mean)^2 the variance. The bounds of Huggins and others (2020),
    by Wasserstein distances, are wider.
    """
    mean = sd * chi
    moved = (fourth - sd**4).clamp(min=0).sqrt() * chi
    upper = (sd.square() + moved).sqrt() - sd
    lower = sd - (sd.square() - moved - mean.square()).clamp(min=0).sqrt()
    return {"mean_bound": mean, "sd_bound": torch.maximum(upper, lower)}


def chi(found: Estimates, num_samples: int) -> float:
    """The square root of the chi-squared divergence of the posterior from the guide.

    It is exp(D) - 1 for the 2-divergence D. From a k-hat of 1/2 on it is infinite.
    """
    if found.khat >= 0.5 or found.kl_posterior.method != "monte carlo":
        return math.inf
    return math.sqrt(max(0.0, num_samples / found.effective_sample_size - 1))
