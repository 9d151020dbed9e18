"""Sampled estimates of KL(p || q), each with its standard error."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from pyro.distributions import ExpandedDistribution
from torch import Tensor
from torch.distributions import Distribution, Independent, Laplace, MultivariateNormal, Normal

from ..messages import see
from ..numerics.special.logarithms import expm1mx
from ..registry.shapes import broadcast_batch, some_tensor
from ..registry.subclasses import is_a
from ..wrappers.circle import check_one_turn
from ..wrappers.log_prob import log_prob_anywhere
from ..wrappers.masked import both, unmasked
from .draws import draw, log_density
from .estimate import Estimate
from .mixtures import check_operands, components, is_mixture
from .standard_error import Terms, estimate_of

#: E_p of each is KL(p || q), with d = log p(x) - log q(x) at x ~ p, except k2, which is biased
#: (Schulman 2020, "Approximating KL divergence").
ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "k1": lambda d: d,
    "k2": lambda d: d.square() / 2,
    "k3": lambda d: expm1mx(-d),
}
#: Samples are drawn in chunks of at most this many numbers.
_CHUNK = 2**22
#: Components for which x and 2 mean - x have one density.
_SYMMETRIC = (Normal, Laplace, MultivariateNormal)


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
        generator: source of randomness; by default torch's global random state, which
            `pyro.set_rng_seed` seeds.

    Returns:
        Nats, with the standard error of the mean, both of shape broadcast(p.batch_shape,
        q.batch_shape), in the dtype and on the device of the samples' log densities. A sample
        where q has no mass makes the estimate +inf. Where samples were rounded to an end of p's
        support, or one sample has much of the variance, the standard error does not hold: the
        `reason` and a warning say how many samples, and `unreliable` in which elements.

    Raises:
        NotImplementedError: p has no sampler, or one of them no density at p's samples; the KL is
            not defined.
        TypeError: one of them is not a distribution, `num_samples` no integer, `generator` no
            torch.Generator.
        ValueError: unknown estimator, fewer than 2 samples, event shapes that differ, a mixture
            without components.

    Reference:
        Schulman (2020), "Approximating KL divergence".

    Example:
        >>> p, q = torch.distributions.Normal(1.0, 1.0), torch.distributions.Normal(0.0, 1.0)
        >>> estimate = pyro_kl.monte_carlo(p, q, num_samples=10_000)
        >>> abs(estimate.value - 0.5) < 5 * estimate.standard_error
        tensor(True)
    """
    if estimator not in ESTIMATORS:
        raise ValueError(
            f"estimator must be one of {', '.join(ESTIMATORS)}: {estimator!r}" + see("option")
        )
    check_sampling(num_samples, generator)
    check_operands(p, q)
    shape = broadcast_batch(p, q)
    check_one_turn(p, q)
    method, reason = f"monte carlo ({estimator})", f"{num_samples:,} samples of p"
    if not shape.numel():
        nothing = some_tensor(p).detach().new_zeros(shape)
        return Estimate(nothing, nothing, method, num_samples, reason)
    with torch.no_grad(), randomness(generator):
        terms = terms_at_samples(p, q, num_samples, ESTIMATORS[estimator], shape)
        one = torch.ones_like(terms.mean)
    return estimate_of(p, q, [(one, terms)], num_samples, method, reason)


def stratified(p: Distribution, q: Distribution, num_samples: int) -> Estimate:
    """Estimate KL(p || q) of a mixture p, each component sampled as often as its weight says.

    The label of the component is not sampled: its expectation is a sum. Samples of symmetric
    components come in pairs x, 2 mean - x, and the mean of a pair counts as one term.

    Args:
        p: a mixture.
        q: any distribution on the same space.
        num_samples: of all components together, at least 4 for each.

    Returns:
        Nats, with the standard error, of the broadcast batch shape; no gradient.
    """
    shape = broadcast_batch(p, q)
    log_a, parts = components(p)
    with torch.no_grad():
        weights = log_a.exp()
        largest = weights.reshape(-1, weights.shape[-1]).amax(0)
        counts = (num_samples * largest / largest.sum()).ceil().clamp(min=4).long() // 2 * 2
        found = [
            (weights[..., k], Terms.of(*_log_ratio_of_component(p, q, parts, k, n, shape)))
            for k, n in enumerate(counts.tolist())
        ]
    paired = "antithetic, " if _is_symmetric(parts) else ""
    total = int(counts.sum())
    reason = f"{paired}{total:,} samples of p's components"
    return estimate_of(p, q, found, total, "monte carlo (stratified)", reason)


