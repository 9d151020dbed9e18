"""Families under another name: what a map makes of a family that has one.

An affine map of a Normal is a Normal, its exp a LogNormal, the sigmoid of a Logistic a
RelaxedBernoulli. Only the classes themselves are known, not what somebody derives from them.
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
    StudentT,
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
from ...registry.subclasses import is_a

#: A distribution and the numbers of the map give the distribution of the image; None if it has no
#: name.
Image = Callable[..., "Distribution | None"]


def closed_image(distribution: Distribution, transform: Transform) -> Distribution | None:
    """The distribution of a map's image if it is a family of its own; None if not."""
    cls = class_of(distribution)
    if is_a(transform, AffineTransform):
        return _affine_image(distribution, cls, transform.loc, transform.scale)
    if is_a(transform, LowerCholeskyAffine):
        return _matrix_image(distribution, cls, transform)
    if is_a(transform, PowerTransform):
        return _power_image(distribution, cls, transform.exponent)
    inverse = isinstance(transform, _InverseTransform)
    image = _IMAGES.get((cls, type(transform.inv if inverse else transform), inverse))
    return None if image is None else image(distribution)


def class_of(distribution: Distribution) -> Any:
    """A distribution's class, torch's own for Pyro's wrapper of it."""
    cls = type(distribution)
    return cls.__mro__[1] if cls.__module__ == "pyro.distributions.torch" else cls


def _positive(x: Tensor | float) -> bool:
    return holds_everywhere(x, lambda v: v > 0)


# --- affine maps --------------------------------------------------------------------------------

#: Location and scale; mirrored at the location they are the same distribution.
_SYMMETRIC = (Normal, Laplace, Cauchy, dist.Logistic, dist.SoftLaplace)
#: x to c x, for c > 0.
_SCALED: dict[type, Callable[[Any, Any], Distribution]] = {
    Exponential: lambda distribution, c: Exponential(distribution.rate / c, validate_args=False),
    Gamma: lambda distribution, c: Gamma(
        distribution.concentration, distribution.rate / c, validate_args=False
    ),
    Chi2: lambda distribution, c: Gamma(
        distribution.concentration, distribution.rate / c, validate_args=False
    ),
    InverseGamma: lambda distribution, c: InverseGamma(
        distribution.concentration, distribution.rate * c, validate_args=False
    ),
    LogNormal: lambda distribution, c: LogNormal(
        distribution.loc + _log(c, distribution.loc), distribution.scale, validate_args=False
    ),
    Weibull: lambda distribution, c: Weibull(
        distribution.scale * c, distribution.concentration, validate_args=False
    ),
    HalfNormal: lambda distribution, c: HalfNormal(distribution.scale * c, validate_args=False),
    HalfCauchy: lambda distribution, c: HalfCauchy(distribution.scale * c, validate_args=False),
    Pareto: lambda distribution, c: Pareto(
        distribution.scale * c, distribution.alpha, validate_args=False
    ),
}


