"""What all estimators share: the fit and its results."""

from __future__ import annotations

import math
import numbers
import os
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..likelihoods.likelihood import Likelihood
from ..messages import see
from .arrays import as_features, as_weight
from .covariances.covariance import Covariance, FullCovariance
from .optimum.fit import COVARIANCES, Fitted, fit, projection
from .optimum.objective import Objective
from .parameters import Parameters
from .passes.checkpoint import for_ranks
from .passes.rows import ArrayRows, Rows
from .posterior.posterior import Posterior
from .priors.earlier_posterior import prior_from
from .priors.prior import GaussianPrior, Prior
from .priors.prior_scale import declared_prior, scales_by_name
from .response.linear_response import linear_response_covariance
from .response.sensitivity import Sensitivity, sensitivity

if TYPE_CHECKING:
    from ..diagnosis.diagnosis import Diagnosis

Estimator = TypeVar("Estimator", bound="Regression")


class Regression(Parameters):
    """A generalised linear model with a Gaussian posterior: the one with the largest ELBO.

    The conventions are scikit-learn's: results end in an underscore, `fit` returns the estimator.
    """

    likelihood: ClassVar[Likelihood]

    def __init__(
        self,
        prior_scale: Any = 1.0,
        *,
        groups: Any = None,
        bias_scale: float = 5.0,
        prior: str = "normal",
        covariance: str = "full",
        rank: int = 10,
        beta: float = 1.0,
        tol: float = 1e-4,
        max_iter: int = 100,
    ) -> None:
        self.prior_scale = prior_scale
        self.groups = groups
        self.bias_scale = bias_scale
        self.prior = prior
        self.covariance = covariance
        self.rank = rank
        self.beta = beta
        self.tol = tol
        self.max_iter = max_iter

    # --- the fit --------------------------------------------------------------------------------

    def fit(
        self: Estimator,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        prior: Any = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Estimator:
        """Find the posterior.

        Under `torchrun`, after `torch.distributed.init_process_group`, each rank calls this with
        all rows (a memory map, a table) and reads its own part of them; all of them get the same
        posterior, which does not depend on how many they are.

        Args:
            X: the features, shape ``(N, D)``: an array of numpy, a data frame of pandas, a tensor
                or a sparse matrix of scipy (with covariance="diagonal"); or the rows of a table,
                see `pyro_kl.glm.read_table`. float32 is fitted in float32.
            y: the targets, shape ``(N,)``; None if X is the rows of a table.
            sample_weight: how often each row counts, shape ``(N,)``, at least 0.
            prior: ``posterior_`` of a fit of earlier data, in the place of the prior of the
                parameters. It may be of features that were standardised in another way.
            checkpoint: a folder in which the sums of each pass over the rows are kept, and those
                of each block of them. A fit that was interrupted goes on from there, with any
                number of ranks; the folder belongs to these data and settings.

        Returns:
            The estimator itself.

        Raises:
            ValueError: an argument cannot be used; one line that says why.
        """
        self._check_parameters()
        rows = self._rows(X, y, sample_weight)
        scaled = None
        if prior is None:
            scaled = declared_prior(
                self.prior, self.prior_scale, self.groups, self.bias_scale, len(rows.names)
            )
        classes = tuple(getattr(self, "classes_", ())) or None
        used = prior_from(prior, rows, classes) if scaled is None else scaled.prior
        settings = {**self.get_params(), "prior": scaled or used}
        read = for_ranks(rows, checkpoint, self.likelihood, settings)
        objective = Objective(read, self.likelihood, used, float(self.beta))
        project = projection(self.covariance, self.rank)
        loc, covariance = self._start(read, used)
        fitted = fit(
            objective,
            project,
            loc=loc,
            covariance=covariance,
            scaled=scaled,
            tol=self.tol,
            max_iter=self.max_iter,
        )
        if scaled is not None:
            self.prior_scale_ = scales_by_name(fitted.prior, self.groups)
        self._keep(rows, fitted)
        return self

    def _keep(self, rows: Rows, fitted: Fitted) -> None:
        """Set the attributes that scikit-learn's conventions ask for."""
        self.n_features_in_ = len(rows.names)
        self.feature_names_in_ = np.array(rows.names, dtype=object)
        self.loc_ = fitted.loc.numpy()
        self.covariance_ = fitted.covariance
        self.scale_ = fitted.covariance.marginal_scale.numpy()
        if isinstance(fitted.covariance, FullCovariance):
            self.scale_tril_ = fitted.covariance.scale_tril.numpy()
        self.elbo_ = fitted.elbo
        self.expected_log_likelihood_ = fitted.expected_log_likelihood
        self.kl_ = fitted.kl
        self.trace_ = np.array(fitted.trace)
        self.n_iter_ = fitted.num_passes
        self.converged_ = fitted.converged
        self.prior_ = fitted.prior
        classes = getattr(self, "classes_", None)
        self.posterior_ = Posterior(
            fitted.loc,
            fitted.covariance,
            rows.names,
            fitted.prior,
            self.likelihood.name,
            fitted.elbo,
            fitted.expected_log_likelihood,
            rows.num_rows - (getattr(rows, "num_left_out", None) or 0),
            float(self.beta),
            None if classes is None else tuple(classes.tolist()),
            getattr(rows, "shift", None),
            getattr(rows, "scale", None),
        )

    @property
    def coefficient_kls_(self) -> NDArray[np.float64]:
        """KL of each coefficient's marginal against its prior, in nats, shape ``(D + 1,)``."""
        return self.posterior_.coefficient_kls.value.numpy()

    # --- what fit needs -------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        for name in ("bias_scale", "beta", "tol"):
            value = getattr(self, name)
            if not (isinstance(value, numbers.Real) and 0.0 < float(value) < math.inf):
                raise ValueError(
                    f"{name} must be a positive number, got {value!r}" + see("option")
                )
        for name in ("rank", "max_iter"):
            value = getattr(self, name)
            if not (isinstance(value, numbers.Integral) and int(value) >= 1):
                raise ValueError(
                    f"{name} must be a positive integer, got {value!r}" + see("option")
                )

    def _rows(self, X: Any, y: Any, sample_weight: Any) -> Rows:
        if hasattr(X, "num_chunks"):
            if y is not None or sample_weight is not None:
                raise ValueError(
                    "the rows of a table have their targets and weights in them" + see("labels")
                )
            self._take_target_of(X)
            return X
        if y is None:
            raise ValueError("y, the targets, is missing" + see("labels"))
        features, names = as_features(X)
        dtype = torch.float32 if str(features.dtype).endswith("float32") else torch.float64
        target = self._target(y, features.shape[0], dtype)
        weight = as_weight(sample_weight, features.shape[0], dtype)
        return ArrayRows(features, target, weight, names)

    def _target(self, y: Any, num_rows: int, dtype: torch.dtype) -> Tensor:
        """Return the targets in the likelihood's terms."""
        raise NotImplementedError

    def _take_target_of(self, rows: Any) -> None:
        """Keep what a table says about its target."""

    def _start(self, rows: Rows, prior: Prior) -> tuple[Tensor, Covariance | None]:
        """Return a mean to start with; a posterior of earlier data has a covariance too."""
        if isinstance(prior, GaussianPrior):
            same = isinstance(prior.covariance, COVARIANCES[self.covariance])
            return prior.loc, prior.covariance if same else None
        loc = torch.zeros(len(rows.names) + 1, dtype=torch.float64)
        loc[0] = self._start_of_bias(rows)
        return loc, None

    def _start_of_bias(self, rows: Rows) -> float:
        """Return a bias to start with."""
        return 0.0

    # --- what a fit can be asked for ------------------------------------------------------------

    def linear_response_covariance(
        self, X: Any, y: Any = None, sample_weight: Any = None
    ) -> NDArray[Any]:
        """Return the covariance of the coefficients, by linear response of a diagonal fit.

        A diagonal posterior has no correlations, and its sds are too small where the coefficients
        are correlated. Linear response has both right, for one more pass over the data.

        Args:
            X: the features of the fit.
            y: the targets of the fit.
            sample_weight: the weights of the fit.

        Returns:
            Shape ``(D + 1, D + 1)``, the bias first; the square roots of the diagonal are the sds.

        Raises:
            ValueError: the fit has another covariance, or stopped too far from its optimum.

        Reference: Giordano, Broderick and Jordan (2018), Covariances, Robustness, and Variational
        Bayes, Journal of Machine Learning Research 19(51).
        """
        objective, loc = self._optimum(X, y, sample_weight)
        return linear_response_covariance(objective, loc, self.covariance_).numpy()

    def sensitivity(self, X: Any, y: Any = None, sample_weight: Any = None) -> Sensitivity:
        """Return how posterior means and sds move with ``beta`` and with the prior's scale.

        These are derivatives at the optimum, for a few more passes over the data and no other fit.

        Args:
            X: the features of the fit.
            y: the targets of the fit.
            sample_weight: the weights of the fit.

        Returns:
            An array for each derivative; printed, a table.

        Raises:
            ValueError: the covariance is of low rank, or the fit stopped too far from its optimum.
        """
        objective, loc = self._optimum(X, y, sample_weight)
        return sensitivity(objective, loc, self.covariance_, tuple(self.feature_names_in_))

    def diagnose(self, X: Any, y: Any = None, *, num_samples: int = 10_000) -> Diagnosis:
        """Estimate KL(fitted Gaussian || true posterior) with its error, and say what to trust.

        Args:
            X: the features of the fit, dense.
            y: the targets of the fit.
            num_samples: draws from the fit.

        Returns:
            The result of `pyro_kl.diagnose`; nats.

        Raises:
            ValueError: the fit has a beta other than 1 or weights; the rows are not those of the
                fit.

        Example:
            >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [3.0]]).double()
            >>> y = ["no", "no", "yes", "yes"]
            >>> fit = pyro_kl.glm.LogisticRegression(tol=1e-8).fit(x, y)
            >>> found = fit.diagnose(x, y)
            >>> abs(float(found.elbo) - fit.elbo_) < 0.05
            True
        """
        from .posterior.diagnosed import diagnosed

        objective, _ = self._optimum(X, y, None)
        return diagnosed(self.posterior_, objective.rows, num_samples)

    def _optimum(self, X: Any, y: Any, sample_weight: Any) -> tuple[Objective, Tensor]:
        """Return the ELBO of the fit, and the mean that the fit has found."""
        self._check_fitted()
        other = copy(self)
        rows = other._rows(X, y, sample_weight)
        classes, before = (list(getattr(model, "classes_", ())) for model in (other, self))
        if classes != before:
            raise ValueError(
                f"y has the classes {classes}; the fit had {before}" + see("other-columns")
            )
        named = hasattr(X, "columns") or X is rows
        self._check_features(len(rows.names), rows.names if named else None)
        objective = Objective(rows, self.likelihood, self.prior_, float(self.beta))
        return objective, torch.from_numpy(self.loc_)

    # --- predictions ----------------------------------------------------------------------------

    def _predicted(self, X: Any) -> NDArray[Any]:
        """Return the mean response of each row, with the posterior integrated out."""
        self._check_fitted()
        return self.posterior_.predict(X).numpy()

    def _check_fitted(self) -> None:
        if not hasattr(self, "loc_"):
            raise ValueError(
                f"this {type(self).__name__} is not fitted yet; call fit first" + see("not-fitted")
            )

    def _check_features(self, num_features: int, names: Any) -> None:
        if num_features != self.n_features_in_:
            raise ValueError(
                f"X has {num_features} features, but {type(self).__name__} was fitted with "
                f"{self.n_features_in_}" + see("other-columns")
            )
        if names and list(names) != list(self.feature_names_in_):
            raise ValueError(
                f"the columns of X are {', '.join(names[:4])}, ...; the fit had "
                f"{', '.join(self.feature_names_in_[:4])}, ...: give them in that order"
                + see("other-columns")
            )
