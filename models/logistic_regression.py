"""Bayesian logistic regression by variational inference, with exact KL divergences.

The model, for ``N`` rows of ``D`` standardised features::

    bias      ~ prior(0, bias_scale)
    weights   ~ prior(0, weight_scale), independent, D of them
    y_i       ~ Bernoulli(logits = x_i . weights + bias),  i = 1 .. N

The guide ``q`` is a Gaussian, either independent over the coefficients (mean-field) or with
all their correlations (full-rank). Variational inference maximises the evidence lower bound

    ELBO = E_q[log p(y | weights, bias)] - beta * KL(q || prior)          (in nats)

with ``beta = 1`` for the posterior proper. Both terms have values without sampling: the first
is a sum of integrals over one dimension each, the second a formula. So there are two ways to the
optimum. `fit_exact` takes the deterministic one, by `pyro_kl.glm`. `fit_svi` takes the way that
any Pyro model can go: gradients from draws of the guide, by `pyro_kl.TraceKL_ELBO`, which takes
the KL of each site exactly where there is a formula, weighs it by ``beta``, and reports it.

Wherever all coefficients stand in one vector the order is ``(bias, weights)``.

Sources: Jordan, Ghahramani, Jaakkola and Saul (1999), An Introduction to Variational Methods
for Graphical Models; Kingma and Welling (2014), Auto-Encoding Variational Bayes; Opper and
Archambeau (2009), The Variational Gaussian Approximation Revisited; Higgins and others (2017),
beta-VAE (for ``beta``).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import pyro_kl
from models.data import Dataset
from models.kl_table import KLRow, coefficient_kls, site_kls, total_correlation
from models.predictive import CalibrationBin, Prediction, predict
from pyro_kl import glm
from pyro_kl.glm.covariances.covariance import DiagonalCovariance, FullCovariance
from pyro_kl.glm.posterior.guide import DiagonalGuide, FullGuide

__all__ = [
    "GUIDES",
    "PRIORS",
    "STUDENT_T_DF",
    "CalibrationBin",
    "Fit",
    "FullRankGuide",
    "Guide",
    "GuideName",
    "History",
    "KLRow",
    "LogisticRegression",
    "MeanFieldGuide",
    "Prediction",
    "PriorName",
    "coefficient_kls",
    "elbo",
    "elbo_report",
    "expected_log_likelihood",
    "fit_exact",
    "fit_svi",
    "joint_kl",
    "make_guide",
    "predict",
    "site_kls",
    "total_correlation",
]

PriorName = Literal["normal", "laplace", "studentt"]
GuideName = Literal["mean-field", "full-rank"]
PRIORS: tuple[PriorName, ...] = ("normal", "laplace", "studentt")
GUIDES: tuple[GuideName, ...] = ("mean-field", "full-rank")

STUDENT_T_DF = 4.0
"""Degrees of freedom of the "studentt" prior: heavy tails, but a finite variance."""


# --------------------------------------------------------------------------------------
# Model
# --------------------------------------------------------------------------------------


class LogisticRegression(torch.nn.Module):
    """The generative model; call it with features (and labels) inside Pyro.

    The default prior of the weights, N(0, 1), suits standardised features: a change of one
    standard deviation in a feature multiplies the odds by 1/7 to 7 (two prior sds). The bias
    gets the wider scale 5: two prior sds allow base rates at the average row from 1 in 20,000
    up, so that the data, not the prior, set it (in the spirit of Gelman, Jakulin, Pittau and
    Su, 2008, A Weakly Informative Default Prior Distribution for Logistic Regression).

    Args:
        num_features: ``D``.
        prior: Family of all coefficients: "normal", "laplace" or "studentt".
        weight_scale: Scale of the weights' prior.
        bias_scale: Scale of the bias's prior.
        beta: Weight of the KL in the ELBO, at least 0; 1 is Bayes' rule.
    """

    def __init__(
        self,
        num_features: int,
        prior: PriorName = "normal",
        weight_scale: float = 1.0,
        bias_scale: float = 5.0,
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        if prior not in PRIORS:
            raise ValueError(f"prior must be one of {', '.join(PRIORS)}, got {prior!r}")
        if not (weight_scale > 0 and bias_scale > 0):
            raise ValueError(
                f"prior scales must be positive, got {weight_scale} (weights) and "
                f"{bias_scale} (bias)"
            )
        if not (beta >= 0 and math.isfinite(beta)):
            raise ValueError(f"beta must be a finite number of at least 0, got {beta}")
        self.num_features = num_features
        self.prior = prior
        self.beta = beta
        scales = torch.full((num_features + 1,), weight_scale, dtype=torch.float64)
        scales[0] = bias_scale
        self.scales: Tensor
        self.register_buffer("scales", scales)

    def coefficient_prior(self) -> dist.TorchDistribution:
        """Return the prior of every coefficient, batch shape ``(D + 1,)``."""
        return self._family(self.scales)

    def joint_prior(self) -> dist.TorchDistribution:
        """Return the prior of all coefficients jointly, event shape ``(D + 1,)``."""
        return self._family(self.scales).to_event(1)

    def bias_prior(self) -> dist.TorchDistribution:
        """Return the prior of site ``bias``, a scalar."""
        return self._family(self.scales[0])

    def weights_prior(self) -> dist.TorchDistribution:
        """Return the prior of site ``weights``, event shape ``(D,)``."""
        return self._family(self.scales[1:]).to_event(1)

    def prior_sd(self) -> Tensor:
        """Return the prior standard deviation of every coefficient, shape ``(D + 1,)``."""
        return self.coefficient_prior().stddev

    def _family(self, scale: Tensor) -> dist.TorchDistribution:
        loc = torch.zeros_like(scale)
        if self.prior == "normal":
            return dist.Normal(loc, scale)
        if self.prior == "laplace":
            return dist.Laplace(loc, scale)
        return dist.StudentT(torch.full_like(scale, STUDENT_T_DF), loc, scale)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Sample the coefficients and observe the labels; return the logits ``(..., N)``."""
        bias = pyro.sample("bias", self.bias_prior())
        weights = pyro.sample("weights", self.weights_prior())
        logits = weights @ features.mT
        if logits.dim() > 1:
            # A batch of particles has shape (P, 1): the 1 keeps the place of the data plate.
            logits = logits.squeeze(-2)
        logits = logits + bias
        with pyro.plate("data", features.shape[-2], dim=-1):
            pyro.sample("obs", dist.Bernoulli(logits=logits), obs=labels)
        return logits


