"""Bayesian regression of a target of two values: logit and probit links."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..likelihoods.bernoulli_logit import BERNOULLI_LOGIT
from ..likelihoods.bernoulli_probit import BERNOULLI_PROBIT
from ..messages import see
from .labels import two_classes
from .regression import Regression


class BinaryRegression(Regression):
    """What both links share: two classes, and their probabilities."""

    classes_: NDArray[Any]

    def _target(self, y: Any, num_rows: int, dtype: torch.dtype) -> Tensor:
        self.classes_, is_second = two_classes(
            y.detach().cpu().numpy() if isinstance(y, Tensor) else y
        )
        if is_second.shape != (num_rows,):
            raise ValueError(
                f"y must have shape ({num_rows},) like X, got {is_second.shape}" + see("labels")
            )
        return torch.from_numpy(is_second)

    def _take_target_of(self, rows: Any) -> None:
        if rows.target.classes is None:
            raise ValueError(
                "the target of the table has counts; read it without counts=True" + see("labels")
            )
        self.classes_ = np.array(rows.target.classes, dtype=object)

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return the probability of each class, with the posterior integrated out.

        Args:
            X: the features, shape ``(N, D)``.

        Returns:
            Shape ``(N, 2)``, in the order of ``classes_``.
        """
        second = self._predicted(X)
        return np.stack([1.0 - second, second], axis=-1)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the likelier class of each row, shape ``(N,)``."""
        is_second = self._predicted(X) > 0.5
        return self.classes_[is_second.astype(int)]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the part of the rows whose likelier class is right."""
        right = self.predict(X) == np.asarray(y)
        return float(np.average(right, weights=sample_weight))


class LogisticRegression(BinaryRegression):
    """Bayesian logistic regression, by a deterministic optimum of the ELBO.

    The model is ``y ~ Bernoulli(logits = bias + x . weights)``. The posterior is the Gaussian (of
    the chosen family of covariances) with the largest ELBO = E_q[log likelihood] - beta KL(q ||
    prior): expected log likelihoods are one-dimensional integrals, with an absolute error of at
    most 3e-8 nats a row; nothing is sampled.

    Features should be of the size of 1, since the prior is: standardise them.

    Args:
        prior_scale: the scale of the weights' prior: a number, or one for each feature; "learn"
            takes the scale with the largest ELBO. With ``groups`` a dict from each label to a
            number or "learn".
        groups: a label for each feature (of a table, for each column once texts are encoded). With
            prior_scale="learn" the features of a group share a scale of their own.
        bias_scale: the scale of the bias's prior.
        prior: "normal", "laplace", "studentt" (4 degrees of freedom) or "horseshoe".
        covariance: "full", "diagonal", or "low_rank" (a diagonal and ``rank`` factors).
        rank: of "low_rank".
        beta: the weight of the KL; 1 is Bayes' rule.
        tol: how many nats the ELBO may be below its optimum.
        max_iter: the largest number of passes over the rows.

    Attributes:
        loc_: posterior means, the bias first, shape ``(D + 1,)``.
        scale_: posterior standard deviations, shape ``(D + 1,)``.
        scale_tril_: of a full covariance, its Cholesky factor.
        covariance_: the covariance, an object of its family.
        prior_scale_: the scale of the weights' prior, learnt or given: a number, one for each
            feature, or a dict by the labels of ``groups``.
        elbo_: nats; of more than 20,000 rows it is the ELBO of the last pass plus the gain that
            the last step promised, to a few 1e-4.
        expected_log_likelihood_: E_q log p(y | coefficients), nats.
        kl_: KL(q || prior) over all coefficients, nats.
        coefficient_kls_: the KL of each coefficient against its prior, nats, shape ``(D + 1,)``.
        posterior_: all of this with names: prints a table, saves a file, makes a Pyro guide.
        trace_: the ELBO at each accepted step over all rows, nats; it never decreases.
        converged_: whether ``elbo_`` is closer to the optimum than ``tol``.
        n_iter_: the number of passes over all rows.
        classes_: the two values of the target; the model's 1 is the second.
        feature_names_in_: the names of the features.

    Reference: Opper & Archambeau (2009), The Variational Gaussian Approximation Revisited, Neural
    Computation 21, 786-792.

    Example:
        >>> import numpy as np
        >>> x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
        >>> model = LogisticRegression().fit(x, ["no", "no", "yes", "yes"])
        >>> model.predict([[1.5]]), model.converged_
        (array(['yes'], dtype='<U3'), True)
    """

    likelihood = BERNOULLI_LOGIT


class ProbitRegression(BinaryRegression):
    """Bayesian probit regression: ``y ~ Bernoulli(Phi(bias + x . weights))``.

    Parameters and attributes are those of `LogisticRegression`.
    """

    likelihood = BERNOULLI_PROBIT
