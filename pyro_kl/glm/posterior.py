"""Posterior: what a fit leaves, with its KLs, its predictions, its Pyro guide and its file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor

from ..divergence.estimate import Estimate
from ..divergence.kl import kl
from ..elbo.report import dataframe
from ..likelihoods import LIKELIHOODS
from . import posterior_file, posterior_table
from .coefficients import marginals
from .covariance import Covariance
from .design import DenseDesign
from .guide import GUIDES, SITES, GaussianGuide
from .prior import Prior
from .pyro_model import RegressionModel


@dataclass(frozen=True, eq=False)
class Posterior:
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
        versions: of the packages that made the fit.

    Example:
        >>> fit = pyro_kl.glm.LogisticRegression().fit(X, y)  # doctest: +SKIP
        >>> posterior = fit.posterior_  # doctest: +SKIP
        >>> print(posterior)  # doctest: +SKIP
        >>> posterior.save("posterior.safetensors")  # doctest: +SKIP
        >>> model, guide = posterior.model(), posterior.guide()  # doctest: +SKIP
        >>> Predictive(model, guide=guide, num_samples=1000)(X)  # doctest: +SKIP
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
    versions: Mapping[str, str] = field(default_factory=posterior_file.versions)

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
            features: shape (N, D), in the units of the data that were fitted: a tensor, an array
                of numpy, a data frame or a sparse matrix of scipy.

        Returns:
            Two tensors of shape (N,).
        """
        return DenseDesign(self._fitted_units(features)).predictor(self.loc, self.covariance)

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
            )
        second = self.predict(features)
        return torch.stack([1.0 - second, second], dim=-1)

    def _fitted_units(self, features: Any) -> Tensor:
        """The features as the fit saw them, in float64."""
        if hasattr(features, "columns"):  # a data frame: its columns may come in another order
            features = features[list(self.names)]
        if not isinstance(features, Tensor):
            array = np.asarray(features, dtype=np.float64)
            features = torch.from_numpy(array if array.flags.writeable else array.copy())
        x = features.double()
        if x.dim() != 2 or x.shape[1] != len(self.names):
            raise ValueError(
                f"features have shape {tuple(x.shape)}; the posterior has {len(self.names)} "
                f"features: (N, {len(self.names)})"
            )
        if self.shift is not None and self.scale is not None:
            x = (x - self.shift) / self.scale
        return x

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
        return cls(**posterior_file.read(path))

    # --- text -----------------------------------------------------------------------------------

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary for each coefficient: prior sd, mean, sd, 95 % interval, KL in nats."""
        return posterior_table.rows(self)

    def to_dataframe(self) -> Any:
        """A `pandas.DataFrame` with one row for each coefficient.

        Raises:
            ImportError: pandas is missing: `pip install 'pyro-kl[report]'`.
        """
        return dataframe(self.to_dicts(), "coefficient", "to_dicts() does without.")

    def __str__(self) -> str:
        return posterior_table.text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        return posterior_table.as_html(self)
