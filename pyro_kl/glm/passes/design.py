"""Products with the rows of a chunk, a column of ones for the bias included."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from scipy.linalg import blas
from torch import Tensor

from ...messages import see
from ..covariances.covariance import (
    Covariance,
    DiagonalCovariance,
    FullCovariance,
    LowRankCovariance,
)

#: Products with fewer multiplications than this are small.
SMALL = 1 << 22


class Design(Protocol):
    """The matrix ``Z = (1, X)`` of a chunk."""

    def mean(self, loc: Tensor) -> Tensor:
        """Return ``Z loc``, shape ``(n,)``."""
        ...

    def predictor(self, loc: Tensor, covariance: Covariance) -> tuple[Tensor, Tensor]:
        """Return mean and sd of ``Z beta`` for beta ~ Normal(loc, covariance), each ``(n,)``."""
        ...

    def gradient(self, slope: Tensor) -> Tensor:
        """Return ``Z' slope``, shape ``(D + 1,)``, float64."""
        ...

    def precision(self, curvature: Tensor) -> Tensor:
        """Return ``Z' diag(curvature) Z``, of which the upper triangle counts, float64."""
        ...

    def precision_diagonal(self, curvature: Tensor) -> Tensor:
        """Return the diagonal of the same, shape ``(D + 1,)``, float64."""
        ...


class DenseDesign:
    """The design of dense features.

    Args:
        features: shape ``(n, D)``; rows or columns are contiguous.
        buffer: memory of at least as many elements, for a copy of the features; None for new
            memory.
    """

    def __init__(self, features: Tensor, buffer: Tensor | None = None) -> None:
        self.features = features
        if buffer is None:
            buffer = features.new_empty(features.numel())
        n, d = features.shape
        memory = buffer[: n * d]
        self._copy = memory.view(d, n).mT if _by_columns(features) else memory.view(n, d)

    def mean(self, loc: Tensor) -> Tensor:
        """Return ``Z loc``."""
        loc = loc.to(self.features)
        return torch.addmv(loc[:1], self.features, loc[1:])

    def predictor(self, loc: Tensor, covariance: Covariance) -> tuple[Tensor, Tensor]:
        """Return mean and sd of the rows' linear predictor."""
        return self.mean(loc), self._variance(covariance).sqrt_()

    def _variance(self, covariance: Covariance) -> Tensor:
        x = self.features
        if isinstance(covariance, FullCovariance):
            root = covariance.scale_tril.to(x)
            with_bias = torch.addmv(root[0, :1], x, root[1:, 0])
            return self._square_norms(root[1:, 1:]).addcmul_(with_bias, with_bias)
        assert isinstance(covariance, DiagonalCovariance | LowRankCovariance)
        scale = covariance.scale.to(x)
        variance = torch.mul(x, x, out=self._copy) @ scale[1:].square()
        variance += scale[0].square()
        if isinstance(covariance, LowRankCovariance):
            factor = covariance.factor.to(x)
            variance += torch.addmm(factor[0], x, factor[1:]).square_().sum(-1)
        return variance

    def _square_norms(self, lower: Tensor) -> Tensor:
        """Return the squared norms of the rows of ``x lower``, ``lower`` a triangle."""
        x = self.features
        if _is_for_torch(x):
            return (x @ lower).square_().sum(-1)
        copy, array = self._copy.copy_(x), np.asfortranarray(lower.numpy())
        trmm = _BLAS[x.dtype].trmm
        if _by_columns(x):
            trmm(1.0, array, copy.numpy(), side=1, lower=1, overwrite_b=1)
        else:
            trmm(1.0, array, copy.numpy().T, side=0, lower=1, trans_a=1, overwrite_b=1)
        return copy.square_() @ copy.new_ones(copy.shape[1])  # a norm is slow along strides

    def gradient(self, slope: Tensor) -> Tensor:
        """Return ``Z' slope``."""
        return torch.cat([slope.sum().reshape(1), self.features.mT @ slope]).double().cpu()

    def precision(self, curvature: Tensor) -> Tensor:
        """Return ``Z' diag(curvature) Z``."""
        x = self.features
        result = torch.empty(x.shape[1] + 1, x.shape[1] + 1, dtype=torch.float64)
        result[0, 0] = curvature.sum()
        result[0, 1:] = x.mT @ curvature
        scaled = torch.mul(x, curvature.sqrt().unsqueeze(-1), out=self._copy)
        result[1:, 1:] = _outer_sum(scaled)
        return result

    def precision_diagonal(self, curvature: Tensor) -> Tensor:
        """Return the diagonal of ``Z' diag(curvature) Z``."""
        sums = torch.mul(self.features, self.features, out=self._copy).mT @ curvature
        return torch.cat([curvature.sum().reshape(1), sums]).double().cpu()


