"""Bayesian logistic regression by variational inference, with exact KL divergences.

The model, for ``N`` rows of ``D`` standardised features::

    bias      ~ prior(0, bias_scale)
    weights   ~ prior(0, weight_scale), independent, D of them
    y_i       ~ Bernoulli(logits = x_i . weights + bias),  i = 1 .. N

The guide ``q`` is a Gaussian, either independent over the coefficients (mean-field) or with
all their correlations (full-rank). Variational inference maximises the evidence lower bound

    ELBO = E_q[log p(y | weights, bias)] - beta * KL(q || prior)          (in nats)

with ``beta = 1`` for the posterior proper. Both terms are computed without sampling when a fit
is reported: the first by one-dimensional quadrature, the second by `pyro_kl`. The gradients
come from `pyro_kl.TraceKL_ELBO`, which takes the KL of each site exactly where there is a
formula, weighs it by ``beta``, and reports it.

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
from pyro.infer import is_validation_enabled
from torch import Tensor
from torch.nn.functional import logsigmoid

import pyro_kl
from models.data import Dataset
from models.kl_table import KLRow, coefficient_kls, site_kls, total_correlation
from models.predictive import CalibrationBin, Prediction, predict
from models.quadrature import normal_rule

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
    "Quadrature",
    "coefficient_kls",
    "elbo",
    "elbo_report",
    "expected_log_likelihood",
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


class Guide(torch.nn.Module):
    """A Gaussian ``q`` over (bias, weights); it starts with the prior's means and sds.

    The parameters are plain ``torch.nn.Parameter`` s of a plain module, so nothing enters
    Pyro's global parameter store.
    """

    name: GuideName

    def __init__(self, model: LogisticRegression) -> None:
        super().__init__()
        self.num_features = model.num_features
        sd = model.prior_sd()
        self.loc = torch.nn.Parameter(torch.zeros_like(sd))
        self.log_scale = torch.nn.Parameter(sd.log())

    def joint(self) -> dist.TorchDistribution:
        """Return ``q`` over all coefficients, event shape ``(D + 1,)``."""
        raise NotImplementedError

    def weights_given(self, bias: Tensor) -> dist.TorchDistribution:
        """Return ``q(weights | bias)``, batch shape of ``bias``, event shape ``(D,)``."""
        raise NotImplementedError

    def scale_tril(self) -> Tensor:
        """Return the Cholesky factor of the joint covariance, shape ``(D + 1, D + 1)``."""
        raise NotImplementedError

    def bias(self) -> dist.TorchDistribution:
        """Return ``q(bias)``, a scalar Normal."""
        return dist.Normal(self.loc[0], torch.exp(self.log_scale[0]))

    def mean(self) -> Tensor:
        """Return the posterior mean of every coefficient, shape ``(D + 1,)``."""
        return self.loc.detach()

    def sd(self) -> Tensor:
        """Return the posterior sd of every coefficient, shape ``(D + 1,)``."""
        return self.scale_tril().detach().square().sum(-1).sqrt()

    def marginals(self) -> dist.TorchDistribution:
        """Return ``q`` of every coefficient on its own, batch shape ``(D + 1,)``."""
        return dist.Normal(self.mean(), self.sd())

    def logit_moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and sd of every row's logit under ``q``, each of shape ``(N,)``.

        A logit is linear in the coefficients, so under a Gaussian ``q`` it is Normal.
        """
        design = torch.cat([torch.ones_like(features[:, :1]), features], dim=-1)
        mean = design @ self.loc
        sd = (design @ self.scale_tril()).square().sum(-1).sqrt()
        return mean.detach(), sd.detach()

    def forward(self, features: Tensor, labels: Tensor | None = None) -> None:
        """Sample bias, then weights given bias: the order of the model's sites."""
        bias = pyro.sample("bias", self.bias())
        pyro.sample("weights", self.weights_given(bias))


class MeanFieldGuide(Guide):
    """Every coefficient Normal and independent of the others: ``2 (D + 1)`` parameters."""

    name: GuideName = "mean-field"

    def scale_tril(self) -> Tensor:
        """Return the diagonal Cholesky factor, shape ``(D + 1, D + 1)``."""
        return torch.diag(torch.exp(self.log_scale))

    def joint(self) -> dist.TorchDistribution:
        """Return the product of Normals, event shape ``(D + 1,)``."""
        return dist.Normal(self.loc, torch.exp(self.log_scale)).to_event(1)

    def weights_given(self, bias: Tensor) -> dist.TorchDistribution:
        """Return ``q(weights)``, which ignores ``bias``."""
        return dist.Normal(self.loc[1:], torch.exp(self.log_scale[1:])).to_event(1)


