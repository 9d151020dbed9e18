"""Guaranteed bounds of KLs that have no formula: mixtures and hidden Markov models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pyro.distributions import DiscreteHMM
from torch import Tensor
from torch.distributions import Categorical, Distribution, kl_divergence

from ..registry.provenance import recording, total_error
from ..registry.reduction import describe
from ..registry.shapes import broadcast_batch, check_durations
from ..results.batch import batch_table
from ..results.result import Result
from ..results.table import Table
from ..results.text import fill
from .estimate import Record
from .integrals.undeclared import is_on_line
from .mixtures import check_operands, components, is_mixture, log_overlap, pairwise

_ITERATIONS = 100
_STEP_ITERATIONS = 30


@dataclass(frozen=True, eq=False, repr=False)
class Bounds(Record, Result):
    """A lower and an upper bound of a KL, in nats.

    Attributes:
        lower: never above the KL, of the broadcast batch shape; differentiable.
        upper: never below the KL; likewise.
        method: the names of the bounds.
        reason: why there is no exact value, or where it comes from.
    """

    lower: Tensor
    upper: Tensor
    method: str
    reason: str

    def __str__(self) -> str:
        if self.lower.numel() == 1:
            text = f"{self.lower.item():.6g} <= KL <= {self.upper.item():.6g} nats"
        else:
            text = f"bounds of shape {tuple(self.lower.shape)}"
        return fill(f"{text}  [{self.method}: {self.reason}]")

    def _table(self) -> Table:
        columns = {"lower": ("lower", ".6g"), "upper": ("upper", ".6g")}
        notes = [f"nats; {self.method}: {self.reason}"]
        return batch_table(self.to_dicts(), self.lower.shape, columns, notes)


def has_bounds(p: Distribution, q: Distribution) -> bool:
    """Whether `bounds` applies to two distributions of these classes."""
    hmms = isinstance(p, DiscreteHMM) and isinstance(q, DiscreteHMM)
    return hmms or is_mixture(p) or is_mixture(q)


def bounds(p: Distribution, q: Distribution) -> Bounds:
    """Guaranteed lower and upper bounds of KL(p || q), exact where there is a formula.

    For mixtures p = sum a_i p_i and q = sum b_j q_j the upper bound is the smaller one of Hershey
    and Olsen's variational bound and that from Kolchinsky and Tracey's lower bound of p's
    entropy; the lower bound is the largest of 0 and two bounds by Jensen's inequality. For two
    DiscreteHMMs the upper bound is the smaller one of the variational bound, backwards in time,
    whose hidden states need no common labels, and the chain rule; the lower bound is that of the
    best single time step.

    Args:
        p: the distribution that the expectation is over.
        q: the distribution that it is compared with.

    Returns:
        Nats, of shape broadcast(p.batch_shape, q.batch_shape), with the names of the bounds.

    Raises:
        NotImplementedError: there is no formula, and neither is a mixture; or the components of
            mixtures have no formula.
        TypeError: one of them is not a distribution.
        ValueError: a mixture has no component, or a DiscreteHMM no number of time steps.

    Reference:
        Hershey & Olsen (2007), "Approximating the Kullback Leibler divergence between Gaussian
        mixture models", sec. 8; Kolchinsky & Tracey (2017), "Estimating mixture entropy with
        pairwise distances", eq. 10-11; Do (2003), for HMMs.

    Example:
        >>> from torch.distributions import Categorical, MixtureSameFamily, Normal
        >>> def mixture(*locs):
        ...     weights = Categorical(torch.ones(len(locs)))
        ...     return MixtureSameFamily(weights, Normal(torch.tensor(locs), 1.0))
        >>> print(pyro_kl.bounds(mixture(-3.0, 3.0), mixture(-2.0, 2.0)).method)
        Jensen; Hershey & Olsen 2007, Kolchinsky & Tracey 2017
    """
    check_operands(p, q)
    shape = broadcast_batch(p, q)
    exact = _exact(p, q)
    if exact is not None:
        return exact
    if isinstance(p, DiscreteHMM) and isinstance(q, DiscreteHMM):
        lower, upper = _of_hmms(p, q)
        method = "one time step; variational backwards in time, chain rule"
    else:
        lower, upper = _of_mixtures(*components(p), *components(q))
        method = "Jensen; Hershey & Olsen 2007, Kolchinsky & Tracey 2017"
    reason = f"no formula for KL({describe(p)} || {describe(q)})"
    if is_on_line(p, q):
        reason += ", which pyro_kl.kl(p, q) integrates"
    return Bounds(lower.expand(shape), upper.expand(shape), method, reason)


def _exact(p: Distribution, q: Distribution) -> Bounds | None:
    """Both bounds from the exact value, if there is a formula; from value -+ error, if integrated.

    Raises:
        NotImplementedError: there is neither a formula nor a bound.
    """
    try:
        with recording() as uses:
            value = torch.as_tensor(kl_divergence(p, q))
    except NotImplementedError:
        if not has_bounds(p, q):
            raise
        return None
    error = total_error(value, uses)
    if error is None:
        return Bounds(value, value, "exact", "there is a formula: pyro_kl.kl(p, q) names it")
    reason = "an integral, and the estimate of its error: pyro_kl.kl(p, q) has both"
    return Bounds((value - error).clamp(min=0.0), value + error, "quadrature", reason)


def _of_mixtures(
    log_a: Tensor, p: Distribution, log_b: Tensor, q: Distribution
) -> tuple[Tensor, Tensor]:
    """Bounds from the KLs and the overlaps of all pairs of components."""
    cost = pairwise(p, q)
    log_a, log_b = log_a.to(cost.dtype), log_b.to(cost.dtype)
    own = pairwise(p, p)
    half = _or_zero(log_overlap(p, p, 0.5), own)
    half_q = _or_zero(log_overlap(p, q, 0.5), cost)
    a = log_a.exp()
    upper = variational_upper(log_a, log_b, cost)
    # -H(p) <= sum_i a_i [log sum_k a_k BC(p_i, p_k) - H(p_i)]; E log q is bounded as above
    over = (log_a.unsqueeze(-2) + half).logsumexp(-1)
    against = (log_b.unsqueeze(-2) - cost).logsumexp(-1)
    upper = torch.minimum(upper, _mean(a, over - against))
    under = (log_a.unsqueeze(-2) - own).logsumexp(-1)
    root = 2 * (0.5 * log_b.unsqueeze(-2) + half_q).logsumexp(-1)
    lower = _mean(a, under - root)
    likelihood = log_overlap(p, q, 1.0)
    if likelihood is not None:
        expected = (log_b.unsqueeze(-2) + likelihood).logsumexp(-1)
        lower = torch.maximum(lower, _mean(a, under - p.entropy() - expected))
    return lower.clamp(min=0.0), upper


def _or_zero(log_coefficient: Tensor | None, like: Tensor) -> Tensor:
    """Log of Bhattacharyya's coefficient; of its bound 1 where the coefficient is not known."""
    return torch.zeros_like(like) if log_coefficient is None else log_coefficient