def _is_for_torch(x: Tensor) -> bool:
    """Whether a product of the features with a square matrix is better done by torch.

    scipy's BLAS has threads of its own: on a busy machine a small product waits for them.
    """
    return x.device.type != "cpu" or x.numel() * x.shape[1] < SMALL


def _by_columns(x: Tensor) -> bool:
    return x.stride(0) == 1 and x.shape[1] > 1


def _outer_sum(x: Tensor) -> Tensor:
    """Return the upper triangle of ``x' x``; BLAS computes half of the product."""
    if _is_for_torch(x):
        return x.mT @ x
    rank_k, array = _BLAS[x.dtype].rank_k, x.numpy()
    total = rank_k(1.0, array, trans=1) if _by_columns(x) else rank_k(1.0, array.T)
    return torch.from_numpy(total)


class _Routines(NamedTuple):
    """The products that BLAS computes of one triangle, at half of the cost."""

    rank_k: Any
    trmm: Any


_BLAS = {
    torch.float32: _Routines(blas.ssyrk, blas.strmm),
    torch.float64: _Routines(blas.dsyrk, blas.dtrmm),
}


class SparseDesign:
    """The design of a sparse matrix of scipy in rows (CSR).

    Args:
        features: shape ``(n, D)``.
    """

    def __init__(self, features: Any) -> None:
        self.features = features
        self._dtype = torch.float32 if features.dtype == np.float32 else torch.float64

    def mean(self, loc: Tensor) -> Tensor:
        """Return ``Z loc``."""
        return self._times(self.features, loc.to(self._dtype))

    def predictor(self, loc: Tensor, covariance: Covariance) -> tuple[Tensor, Tensor]:
        """Return mean and sd of the rows' linear predictor."""
        if not isinstance(covariance, DiagonalCovariance):
            raise NotImplementedError(
                "Sparse rows are fitted with a diagonal covariance; pass covariance='diagonal'."
                + see("covariance")
            )
        variance = covariance.scale.square().to(self._dtype)
        return self.mean(loc), self._times(self.features.power(2), variance).sqrt_()

    def _times(self, matrix: Any, vector: Tensor) -> Tensor:
        return torch.from_numpy(matrix @ vector[1:].numpy()) + vector[0]

    def gradient(self, slope: Tensor) -> Tensor:
        """Return ``Z' slope``."""
        return self._sums(self.features, slope)

    def precision(self, curvature: Tensor) -> Tensor:
        """Return ``Z' diag(curvature) Z``."""
        raise NotImplementedError(
            "The precision of sparse rows is kept as its diagonal; pass covariance='diagonal'."
            + see("covariance")
        )

    def precision_diagonal(self, curvature: Tensor) -> Tensor:
        """Return the diagonal of ``Z' diag(curvature) Z``."""
        return self._sums(self.features.power(2), curvature)

    def _sums(self, matrix: Any, of_rows: Tensor) -> Tensor:
        of_columns = torch.from_numpy(matrix.T @ of_rows.numpy())
        return torch.cat([of_rows.sum().reshape(1), of_columns]).double()


class Memory:
    """Memory that all chunks of a pass use in turn.

    New memory for a copy of every chunk would cost as much as the products with it.
    """

    def __init__(self) -> None:
        self._buffer: Tensor | None = None

    def design(self, features: Any) -> Design:
        """Return the design of a chunk's features."""
        if not isinstance(features, Tensor):
            return SparseDesign(features)
        if self._buffer is None or self._buffer.numel() < features.numel():
            self._buffer = features.new_empty(features.numel())
        return DenseDesign(features, self._buffer)
