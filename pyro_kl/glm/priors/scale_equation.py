r"""How the best ELBO depends on the scales of the prior: its slope, and where it vanishes.

With beta_j = tau z_j the ELBO at its best Gaussian q = Normal(m, S) has, by the envelope theorem,
the derivative in log tau

    h = sum_j d E_q log p(beta_j) / d log tau = sum_j [S_jj precision_j - m_j gradient_j - 1]

with the gradient and the precision of `PriorTerms`. Where q stays as it is, the root of h is the
step of the EM algorithm. But q follows tau: linear response tells by how much, which makes the
step longer (Aitken's acceleration; McLachlan & Krishnan, 2008, The EM Algorithm and Extensions,
section 4.7).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..covariances.covariance import Covariance, DiagonalCovariance

#: The step of differences in log tau; their errors are of the order of 1e-8.
_DIFFERENCE = 1e-4
#: Of the search for the root at a fixed q: enough halvings for a factor of exp(40), and nats.
_MOST_STEPS, _FURTHEST, _SOLVED = 60, 40.0, 1e-9
#: The acceleration of EM is bounded: q follows tau by at most this share.
_MOST_RESPONSE = 0.999


@dataclass(frozen=True)
class ScaledPrior:
    """A prior, and which of its coefficients share a scale that is learnt.

    Attributes:
        prior: of a class with a field `scale`, shape ``(D + 1,)``, and independent coefficients.
        group: for each coefficient the number of its scale, or -1 if that is known; ``(D + 1,)``.
        log_factor: for each group, the logarithm of its scale less that of the first one.
        labels: of the groups.
    """

    prior: Any
    group: Tensor
    log_factor: Tensor
    labels: tuple[str, ...]

    def times(self, step: Tensor) -> ScaledPrior:
        """Return the prior with the scale of every group times exp(step)."""
        of_known = step.new_zeros(1)
        factor = torch.cat([step, of_known])[self.group].exp()
        prior = replace(self.prior, scale=self.prior.scale * factor)
        return replace(self, prior=prior, log_factor=self.log_factor + step)

    def in_groups(self, of_coefficients: Tensor) -> Tensor:
        """Return a row for every group, with 0 for the coefficients of others."""
        members = self.group == torch.arange(len(self.log_factor)).unsqueeze(-1)
        return members * of_coefficients


class _Slopes(NamedTuple):
    """Of each coefficient: h, and what `PriorTerms` has."""

    slope: Tensor
    gradient: Tensor
    precision: Tensor


def _slopes(scaled: ScaledPrior, loc: Tensor, covariance: Covariance) -> _Slopes:
    terms = scaled.prior.expected(loc, covariance)
    variance = covariance.marginal_scale.square()
    slope = variance * terms.precision - loc * terms.gradient - 1.0
    return _Slopes(slope, terms.gradient, terms.precision)


def slope(scaled: ScaledPrior, loc: Tensor, covariance: Covariance) -> Tensor:
    """Return h of every group, nats."""
    return scaled.in_groups(_slopes(scaled, loc, covariance).slope).sum(-1)


def effective_parameters(scaled: ScaledPrior, loc: Tensor, covariance: Covariance) -> Tensor:
    """Return how many of every group's coefficients the data determine.

    Reference: MacKay (1992), Bayesian Interpolation, Neural Computation 4, 415-447, section 4.
    """
    share = 1.0 - covariance.marginal_scale.square() * _slopes(scaled, loc, covariance).precision
    return scaled.in_groups(share).sum(-1)


def em_step(scaled: ScaledPrior, loc: Tensor, covariance: Covariance) -> Tensor:
    """Return by how much log tau of every group grows in a step of the EM algorithm.

    log(1 + h / n) falls with log tau, and is linear for a Normal and a Laplace prior. The root is
    found by secants within an interval that contains it.
    """
    size = scaled.in_groups(torch.ones_like(loc)).sum(-1)

    def excess(log_factor: Tensor) -> Tensor:
        return torch.log1p(slope(scaled.times(log_factor), loc, covariance) / size)

    low, high = (torch.full_like(size, end) for end in (-_FURTHEST, _FURTHEST))
    before, here = torch.zeros_like(size), torch.zeros_like(size)
    value_before = value = excess(here)
    for _ in range(_MOST_STEPS):
        if (value.abs() < _SOLVED).all():
            break
        low, high = torch.where(value > 0, here, low), torch.where(value > 0, high, here)
        steepness = (value_before - value) / (here - before)
        ahead = here + value / torch.where(steepness > 0, steepness, 2.0)
        inside = (low < ahead) & (ahead < high)
        before, value_before = here, value
        here = torch.where(inside, ahead, 0.5 * (low + high))
        here = torch.where(value.abs() < _SOLVED, before, here)
        value = excess(here)
    return here


def accelerated_step(
    scaled: ScaledPrior, loc: Tensor, covariance: Covariance, precision: Tensor
) -> Tensor:
    """Return by how much log tau of every group is to grow, q following it.

    Args:
        scaled: the prior.
        loc: of the best q at that prior, shape ``(D + 1,)``.
        covariance: of the same q.
        precision: the curvature of the negative ELBO in ``loc``: a matrix, or its diagonal.

    With g and p the derivatives of gradient and precision in log tau, the mean moves by
    precision^-1 g and the covariance by -S p S, so that h falls less than at a fixed q, by

        g' precision^-1 g + sum_jk p_j S_jk^2 p_k / 2.
    """
    step = em_step(scaled, loc, covariance)
    up, down = (
        _slopes(scaled.times(torch.full_like(step, sign * _DIFFERENCE)), loc, covariance)
        for sign in (1.0, -1.0)
    )
    by_scale = _Slopes(*((a - b) / (2.0 * _DIFFERENCE) for a, b in zip(up, down, strict=True)))
    information = -scaled.in_groups(by_scale.slope).sum(-1)
    gradient, of_precision = (scaled.in_groups(x) for x in by_scale[1:])
    response = gradient @ _solve(precision, gradient.mT)
    response = response + 0.5 * of_precision @ _square(covariance, of_precision.mT)
    root = information.clamp(min=1e-300).sqrt()
    share, directions = torch.linalg.eigh(response / torch.outer(root, root))
    longer = directions / (1.0 - share.clamp(max=_MOST_RESPONSE))
    return longer @ (directions.mT @ (root * step)) / root


def _solve(precision: Tensor, right: Tensor) -> Tensor:
    if precision.dim() == 1:
        return right / precision.unsqueeze(-1)
    return torch.linalg.solve(precision, right)


def _square(covariance: Covariance, right: Tensor) -> Tensor:
    """Return the elementwise square of S times a matrix."""
    if isinstance(covariance, DiagonalCovariance):
        return covariance.scale.pow(4).unsqueeze(-1) * right
    root = covariance.root
    return (root @ root.mT).square() @ right
