"""Joint Gaussians in blocks: mean, sds and factor of each block given the blocks before it.

Pyro's joint guides draw u in three ways; each has a class with one method, `block`. A plate around
the joint site makes a batch of Gaussians: parameters keep the batch dims along which they differ,
and have size 1 along the others (a plate of particles above all).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)

from ...numerics.quadrature.nodes import kept_unless_traced
from ...registry.subclasses import is_a


@dataclass(frozen=True)
class GaussianBlock:
    """The Gaussian of a site's unconstrained value u_k, flattened to n coordinates.

    Attributes:
        loc: mean given the blocks before it, or of the marginal; (..., n).
        scale: sd of each coordinate, given the blocks before it or of the marginal; (..., n).
        log_diagonal: makes the log sd of each coordinate given all before it, (..., n); where only
            their sum is known, each has the same share of it.
        tril: makes the Cholesky factor of the covariance whose sds are `scale`, (..., n, n).
        excess: entropy of each marginal beyond that of its conditional, (..., n): the logarithm of
            `scale` less `log_diagonal`. None is 0.
    """

    loc: Tensor
    scale: Tensor
    log_diagonal: Callable[[], Tensor]
    tril: Callable[[], Tensor]
    excess: Tensor | None

    def log_q(self, u: Tensor) -> Tensor:
        """Log density of each coordinate given those before it, (..., n)."""
        tril = self.tril()
        gap = (u - self.loc).unsqueeze(-1)
        noise = torch.linalg.solve_triangular(tril, gap, upper=False).squeeze(-1)
        return -0.5 * (noise.square() + math.log(2 * math.pi)) - diagonal(tril).log()


@kept_unless_traced
def _block_of(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """The number of the block that each coordinate belongs to, (d,)."""
    with torch.inference_mode(False):  # it is kept for steps with a gradient
        return torch.tensor([i for i, n in enumerate(sizes) for _ in range(n)], device=device)


def _in_blocks(sizes: Sequence[int], *vectors: Tensor) -> dict[int, tuple[Tensor, ...]]:
    """First coordinate of each block -> the block of each vector.

    A slice for each block would have a gradient of the vector's size for each block.
    """
    parts = zip(*(x.split(tuple(sizes), -1) for x in vectors), strict=True)
    return dict(zip(accumulate(sizes, initial=0), parts, strict=False))


#: Mean, sd and excess of each coordinate, (..., d).
_Coordinates = tuple[Tensor, Tensor, Tensor]


class _Cholesky:
    """u = loc + L noise; what all blocks need is computed once."""

    def __init__(self, loc: Tensor, tril: Tensor, value: Tensor, sizes: Sequence[int]) -> None:
        self.loc, self.tril, self.value, self.sizes = loc, tril, value, sizes
        self.log_diagonal = diagonal(tril).log()

    @cached_property
    def marginal(self) -> _Coordinates:
        """Means and sds of each coordinate, and its excess."""
        return self._coordinates(self.loc, self.tril)

    @cached_property
    def own(self) -> Tensor:
        """The blocks on the diagonal of the factor, zero elsewhere, (..., d, d)."""
        block_of = _block_of(tuple(self.sizes), self.tril.device)
        return self.tril * (block_of.unsqueeze(-1) == block_of)

    @cached_property
    def conditional(self) -> _Coordinates:
        """The same of each coordinate given the blocks before its own."""
        with torch.no_grad():  # the noise does not depend on the parameters
            gap = (self.value - self.loc).unsqueeze(-1)
            noise = torch.linalg.solve_triangular(self.tril, gap, upper=False).squeeze(-1)
        loc = self.loc + _rows_times(noise, (self.tril - self.own).mT)
        return self._coordinates(loc, self.own)

    def _coordinates(self, loc: Tensor, rows: Tensor) -> _Coordinates:
        scale = rows.square().sum(-1).sqrt()
        return loc, scale, scale.log() - self.log_diagonal

    def block(self, start: int, stop: int, conditional: bool) -> GaussianBlock:
        """The coordinates from `start` to `stop`, given those before or not."""
        blocks = self._conditional_blocks if conditional else self._marginal_blocks
        loc, scale, excess = blocks[start]
        return GaussianBlock(
            loc,
            scale,
            lambda: self.log_diagonal[..., start:stop],
            partial(self._factor, start, stop, conditional),
            excess,
        )

    @cached_property
    def _marginal_blocks(self) -> dict[int, tuple[Tensor, ...]]:
        return _in_blocks(self.sizes, *self.marginal)

    @cached_property
    def _conditional_blocks(self) -> dict[int, tuple[Tensor, ...]]:
        return _in_blocks(self.sizes, *self.conditional)

    def _factor(self, start: int, stop: int, conditional: bool) -> Tensor:
        if conditional or start == 0:
            return self.tril[..., start:stop, start:stop]
        rows = self.tril[..., start:stop, :stop]
        return torch.linalg.cholesky(rows @ rows.mT)


class _Diagonal:
    """u = loc + scale * noise: no coordinate depends on another."""

    def __init__(self, loc: Tensor, scale: Tensor, sizes: Sequence[int]) -> None:
        self.loc, self.scale, self.sizes = loc, scale, sizes

    @cached_property
    def _blocks(self) -> dict[int, tuple[Tensor, ...]]:
        return _in_blocks(self.sizes, self.loc, self.scale)

    def block(self, start: int, stop: int, conditional: bool) -> GaussianBlock:
        """The coordinates from `start` to `stop`."""
        loc, scale = self._blocks[start]
        return GaussianBlock(loc, scale, scale.log, partial(torch.diag_embed, scale), None)


class _LowRank:
    """u = loc + W z + sqrt(D) noise, by the conditional Gaussian of z given the blocks before.

    With R_k = I + sum_{i<k} W_i' D_i^-1 W_i (r x r), z given u_<k has covariance R_k^-1 and mean
    R_k^-1 sum W_i' D_i^-1 (u_i - loc_i).
    """

    def __init__(self, distribution: LowRankMultivariateNormal, value: Tensor) -> None:
        self.loc, self.value = _without_copies(distribution.loc, 1), value
        self.factor = _without_copies(distribution._unbroadcasted_cov_factor, 2)
        self.diag = _without_copies(distribution._unbroadcasted_cov_diag, 1)
        self._roots: dict[int, Tensor] = {}

    def _root(self, stop: int) -> Tensor:
        """Cholesky factor of R at a block boundary."""
        if stop not in self._roots:
            before = self.factor[..., :stop, :]
            gram = before.mT @ (before / self.diag[..., :stop].unsqueeze(-1))
            eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
            self._roots[stop] = torch.linalg.cholesky(eye + gram)
        return self._roots[stop]

    def block(self, start: int, stop: int, conditional: bool) -> GaussianBlock:
        """The coordinates from `start` to `stop`, given those before or not."""
        loc, diag = self.loc[..., start:stop], self.diag[..., start:stop]
        factor = self.factor[..., start:stop, :]
        root, after = self._root(start), self._root(stop)
        # |cov of the block given those before| = |D_k| |R_k+1| / |R_k|
        volume = 0.5 * diag.log().sum(-1)
        volume = volume + (diagonal(after).log() - diagonal(root).log()).sum(-1)
        log_diagonal = (volume / (stop - start)).unsqueeze(-1)
        log_diagonal = log_diagonal.expand((*log_diagonal.shape[:-1], stop - start))
        if conditional and start > 0:
            weighted = self.factor[..., :start, :] / self.diag[..., :start].unsqueeze(-1)
            pull = _rows_times(self.value[..., :start] - self.loc[..., :start], weighted)
            pull = torch.cholesky_solve(pull.unsqueeze(-1), root).squeeze(-1)
            loc = loc + _rows_times(pull, factor.mT)
            factor = torch.linalg.solve_triangular(root, factor.mT, upper=False).mT
        scale = (factor.square().sum(-1) + diag).sqrt()
        return GaussianBlock(
            loc,
            scale,
            lambda: log_diagonal,
            lambda: torch.linalg.cholesky(factor @ factor.mT + torch.diag_embed(diag)),
            scale.log() - log_diagonal,
        )


def diagonal(matrix: Tensor) -> Tensor:
    """The diagonals of a batch of matrices."""
    return matrix.diagonal(dim1=-2, dim2=-1)


def _rows_times(rows: Tensor, matrix: Tensor) -> Tensor:
    """Each row vector (..., n) times its matrix (..., n, m), or times one matrix for all."""
    if matrix.dim() == 2:
        return rows @ matrix
    return (rows.unsqueeze(-2) @ matrix).squeeze(-2)


def _without_copies(parameter: Tensor, event_dim: int) -> Tensor:
    """A parameter with size 1 along the batch dims that repeat it, and without leading ones."""
    batch = parameter.dim() - event_dim
    for dim in range(batch):
        if parameter.stride(dim) == 0:
            parameter = parameter.narrow(dim, 0, 1)
    while parameter.dim() > event_dim and parameter.shape[0] == 1:
        parameter = parameter.squeeze(0)
    return parameter


def read_joint(distribution: Distribution, value: Tensor, sizes: Sequence[int] = ()) -> Any:
    """The class above that draws u as a distribution does, or None if none does."""
    if is_a(distribution, MultivariateNormal):
        tril = _without_copies(distribution._unbroadcasted_scale_tril, 2)
        return _Cholesky(_without_copies(distribution.loc, 1), tril, value, sizes)
    if is_a(distribution, LowRankMultivariateNormal):
        return _LowRank(distribution, value)
    if is_a(distribution, Independent) and is_a(distribution.base_dist, Normal):
        if len(distribution.event_shape) == 1:
            base = distribution.base_dist
            return _Diagonal(_without_copies(base.loc, 1), _without_copies(base.scale, 1), sizes)
    return None
