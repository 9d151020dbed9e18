"""`kl(p, q)`: the KL of two distributions, and how it was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence
from torch.distributions import kl as torch_kl

from ..messages import see, without_link
from ..numerics.quadrature.integrate import Integral
from ..numerics.quadrature.integrate import tolerance as relative_tolerance
from ..registry.provenance import Use, least_exact, recording, total_error
from ..registry.reduction import NoDivergence, OutOfReach, by_reduction, describe
from ..registry.register import pair_of
from ..registry.shapes import broadcast_batch, check_event_shapes, peel, some_tensor, sum_events
from ..registry.subclasses import is_a
from ..registry.tensors import promoted
from ..registry.warnings import warn_once
from ..wrappers.masked import both, unmasked
from .bounds import has_bounds
from .estimate import Estimate
from .integrals.mixture_kl import kl_of_mixture
from .integrals.undeclared import is_on_line, kl_of_undeclared
from .mixtures import check_operands, is_mixture
from .monte_carlo import check_sampling, monte_carlo, randomness, stratified


def kl(
    p: Distribution,
    q: Distribution,
    num_samples: int | None = None,
    generator: torch.Generator | None = None,
    *,
    tolerance: float = 1e-6,
) -> Estimate:
    """KL(p || q) = E_p[log p - log q], exactly if there is a formula, else by quadrature.

    The KL of two univariate continuous distributions without a formula is an integral of their
    `log_prob` over p's support. An integral comes with an estimate of its `error`; where that is
    not below the tolerance, `reason` says so.

    Args:
        p: the distribution that the expectation is over (the guide, the posterior).
        q: the distribution that it is compared with (the prior), on the same space.
        num_samples: the number of samples for an estimate where there is no formula and no
            integral; None (the default) raises there instead.
        generator: source of randomness for these samples.
        tolerance: the relative error that an integral aims at; positive.

    Returns:
        Nats, of shape broadcast(p.batch_shape, q.batch_shape), with the method and its reason.
        Exact values are differentiable; sampled ones have a standard error and no gradient.

    Raises:
        NotImplementedError: there is no formula, no integral, and `num_samples` is None; or the
            KL is not defined, as between a distribution on the line and one on a circle.
        TypeError: one of them is not a distribution, `num_samples` no integer, `generator` no
            torch.Generator.
        ValueError: event shapes differ, batch shapes do not broadcast, a mixture has no component,
            or the tolerance is not positive.

    Example:
        >>> p, q = torch.distributions.Gamma(2.0, 1.0), torch.distributions.LogNormal(0.0, 1.0)
        >>> print(pyro_kl.kl(p, q))
        0.176348 nats  [closed form: pyro_kl.families.gamma, pyro_kl.families.lognormal]
    """
    check_operands(p, q)
    check_event_shapes(p, q)
    check_sampling(num_samples, generator)
    try:
        with recording() as uses, relative_tolerance(tolerance):
            value = torch.as_tensor(kl_divergence(p, q))
    except NoDivergence:
        raise
    except NotImplementedError as declined:
        return _without_formula(p, q, declined, num_samples, generator, tolerance)
    method, reason = method_of(p, q, uses)
    error = total_error(value, uses)
    if error is None:
        return _deterministic(value, method, reason)
    integrals = [use for use in uses if use.error is not None]
    reasons = dict.fromkeys([reason, *(use.reason for use in integrals if use.reason)])
    nodes = max(use.nodes for use in integrals)
    return _deterministic(value, method, "; ".join(reasons), error, nodes)


def _deterministic(
    value: Tensor, method: str, reason: str, error: Tensor | None = None, nodes: int = 0
) -> Estimate:
    no_spread = torch.zeros_like(value.detach())
    return Estimate(value, no_spread, method, reason=reason, error=error, nodes=nodes)


def _without_formula(
    p: Distribution,
    q: Distribution,
    declined: NotImplementedError,
    num_samples: int | None,
    generator: torch.Generator | None,
    tolerance: float,
) -> Estimate:
    """An integral over log densities, else samples where they are allowed, else an error."""
    if not isinstance(declined, OutOfReach):
        try:
            with relative_tolerance(tolerance):
                found = _integrated(p, q)
            if found is not None:
                return found
        except NotImplementedError as also_declined:
            declined = also_declined
    if num_samples is not None:
        return _sampled(p, q, num_samples, generator)
    if has_bounds(p, q):
        declined = NotImplementedError(
            f"{without_link(declined)} pyro_kl.bounds(p, q) has guaranteed bounds."
            + see("no-formula")
        )
    raise declined from None


def _integrated(p: Distribution, q: Distribution) -> Estimate | None:
    """An integral of two univariate distributions, or one per coordinate of two products."""
    shape = broadcast_batch(p, q)
    (bare_p, p_mask), (bare_q, q_mask) = unmasked(p), unmasked(q)
    if bare_p is not p or bare_q is not q:
        inner, mask = _integrated(bare_p, bare_q), torch.as_tensor(both(p_mask, q_mask))
        return None if inner is None else _changed(inner, lambda x: torch.where(mask, x, 0.0))
    if is_a(p, Independent) and is_a(q, Independent):
        shared = min(p.reinterpreted_batch_ndims, q.reinterpreted_batch_ndims)
        inner, events = _integrated(peel(p, shared), peel(q, shared)), p.event_shape[:shared]
        return None if inner is None else _changed(inner, lambda x: sum_events(x, shape, events))
    if shape.numel():
        found = kl_of_mixture(p, q) or kl_of_undeclared(p, q)
    else:
        nothing = torch.zeros(shape, device=some_tensor(p).device)
        found = Integral(nothing, nothing, 0) if is_on_line(p, q) else None
    if found is None:
        return None
    reason = "log_prob of both over p's support"
    if found.reason:
        reason = f"{reason}; {found.reason}"
        pair = f"KL({describe(p)} || {describe(q)})"
        warn_once(f"short {pair}", f"{pair}: {found.reason}." + see("integral-short-of-tolerance"))
    value, error = (x.to(promoted((p, q))) for x in (found.value, found.error))
    return _deterministic(value, "quadrature", reason, error, found.nodes)


def _changed(integral: Estimate, change: Callable[[Tensor], Tensor]) -> Estimate:
    """The integral with its value and its error changed in the same way."""
    assert integral.error is not None
    value, error = change(integral.value), change(integral.error)
    return _deterministic(value, integral.method, integral.reason, error, integral.nodes)


def method_of(p: Distribution, q: Distribution, uses: Sequence[Use]) -> tuple[str, str]:
    """The method and the source of the least exact formula that was used, wrappers apart."""
    use = least_exact(uses)
    if use is not None:
        return use.method, use.source
    pair = pair_of(type(p), type(q))
    if pair is not None:  # a rule that calls a formula of torch's
        return "closed form", pair.source
    function = torch_kl._dispatch_kl(type(p), type(q))
    if function is by_reduction:  # the same for a wrapper
        return "closed form", function.__module__
    return "closed form", f"{function.__module__}.{function.__name__}, not replaced by pyro_kl"


def _sampled(
    p: Distribution, q: Distribution, num_samples: int, generator: torch.Generator | None
) -> Estimate:
    pair = f"KL({describe(p)} || {describe(q)})"
    warn_once(
        f"sampled {pair}",
        f"{pair} is estimated by Monte Carlo: no formula for it." + see("sampled-kl"),
    )
    if is_mixture(p) and broadcast_batch(p, q).numel():
        with randomness(generator):
            return stratified(p, q, num_samples)
    sampled = monte_carlo(p, q, num_samples, generator=generator)
    return replace(sampled, reason=f"no formula for {pair}; {sampled.reason}")
