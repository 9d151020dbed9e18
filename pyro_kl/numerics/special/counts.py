"""Log masses and tails on the counts 0, 1, 2, ..., without cancellation of large terms.

Parameters and counts broadcast: the counts k are integers, of any dtype.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..autograd.custom import with_partials
from .divergences import kl_div_from_zero, kl_div_of_difference
from .gamma import stirling


def largest(count: Tensor) -> int:
    """The largest of a batch of counts, as a number: it is the length of a sum.

    Under `torch.func.vmap` it is the largest of the whole batch, read from the tensor underneath.
    `torch.compile` cannot read a tensor: there the graph breaks, and `fullgraph=True` refuses.
    """
    if not torch.compiler.is_compiling():
        count = torch.func.debug_unwrap(count.detach(), recurse=True)
    return int(count.nan_to_num(nan=0.0).max()) if count.numel() else 0


def times(count: Tensor, log: Tensor) -> Tensor:
    """Count * log, where 0 * -inf is 0, with a gradient of 0."""
    return count * torch.where(count == 0, 0.0, log)


def rising_excess(x: Tensor, k: Tensor) -> Tensor:
    """Log of (1 + 1/x) (1 + 2/x) ... (1 + (k - 1)/x) for x > 0: log_rising(x, k) - k log x."""
    return kl_div_of_difference(x + k, x, k) + (stirling(x + k) - stirling(x))


def log_rising(x: Tensor, k: Tensor) -> Tensor:
    """Log of x (x + 1) ... (x + k - 1), x >= 0: 0 for k = 0, else -inf where x = 0."""
    zero = x <= 0
    safe = torch.where(zero, 1.0, x)
    value = k * torch.log(safe) + rising_excess(safe, k)
    return torch.where(zero, torch.where(k > 0, -math.inf, 0.0), value)


def log_rising_ratio(x: Tensor, difference: Tensor, k: Tensor) -> Tensor:
    """log_rising(x, k) - log_rising(x - difference, k) as a sum over the factors.

    Its relative error does not depend on how small the difference is. The k are indices, at most
    the size of their last dimension.
    """
    j = torch.arange(k.shape[-1] - 1, device=k.device)
    factors = torch.cumsum(torch.log1p(difference / (x - difference + j)), -1)
    sums = torch.nn.functional.pad(factors, (1, 0))
    shape = torch.broadcast_shapes(sums.shape, k.shape)
    return torch.gather(sums.expand(shape), -1, k.expand(shape))


def log_choose(n: Tensor, k: Tensor) -> Tensor:
    """Log of n over k, 0 <= k <= n: log_rising(n - k + 1, k) - log k!."""
    rest = n - k + 1
    excess = kl_div_of_difference(n + 1, rest, k) + (stirling(n + 1) - stirling(rest))
    return k * torch.log(rest) + excess - torch.lgamma(k.to(n.dtype) + 1)


def log_poisson_mass(k: Tensor, rate: Tensor) -> Tensor:
    """Log of rate^k exp(-rate) / k!: a divergence from k to the rate, and a function of k.

    Reference: Loader (2000), Fast and accurate computation of binomial probabilities.
    """
    k = k.to(rate.dtype)
    one = torch.where(k > 0, k, 1.0)
    constant = torch.where(k > 0, stirling(one) + torch.log(one), 0.0)
    return -kl_div_from_zero(k, rate) - constant


def _incomplete_gamma_partials(n: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(n), torch.exp((n - 1) * torch.log(x) - x - torch.lgamma(n))


@with_partials(_incomplete_gamma_partials)
def _incomplete_gamma(n: Tensor, x: Tensor) -> Tensor:
    """P(n, x) for integers n; torch.special.gammainc has no forward-mode derivative."""
    return torch.special.gammainc(n, x)


def poisson_tail(n: int, rate: Tensor) -> Tensor:
    """The mass of n, n + 1, ..., for n > 0."""
    if n == 1:
        return -torch.expm1(-rate)
    positive = rate > 0
    safe = torch.where(positive, rate, 1.0)
    return torch.where(positive, _incomplete_gamma(torch.full_like(safe, n), safe), 0.0)


def log_negative_binomial_mass(k: Tensor, r: Tensor, log_p1: Tensor, log_p0: Tensor) -> Tensor:
    """The log of (r)_k / k! p1^k p0^r."""
    ways = log_rising(r, k) - torch.lgamma(k.to(r.dtype) + 1)
    return ways + times(k, log_p1) + r * log_p0