# --------------------------------------------------------------------------------------
# Guides
# --------------------------------------------------------------------------------------


class MeanFieldGuide(DiagonalGuide):
    """Every coefficient Normal and independent of the others: ``2 (D + 1)`` parameters."""

    name: GuideName = "mean-field"


class FullRankGuide(FullGuide):
    """All coefficients jointly Gaussian, written by the chain rule.

    ``bias`` is Normal and ``weights`` given ``bias`` is multivariate Normal with a mean linear
    in ``bias``. That is every Gaussian there is over ``D + 1`` numbers, yet each site is drawn
    from a distribution whose KL to the prior is exact, and the sites come in the model's
    order, so that the exact KL is valid.
    """

    name: GuideName = "full-rank"


Guide = MeanFieldGuide | FullRankGuide


def make_guide(name: GuideName, model: LogisticRegression) -> Guide:
    """Return the guide called ``name``, with the prior's means and standard deviations."""
    sd = model.prior_sd()
    loc = torch.zeros_like(sd)
    guide = _guide_class(name)
    return guide(
        loc, DiagonalCovariance(sd) if guide is MeanFieldGuide else FullCovariance(torch.diag(sd))
    )


def _guide_class(name: GuideName) -> type[MeanFieldGuide] | type[FullRankGuide]:
    for guide in (MeanFieldGuide, FullRankGuide):
        if guide.name == name:
            return guide
    raise ValueError(f"guide must be one of {', '.join(GUIDES)}, got {name!r}")


# --------------------------------------------------------------------------------------
# The two terms of the ELBO, without sampling
# --------------------------------------------------------------------------------------