def _mean(weights: Tensor, values: Tensor) -> Tensor:
    return torch.where(weights > 0, weights * values, 0.0).sum(-1)


def variational_upper(
    log_a: Tensor, log_b: Tensor, cost: Tensor, iterations: int = _ITERATIONS
) -> Tensor:
    r"""min KL(phi || psi) + sum phi_ij cost_ij, phi's rows summing to a and psi's columns to b.

    It is an upper bound for any phi and psi, by the log-sum inequality. The problem is convex, and
    the two are improved in turn. The gradient is that of the bound at the last phi and psi.

    Args:
        log_a: (..., K_p).
        log_b: (..., K_q).
        cost: (..., K_p, K_q), KLs of components.
        iterations: how often both are improved.
    """
    rows, columns = log_a.unsqueeze(-1), log_b.unsqueeze(-2)
    with torch.no_grad():
        closeness = -cost.clamp(max=1e8)  # finite while choosing; the bound below has the cost
        share = (columns + closeness).log_softmax(-1)
        back = torch.zeros_like(share)
        for _ in range(iterations):
            flow = (rows + share).clamp(min=-1e9)
            back = flow.log_softmax(-2)
            share = ((columns + back).clamp(min=-1e9) + closeness).log_softmax(-1)
    phi, psi = rows + share, columns + back
    weight = phi.exp()
    terms = weight * torch.where(weight > 0, phi - psi + cost, 0.0)
    return torch.where(weight > 0, terms, 0.0).sum((-1, -2))


