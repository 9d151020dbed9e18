"""diagnose: how far a fitted guide is from the posterior."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..divergence.estimate import Estimate
from ..divergence.standard_error import Terms
from ..elbo.guides.plan import Run
from ..messages import see
from . import pareto
from .diagnosis import Covariances, Diagnosis, LargestWeights, SiteDiagnosis
from .draws import Chunk, Draws
from .estimates import Estimates, LogWeights, estimate, log_mixture
from .histograms import Histograms
from .jacobian import wrong_jacobian
from .moments import Marginals, Moments
from .prior import prior


@torch.no_grad()
def diagnose(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_samples: int = 10_000,
    vectorize: bool | None = None,
    max_plate_nesting: float = math.inf,
    **kwargs: Any,
) -> Diagnosis:
    """Estimate KL(guide || posterior), the KL that inference minimises, and say what to trust.

    ELBO = log evidence - KL(guide || posterior). The evidence is estimated by Pareto-smoothed
    importance sampling with the guide's draws, the ELBO by the same draws with exact KLs to the
    prior. Where the tail of the weights is too heavy for that, the KL is said to be unknown.

    Args:
        model: the model.
        guide: the guide, fitted; its density has to be known.
        *args: positional arguments of both.
        num_samples: draws from the guide; the memory hardly grows with it.
        vectorize: whether model and guide make many draws at once; None tries it, checks it with
            the same draws one by one, and warns if it cannot be done.
        max_plate_nesting: as for `pyro.infer.Trace_ELBO`.
        **kwargs: keyword arguments of both.

    Returns:
        Estimates in nats with standard errors, k-hat, and for each latent the KL to its prior,
        its contraction, mean and sd by the guide and by importance weights.

    Raises:
        ValueError: fewer than 25 draws; a plate draws a subsample; the guide is a point, lacks a
            latent, or has a variable of its own; a site has a scale; a density is nan.

    Reference:
        Yao, Vehtari, Simpson & Gelman (2018), "Yes, but did it work?: Evaluating variational
        inference"; Vehtari and others (2024), "Pareto smoothed importance sampling".

    Example:
        >>> def model():
        ...     z = pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
        ...     pyro.sample("x", pyro.distributions.Normal(z, 1.0), obs=torch.tensor(2.0))
        >>> def guide():
        ...     pyro.sample("z", pyro.distributions.Normal(1.0, 0.6))
        >>> found = pyro_kl.diagnose(model, guide)
        >>> exact = torch.distributions.kl_divergence(
        ...     torch.distributions.Normal(1.0, 0.6), torch.distributions.Normal(1.0, 0.5**0.5)
        ... )
        >>> error = float(found.kl_posterior.standard_error)
        >>> found.known, abs(float(found.kl_posterior) - float(exact)) < 4 * error
        (True, True)
    """
    if num_samples < 25:
        raise ValueError(
            f"num_samples={num_samples} has to be at least 25, to fit a tail." + see("option")
        )
    draws = Draws(Run(model, guide, args, kwargs), num_samples, vectorize, max_plate_nesting)
    sums = _Sums(draws)
    for chunk in draws:
        sums.add(chunk, of_guide=True)
    for chunk in draws.wider():
        sums.add(chunk, of_guide=False)
    drawn, wider = sums.weights(of_guide=True), sums.weights(of_guide=False)
    _check_nan(torch.cat([drawn.weights, wider.weights]))
    doubt = wrong_jacobian(draws.run, draws.plan)
    found = estimate(drawn, wider, torch.cat(sums.terms), draws.rounding, doubt)
    chi = _chi(found, num_samples)
    return Diagnosis(
        elbo=found.elbo,
        log_evidence=found.log_evidence,
        kl_posterior=found.kl_posterior,
        kl_at_least=found.kl_at_least,
        khat=found.khat,
        khat_threshold=found.threshold,
        effective_sample_size=found.effective_sample_size,
        mean_bound=chi,
        largest_weights=_largest(found.of_guide, drawn.weights),
        sites=tuple(_sites(draws, sums, found, chi)),
        num_samples=num_samples,
    )


class _Sums:
    """What is kept of all draws.

    Attributes:
        terms: of the ELBO, of each chunk of the guide's draws.
        kls: latent -> the KL to its prior.
        moments: of all latents end to end; None before the first chunk.
    """

    def __init__(self, draws: Draws) -> None:
        self._share = draws.num_samples / draws.all_samples
        self._keep = pareto.tail_length(draws.all_samples) + 1
        self._weights: list[tuple[bool, LogWeights]] = []
        self.terms: list[Tensor] = []
        self.kls: dict[str, Terms] = {}
        self.moments: Moments | None = None

    def add(self, chunk: Chunk, of_guide: bool) -> None:
        """Take in some draws, of the guide or of the wider one."""
        self._weights.append((of_guide, LogWeights(chunk.log_weights, chunk.log_ratios)))
        if of_guide:
            self.terms.append(chunk.elbo)
        for name, kl in chunk.kls.items():
            new = Terms.of(kl, None)
            self.kls[name] = self.kls[name].merged(new) if name in self.kls else new
        values = torch.cat([x.reshape(len(chunk), -1) for x in chunk.values.values()], -1)
        if self.moments is None:
            self.moments = Moments(values, self._keep)
        mixture = log_mixture(chunk.log_ratios, self._share)
        self.moments.add(chunk.log_weights - mixture, values, of_guide)

    def weights(self, of_guide: bool) -> LogWeights:
        """All log weights of draws of one kind."""
        empty = torch.zeros(0, dtype=torch.float64)
        parts = [part for kind, part in self._weights if kind == of_guide]
        return LogWeights(
            torch.cat([empty, *(part.weights for part in parts)]),
            torch.cat([empty, *(part.ratios for part in parts)]),
        )


def _check_nan(log_weights: Tensor) -> None:
    bad = int((log_weights.isnan() | log_weights.isposinf()).sum())
    if bad:
        raise ValueError(
            f"The log weight of {bad:,} of {len(log_weights):,} draws is nan or +inf: a density "
            "of model or guide is not defined there." + see("loss-not-finite")
        )


def _chi(found: Estimates, num_samples: int) -> float:
    """The square root of the chi-squared divergence of the posterior from the guide.

    It is exp(D) - 1 for the 2-divergence D. From a k-hat of 1/2 on it is infinite.
    """
    if found.khat >= 0.5 or found.kl_posterior.method != "monte carlo":
        return math.inf
    return math.sqrt(max(0.0, num_samples / found.effective_sample_size - 1))


def _largest(tail: pareto.Smoothed, log_weights: Tensor) -> LargestWeights:
    mean = float(log_weights.logsumexp(0)) - math.log(len(log_weights))
    above = tail.largest - mean
    return LargestWeights(
        log_weights[tail.order] - mean, tail.cut + above, tail.shape, tail.scale * math.exp(above)
    )


def _sites(draws: Draws, sums: _Sums, found: Estimates, chi: float) -> list[SiteDiagnosis]:
    """One row for each latent."""
    moments = sums.moments
    assert moments is not None  # there are draws
    marginals = moments.finish(found.smoothed)
    columns = {name: getattr(marginals, name) for name in Marginals.__dataclass_fields__}
    columns["prior_sd"], columns["prior"] = prior(draws, moments.bins)
    columns["guide"], columns["posterior"] = moments.densities()
    if moments.bins:
        columns["edges"] = moments.bins.edges
    sizes = [shape.numel() for shape in draws.shapes.values()]
    covariances = moments.covariances()
    known = found.kl_posterior.method != "unknown"
    rows = []
    for i, (name, shape) in enumerate(draws.shapes.items()):
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
                **_bounds(part["guide_sd"], part["guide_fourth"], chi),
                histograms=_histograms(part, trusted) if name in draws.continuous else None,
                covariances=covariances
                and _covariances(
                    [x.split(sizes)[i].split(sizes, -1)[i] for x in covariances],
                    trusted.reshape(-1),
                    part["guide_fourth"].reshape(-1),
                    chi,
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
    if "edges" not in part:
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
