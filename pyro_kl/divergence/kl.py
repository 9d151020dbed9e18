"""`kl(p, q)`: one question, one number, and how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence
from torch.distributions import kl as torch_kl

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
from ..wrappers.transformed.by_search import is_on_line, kl_of_undeclared
from .bounds import has_bounds
from .estimate import Estimate
from .mixture_integrals import kl_of_mixture
from .mixtures import check_operands, is_mixture
from .monte_carlo import check_sampling, monte_carlo, randomness
from .stratified import stratified


def kl(
    p: Distribution,
    q: Distribution,
    num_samples: int | None = None,
    generator: torch.Generator | None = None,
    *,
    tolerance: float = 1e-6,
) -> Estimate:
    """KL(p || q) = E_p[log p - log q], exactly if there is a formula, else by quadrature.

    Two univariate continuous distributions that nobody declared are integrated over p's support by
    their `log_prob` alone. An integral comes with an estimate of its `error`; where that is not
    below
    the tolerance, `reason` says so.

    Args:
        p: the distribution that the expectation is over (the guide, the posterior).
        q: the distribution that it is compared with (the prior), on the same space.
        num_samples: how many samples may stand in where there is no formula; None (the default)
            allows none: nothing is estimated behind your back.
        generator: source of randomness for these samples.
        tolerance: the relative error that an integral aims at; positive.

    Returns:
        Nats, of shape broadcast(p.batch_shape, q.batch_shape), with the method that gave them and
        why. Exact values keep their graph; sampled ones carry a standard error and no gradient.

    Raises:
        NotImplementedError: there is no formula, no integral, and `num_samples` is None; or there
            is no KL, as there is none of a distribution on the line to one on a circle.
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
            value = kl_divergence(p, q)
    except NoDivergence:
        raise
    except NotImplementedError as missing:
        declined = missing
        try:
            with relative_tolerance(tolerance):
                found = None if isinstance(missing, OutOfReach) else _integrated(p, q)
        except NotImplementedError as unknown:
            found, declined = None, unknown
        if found is not None:
            return found
        if num_samples is None:
            if has_bounds(p, q):
                raise NotImplementedError(
                    f"{declined} pyro_kl.bounds(p, q) has guaranteed bounds."
                ) from None
            raise declined from None
        return _sampled(p, q, num_samples, generator)
    value = torch.as_tensor(value)
    method, reason = method_of(p, q, uses)
    error, nodes, short = _accuracy(value, uses)
    return Estimate(
        value,
        torch.zeros_like(value.detach()),
        method,
        reason=f"{reason}; {short}" if short else reason,
        error=error,
        nodes=nodes,
    )


def _accuracy(value: Tensor, uses: Sequence[Use]) -> tuple[Tensor | None, int, str]:
    """What the integrals among the formulas said of their error: the sum over what was summed."""
    error = total_error(value, uses)
    if error is None:
        return None, 0, ""
    told = [use for use in uses if use.error is not None]
    reasons = dict.fromkeys(use.reason for use in told if use.reason)
    return error, max(use.nodes for use in told), "; ".join(reasons)


def _integrated(p: Distribution, q: Distribution) -> Estimate | None:
    """An integral of two univariate distributions, or one per coordinate of two products."""
    shape = broadcast_batch(p, q)
    (bare_p, p_mask), (bare_q, q_mask) = unmasked(p), unmasked(q)
    if bare_p is not p or bare_q is not q:
        inner, mask = _integrated(bare_p, bare_q), torch.as_tensor(both(p_mask, q_mask))
        if inner is None:
            return None
        assert inner.error is not None
        value, error = (torch.where(mask, x, 0.0) for x in (inner.value, inner.error))
        return replace(inner, value=value, error=error)
    if is_a(p, Independent) and is_a(q, Independent):
        shared = min(p.reinterpreted_batch_ndims, q.reinterpreted_batch_ndims)
        inner = _integrated(peel(p, shared), peel(q, shared))
        if inner is None:
            return None
        assert inner.error is not None
        events = p.event_shape[:shared]
        value, error = (sum_events(x, shape, events) for x in (inner.value, inner.error))
        return replace(
            inner, value=value, error=error, standard_error=torch.zeros_like(value.detach())
        )
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
        warn_once(f"short {pair}", f"{pair}: {found.reason}.")
    value, error = (x.to(promoted((p, q))) for x in (found.value, found.error))
    return Estimate(
        value,
        torch.zeros_like(value.detach()),
        "quadrature",
        reason=reason,
        error=error,
        nodes=found.nodes,
    )


def method_of(p: Distribution, q: Distribution, uses: Sequence[Use]) -> tuple[str, str]:
    """The least exact of the formulas that were used, wrappers apart."""
    use = least_exact(uses)
    if use is not None:
        return use.method, use.source
    pair = pair_of(type(p), type(q))
    if pair is not None:  # a rule over a formula of torch's
        return "closed form", pair.source
    function = torch_kl._dispatch_kl(type(p), type(q))
    if function is by_reduction:  # a rule over a formula of torch's, too
        return "closed form", function.__module__
    return "closed form", f"{function.__module__}.{function.__name__}, not replaced by pyro_kl"


def _sampled(
    p: Distribution, q: Distribution, num_samples: int, generator: torch.Generator | None
) -> Estimate:
    pair = f"KL({describe(p)} || {describe(q)})"
    warn_once(f"sampled {pair}", f"{pair} is estimated by Monte Carlo: no formula for it.")
    if is_mixture(p) and broadcast_batch(p, q).numel():
        with randomness(generator):
            return stratified(p, q, num_samples)
    sampled = monte_carlo(p, q, num_samples, generator=generator)
    return replace(sampled, reason=f"no formula for {pair}; {sampled.reason}")
