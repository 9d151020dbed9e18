"""The scales of the prior that maximise the ELBO (empirical Bayes), found with few more passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ...messages import see
from ...registry.warnings import warn
from ..priors.scale_equation import ScaledPrior, accelerated_step, effective_parameters, slope
from .fixed_point import Ascent, Project, ascend
from .local_model import local_model
from .objective import Objective

#: A step changes no scale by more than this factor's logarithm.
_FURTHEST = 5.0
#: Optima of the local model cost no pass: they are this part of the tolerance accurate.
_PART = 1.0 / 30.0
#: The largest numbers of steps of the scales, of passes at the same scales before the next step,
#: and of steps of the posterior of the local model.
_MOST_STEPS, _MOST_PASSES, _MODEL_ITER, _UNLIMITED = 60, 50, 300, 1 << 30
#: A secant makes a proposed step longer or shorter by at most these factors.
_LONGEST, _SHORTEST = 8.0, 0.5
#: A step that was halved so often and still lowers the ELBO is rounding.
_MOST_HALVINGS = 10
#: Where the data determine no more than this part of a coefficient, the best scale is 0.
_NOTHING = 0.1


@dataclass(frozen=True)
class Learnt:
    """The best Gaussian at some scales of the prior.

    Attributes:
        objective: the ELBO with the prior of these scales.
        scaled: that prior.
        ascent: the optimum; passes and trace are those of all scales so far.
    """

    objective: Objective
    scaled: ScaledPrior
    ascent: Ascent

    @property
    def elbo(self) -> float:
        """The ELBO at the optimum, nats."""
        return self.ascent.last.elbo + self.objective.beta * self.ascent.step.gain

    def stepped(
        self, step: Tensor, start: Ascent, project: Project, *, tol: float, max_iter: int
    ) -> Learnt:
        """Return the best Gaussian where the scale of every group is multiplied by exp(step).

        Args:
            step: of every group.
            start: where the ascent begins.
            project: from a precision to a covariance of the family.
            tol: nats, divided by beta.
            max_iter: the largest number of passes over the rows.
        """
        scaled, before = self.scaled.times(step), self.ascent
        objective = replace(self.objective, prior=scaled.prior)
        found = ascend(
            objective,
            start.step.loc,
            start.step.covariance,
            project,
            tol=tol,
            max_iter=max_iter,
        )
        trace = before.trace + tuple(elbo for elbo in found.trace if elbo > before.trace[-1])
        passes = before.num_passes + found.num_passes
        ascent = replace(found, trace=trace, num_passes=passes)
        return Learnt(objective, scaled, ascent)


class _Proposal(NamedTuple):
    """A step of the scales.

    Attributes:
        step: of their logarithms.
        gain: of the ELBO, nats, divided by beta.
        start: where the posterior may be then.
    """

    step: Tensor
    gain: float
    start: Ascent


def learn_scales(
    objective: Objective,
    scaled: ScaledPrior,
    ascent: Ascent,
    project: Project,
    *,
    tol: float,
    max_iter: int,
) -> Learnt:
    """Return the scales of the prior that maximise the ELBO, and the posterior there.

    The likelihood is expanded around the last point. The best scales of that model are found
    without a pass over the rows, then the posterior at these scales, from where the model has it,
    in one or two passes; and so on. Where only the diagonal of the precision is known there is no
    such model, and each step of the scales is a fit of its own, which starts at the one before.

    Args:
        objective: the ELBO with the first scales.
        scaled: its prior.
        ascent: the optimum at the first scales.
        project: from a precision to a covariance of the family.
        tol: nats, divided by beta.
        max_iter: the largest number of passes over the rows.
    """

    def by_model(now: Learnt) -> _Proposal:
        return _best_of_model(now, project, tol)

    propose = by_model if ascent.last.precision.dim() == 2 else _by_slope
    now = Learnt(objective, scaled, ascent)
    now = _search(now, propose, project, tol=tol, accuracy=tol, max_iter=max_iter)
    left = max_iter - now.ascent.num_passes
    if now.ascent.converged or left <= 0:
        return now
    unchanged = torch.zeros_like(scaled.log_factor)
    return now.stepped(unchanged, now.ascent, project, tol=tol, max_iter=left)


def _best_of_model(now: Learnt, project: Project, tol: float) -> _Proposal:
    """Propose the scales that are best for the local model."""
    accuracy = _PART * tol
    model = replace(now, objective=local_model(now.objective, now.ascent.last))
    unchanged = torch.zeros_like(now.scaled.log_factor)
    here = model.stepped(unchanged, now.ascent, project, tol=accuracy, max_iter=_MODEL_ITER)
    best = _search(here, _by_slope, project, tol=0.1 * tol, accuracy=accuracy)
    step = best.scaled.log_factor - now.scaled.log_factor
    return _Proposal(step, (best.elbo - here.elbo) / now.objective.beta, best.ascent)


def _by_slope(now: Learnt) -> _Proposal:
    """Propose the root of the ELBO's slope in the scales, by linear response."""
    q = now.ascent.step
    step = accelerated_step(now.scaled, q.loc, q.covariance, now.ascent.last.precision)
    step = step.clamp(-_FURTHEST, _FURTHEST)
    gain = slope(now.scaled, q.loc, q.covariance) * step
    return _Proposal(step, float(gain.abs().sum()), now.ascent)