def check_sampling(num_samples: object, generator: object) -> None:
    """Raise if `num_samples` is no valid number or `generator` no generator; both may be None."""
    if num_samples is not None:
        if isinstance(num_samples, bool) or not hasattr(num_samples, "__index__"):
            raise TypeError(f"num_samples must be an integer, not {num_samples!r}" + see("option"))
        if operator.index(num_samples) < 2:
            raise ValueError(
                f"num_samples must be at least 2, for a standard error: {num_samples}"
                + see("option")
            )
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator, not {type(generator).__name__}" + see("option")
        )


def terms_at_samples(
    p: Distribution,
    q: Distribution,
    num_samples: int,
    terms_of: Callable[[Tensor], Tensor],
    shape: torch.Size,
) -> Terms:
    """The terms at all samples, a block of samples at a time."""
    block = max(1, _CHUNK // max(1, math.prod(shape + p.event_shape)))
    found: Terms | None = None
    for start in range(0, num_samples, block):
        log_ratio, at_end = _log_ratio(p, q, min(block, num_samples - start), shape)
        # log p is -inf at a sample of p: the density has underflowed
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

    Also returns which samples were rounded to an end of p's support.
    """
    (p, p_mask), (q, q_mask) = unmasked(p), unmasked(q)
    expanded = expanded_to(p, shape)
    x, at_end = draw(expanded, n)
    log_p = log_density(expanded, x, lambda distribution, x: distribution.log_prob(x))
    log_ratio = log_p - log_density(q, x, log_prob_anywhere)
    mask = both(p_mask, q_mask)  # as in the exact KL, an element counts if both masks are True
    if mask is True:
        return log_ratio, at_end
    counts = torch.as_tensor(mask)
    return torch.where(counts, log_ratio, 0.0), None if at_end is None else at_end & counts


def expanded_to(p: Distribution, shape: torch.Size) -> Distribution:
    """p in a larger batch, also where its class has no `expand`."""
    if p.batch_shape == shape:
        return p
    try:
        return p.expand(shape)
    except NotImplementedError:
        return ExpandedDistribution(p, shape)


def _log_ratio_of_component(
    p: Distribution, q: Distribution, parts: Distribution, k: int, n: int, shape: torch.Size
) -> tuple[Tensor, Tensor | None]:
    """Log p - log q at samples of component k, one for each independent sample or pair.

    Also returns which samples were rounded to an end of the component's support.
    """
    wide = parts.expand(torch.Size((*shape, parts.batch_shape[-1])))
    event, symmetric = len(parts.event_shape), _is_symmetric(parts)
    x, at_end = draw(wide, n // 2 if symmetric else n)
    x, at_end = x.select(-1 - event, k), None if at_end is None else at_end[..., k]
    if symmetric:
        x = torch.cat((x, 2 * wide.mean.select(-1 - event, k) - x))
    terms = _log_density(p, x) - _log_density(q, x)
    if symmetric:
        terms = terms.reshape(2, n // 2, *shape).mean(0)
    return torch.where(torch.isneginf(terms), math.nan, terms), at_end


def _is_symmetric(parts: Distribution) -> bool:
    return isinstance(parts.base_dist if is_a(parts, Independent) else parts, _SYMMETRIC)


def _log_density(distribution: Distribution, x: Tensor) -> Tensor:
    """A mixture's from its components: the log_prob of Pyro's classes takes no batch of values."""
    if not is_mixture(distribution):
        return log_density(distribution, x, log_prob_anywhere)
    log_weights, parts = components(distribution)
    at = x.unsqueeze(-1 - len(parts.event_shape))
    return (log_weights + log_prob_anywhere(parts, at)).logsumexp(-1)


@contextmanager
def randomness(generator: torch.Generator | None) -> Iterator[None]:
    """Sample from `generator`, through the global state: torch's samplers take no generator."""
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
