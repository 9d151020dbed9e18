"""Sampled estimates of KL(p || q) that carry their standard error."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from pyro.distributions import ExpandedDistribution
from torch import Tensor
from torch.distributions import Distribution

from ..numerics.special.logarithms import expm1mx
from ..registry.shapes import broadcast_batch, some_tensor
from ..wrappers.circle import check_one_turn
from ..wrappers.log_prob import log_prob_anywhere
from ..wrappers.masked import both, unmasked
from .draws import Terms, draw, estimate_of, log_density
from .estimate import Estimate
from .mixtures import check_operands

#: E_p of each is KL(p || q), with d = log p(x) - log q(x) at x ~ p, except k2, which is biased
#: (Schulman 2020, "Approximating KL divergence").
ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "k1": lambda d: d,
    "k2": lambda d: d.square() / 2,
    "k3": lambda d: expm1mx(-d),
}
#: Samples are drawn in chunks of at most this many numbers.
_CHUNK = 2**22


def monte_carlo(
    p: Distribution,
    q: Distribution,
    num_samples: int = 10_000,
    estimator: str = "k1",
    generator: torch.Generator | None = None,
) -> Estimate:
    """Estimate KL(p || q) from samples of p, with d = log p(x) - log q(x).

    Args:
        p: the distribution that is sampled and that the expectation is over.
        q: the distribution that it is compared with, on the same space.
        num_samples: number of independent samples for each element of the batch; at least 2.
        estimator: "k1", the mean of d: unbiased, the default. "k3", the mean of exp(-d) - 1 + d:
            unbiased where q has no mass outside p's support, never negative, far better where p
            is close to q and far worse where it is not. "k2", the mean of d^2 / 2: biased.
        generator: source of randomness; by default torch's global one, which
            `pyro.set_rng_seed` seeds.

    Returns:
        Nats, with the standard error of the mean, both of shape broadcast(p.batch_shape,
        q.batch_shape), in the dtype and on the device of the samples' log densities. A sample
        where q has no mass makes the estimate +inf. Where draws had rounded to an end of p's
        support, or one makes up much of the variance, the standard error does not hold: the
        `reason` and a warning say how many, and `unreliable` where.

    Raises:
        NotImplementedError: p has no sampler, or one of them no density where p draws; there is
            no KL.
        TypeError: one of them is not a distribution, `num_samples` no integer, `generator` no
            torch.Generator.
        ValueError: unknown estimator, fewer than 2 samples, event shapes that differ, a mixture
            without components.

    Source:
        Schulman (2020), "Approximating KL divergence".

    Example:
        >>> p, q = torch.distributions.Normal(1.0, 1.0), torch.distributions.Normal(0.0, 1.0)
        >>> estimate = pyro_kl.monte_carlo(p, q, num_samples=10_000)
        >>> abs(estimate.value - 0.5) < 5 * estimate.standard_error
        tensor(True)
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {', '.join(ESTIMATORS)}: {estimator!r}")
    check_sampling(num_samples, generator)
    check_operands(p, q)
    shape = broadcast_batch(p, q)
    check_one_turn(p, q)
    method, reason = f"monte carlo ({estimator})", f"{num_samples:,} samples of p"
    if not shape.numel():
        nothing = some_tensor(p).detach().new_zeros(shape)
        return Estimate(nothing, nothing, method, num_samples, reason)
    with torch.no_grad(), randomness(generator):
        terms = _terms(p, q, num_samples, ESTIMATORS[estimator], shape)
        one = torch.ones_like(terms.mean)
    return estimate_of(p, q, [(one, terms)], num_samples, method, reason)


def check_sampling(num_samples: object, generator: object) -> None:
    """Refuse what is no number of samples, or no source of randomness; None is neither."""
    if num_samples is not None:
        if isinstance(num_samples, bool) or not hasattr(num_samples, "__index__"):
            raise TypeError(f"num_samples must be an integer, not {num_samples!r}")
        if operator.index(num_samples) < 2:
            raise ValueError(
                f"num_samples must be at least 2, for a standard error: {num_samples}"
            )
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, not {type(generator).__name__}")


def _terms(
    p: Distribution,
    q: Distribution,
    num_samples: int,
    terms_of: Callable[[Tensor], Tensor],
    shape: torch.Size,
) -> Terms:
    """The terms at all draws, a block of them at a time."""
    block = max(1, _CHUNK // max(1, math.prod(shape + p.event_shape)))
    found: Terms | None = None
    for start in range(0, num_samples, block):
        log_ratio, at_end = _log_ratio(p, q, min(block, num_samples - start), shape)
        # p has no mass at a draw of its own: its density has left the floats
        lost = log_ratio.isnan() | torch.isneginf(log_ratio)
        terms = torch.where(lost, math.nan, terms_of(torch.where(lost, 0.0, log_ratio)))
        some = Terms.of(terms, at_end)
        found = some if found is None else found.merged(some)
    assert found is not None
    return found


def _log_ratio(
    p: Distribution, q: Distribution, n: int, shape: torch.Size
) -> tuple[Tensor, Tensor | None]:
    """Log p(x) - log q(x) at n samples of p for each element of the joint batch; (n, *shape).

    Also which of them have rounded to an end of p's support.
    """
    (p, p_mask), (q, q_mask) = unmasked(p), unmasked(q)
    expanded = _expanded(p, shape)
    x, at_end = draw(expanded, n)
    log_p = log_density(expanded, x, lambda distribution, x: distribution.log_prob(x))
    log_ratio = log_p - log_density(q, x, log_prob_anywhere)
    mask = both(p_mask, q_mask)  # as in the exact KL, an element counts if both sides let it
    if mask is True:
        return log_ratio, at_end
    counts = torch.as_tensor(mask)
    return torch.where(counts, log_ratio, 0.0), None if at_end is None else at_end & counts


def _expanded(p: Distribution, shape: torch.Size) -> Distribution:
    """p in a larger batch, whether or not its class can expand itself."""
    if p.batch_shape == shape:
        return p
    try:
        return p.expand(shape)
    except NotImplementedError:
        return ExpandedDistribution(p, shape)


@contextmanager
def randomness(generator: torch.Generator | None) -> Iterator[None]:
    """Draw from `generator`: torch's samplers take none, so the global state is lent to it."""
    if generator is None:
        yield
        return
    on_cpu, device = generator.device.type == "cpu", generator.device

    def get() -> Tensor:
        return torch.get_rng_state() if on_cpu else torch.cuda.get_rng_state(device)

    def put(state: Tensor) -> None:
        return torch.set_rng_state(state) if on_cpu else torch.cuda.set_rng_state(state, device)

    before = get()
    put(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(get())
        put(before)
