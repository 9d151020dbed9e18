"""diagnose: how far a fitted guide is from the posterior."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..elbo.guides.plan import Run
from ..messages import see
from . import pareto
from .diagnosis import Diagnosis, LargestWeights
from .draws import Draws
from .jacobian import wrong_jacobian
from .refusals import outside_of_supports
from .rows import at_least, by_row, total
from .sites import chi, site_rows
from .sums import Sums


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
    prior. Where the tail of the weights is too heavy for that, the KL is said to be unknown. So it
    is below 300 draws, or 2,000 if no site of the guide has a wider distribution, and where the
    guide cannot draw all that the prior can. No draw shows a mode that the guide does not draw.

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
    if not isinstance(num_samples, int) or num_samples < 25:
        raise ValueError(
            f"num_samples={num_samples!r} has to be an integer of at least 25, to fit a tail."
            + see("option")
        )
    run = Run(model, guide, args, kwargs)
    with outside_of_supports(run):
        draws = Draws(run, num_samples, vectorize, max_plate_nesting)
        rows = draws.rows
        parts = [Sums(num_samples, draws.all_samples) for _ in range(rows.size if rows else 1)]
        for chunks, of_guide in ((draws, True), (draws.wider(), False)):
            for chunk in chunks:
                for sums, own in zip(parts, draws.by_row(chunk), strict=True):
                    sums.add(own, of_guide)
    wrong = draws.lacking or wrong_jacobian(draws.run, draws.plan)
    discrete = [name for name in draws.shapes if name not in draws.continuous]
    found = [sums.estimate(draws.rounding, wrong, discrete) for sums in parts]
    sites = site_rows(draws, parts, found)
    worst = max(range(len(found)), key=lambda i: found[i].khat)
    largest = _largest(found[worst].of_guide, parts[worst].weights(of_guide=True).weights)
    return Diagnosis(
        elbo=total([x.elbo for x in found], rows),
        log_evidence=total([x.log_evidence for x in found], rows),
        kl_posterior=total([x.kl_posterior for x in found], rows),
        kl_at_least=at_least(found),
        khat=found[worst].khat,
        khat_threshold=found[worst].threshold,
        effective_sample_size=min(x.effective_sample_size for x in found),
        mean_bound=max(chi(x, num_samples) for x in found),
        largest_weights=largest,
        sites=tuple(sites),
        num_samples=num_samples,
        by_row=by_row(rows, found) if rows else None,
    )


def _largest(tail: pareto.Smoothed, log_weights: Tensor) -> LargestWeights:
    mean = float(log_weights.logsumexp(0)) - math.log(len(log_weights))
    above = tail.largest - mean
    return LargestWeights(
        log_weights[tail.order] - mean, tail.cut + above, tail.shape, tail.scale * math.exp(above)
    )