# --- hidden Markov models ----------------------------------------------------------------------


def _of_hmms(p: DiscreteHMM, q: DiscreteHMM) -> tuple[Tensor, Tensor]:
    check_durations(p, q, "bounds")
    steps = p.duration
    move_p, move_q = (_in_time(distribution.transition_logits, steps) for distribution in (p, q))
    cost = pairwise(p.observation_dist, q.observation_dist)
    cost = cost.expand(*cost.shape[:-3], steps, *cost.shape[-2:])
    left = torch.zeros_like(cost[..., 0, :, :])
    same = cost.shape[-1] == cost.shape[-2]
    aligned = left.diagonal(dim1=-2, dim2=-1)
    for t in reversed(range(steps)):
        later = (cost[..., t, :, :] + left)[..., None, None, :, :]
        from_p, from_q = move_p[..., t, :, :], move_q[..., t, :, :]
        if same:
            here = (cost[..., t, :, :]).diagonal(dim1=-2, dim2=-1) + aligned
            own = kl_divergence(Categorical(logits=from_p), Categorical(logits=from_q))
            aligned = own + _mean(from_p.exp(), here.unsqueeze(-2))
        left = variational_upper(
            from_p.unsqueeze(-2), from_q.unsqueeze(-3), later, _STEP_ITERATIONS
        )
        if same:  # where both start from the same state, the chain rule is one more bound
            eye = torch.eye(left.shape[-1], dtype=torch.bool, device=left.device)
            left = torch.where(eye, torch.minimum(left, aligned.unsqueeze(-1)), left)
    upper = variational_upper(p.initial_logits, q.initial_logits, left)
    if same:
        start = Categorical(logits=p.initial_logits), Categorical(logits=q.initial_logits)
        chained = kl_divergence(*start) + _mean(p.initial_logits.exp(), aligned)
        upper = torch.minimum(upper, chained)
    return _best_step(p, q, move_p, move_q), upper


def _best_step(p: DiscreteHMM, q: DiscreteHMM, move_p: Tensor, move_q: Tensor) -> Tensor:
    """The largest lower bound of the KL of one observation, which is at most that of all.

    An observation is a mixture over the hidden states; of Categoricals it is a Categorical.
    """
    weights = torch.stack(_occupied(p, move_p), -2), torch.stack(_occupied(q, move_q), -2)
    left, right = p.observation_dist, q.observation_dist
    if isinstance(left, Categorical) and isinstance(right, Categorical):
        seen = [
            (w.unsqueeze(-1) + distribution.logits.log_softmax(-1)).logsumexp(-2)
            for w, distribution in zip(weights, (left, right), strict=True)
        ]
        one = kl_divergence(Categorical(logits=seen[0]), Categorical(logits=seen[1]))
    else:
        one, _ = _of_mixtures(weights[0], left, weights[1], right)
    return one.amax(-1)


def _occupied(distribution: DiscreteHMM, moves: Tensor) -> list[Tensor]:
    """Log probabilities of the hidden states at each time."""
    now, found = distribution.initial_logits, []
    for move in moves.unbind(-3):
        now = (now.unsqueeze(-1) + move).logsumexp(-2)
        found.append(now)
    return found


def _in_time(logits: Tensor, steps: int) -> Tensor:
    logits = logits if logits.dim() > 2 else logits.unsqueeze(-3)
    return logits.expand(*logits.shape[:-3], steps, *logits.shape[-2:])
