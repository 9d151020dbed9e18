"""Posterior: what a fit leaves, with its KLs, its predictions, its Pyro guide and its file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ...divergence.estimate import Estimate
from ...divergence.kl import kl
from ...likelihoods import LIKELIHOODS
from ...messages import see
from ...results.result import Result
from ...results.table import Table
from ..arrays import as_features
from ..covariances.covariance import Covariance
from ..passes.design import Memory
from ..priors.earlier_posterior import prior_from
from ..priors.prior import GaussianPrior, Prior
from . import posterior_file, posterior_table
from .coefficients import marginals
from .guide import GUIDES, SITES, GaussianGuide
from .pyro_model import RegressionModel


@dataclass(frozen=True, eq=False, repr=False)
class Posterior(Result):
    """A Gaussian over the coefficients of a regression, and where it comes from.

    Wherever all coefficients stand in one vector, the bias is the first of them.

    Attributes:
        loc: means, shape (D + 1,), float64.
        covariance: of all coefficients: full, diagonal or of low rank.
        names: of the D features.
        prior: of all coefficients, its learned scales included.
        likelihood: name of the likelihood: "bernoulli", "bernoulli probit" or "poisson".
        elbo: nats, over the rows of the fit.
        expected_log_likelihood: nats, over the rows of the fit.
        num_rows: how many rows the fit saw.
        beta: weight of the KL in the fit's objective; 1 is Bayes' rule.
        classes: the labels that stand for 0 and 1 where the target has two values, else None.
        shift: what was subtracted from each feature before the fit, shape (D,), or None.
        scale: what each feature was divided by after that, shape (D,), or None.
        versions: of the packages that made the fit; empty before the posterior is saved.

    Example:
        >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [3.0]]).double()
        >>> fit = pyro_kl.glm.LogisticRegression(tol=1e-8).fit(x, ["no", "no", "yes", "yes"])
        >>> posterior = fit.posterior_
        >>> print(posterior)
        coefficient  prior sd    mean     sd   2.5 %  97.5 %     KL
        bias            5.000  -0.134  1.431  -2.938   2.670  0.793
        x0              1.000   1.252  0.670  -0.061   2.566  0.909
        ELBO -3.0142 = log likelihood -1.3126 - KL 1.7017; nats
        KL by closed form; those of single coefficients add up to 1.7015
        4 rows; bernoulli likelihood; normal prior; full covariance
        1 stands for 'yes', 0 for 'no'
        >>> model, guide = posterior.model(), posterior.guide()
        >>> draws = pyro.infer.Predictive(model, guide=guide, num_samples=100)(x)
        >>> draws["obs"].shape
        torch.Size([100, 4])
    """

    loc: Tensor
    covariance: Covariance
    names: tuple[str, ...]
    prior: Prior
    likelihood: str
    elbo: float
    expected_log_likelihood: float
    num_rows: int
    beta: float = 1.0
    classes: tuple[Any, Any] | None = None
    shift: Tensor | None = None
    scale: Tensor | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    # --- the Gaussian and its KLs ---------------------------------------------------------------

    def joint(self) -> dist.TorchDistribution:
        """The posterior of all coefficients, event shape (D + 1,)."""
        return self.covariance.distribution(self.loc)

    def marginals(self) -> dist.TorchDistribution:
        """The posterior of each coefficient on its own, batch shape (D + 1,)."""
        return dist.Normal(self.loc, self.covariance.marginal_scale)

    @cached_property
    def kl(self) -> Estimate:
        """KL(posterior || prior) over all coefficients jointly, in nats."""
        return kl(self.joint(), self.prior.distribution())

    @cached_property
    def coefficient_kls(self) -> Estimate:
        """KL of each coefficient's marginal against its prior, in nats, shape (D + 1,)."""
        return kl(self.marginals(), marginals(self.prior.distribution()))

    # --- predictions ----------------------------------------------------------------------------

    def predictor(self, features: Any) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each row's linear predictor under the posterior.

        Args:
            features: shape (N, D), in the units of the data: a tensor, an array of numpy, a data
                frame (its columns are found by name) or a sparse matrix of scipy; or the rows of a
                table with the same columns, see `pyro_kl.glm.read_table`.

        Returns:
            Two tensors of shape (N,).
        """
        here = GaussianPrior(self.loc, self.covariance)
        parts: Iterator[Any]
        if hasattr(features, "num_chunks"):
            if tuple(features.names) != self.names:
                raise ValueError(
                    f"the columns of X are {', '.join(features.names[:4])}, ...; those of the "
                    f"posterior are {', '.join(self.names[:4])}, ...: read the same columns"
                    + see("other-columns")
                )
            here = prior_from(self, features)  # the same Gaussian in the units of these rows
            parts = (features.chunk(index).features for index in range(features.num_chunks))
        else:
            parts = iter([self._fitted_units(features)])
        memory = Memory()
        with torch.no_grad():
            moments = [memory.design(part).predictor(here.loc, here.covariance) for part in parts]
        loc, scale = (torch.cat(column) for column in zip(*moments, strict=True))
        return loc, scale

    def predict(self, features: Any) -> Tensor:
        """The mean response of each row, with the posterior integrated out.

        Args:
            features: as of `predictor`.

        Returns:
            Shape (N,): the probability of the second class, or the expected count.
        """
        (likelihood,) = (each for each in LIKELIHOODS if each.name == self.likelihood)
        return likelihood.predict(*self.predictor(features))

    def predict_proba(self, features: Any) -> Tensor:
        """The probability of both classes, with the posterior integrated out.

        Args:
            features: as of `predictor`.

        Returns:
            Shape (N, 2), in the order of `classes`.

        Raises:
            TypeError: the target of the fit has no two classes.
        """
        if self.classes is None:
            raise TypeError(
                f"a {self.likelihood} posterior has no classes: predict() has its mean response."
                + see("labels")
            )
        second = self.predict(features)
        return torch.stack([1.0 - second, second], dim=-1)

    def _fitted_units(self, features: Any) -> Any:
        """The features as the fit saw them: a dense tensor, or a sparse matrix of scipy."""
        if hasattr(features, "columns"):  # a data frame: its columns may come in another order
            by_name = {str(column): column for column in features.columns}
            missing = [name for name in self.names if name not in by_name]
            if missing:
                raise ValueError(
                    f"X has no column {missing[0]!r}, which the posterior needs"
                    + see("other-columns")
                )
            features = features[[by_name[name] for name in self.names]]
        if not isinstance(features, Tensor) or not features.is_floating_point():
            features, _ = as_features(features)
        if len(features.shape) != 2 or features.shape[1] != len(self.names):
            raise ValueError(
                f"X has shape {tuple(features.shape)}; the posterior has {len(self.names)} "
                f"features, so it must be (N, {len(self.names)})" + see("other-columns")
            )
        if self.shift is None or self.scale is None:
            return features
        return (features - self.shift) / self.scale

    # --- Pyro -----------------------------------------------------------------------------------

    def guide(
        self, sites: Sequence[str] | str = SITES, *, trainable: bool = False
    ) -> GaussianGuide:
        """The posterior as a Pyro guide.

        Args:
            sites: names of the sites of bias (a scalar) and weights (a vector), or one name for
                all coefficients jointly, the bias first.
            trainable: False fixes the guide at the posterior. True makes its numbers parameters,
                which start there: a warm start for SVI.

        Returns:
            A module for `Predictive`, `compare_sites`, `TraceKL_ELBO` and SVI. Two sites are drawn
            in the order of the names, weights given bias, so that their exact KLs are valid.
        """
        return GUIDES[type(self.covariance)](self.loc, self.covariance, sites, trainable)

    def model(self, sites: Sequence[str] | str = SITES) -> RegressionModel:
        """The Pyro model that was fitted: `model(features, target)`; the target is site ``obs``.

        Args:
            sites: as of `guide`.
        """
        sites = (sites,) if isinstance(sites, str) else sites
        return RegressionModel(self.prior, self.likelihood, sites, self._fitted_units)

    # --- files ----------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the posterior to a file, in the format of safetensors.

        Args:
            path: the file; its folder exists. A file that is there is replaced.

        Raises:
            ImportError: safetensors is not installed: `pip install 'pyro-kl[glm]'`.
        """
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["versions"] = self.versions or posterior_file.versions()
        posterior_file.write(path, values)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Posterior:
        """Read a posterior that `save` wrote; no code is run from the file.

        Args:
            path: the file.

        Raises:
            FileNotFoundError: there is no such file.
            ImportError: safetensors is not installed: `pip install 'pyro-kl[glm]'`.
            ValueError: the file is no posterior, or one of another format.
        """
        return posterior_file.read(path, cls)

    # --- as a table, and as data ----------------------------------------------------------------

    _index = "coefficient"

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary for each coefficient: prior sd, mean, sd, 95 % interval, KL in nats."""
        return posterior_table.rows(self)

    def _table(self) -> Table:
        return posterior_table.table(self)
