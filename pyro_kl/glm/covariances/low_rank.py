r"""The Gaussian of low rank and diagonal that is nearest to a Gaussian of given precision.

With S = D^(1/2) (I + V V') D^(1/2), D diagonal, KL(Normal(0, S) || Normal(0, P^-1)) is half of

    tr(P S) - log det S,   up to a constant.

Given D the best V has the eigenvectors u_i of D^(1/2) P D^(1/2) whose eigenvalues l_i are the
smallest, those below 1, times (1 / l_i - 1)^(1/2). What is left is a function of log D,

    sum_j [P_jj d_j - log d_j] + sum_i [1 - l_i + log l_i],   i = 1 .. rank, l_i < 1,

whose derivatives are P_jj d_j - 1 + sum_i (1 - l_i) u_ij^2. This is how factor analysis is fitted
(Joreskog, 1967, Some contributions to maximum likelihood factor analysis), with the inverse in
the place of the covariance.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .covariance import LowRankCovariance

_Array = NDArray[np.float64]
#: Up to this dimension all eigenvectors are computed: Lanczos would not be faster.
_DENSE = 100
#: A derivative in log d of this size is 0.
_STATIONARY = 1e-9
#: d_j is at most 1 / P_jj. Where factors alone describe a coefficient, d_j would go to 0 (the
#: Heywood case of factor analysis): it stops at this part of 1 / P_jj, which costs as many nats.
_LEAST = 1e-6


def project_low_rank(
    precision: Tensor, rank: int, start: LowRankCovariance | None = None
) -> LowRankCovariance:
    """Return the S = diag(scale^2) + factor factor' that minimises tr(P S) - log det S.

    It is a local minimum: there may be others. With the last result as the start it takes a few
    eigenvalue problems.

    Args:
        precision: P, positive definite, shape ``(D + 1, D + 1)``, float64.
        rank: columns of the factor, at least 1.
        start: where the search begins; by default at the diagonal 1 / P_jj.

    Reference: Ong, Nott & Smith (2018), Gaussian variational approximation with a factor
    covariance structure, Journal of Computational and Graphical Statistics 27, 465-478.
    """
    from scipy.optimize import minimize

    diagonal = precision.diagonal().numpy()
    problem = _Eigenvectors(precision, min(rank, len(diagonal)))

    def concentrated(log_d: _Array) -> tuple[float, _Array]:
        scaled = np.exp(log_d)  # d_j P_jj
        values, vectors = problem.smallest(scaled / diagonal)
        gained = np.minimum(values, 1.0)
        value = (scaled - log_d).sum() + (1.0 - gained + np.log(gained)).sum()
        return float(value), scaled - 1.0 + vectors**2 @ (1.0 - gained)

    first = np.zeros(len(diagonal))
    if start is not None:
        first = 2.0 * np.log(start.scale.numpy()) + np.log(diagonal)
    bounds = [(math.log(_LEAST), 0.0)] * len(diagonal)
    found = minimize(
        concentrated,
        first.clip(*bounds[0]),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"gtol": _STATIONARY, "ftol": 0.0, "maxiter": 1000},
    )
    scale = np.sqrt(np.exp(found.x) / diagonal)
    values, vectors = problem.smallest(scale**2)
    factor = scale[:, None] * vectors * np.sqrt(1.0 / np.minimum(values, 1.0) - 1.0)
    columns = np.zeros((len(diagonal), rank))
    columns[:, : factor.shape[1]] = factor
    return LowRankCovariance(torch.from_numpy(columns), torch.from_numpy(scale))


class _Eigenvectors:
    """The smallest eigenvalues of D^(1/2) P D^(1/2), and their vectors, for one P and many D."""

    def __init__(self, precision: Tensor, count: int) -> None:
        self.count = count
        self.few = 2 * count < len(precision) and len(precision) > _DENSE
        # Lanczos finds large eigenvalues fast: those of the inverse
        tril = torch.linalg.cholesky(precision) if self.few else None
        self.matrix = (precision if tril is None else torch.cholesky_inverse(tril)).numpy()
        self._last = np.ones(len(precision))

    def smallest(self, d: _Array) -> tuple[_Array, _Array]:
        """Return the smallest eigenvalues, and the eigenvectors as columns."""
        root = np.sqrt(d)
        if not self.few:
            values, vectors = np.linalg.eigh(self.matrix * np.outer(root, root))
            return values[: self.count], vectors[:, : self.count]
        from scipy.sparse.linalg import eigsh

        scaled = self.matrix / np.outer(root, root)
        values, vectors = eigsh(scaled, self.count, v0=self._last)
        self._last = vectors.sum(1)
        return 1.0 / values, vectors
