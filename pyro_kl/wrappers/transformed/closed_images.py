"""Images of families under maps that are families themselves.

An affine map of a Normal is a Normal, its exp a LogNormal, the sigmoid of a Logistic a
RelaxedBernoulli. Only torch's and Pyro's classes are taken, no classes derived from them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.transforms import LowerCholeskyAffine
from torch import Tensor
from torch.distributions import (
    Cauchy,
    Chi2,
    Distribution,
    Exponential,
    Gamma,
    Gumbel,
    HalfCauchy,
    HalfNormal,
    Independent,
    InverseGamma,
    Kumaraswamy,
    Laplace,
    LogNormal,
    MultivariateNormal,
    Normal,
    Pareto,
    RelaxedBernoulli,
    StudentT,
    TransformedDistribution,
    Uniform,
    Weibull,
)
from torch.distributions.transforms import (
    AffineTransform,
    ExpTransform,
    PowerTransform,
    SigmoidTransform,
    Transform,
    _InverseTransform,
)

from ...numerics.concrete import holds_everywhere, is_constant
from ...registry.subclasses import class_of, is_a


def closed_image(distribution: Distribution, transform: Transform) -> Distribution | None:
    """The image under a map, if it is of a family; None if not."""
    if is_a(transform, AffineTransform):
        return _affine_image(distribution, transform.loc, transform.scale)
    if is_a(transform, LowerCholeskyAffine):
        return _matrix_image(distribution, transform)
    if is_a(transform, PowerTransform):
        return _power_image(distribution, transform.exponent)
    inverse = isinstance(transform, _InverseTransform)
    kind = class_of(distribution), type(transform.inv if inverse else transform), inverse
    image = _IMAGES.get(kind)
    return None if image is None else image(distribution)


def _of(cls: Any, *args: Any, **kwargs: Any) -> Any:
    """A distribution whose parameters are not validated, as those of the given one have been."""
    return cls(*args, **kwargs, validate_args=False)


def _tensor(x: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(x, dtype=like.dtype, device=like.device)


def _is_positive(x: Tensor | float) -> bool:
    return holds_everywhere(x, lambda v: v > 0)


# --- affine maps --------------------------------------------------------------------------------

#: Families with location and scale, and their other parameters: these are symmetric,
_SYMMETRIC: dict[type, tuple[str, ...]] = {
    Normal: (), Laplace: (), Cauchy: (), dist.Logistic: (), dist.SoftLaplace: (),
    StudentT: ("df",),
}  # fmt: skip
#: and these need a positive factor.
_SKEWED: dict[type, tuple[str, ...]] = {
    Gumbel: (), dist.SkewLogistic: ("asymmetry",), dist.AsymmetricLaplace: ("asymmetry",),
    dist.SoftAsymmetricLaplace: ("asymmetry", "softness"),
}  # fmt: skip
#: The distribution of c x, for c > 0.
_SCALED: dict[type, Callable[[Any, Any], Distribution]] = {
    Exponential: lambda p, c: _of(Exponential, p.rate / c),
    Gamma: lambda p, c: _of(Gamma, p.concentration, p.rate / c),
    Chi2: lambda p, c: _of(Gamma, p.concentration, p.rate / c),
    InverseGamma: lambda p, c: _of(InverseGamma, p.concentration, p.rate * c),
    LogNormal: lambda p, c: _of(LogNormal, p.loc + _tensor(c, p.loc).log(), p.scale),
    Weibull: lambda p, c: _of(Weibull, p.scale * c, p.concentration),
    HalfNormal: lambda p, c: _of(HalfNormal, p.scale * c),
    HalfCauchy: lambda p, c: _of(HalfCauchy, p.scale * c),
    Pareto: lambda p, c: _of(Pareto, p.scale * c, p.alpha),
}


def _affine_image(p: Any, loc: Any, scale: Any) -> Distribution | None:
    cls = class_of(p)
    if cls is Uniform:
        ends = loc + scale * p.low, loc + scale * p.high
        return _of(Uniform, torch.minimum(*ends), torch.maximum(*ends))
    if cls is MultivariateNormal:
        return _rescaled(p, loc, scale)
    if cls not in _SYMMETRIC and not _is_positive(scale):
        return None
    if cls in _SYMMETRIC or cls in _SKEWED:
        others = {name: getattr(p, name) for name in (_SYMMETRIC | _SKEWED)[cls]}
        return _of(cls, loc=loc + scale * p.loc, scale=abs(scale) * p.scale, **others)
    scaled = _SCALED.get(cls)
    return scaled(p, scale) if scaled is not None and is_constant(loc, 0.0) else None


def _rescaled(p: MultivariateNormal, loc: Any, scale: Any) -> Distribution:
    """Loc + scale x, coordinate by coordinate; L keeps a positive diagonal where scale < 0."""
    scale = _tensor(scale, p.loc)
    scale = scale.expand(p.event_shape) if scale.dim() == 0 else scale
    scale_tril = scale.unsqueeze(-1) * p._unbroadcasted_scale_tril * scale.sign().unsqueeze(-2)
    return _of(MultivariateNormal, loc + scale * p.loc, scale_tril=scale_tril)


def _matrix_image(p: Any, transform: LowerCholeskyAffine) -> Distribution | None:
    matrix = transform.scale_tril
    if not _is_positive(matrix.diagonal(dim1=-2, dim2=-1)):
        return None
    if class_of(p) is MultivariateNormal:
        inner = p._unbroadcasted_scale_tril
    elif is_a(p, Independent) and class_of(p.base_dist) is Normal:
        inner = torch.diag_embed(p.base_dist.scale)
    else:
        return None
    return _of(MultivariateNormal, transform(p.mean), scale_tril=matrix.tril() @ inner)


# --- powers -------------------------------------------------------------------------------------

#: The distribution of x^k, for k > 0.
_POWERS: dict[type, Callable[[Any, Any], Distribution]] = {
    Exponential: lambda p, k: _of(Weibull, p.rate ** (-k), 1 / k),
    Weibull: lambda p, k: _of(Weibull, p.scale**k, p.concentration / k),
    Pareto: lambda p, k: _of(Pareto, p.scale**k, p.alpha / k),
    Kumaraswamy: lambda p, k: _of(Kumaraswamy, p.concentration1 / k, p.concentration0),
}


def _power_image(p: Any, k: Any) -> Distribution | None:
    cls = class_of(p)
    if cls is LogNormal:
        return _of(LogNormal, k * p.loc, abs(k) * p.scale)
    if is_constant(k, -1.0) and cls in (Gamma, InverseGamma):
        return _of(InverseGamma if cls is Gamma else Gamma, p.concentration, p.rate)
    power = _POWERS.get(cls)
    return power(p, k) if power is not None and _is_positive(k) else None


# --- maps without parameters --------------------------------------------------------------------


def logistic_of(p: Any) -> Distribution:
    """The Logistic whose image under the sigmoid is a RelaxedBernoulli."""
    scale = (1 / p.temperature).expand(p.logits.shape)
    return dist.Logistic(p.logits / p.temperature, scale)


def _relaxed_bernoulli(p: Any) -> Distribution:
    temperature = 1 / p.scale
    return RelaxedBernoulli(temperature, logits=p.loc * temperature)


def _logistic_of_uniform(p: Any) -> Distribution | None:
    if not (is_constant(p.low, 0.0) and is_constant(p.high, 1.0)):
        return None
    return dist.Logistic(torch.zeros_like(p.low), torch.ones_like(p.low))


def _shifted_exponential(p: Any) -> Distribution:
    base, shift = _of(Exponential, p.alpha), AffineTransform(p.scale.log(), 1.0)
    return TransformedDistribution(base, shift)


#: By family, map, and whether it is the inverse of the map.
_IMAGES: dict[tuple[type, type, bool], Callable[[Any], Distribution | None]] = {
    (Normal, ExpTransform, False): lambda p: _of(LogNormal, p.loc, p.scale),
    (LogNormal, ExpTransform, True): lambda p: _of(Normal, p.loc, p.scale),
    (Exponential, ExpTransform, False): lambda p: _of(Pareto, torch.ones_like(p.rate), p.rate),
    (Pareto, ExpTransform, True): _shifted_exponential,
    (dist.Logistic, SigmoidTransform, False): _relaxed_bernoulli,
    (RelaxedBernoulli, SigmoidTransform, True): logistic_of,
    (Uniform, SigmoidTransform, True): _logistic_of_uniform,
}


# --- |x| ----------------------------------------------------------------------------------------

#: The distribution of |x| for an x that is symmetric about 0.
_HALVES: dict[type, Callable[[Any], Distribution]] = {
    Normal: lambda p: _of(HalfNormal, p.scale),
    Cauchy: lambda p: _of(HalfCauchy, p.scale),
    Laplace: lambda p: _of(Exponential, 1 / p.scale),
}
#: The inverse: the distribution symmetric about 0 with this distribution of |x|.
_WHOLES: dict[type, Callable[[Any], Distribution]] = {
    HalfNormal: lambda p: _of(Normal, torch.zeros_like(p.scale), p.scale),
    HalfCauchy: lambda p: _of(Cauchy, torch.zeros_like(p.scale), p.scale),
    Exponential: lambda p: _of(Laplace, torch.zeros_like(p.rate), 1 / p.rate),
}


def _is_centred(p: Any) -> bool:
    """Whether a distribution is symmetric about 0, as far as is known.

    By symmetry the KL of its half then has no gradient by its location.
    """
    return class_of(p) in _SYMMETRIC and holds_everywhere(p.loc, lambda v: v == 0)


def folded(p: Distribution) -> Distribution | None:
    """The distribution of |x| if it is of a family; None if not."""
    half = _HALVES.get(class_of(p))
    return half(p) if half is not None and _is_centred(p) else None


def unfolded(p: Any) -> Distribution | None:
    """The distribution symmetric about 0 that |x| is of; None if there is none."""
    if is_a(p, dist.FoldedDistribution) and _is_centred(p.base_dist):
        return p.base_dist
    whole = _WHOLES.get(class_of(p))
    return None if whole is None else whole(p)