class FullRankGuide(Guide):
    """All coefficients jointly Gaussian, written by the chain rule.

    ``bias`` is Normal and ``weights`` given ``bias`` is multivariate Normal with a mean linear
    in ``bias``. That is every Gaussian there is over ``D + 1`` numbers, yet each site is drawn
    from a distribution whose KL to the prior is exact, and the sites come in the model's
    order, so that the exact KL is valid.
    """

    name: GuideName = "full-rank"

    def __init__(self, model: LogisticRegression) -> None:
        super().__init__(model)
        zeros = torch.zeros_like(self.loc.detach()[1:])
        self.gain = torch.nn.Parameter(zeros)
        self.free_tril = torch.nn.Parameter(torch.diag(zeros))

    def _weights_scale_tril(self) -> Tensor:
        lower = torch.tril(self.free_tril, diagonal=-1)
        return lower + torch.diag(torch.exp(self.log_scale[1:]))

    def scale_tril(self) -> Tensor:
        """Return the Cholesky factor of the joint covariance, shape ``(D + 1, D + 1)``."""
        scale = torch.exp(self.log_scale[0])
        top = torch.cat([scale.reshape(1), torch.zeros_like(self.gain)])
        below = torch.cat([(self.gain * scale).unsqueeze(-1), self._weights_scale_tril()], -1)
        return torch.cat([top.unsqueeze(0), below])

    def joint(self) -> dist.TorchDistribution:
        """Return the multivariate Normal, event shape ``(D + 1,)``."""
        return dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril())

    def weights_given(self, bias: Tensor) -> dist.TorchDistribution:
        """Return ``q(weights | bias)``, batch shape of ``bias``, event shape ``(D,)``."""
        loc = self.loc[1:] + self.gain * (bias - self.loc[0]).unsqueeze(-1)
        return dist.MultivariateNormal(loc, scale_tril=self._weights_scale_tril())


def make_guide(name: GuideName, model: LogisticRegression) -> Guide:
    """Return the guide called ``name``, at its starting point."""
    if name == "mean-field":
        return MeanFieldGuide(model)
    if name == "full-rank":
        return FullRankGuide(model)
    raise ValueError(f"guide must be one of {', '.join(GUIDES)}, got {name!r}")


# --------------------------------------------------------------------------------------
# The two terms of the ELBO, without sampling
# --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quadrature:
    """A number computed by quadrature.

    Attributes:
        value: The number.
        error: Its numerical error: the change from half the nodes. There is no sampling.
        method: How it was computed, in words.
    """

    value: float
    error: float
    method: str


def expected_log_likelihood(
    guide: Guide, features: Tensor, labels: Tensor, nodes: int = 401
) -> Quadrature:
    """Return ``E_q[log p(labels | coefficients)]`` in nats, summed over the rows.

    Under a Gaussian guide the logit of row ``i`` is ``N(m_i, s_i^2)``, so the expectation is a
    sum of ``N`` integrals over one dimension each, done here by the trapezoidal rule.
    Sampling 31 coefficients to the same accuracy would take millions of draws.

    Args:
        guide: The fitted guide.
        features: Shape ``(N, D)``.
        labels: Shape ``(N,)``.
        nodes: Number of quadrature nodes per row.
    """
    mean, sd = guide.logit_moments(features)
    sign = 2.0 * labels - 1.0

    def total(count: int) -> float:
        x, w = normal_rule(count)
        logits = mean.unsqueeze(-1) + sd.unsqueeze(-1) * x
        return float((logsigmoid(sign.unsqueeze(-1) * logits) @ w).sum())

    value = total(nodes)
    return Quadrature(value, abs(value - total(nodes // 2 + 1)), f"quadrature, {nodes} nodes")


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
        step: Number of steps done.
        log_likelihood: E_q[log likelihood], summed over the training rows, by quadrature.
        kl: KL(q || prior), not multiplied by beta.
    """

    step: list[int] = field(default_factory=list)
    log_likelihood: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Fit:
    """A fitted guide and how it came about.

    Attributes:
        model: The model, with its prior and beta.
        guide: The fitted guide.
        history: The ELBO's two terms over the steps.
        steps: Number of steps done.
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
        # The first step passes all of Pyro's checks; they cost as much as the step itself.
        pyro.enable_validation(False)
        if step - 1 >= average_from * steps:
            average.add()
        if step % every == 0 and step < steps:
            _record(history, step, q, model, data)
        last, done = _snapshot(q), step

    _record(history, 0, q, model, data)
    # The scope keeps the parameters out of Pyro's global store.
    with pyro.get_param_store().scope(), pyro.validation_enabled(is_validation_enabled()):
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

    def declared(features: Tensor, labels: Tensor) -> None:
        pyro.module("guide", guide)
        guide(features, labels)

    return pyro_kl.SVI(
        model,
        declared,
        torch.optim.Adam,
        elbo(model, num_particles),
        optim_args={"lr": learning_rate},
        schedule=lambda step: 0.5 * (1.0 + math.cos(math.pi * step / steps)),
    )


def _record(
    history: History, step: int, guide: Guide, model: LogisticRegression, data: Dataset
) -> None:
    """Add both terms of the ELBO at the guide as it is now, unless this step is there."""
    if history.step and history.step[-1] >= step:
        return
    likelihood = expected_log_likelihood(guide, data.features, data.labels, nodes=201)
    kl = joint_kl(guide, model, num_samples=1000)
    history.step.append(step)
    history.log_likelihood.append(likelihood.value)
    history.kl.append(float(kl.value))
