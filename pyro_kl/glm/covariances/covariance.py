"""Covariances of a Gaussian posterior: full, diagonal, low rank and diagonal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pyro.distributions as dist
import torch
from torch import Tensor

from .precision import as_diagonal


class Covariance(Protocol):
    """The covariance ``S`` of D + 1 coefficients, the bias first; float64."""

    @property
    def marginal_scale(self) -> Tensor:
        """The standard deviation of every coefficient, shape ``(D + 1,)``."""
        ...

    @property
    def log_det(self) -> Tensor:
        """The logarithm of the determinant, a scalar."""
        ...

    @property
    def precision(self) -> Tensor:
        """The inverse, shape ``(D + 1, D + 1)``, or its diagonal if that is all, ``(D + 1,)``."""
        ...

    @property
    def root(self) -> Tensor:
        """``R`` with ``S = R R'``, shape ``(D + 1, k)``; of a diagonal ``S`` the sds alone."""
        ...

    def trace_with(self, precision: Tensor) -> Tensor:
        """Return ``tr(precision S)``; a precision of shape ``(D + 1,)`` is diagonal."""
        ...

    def times(self, factor: float) -> Covariance:
        """Return the covariance times a positive number."""
        ...

    def distribution(self, loc: Tensor) -> dist.TorchDistribution:
        """Return the Gaussian with this covariance, event shape ``(D + 1,)``."""
        ...


@dataclass(frozen=True)
class FullCovariance:
    """All correlations.

    Attributes:
        scale_tril: the lower Cholesky factor, shape ``(D + 1, D + 1)``.
    """

    scale_tril: Tensor

    @property
    def marginal_scale(self) -> Tensor:
        """The standard deviation of every coefficient."""
        return torch.linalg.vector_norm(self.scale_tril, dim=-1)

    @property
    def log_det(self) -> Tensor:
        """The logarithm of the determinant."""
        return 2.0 * self.scale_tril.diagonal().log().sum()

    @property
    def precision(self) -> Tensor:
        """The inverse."""
        return torch.cholesky_inverse(self.scale_tril)

    @property
    def root(self) -> Tensor:
        """The Cholesky factor."""
        return self.scale_tril

    def trace_with(self, precision: Tensor) -> Tensor:
        """Return ``tr(precision S)``."""
        if precision.dim() == 1:
            return precision @ self.scale_tril.square().sum(-1)
        return (self.scale_tril * (precision @ self.scale_tril)).sum()

    def times(self, factor: float) -> Covariance:
        """Return the covariance times a positive number."""
        return FullCovariance(self.scale_tril * factor**0.5)

    def distribution(self, loc: Tensor) -> dist.TorchDistribution:
        """Return the multivariate Normal."""
        return dist.MultivariateNormal(loc, scale_tril=self.scale_tril)


@dataclass(frozen=True)
class DiagonalCovariance:
    """Independent coefficients.

    Attributes:
        scale: the standard deviations, shape ``(D + 1,)``.
    """

    scale: Tensor

    @property
    def marginal_scale(self) -> Tensor:
        """The standard deviation of every coefficient."""
        return self.scale

    @property
    def log_det(self) -> Tensor:
        """The logarithm of the determinant."""
        return 2.0 * self.scale.log().sum()

    @property
    def precision(self) -> Tensor:
        """The inverse's diagonal."""
        return self.scale**-2

    @property
    def root(self) -> Tensor:
        """The standard deviations."""
        return self.scale

    def trace_with(self, precision: Tensor) -> Tensor:
        """Return ``tr(precision S)``."""
        return as_diagonal(precision) @ self.scale.square()

    def times(self, factor: float) -> Covariance:
        """Return the covariance times a positive number."""
        return DiagonalCovariance(self.scale * factor**0.5)

    def distribution(self, loc: Tensor) -> dist.TorchDistribution:
        """Return the product of Normals."""
        return dist.Normal(loc, self.scale).to_event(1)


@dataclass(frozen=True)
class LowRankCovariance:
    """``S = diag(scale^2) + factor factor'``.

    Attributes:
        factor: shape ``(D + 1, rank)``.
        scale: shape ``(D + 1,)``.
    """

    factor: Tensor
    scale: Tensor

    @property
    def marginal_scale(self) -> Tensor:
        """The standard deviation of every coefficient."""
        return (self.scale.square() + self.factor.square().sum(-1)).sqrt()

    @property
    def log_det(self) -> Tensor:
        """The logarithm of the determinant, by the matrix determinant lemma."""
        inner = self.factor / self.scale.unsqueeze(-1)
        capacitance = torch.eye(inner.shape[-1], dtype=inner.dtype) + inner.mT @ inner
        return 2.0 * self.scale.log().sum() + torch.logdet(capacitance)

    @property
    def precision(self) -> Tensor:
        """The inverse."""
        covariance = torch.diag(self.scale.square()) + self.factor @ self.factor.mT
        return torch.cholesky_inverse(torch.linalg.cholesky(covariance))

    @property
    def root(self) -> Tensor:
        """Factor and diagonal, side by side."""
        return torch.cat([self.factor, torch.diag(self.scale)], dim=-1)

    def trace_with(self, precision: Tensor) -> Tensor:
        """Return ``tr(precision S)``."""
        if precision.dim() == 1:
            return precision @ self.marginal_scale.square()
        cross = (self.factor * (precision @ self.factor)).sum()
        return cross + precision.diagonal() @ self.scale.square()

    def times(self, factor: float) -> Covariance:
        """Return the covariance times a positive number."""
        return LowRankCovariance(self.factor * factor**0.5, self.scale * factor**0.5)

    def distribution(self, loc: Tensor) -> dist.TorchDistribution:
        """Return the multivariate Normal of low rank."""
        return dist.LowRankMultivariateNormal(loc, self.factor, self.scale.square())
