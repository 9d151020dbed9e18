"""Products of Gaussian factors along a chain, as Pyro stores them, as a causal chain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pyro.ops.gaussian import AffineNormal, Gaussian
from torch import Tensor

from ...numerics.dtypes import in_float64
from ..gaussian.factors import cholesky
from .chain import Chain, combine_filters
from .scan import suffixes


@dataclass(frozen=True)
class Conditional:
    """A Gaussian factor of (z, y) as N(y; z A + b, V) times exp(-z E z' / 2 + e z').

    Attributes:
        matrix: A, (..., n, m).
        shift: b, (..., 1, m).
        covariance: V, (..., m, m).
        precision: E, (..., n, n).
        information: e, (..., 1, n).
    """

    matrix: Tensor
    shift: Tensor
    covariance: Tensor
    precision: Tensor
    information: Tensor


def conditional(factor: Gaussian | AffineNormal, dim: int) -> Conditional:
    """A factor as the conditional of y given the first `dim` coordinates z, times one of z."""
    if isinstance(factor, AffineNormal):
        matrix = in_float64(factor.matrix)
        scale = in_float64(factor.scale)
        return Conditional(
            matrix,
            in_float64(factor.loc).unsqueeze(-2),
            torch.diag_embed(scale.square()),
            torch.zeros_like(matrix @ matrix.mT),
            torch.zeros_like(matrix[..., :1].mT),
        )
    precision, information = in_float64(factor.precision), in_float64(factor.info_vec)
    own, cross = precision[..., :dim, :dim], precision[..., :dim, dim:]
    covariance = _inverse(precision[..., dim:, dim:])
    matrix = -cross @ covariance
    rest = own + matrix @ cross.mT
    counts = _more_than_rounding(rest, own, factor.precision.dtype)
    row = information[..., None, dim:]
    left = information[..., None, :dim] + row @ matrix.mT
    return Conditional(
        matrix,
        row @ covariance,
        covariance,
        torch.where(counts, rest, 0.0),
        torch.where(counts, left, 0.0),
    )


def _more_than_rounding(rest: Tensor, own: Tensor, dtype: torch.dtype) -> Tensor:
    """Whether the factor of z is more than the rounding of the stored precision.

    For the factor of a conditional distribution it is 0, but the precision is a rounded sum.
    """
    rounding = 16 * rest.shape[-1] * torch.finfo(dtype).eps
    size = own.abs().amax((-1, -2), keepdim=True)
    return rest.abs().amax((-1, -2), keepdim=True) > rounding * size


def causal(init: Gaussian, transition: Conditional, observation: Conditional, steps: int) -> Chain:
    """The chain of `steps` steps whose distribution is the normalised product of all factors.

    The factors from time t on, with all later variables integrated out, are a Gaussian function of
    z_{t-1}, the message, which reweights the transition to z_{t-1}. The factors of a GaussianHMM
    are conditional distributions, whose message is 1, unless `conjugate_update` made them; those
    of a GaussianMRF are not. A hidden coordinate that is always 1 carries the linear terms.
    """
    shape = torch.broadcast_shapes(
        transition.matrix.shape[:-2], observation.matrix.shape[:-2], (steps,)
    )
    seen = _with_one(observation.precision, observation.information)
    seen = seen.expand(shape + seen.shape[-2:])
    f, q, j = _augmented(transition, shape)
    posterior, reach = _tilt(q, f, seen)
    _, _, message = suffixes(combine_filters, (reach, posterior, f @ seen @ reach.mT + j))
    later = torch.cat((message[..., 1:, :, :], torch.zeros_like(message[..., :1, :, :])), -3)
    tilted, follows = _tilt(q, f, later + seen)
    covariance = _inverse(in_float64(init.precision))
    mean = in_float64(init.info_vec).unsqueeze(-2) @ covariance
    start = torch.cat((mean, torch.ones_like(mean[..., :1])), -1)
    start_covariance, start = _tilt(_bordered(covariance), start, message[..., 0, :, :])
    n = mean.shape[-1]
    return Chain(
        mean=start[..., :n],
        covariance=start_covariance[..., :n, :n],
        f=follows[..., :n, :n],
        b=follows[..., n:, :n],
        q=tilted[..., :n, :n],
        h=observation.matrix,
        c=observation.shift,
        r=observation.covariance,
    )


def _augmented(transition: Conditional, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """Matrix, covariance and message of (z, 1) -> (z', 1)."""
    n = transition.matrix.shape[-1]
    matrix = transition.matrix.expand(*shape, n, n)
    below = torch.cat((transition.shift, torch.ones_like(transition.shift[..., :1])), -1)
    right = torch.cat((matrix, torch.zeros_like(matrix[..., :1])), -1)
    f = torch.cat((right, below.expand(*shape, 1, n + 1)), -2)
    message = _with_one(transition.precision, transition.information)
    return f, _bordered(transition.covariance).expand_as(f), message.expand_as(f)


def _tilt(covariance: Tensor, mean: Tensor, message: Tensor) -> tuple[Tensor, Tensor]:
    """N(mean, covariance) reweighted by a message: its covariance, and its means as rows."""
    n = covariance.shape[-1]
    eye = torch.eye(n, dtype=covariance.dtype, device=covariance.device)
    both = torch.cat((covariance, mean.mT), -1)
    solved = torch.linalg.solve(eye + covariance @ message, both)
    return solved[..., :n], solved[..., n:].mT


def _inverse(precision: Tensor) -> Tensor:
    """The inverse of a positive definite matrix."""
    return torch.cholesky_inverse(cholesky(precision))


def _bordered(covariance: Tensor) -> Tensor:
    """The covariance with one more coordinate, which does not vary."""
    return torch.nn.functional.pad(covariance, (0, 1, 0, 1))


def _with_one(precision: Tensor, information: Tensor) -> Tensor:
    """The quadratic form whose value at (z, 1) is z E z' - 2 e z'."""
    corner = torch.zeros_like(information[..., :1])
    return torch.cat(
        (
            torch.cat((precision, -information.mT), -1),
            torch.cat((-information, corner), -1),
        ),
        -2,
    )
