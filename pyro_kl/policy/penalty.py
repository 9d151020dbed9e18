"""The KL penalty from the log probabilities of sampled answers, each estimator for its use.

With delta = log pi(y) - log pi_0(y) at y ~ pi (Schulman 2020, "Approximating KL divergence"):
k1 = delta and k3 = exp(-delta) - 1 + delta average to KL(pi || pi_0); k2 = delta^2 / 2 nearly.
An estimator with the right value need not have the right gradient. A penalty *in the reward* is a
number, which multiplies grad log pi(y); a penalty *in the loss* is differentiated itself. The mean
gradient of each, for one decision on policy:

    estimator   in the reward                            in the loss
    k1          grad KL(pi || pi_0)                      0
    k2          E[delta^2/2 grad log pi], wrong          grad KL(pi || pi_0)
    k3          the difference of the two KLs', wrong    grad KL(pi_0 || pi)
    |k1|        E[|delta| grad log pi], wrong            E[sign(delta) grad log pi], wrong
    exact       0                                        grad KL(pi || pi_0)

`tests/policy/test_policy.py` checks the table by exact enumeration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ..divergence.estimate import Estimate
from ..divergence.monte_carlo import ESTIMATORS
from ..messages import see
from ..numerics.concrete import is_traced
from ..registry.warnings import warn, warn_once
from .checks import check_broadcast, check_mask, first, position
from .vocabulary import exact_kl

Use = Literal["reward", "loss"]
Direction = Literal["reverse", "forward"]
Per = Literal["token", "sequence"]

_OF_DELTA: dict[str, Callable[[Tensor], Tensor]] = {**ESTIMATORS, "abs": torch.abs}
ALL = (*_OF_DELTA, "exact")

_REVERSE_LOSS = {
    "k1": "zero on average: E[grad log pi] = 0. Use k2 or exact in the loss, or k1 in the reward",
    "k3": "the gradient of KL(pi_0 || pi), the other direction. Use k2 or exact in the loss",
    "abs": "E[sign(log pi - log pi_0) grad log pi], no KL's gradient. Use k2 or exact in the loss",
}
_REVERSE_REWARD = {
    "k2": "E[(log pi - log pi_0)^2 / 2 grad log pi], no KL's gradient. Use k1 in the reward",
    "k3": "the gradient of KL(pi || pi_0) - KL(pi_0 || pi), which vanishes near the reference and "
    "can point away from it. Use k1 in the reward",
    "abs": "E[|log pi - log pi_0| grad log pi], no KL's gradient. Use k1 in the reward",
    "exact": "zero for one decision, where every answer pays the same, and in a sequence only the "
    "KL of later tokens. Use exact in the loss (sequence_kl for a sequence), or k1 in the reward",
}
_WEIGHTED_LOSS = {
    "k2": "the gradient of E[(log pi - log pi_0)^2 / 2], which is not the KL. Use k1 or k3 with a "
    "differentiated importance ratio",
    "abs": "the gradient of E|log pi - log pi_0|, which is not the KL. Use k1 or k3 with a "
    "differentiated importance ratio",
}
_FORWARD_LOSS = {
    "k2": "the gradient of E_pi_0[(log pi - log pi_0)^2 / 2], which is not the KL. Use k1, k3 or "
    "exact",
    "abs": "the gradient of E_pi_0|log pi - log pi_0|, which is not the KL. Use k1, k3 or exact",
}
_FORWARD_REWARD = {"exact": _REVERSE_REWARD["exact"]}
#: What a wrong gradient follows, by (direction, use, whether there is an importance ratio).
_FOLLOWS: dict[tuple[str, str, bool], dict[str, str]] = {
    ("reverse", "loss", False): _REVERSE_LOSS,
    ("reverse", "loss", True): _WEIGHTED_LOSS,
    ("reverse", "reward", False): _REVERSE_REWARD,
    ("forward", "loss", False): _FORWARD_LOSS,
    ("forward", "reward", False): _FORWARD_REWARD,
}
_DEFAULT = {
    ("reverse", "loss", False): "k2",
    ("reverse", "loss", True): "k3",
    ("reverse", "reward", False): "k1",
    ("forward", "loss", False): "k1",
    ("forward", "reward", False): "exact",
}


#: log_softmax in half precision may exceed 0 by this.
ROUNDING = 0.05


class PenaltyWarning(UserWarning):
    """The gradient of this penalty does not follow the KL."""


def penalty(
    policy: Tensor,
    reference: Tensor,
    *,
    use: Use,
    estimator: str | None = None,
    direction: Direction = "reverse",
    per: Per = "token",
    mask: Tensor | None = None,
    log_behaviour: Tensor | None = None,
) -> Tensor:
    """The KL penalty of sampled answers, by the estimator whose gradient is right for its use.

    Args:
        policy: log pi of the sampled tokens, shape ``(...)`` or ``(..., T)``; for "exact" the
            policy's logits, shape ``(..., V)``.
        reference: log pi_0 of the same tokens, or the reference's logits.
        use: "reward", for a number that is subtracted from the reward: detached. "loss", for a
            term of the loss: differentiable.
        estimator: "k1", "k2", "k3", "abs" or "exact". By default k1 in the reward and k2 in the
            loss; k3 in the loss with `log_behaviour`.
        direction: "reverse" for KL(pi || pi_0), of tokens sampled from the policy. "forward" for
            KL(pi_0 || pi), of tokens sampled from the reference (or exact): another objective.
        per: "token" leaves every element its own estimate. In the loss this is the gradient at
            the visited states; the policy's effect on which states it visits is left out.
            "sequence" takes the last dimension as tokens and estimates from the log
            ratio of the whole sequence, whose k1 in the reward and k2 in the loss have the full
            gradient (exact: the sum of the tokens' KLs; see `sequence_kl` for its full gradient).
        mask: True where a token counts; the others give 0 and may hold anything.
        log_behaviour: log probabilities, under the policy that sampled, of tokens that an older
            policy sampled; the penalty is multiplied by the ratio pi / pi_old, which is
            differentiated. For use in the loss.

    Returns:
        Nats, shape ``(...)``: of the inputs per token, without the last dimension per sequence.

    Raises:
        ValueError: a token that has no mass under the distribution that it is measured against,
            with its position; masks and shapes that do not fit; an unknown option.

    Warns:
        PenaltyWarning: the gradient does not follow the KL; the warning says what it follows.
        UserWarning: a log probability is positive; once.

    Example:
        >>> log_policy = torch.tensor([-1.0, -2.0], requires_grad=True)
        >>> log_reference = torch.tensor([-1.5, -1.0])
        >>> pyro_kl.policy.penalty(log_policy, log_reference, use="reward")
        tensor([ 0.5000, -1.0000])
        >>> pyro_kl.policy.penalty(log_policy, log_reference, use="loss")
        tensor([0.1250, 0.5000], grad_fn=<DivBackward0>)
    """
    estimator = _choose(use, estimator, direction, per, log_behaviour is not None)
    if estimator == "exact":
        value = exact_kl(policy, reference, mask=mask, direction=direction)
        value = value.sum(-1) if per == "sequence" else value
        return value.detach() if use == "reward" else value
    delta = _log_ratio(policy, reference, direction, mask)
    if per == "sequence":
        delta = delta.sum(-1)
    value = _OF_DELTA[estimator](delta)
    if log_behaviour is not None:
        ratio = _log_ratio(policy, log_behaviour, "reverse", mask)
        value = value * (ratio.sum(-1) if per == "sequence" else ratio).exp()
    return value.detach() if use == "reward" else value


def _choose(use: str, estimator: str | None, direction: str, per: str, weighted: bool) -> str:
    """The estimator, after a warning if its gradient is not that of the KL."""
    for name, value, allowed in (
        ("use", use, ("reward", "loss")),
        ("direction", direction, ("reverse", "forward")),
        ("per", per, ("token", "sequence")),
        ("estimator", estimator, (None, *ALL)),
    ):
        if value not in allowed:
            choices = ", ".join(repr(choice) for choice in allowed if choice is not None)
            raise ValueError(f"{name} must be one of {choices}; got {value!r}" + see("option"))
    key = (direction, use, weighted)
    if key not in _FOLLOWS or (weighted and estimator == "exact"):
        raise ValueError(
            "log_behaviour corrects a sampled KL(pi || pi_0) in the loss: use='loss', "
            "direction='reverse' and k1 or k3" + see("penalty-use")
        )
    chosen = _DEFAULT[key] if estimator is None else estimator
    if (direction, use) == ("forward", "reward") and chosen != "exact":
        raise ValueError(
            "KL(pi_0 || pi) is estimated from answers of the reference, which earn no reward of "
            "the policy's: use it in the loss, or estimator='exact'" + see("penalty-use")
        )
    if chosen in _FOLLOWS[key]:
        where = f"{chosen} in the {use}" + (" with an importance ratio" if weighted else "")
        warn(
            f"the gradient of {where} follows {_FOLLOWS[key][chosen]}." + see("penalty-gradient"),
            PenaltyWarning,
        )
    return chosen


def _log_ratio(
    log_policy: Tensor, log_reference: Tensor, direction: str, mask: Tensor | None
) -> Tensor:
    """Log of the sampled distribution over the other at each token; 0 where masked."""
    shape = check_broadcast("log probabilities", log_policy.shape, log_reference.shape)
    names = ("policy", "reference")
    log_p, log_q = log_policy, log_reference
    if direction == "forward":
        log_p, log_q, names = log_q, log_p, names[::-1]
    if mask is not None:
        check_mask(mask, shape)
        # before the difference, because padding may hold inf - inf
        log_p, log_q = (torch.where(mask, x, 0.0) for x in (log_p, log_q))
    delta = log_p - log_q
    if not is_traced():
        _check_ratio(log_p, log_q, delta, names)
    return delta


def _check_ratio(p: Tensor, q: Tensor, delta: Tensor, names: tuple[str, ...]) -> None:
    largest = torch.maximum(p, q).detach().amax().item() if delta.numel() else 0.0
    if ROUNDING < largest < torch.inf:
        warn_once(
            "positive log probability",
            f"a log probability is {largest:.4g}, and that of a token is at most 0: logits need "
            "log_softmax first" + see("positive-log-probability"),
        )
    bad = ~delta.isfinite()
    if not bool(bad.any()):
        return
    where = first(bad)
    at = f" at {position(where)}" if where else ""
    p_here, q_here = (float(x.expand(delta.shape)[where]) for x in (p, q))
    if q_here == -torch.inf and p_here > -torch.inf:
        raise ValueError(
            f"the KL is infinite: the token{at} has log probability {p_here:.4g} under the "
            f"{names[0]} and none under the {names[1]}; mask it in the {names[0]}, or give it "
            f"mass in the {names[1]}" + see("infinite-penalty")
        )
    raise ValueError(
        f"the token{at} has log probability {p_here:g} under the {names[0]}, which is said "
        f"to have sampled it, and {q_here:g} under the {names[1]}" + see("infinite-penalty")
    )


def sequence_kl(token_kl: Tensor, log_policy: Tensor, mask: Tensor | None = None) -> Tensor:
    """The KL of a sequence from the exact KL of its tokens, with the full gradient.

    KL(pi || pi_0) = E sum_t KL_t(s_t) over the states s_t that pi visits. Differentiating the
    KL_t alone leaves out that another policy visits other states. Here the log probability of each
    token is also multiplied by the KL of the tokens after it. The value is sum_t KL_t; the mean of
    the gradient is that of the KL of the whole sequence, and its variance is smaller than k1's or
    k2's because the KL of every step is exact.

    Args:
        token_kl: `exact_kl` at each token, with its gradient, shape ``(..., T)``.
        log_policy: log pi of the sampled tokens, with its gradient, shape ``(..., T)``.
        mask: True where a token counts.

    Returns:
        Nats, shape ``(...)``; for use in the loss.

    Raises:
        ValueError: shapes or masks that do not fit.
    """
    check_broadcast("token_kl and log_policy", token_kl.shape, log_policy.shape)
    if mask is not None:
        check_mask(mask, token_kl.shape)
        token_kl, log_policy = (torch.where(mask, x, 0.0) for x in (token_kl, log_policy))
    kept = token_kl.detach()
    to_come = kept.flip(-1).cumsum(-1).flip(-1) - kept
    return token_kl.sum(-1) + ((log_policy - log_policy.detach()) * to_come).sum(-1)


def sampled_kl(
    log_policy: Tensor,
    log_reference: Tensor,
    estimator: str = "k1",
    *,
    mask: Tensor | None = None,
) -> Estimate:
    """KL(pi || pi_0) from answers sampled from pi, with its standard error.

    Args:
        log_policy: log pi of n independent answers, shape ``(n,)``, or of their tokens,
            ``(n, T)``.
        log_reference: log pi_0 of the same answers or tokens.
        estimator: "k1" or "k3", both unbiased, also as sums over the tokens; "k2", which estimates
            E[delta^2 / 2] instead: close to the KL only where pi is close to pi_0.
        mask: True where a token counts.

    Returns:
        Nats, a scalar: the mean over answers of the sum over tokens.

    Raises:
        ValueError: fewer than two answers, another estimator, and as `penalty`.

    Example:
        >>> pi = torch.distributions.Categorical(torch.tensor([0.25, 0.75]))
        >>> pi_0 = torch.distributions.Categorical(torch.tensor([0.5, 0.5]))
        >>> y = pi.sample((10_000,))
        >>> estimate = pyro_kl.policy.sampled_kl(pi.log_prob(y), pi_0.log_prob(y))
        >>> abs(estimate.value - 0.1308) < 4 * estimate.standard_error
        tensor(True)
    """
    if estimator not in ESTIMATORS:
        raise ValueError(
            f"estimator must be one of {', '.join(ESTIMATORS)}; got {estimator!r}" + see("option")
        )
    if log_policy.dim() not in (1, 2) or log_policy.shape[0] < 2:
        raise ValueError(
            "at least two answers, shape (n,) or (n, T), are needed for a standard error; got "
            f"shape {tuple(log_policy.shape)}" + see("policy-shapes")
        )
    with torch.no_grad():
        terms = ESTIMATORS[estimator](_log_ratio(log_policy, log_reference, "reverse", mask))
        if terms.dim() == 2:
            terms = terms.sum(-1)
        n = terms.shape[0]
        return Estimate(
            value=terms.mean(),
            standard_error=terms.std() / n**0.5,
            method=f"monte carlo ({estimator})",
            num_samples=n,
            reason=f"{n:,} answers of the policy",
        )