def expected_log_likelihood(guide: Guide, features: Tensor, labels: Tensor) -> pyro_kl.Estimate:
    """Return ``E_q[log p(labels | coefficients)]`` in nats, summed over the rows.

    A logit is linear in the coefficients, so under a Gaussian guide that of row ``i`` is
    ``Normal(m_i, s_i)``, and the expectation is a sum of ``N`` integrals over one dimension each.
    Sampling 31 coefficients to the same accuracy would take millions of draws.

    Args:
        guide: The fitted guide.
        features: Shape ``(N, D)``.
        labels: Shape ``(N,)``.
    """
    with torch.no_grad():
        rows = pyro_kl.expected_log_likelihood("bernoulli", labels, *guide.predictor(features))
    assert rows.error is not None
    total, error = rows.value.sum(), rows.error.sum()
    return pyro_kl.Estimate(total, torch.zeros_like(total), rows.method, error=error)


def joint_kl(
    guide: Guide, model: LogisticRegression, num_samples: int = 10_000
) -> pyro_kl.Estimate:
    """Return KL(q || prior) over all coefficients, in nats.

    Exact where `pyro_kl` has a formula: closed for the priors "normal" and "laplace", a quadrature
    for "studentt"; otherwise Monte Carlo with ``num_samples`` draws, and the estimate's ``method``
    says so.
    """
    with torch.no_grad():
        p, q = guide.joint(), model.joint_prior()
        try:
            return pyro_kl.kl(p, q)
        except NotImplementedError:
            return pyro_kl.monte_carlo(p, q, num_samples)


# --------------------------------------------------------------------------------------
# Fitting
# --------------------------------------------------------------------------------------


@dataclass
class History:
    """The ELBO's terms over a fit, one entry per recorded step; nats.

    Attributes:
        steps: Number of steps done.
        log_likelihood: E_q[log likelihood], summed over the training rows, by quadrature.
        kl: KL(q || prior), not multiplied by beta.
    """

    steps: list[int] = field(default_factory=list)
    log_likelihood: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)

    @property
    def elbo(self) -> list[float]:
        """The ELBO itself, with beta = 1."""
        return [a - b for a, b in zip(self.log_likelihood, self.kl, strict=True)]

    @property
    def kls(self) -> dict[str, list[float]]:
        """The KL of the joint posterior, as `pyro_kl.plot` reads it."""
        return {"the coefficients": self.kl}


@dataclass(frozen=True)
class Fit:
    """A fitted guide and how it came about.

    Attributes:
        model: The model, with its prior and beta.
        guide: The fitted guide.
        history: The ELBO's two terms over the steps; empty for a deterministic fit.
        steps: Number of steps done, or of passes over the rows.
        interrupted: Whether Ctrl-C ended the fit before its time.
    """

    model: LogisticRegression
    guide: Guide
    history: History
    steps: int
    interrupted: bool


