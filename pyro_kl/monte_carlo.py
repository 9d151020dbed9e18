"""Sampled estimates of KL(p || q) that carry their standard error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from pyro.distributions import ExpandedDistribution
from torch import Tensor
from torch.distributions import Distribution

from . import special
from .densities import log_prob_anywhere
from .estimate import Estimate
from .mixtures import check_operands
from .reduction import simplified
from .shapes import broadcast_batch
from .wrappers.circle import check_one_turn
from .wrappers.masked import both, unmasked

#: E_p of each is KL(p || q), with d = log p(x) - log q(x) at x ~ p, except k2, which is biased
#: (Schulman 2020, "Approximating KL divergence").
ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "k1": lambda d: d,
    "k2": lambda d: d.square() / 2,
    "k3": special.exp_excess,
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
        p: the law that is sampled and that the expectation is over.
        q: the law that it is compared with, on the same space.
        num_samples: number of independent samples for each element of the batch; at least 2.
        estimator: "k1", the mean of d: unbiased, the default. "k3", the mean of exp(-d) - 1 + d:
            unbiased where q has no mass outside p's support, never negative, far better where p
            is close to q and far worse where it is not. "k2", the mean of d^2 / 2: biased.
        generator: source of randomness; by default torch's global one, which
            `pyro.set_rng_seed` seeds.

    Returns:
        Nats, with the standard error of the mean, both of shape broadcast(p.batch_shape,
        q.batch_shape), in the dtype and on the device of the samples' log densities. A sample
        where q has no mass makes the estimate +inf.

    Raises:
        TypeError: one of them is not a distribution.
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
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2, for a standard error: {num_samples}")
    check_operands(p, q)
    shape = broadcast_batch(p, q)
    check_one_turn(p, q)
    with torch.no_grad(), randomness(generator):
        mean, standard_error = _mean_and_error(p, q, num_samples, ESTIMATORS[estimator], shape)
    return Estimate(
        value=mean,
        standard_error=standard_error,
        method=f"monte carlo ({estimator})",
        num_samples=num_samples,
        reason=f"{num_samples:,} samples of p",
    )


def _mean_and_error(
    p: Distribution,
    q: Distribution,
    num_samples: int,
    terms_of: Callable[[Tensor], Tensor],
    shape: torch.Size,
) -> tuple[Tensor, Tensor]:
    """Mean and standard error over chunks, merged as Chan, Golub & LeVeque (1983) do."""
    chunk = max(1, _CHUNK // max(1, math.prod(shape + p.event_shape)))
    count, mean, squares = 0, torch.zeros(shape), torch.zeros(shape)
    for start in range(0, num_samples, chunk):
        n = min(chunk, num_samples - start)
        terms = terms_of(_log_ratio(p, q, n, shape))
        finite = terms.isfinite()
        centre = torch.where(finite, terms, 0.0).mean(0)
        spread = torch.where(finite, terms - centre, 0.0).square().sum(0)
        chunk_mean = torch.where(finite.all(0), centre, terms.mean(0))
        if count == 0:
            mean, squares = chunk_mean, spread
        else:
            step = chunk_mean - mean
            weight = n / (count + n)
            mean = torch.where(step.isfinite(), mean + step * weight, mean + chunk_mean)
            squares = squares + spread + torch.nan_to_num(step).square() * count * weight
        count += n
    error = (squares / (count - 1) / count).sqrt()
    return mean, torch.where(mean.isfinite(), error, math.inf)


def _log_ratio(p: Distribution, q: Distribution, n: int, shape: torch.Size) -> Tensor:
    """Log p(x) - log q(x) at n samples of p for each element of the joint batch; (n, *shape)."""
    (p, p_mask), (q, q_mask) = unmasked(p), unmasked(q)
    expanded = _expanded(p, shape)
    x = expanded.sample(torch.Size((n,)))
    log_p = _by_itself_or_simpler(expanded, lambda law: law.log_prob(x))
    log_q = _by_itself_or_simpler(q, lambda law: log_prob_anywhere(law, x))
    log_ratio = log_p - log_q
    mask = both(p_mask, q_mask)  # as in the exact KL, an element counts if both sides let it
    return log_ratio if mask is True else torch.where(torch.as_tensor(mask), log_ratio, 0.0)


def _by_itself_or_simpler(law: Distribution, log_prob: Callable[[Distribution], Tensor]) -> Tensor:
    """Log density as the law has it; as an equal law has it where torch's raises, as |x| does."""
    try:
        return log_prob(law)
    except NotImplementedError:
        plain = simplified(law)
        if plain is law:
            raise
        return log_prob(plain)


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