def _search(
    now: Learnt,
    propose: Callable[[Learnt], _Proposal],
    project: Project,
    *,
    tol: float,
    accuracy: float,
    max_iter: int = _UNLIMITED,
) -> Learnt:
    """Return where no proposed step gains more than ``tol`` nats.

    Args:
        now: where the search starts.
        propose: a step.
        project: from a precision to a covariance of the family.
        tol: nats.
        accuracy: of the posterior at given scales, nats.
        max_iter: the largest number of passes.
    """
    before: tuple[Tensor, Tensor] | None = None
    for _ in range(_MOST_STEPS):
        proposal = propose(now)
        if proposal.gain <= tol:
            break
        step = proposal.step
        if before is not None:
            step = step * _length(step, *before)
        step = step.clamp(-_FURTHEST, _FURTHEST)
        for _ in range(_MOST_HALVINGS):
            left = min(max_iter - now.ascent.num_passes, _MOST_PASSES)
            if left <= 0:
                return now
            new = now.stepped(step, proposal.start, project, tol=accuracy, max_iter=left)
            if new.elbo >= now.elbo - accuracy * now.objective.beta:
                break
            passes = new.ascent.num_passes
            now = replace(now, ascent=replace(now.ascent, num_passes=passes))
            step = 0.5 * step
        else:
            break
        before, now = (proposal.step, step), new
    return now


def _length(proposed: Tensor, before: Tensor, taken: Tensor) -> float:
    """Return by how much a proposed step is to be longer, by the secant through the last two.

    The proposal before it has become this one after the step that was taken.
    """
    share = float((before - proposed) @ taken / (taken @ taken))
    return 1.0 / min(max(share, 1.0 / _LONGEST), 1.0 / _SHORTEST)


def warn_of_limits(learnt: Learnt) -> None:
    """Say which scales have no best value above 0."""
    q, scaled = learnt.ascent.step, learnt.scaled
    determined = effective_parameters(scaled, q.loc, q.covariance).tolist()
    for number, (label, count) in enumerate(zip(scaled.labels, determined, strict=True)):
        if count < _NOTHING:
            scale = float(scaled.prior.scale[scaled.group == number][0])
            warn(
                f"The best prior scale of {label} is 0: the data show no effect of their own "
                f"(effective number of parameters {max(count, 0.0):.1g}). The search ended at "
                f"{scale:.2g}, where the ELBO is within the tolerance of its limit."
                + see("prior-scale-of-zero")
            )