class _Average:
    """Running mean of a module's parameters (Polyak and Juditsky, 1992)."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.parameters = list(module.parameters())
        self.mean = [torch.zeros_like(p) for p in self.parameters]
        self.count = 0

    @torch.no_grad()
    def add(self) -> None:
        """Take the parameters as they are now into the mean."""
        self.count += 1
        for mean, parameter in zip(self.mean, self.parameters, strict=True):
            mean.add_((parameter - mean) / self.count)

    @torch.no_grad()
    def write_back(self) -> None:
        """Set the parameters to their mean, if anything was averaged."""
        if self.count:
            for mean, parameter in zip(self.mean, self.parameters, strict=True):
                parameter.copy_(mean)


def fit_exact(
    data: Dataset, model: LogisticRegression, guide: GuideName = "full-rank", tol: float = 1e-4
) -> Fit:
    """Fit a guide by `pyro_kl.glm`: no draws, and the same numbers each time.

    Args:
        data: Training rows, features standardised.
        model: The model; its ``beta`` weighs the KL.
        guide: "mean-field" or "full-rank".
        tol: How many nats the ELBO may be below its optimum.

    Returns:
        The fit, with a guide that has no parameters to train.

    Raises:
        ValueError: ``beta`` is 0: without a prior the best guide is a single point.
    """
    bias_scale, weight_scale = model.scales[:2].tolist()
    estimator = glm.LogisticRegression(
        weight_scale,
        bias_scale=bias_scale,
        prior=model.prior,
        covariance="full" if guide == "full-rank" else "diagonal",
        beta=model.beta,
        tol=tol,
    ).fit(data.features, data.labels)
    posterior = estimator.posterior_
    q = _guide_class(guide)(posterior.loc, posterior.covariance, trainable=False)
    return Fit(model, q, History(), estimator.n_iter_, False)


def fit_svi(
    data: Dataset,
    model: LogisticRegression,
    guide: GuideName = "full-rank",
    *,
    steps: int = 3000,
    learning_rate: float = 0.07,
    num_particles: int = 32,
    average_from: float = 0.7,
    records: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> Fit:
    """Fit a guide by stochastic variational inference.

    Adam ascends the ELBO, as `pyro_kl.TraceKL_ELBO` computes it, with a learning rate that falls
    along a half cosine. The parameters of the last steps are averaged, which removes most of the
    gradient noise that is left.

    Args:
        data: Training rows, features standardised.
        model: The model; its ``beta`` weighs the KL.
        guide: "mean-field" or "full-rank".
        steps: Number of gradient steps, at least 1.
        learning_rate: Adam's learning rate at the first step.
        num_particles: Draws from the guide per step, in one vectorised batch.
        average_from: Fraction of the steps after which averaging starts.
        records: Number of times the ELBO's terms are recorded, besides the start.
        seed: Seed of Pyro's random state.
        progress: Whether to show a progress bar on standard error if it takes over two seconds.

    Returns:
        The fit. Ctrl-C ends the fit early and returns the last complete step, without
        averaging and with ``interrupted`` set.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if num_particles < 1:
        raise ValueError(f"num_particles must be at least 1, got {num_particles}")
    pyro.set_rng_seed(seed)
    q = make_guide(guide, model)
    history, average = History(), _Average(q)
    every = max(steps // records, 1)
    last, done, interrupted = _snapshot(q), 0, False

    def after_step(step: int, loss: float, report: object) -> None:
        nonlocal last, done
        if step - 1 >= average_from * steps:
            average.add()
        if step % every == 0 and step < steps:
            _record(history, step, q, model, data)
        last, done = _snapshot(q), step

    _record(history, 0, q, model, data)
    # The scope keeps the parameters out of Pyro's global store.
    with pyro.get_param_store().scope():
        svi = _svi(model, q, steps, learning_rate, num_particles)
        try:
            with _reported():
                svi.run(
                    steps, data.features, data.labels, progress=progress, callbacks=[after_step]
                )
            average.write_back()
        except KeyboardInterrupt:
            # A second Ctrl-C may have come in the middle of an update.
            interrupted = True
            q.load_state_dict(last)
    _record(history, done, q, model, data)
    return Fit(model, q, history, done, interrupted)


def _snapshot(guide: Guide) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in guide.state_dict().items()}


def elbo(model: LogisticRegression, num_particles: int = 1) -> pyro_kl.TraceKL_ELBO:
    """Return the ELBO of a model, with its beta; particles come in one vectorised batch."""
    return pyro_kl.TraceKL_ELBO(
        beta=model.beta,
        num_particles=num_particles,
        vectorize_particles=True,
        max_plate_nesting=1,
    )


def elbo_report(fit: Fit, data: Dataset, num_particles: int = 1000) -> pyro_kl.KLReport:
    """Return every term of the fitted ELBO on some rows, over draws from the guide."""
    with _reported():
        return elbo(fit.model).evaluate(
            fit.model, fit.guide, data.features, data.labels, num_particles=num_particles
        )


@contextmanager
def _reported() -> Iterator[None]:
    """Without the warning that a KL is sampled: the report's column of methods says so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The KL of these sites is sampled")
        yield


def _svi(
    model: LogisticRegression, guide: Guide, steps: int, learning_rate: float, num_particles: int
) -> pyro_kl.SVI:
    """Adam with a learning rate that falls along a half cosine."""
    return pyro_kl.SVI(
        model,
        guide,
        torch.optim.Adam,
        elbo(model, num_particles),
        optim_args={"lr": learning_rate},
        schedule=lambda step: 0.5 * (1.0 + math.cos(math.pi * step / steps)),
        compile="fx",
    )


def _record(
    history: History, step: int, guide: Guide, model: LogisticRegression, data: Dataset
) -> None:
    """Add both terms of the ELBO at the guide as it is now, unless this step is there."""
    if history.steps and history.steps[-1] >= step:
        return
    likelihood = expected_log_likelihood(guide, data.features, data.labels)
    kl = joint_kl(guide, model, num_samples=1000)
    history.steps.append(step)
    history.log_likelihood.append(float(likelihood))
    history.kl.append(float(kl.value))