def _log(c: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(c, dtype=like.dtype, device=like.device).log()


def _affine_image(distribution: Any, cls: type, loc: Any, scale: Any) -> Distribution | None:
    if cls in _SYMMETRIC:
        return cls(
            loc + scale * distribution.loc, abs(scale) * distribution.scale, validate_args=False
        )
    if cls is StudentT:
        return StudentT(
            distribution.df,
            loc + scale * distribution.loc,
            abs(scale) * distribution.scale,
            validate_args=False,
        )
    if cls is Uniform:
        ends = loc + scale * distribution.low, loc + scale * distribution.high
        return Uniform(torch.minimum(*ends), torch.maximum(*ends), validate_args=False)
    if cls is MultivariateNormal:
        return _rescaled(distribution, loc, scale)
    if not _positive(scale):
        return None
    if cls is Gumbel:
        return Gumbel(
            loc + scale * distribution.loc, scale * distribution.scale, validate_args=False
        )
    if cls in (dist.SkewLogistic, dist.AsymmetricLaplace):
        return cls(
            loc + scale * distribution.loc,
            scale * distribution.scale,
            distribution.asymmetry,
            validate_args=False,
        )
    if cls is dist.SoftAsymmetricLaplace:
        parameters = distribution.asymmetry, distribution.softness
        return cls(
            loc + scale * distribution.loc,
            scale * distribution.scale,
            *parameters,
            validate_args=False,
        )
    scaled = _SCALED.get(cls)
    return scaled(distribution, scale) if scaled is not None and is_constant(loc, 0.0) else None


def _rescaled(distribution: MultivariateNormal, loc: Any, scale: Any) -> Distribution:
    """Loc + scale x, coordinate by coordinate; L keeps a positive diagonal where scale < 0."""
    scale = torch.as_tensor(scale, dtype=distribution.loc.dtype, device=distribution.loc.device)
    scale = scale.expand(distribution.event_shape) if scale.dim() == 0 else scale
    scale_tril = (
        scale.unsqueeze(-1) * distribution._unbroadcasted_scale_tril * scale.sign().unsqueeze(-2)
    )
    return MultivariateNormal(
        loc + scale * distribution.loc, scale_tril=scale_tril, validate_args=False
    )


def _matrix_image(
    distribution: Any, cls: type, transform: LowerCholeskyAffine
) -> Distribution | None:
    matrix = transform.scale_tril
    if not _positive(matrix.diagonal(dim1=-2, dim2=-1)):
        return None
    if cls is MultivariateNormal:
        inner = distribution._unbroadcasted_scale_tril
    elif is_a(distribution, Independent) and class_of(distribution.base_dist) is Normal:
        inner = torch.diag_embed(distribution.base_dist.scale)
    else:
        return None
    return MultivariateNormal(
        transform(distribution.mean), scale_tril=matrix.tril() @ inner, validate_args=False
    )


# --- powers -------------------------------------------------------------------------------------


def _power_image(distribution: Any, cls: type, k: Any) -> Distribution | None:
    if cls is LogNormal:
        return LogNormal(k * distribution.loc, abs(k) * distribution.scale, validate_args=False)
    if is_constant(k, -1.0):
        if cls is Gamma:
            return InverseGamma(distribution.concentration, distribution.rate, validate_args=False)
        if cls is InverseGamma:
            return Gamma(distribution.concentration, distribution.rate, validate_args=False)
    if not _positive(k):
        return None
    if cls is Exponential:
        return Weibull(distribution.rate ** (-k), 1 / k, validate_args=False)
    if cls is Weibull:
        return Weibull(distribution.scale**k, distribution.concentration / k, validate_args=False)
    if cls is Pareto:
        return Pareto(distribution.scale**k, distribution.alpha / k, validate_args=False)
    if cls is Kumaraswamy:
        return Kumaraswamy(
            distribution.concentration1 / k, distribution.concentration0, validate_args=False
        )
    return None


# --- maps without numbers -----------------------------------------------------------------------


def _logistic_of(distribution: Any) -> Distribution:
    """What the sigmoid of is a RelaxedBernoulli."""
    return dist.Logistic(
        distribution.logits / distribution.temperature,
        (1 / distribution.temperature).expand(distribution.logits.shape),
    )


def _relaxed_bernoulli(distribution: Any) -> Distribution:
    temperature = 1 / distribution.scale
    return torch.distributions.RelaxedBernoulli(temperature, logits=distribution.loc * temperature)


def _logistic_of_uniform(distribution: Any) -> Distribution | None:
    if not (is_constant(distribution.low, 0.0) and is_constant(distribution.high, 1.0)):
        return None
    return dist.Logistic(torch.zeros_like(distribution.low), torch.ones_like(distribution.low))


def _shifted_exponential(distribution: Any) -> Distribution:
    return torch.distributions.TransformedDistribution(
        Exponential(distribution.alpha, validate_args=False),
        AffineTransform(distribution.scale.log(), 1.0),
    )


_IMAGES: dict[tuple[type, type, bool], Image] = {
    (Normal, ExpTransform, False): lambda distribution: LogNormal(
        distribution.loc, distribution.scale, validate_args=False
    ),
    (LogNormal, ExpTransform, True): lambda distribution: Normal(
        distribution.loc, distribution.scale, validate_args=False
    ),
    (Exponential, ExpTransform, False): lambda distribution: Pareto(
        torch.ones_like(distribution.rate), distribution.rate, validate_args=False
    ),
    (Pareto, ExpTransform, True): _shifted_exponential,
    (dist.Logistic, SigmoidTransform, False): _relaxed_bernoulli,
    (torch.distributions.RelaxedBernoulli, SigmoidTransform, True): _logistic_of,
    (Uniform, SigmoidTransform, True): _logistic_of_uniform,
}


# --- folded at 0 --------------------------------------------------------------------------------


def centred(distribution: Any) -> bool:
    """Whether a distribution is symmetric about 0, as far as is known."""
    return class_of(distribution) in (*_SYMMETRIC, StudentT) and constant_value(distribution.loc)


def constant_value(loc: Tensor) -> bool:
    """Whether a location is 0: half a distribution has no gradient by it, by symmetry."""
    return holds_everywhere(loc, lambda v: v == 0)


_HALVES: dict[type, Callable[[Any], Distribution]] = {
    Normal: lambda distribution: HalfNormal(distribution.scale, validate_args=False),
    Cauchy: lambda distribution: HalfCauchy(distribution.scale, validate_args=False),
    Laplace: lambda distribution: Exponential(1 / distribution.scale, validate_args=False),
}


def named_half(distribution: Distribution) -> Distribution | None:
    """The distribution of |x| if it is a family of its own; None if not."""
    half = _HALVES.get(class_of(distribution))
    return half(distribution) if half is not None and centred(distribution) else None


def unfolded(distribution: Any) -> Distribution | None:
    """The distribution symmetric about 0 whose upper half this is; None if unknown."""
    cls = class_of(distribution)
    if cls is HalfNormal:
        return Normal(
            torch.zeros_like(distribution.scale), distribution.scale, validate_args=False
        )
    if cls is HalfCauchy:
        return Cauchy(
            torch.zeros_like(distribution.scale), distribution.scale, validate_args=False
        )
    if cls is Exponential:
        return Laplace(
            torch.zeros_like(distribution.rate), 1 / distribution.rate, validate_args=False
        )
    if is_a(distribution, dist.FoldedDistribution) and centred(distribution.base_dist):
        return distribution.base_dist
    return None
