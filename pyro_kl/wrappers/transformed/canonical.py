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

from ...numerics.concrete import constant, settled
from ...registry.subclasses import is_a

#: A law and the numbers of the map give the law of the image; None if it has no name.
Image = Callable[..., "Distribution | None"]


def named_image(law: Distribution, transform: Transform) -> Distribution | None:
    """The law of a map's image if it is a family of its own; None if not."""
    cls = class_of(law)
    if is_a(transform, AffineTransform):
        return _affine_image(law, cls, transform.loc, transform.scale)
    if is_a(transform, LowerCholeskyAffine):
        return _matrix_image(law, cls, transform)
    if is_a(transform, PowerTransform):
        return _power_image(law, cls, transform.exponent)
    inverse = isinstance(transform, _InverseTransform)
    image = _IMAGES.get((cls, type(transform.inv if inverse else transform), inverse))
    return None if image is None else image(law)


def class_of(law: Distribution) -> Any:
    """A law's class, torch's own for Pyro's wrapper of it."""
    cls = type(law)
    return cls.__mro__[1] if cls.__module__ == "pyro.distributions.torch" else cls


def _positive(x: Tensor | float) -> bool:
    return settled(x, lambda v: v > 0)


# --- affine maps --------------------------------------------------------------------------------

#: Location and scale; mirrored at the location they are the same law.
_SYMMETRIC = (Normal, Laplace, Cauchy, dist.Logistic, dist.SoftLaplace)
#: x to c x, for c > 0.
_SCALED: dict[type, Callable[[Any, Any], Distribution]] = {
    Exponential: lambda law, c: Exponential(law.rate / c, validate_args=False),
    Gamma: lambda law, c: Gamma(law.concentration, law.rate / c, validate_args=False),
    Chi2: lambda law, c: Gamma(law.concentration, law.rate / c, validate_args=False),
    InverseGamma: lambda law, c: InverseGamma(
        law.concentration, law.rate * c, validate_args=False
    ),
    LogNormal: lambda law, c: LogNormal(
        law.loc + _log(c, law.loc), law.scale, validate_args=False
    ),
    Weibull: lambda law, c: Weibull(law.scale * c, law.concentration, validate_args=False),
    HalfNormal: lambda law, c: HalfNormal(law.scale * c, validate_args=False),
    HalfCauchy: lambda law, c: HalfCauchy(law.scale * c, validate_args=False),
    Pareto: lambda law, c: Pareto(law.scale * c, law.alpha, validate_args=False),
}


def _log(c: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(c, dtype=like.dtype, device=like.device).log()


def _affine_image(law: Any, cls: type, loc: Any, scale: Any) -> Distribution | None:
    if cls in _SYMMETRIC:
        return cls(loc + scale * law.loc, abs(scale) * law.scale, validate_args=False)
    if cls is StudentT:
        return StudentT(law.df, loc + scale * law.loc, abs(scale) * law.scale, validate_args=False)
    if cls is Uniform:
        ends = loc + scale * law.low, loc + scale * law.high
        return Uniform(torch.minimum(*ends), torch.maximum(*ends), validate_args=False)
    if cls is MultivariateNormal:
        return _rescaled(law, loc, scale)
    if not _positive(scale):
        return None
    if cls is Gumbel:
        return Gumbel(loc + scale * law.loc, scale * law.scale, validate_args=False)
    if cls in (dist.SkewLogistic, dist.AsymmetricLaplace):
        return cls(loc + scale * law.loc, scale * law.scale, law.asymmetry, validate_args=False)
    if cls is dist.SoftAsymmetricLaplace:
        parameters = law.asymmetry, law.softness
        return cls(loc + scale * law.loc, scale * law.scale, *parameters, validate_args=False)
    scaled = _SCALED.get(cls)
    return scaled(law, scale) if scaled is not None and constant(loc, 0.0) else None


def _rescaled(law: MultivariateNormal, loc: Any, scale: Any) -> Distribution:
    """Loc + scale x, coordinate by coordinate; L keeps a positive diagonal where scale < 0."""
    scale = torch.as_tensor(scale, dtype=law.loc.dtype, device=law.loc.device)
    scale = scale.expand(law.event_shape) if scale.dim() == 0 else scale
    scale_tril = scale.unsqueeze(-1) * law._unbroadcasted_scale_tril * scale.sign().unsqueeze(-2)
    return MultivariateNormal(loc + scale * law.loc, scale_tril=scale_tril, validate_args=False)


def _matrix_image(law: Any, cls: type, transform: LowerCholeskyAffine) -> Distribution | None:
    matrix = transform.scale_tril
    if not _positive(matrix.diagonal(dim1=-2, dim2=-1)):
        return None
    if cls is MultivariateNormal:
        inner = law._unbroadcasted_scale_tril
    elif is_a(law, Independent) and class_of(law.base_dist) is Normal:
        inner = torch.diag_embed(law.base_dist.scale)
    else:
        return None
    return MultivariateNormal(
        transform(law.mean), scale_tril=matrix.tril() @ inner, validate_args=False
    )


# --- powers -------------------------------------------------------------------------------------


def _power_image(law: Any, cls: type, k: Any) -> Distribution | None:
    if cls is LogNormal:
        return LogNormal(k * law.loc, abs(k) * law.scale, validate_args=False)
    if constant(k, -1.0):
        if cls is Gamma:
            return InverseGamma(law.concentration, law.rate, validate_args=False)
        if cls is InverseGamma:
            return Gamma(law.concentration, law.rate, validate_args=False)
    if not _positive(k):
        return None
    if cls is Exponential:
        return Weibull(law.rate ** (-k), 1 / k, validate_args=False)
    if cls is Weibull:
        return Weibull(law.scale**k, law.concentration / k, validate_args=False)
    if cls is Pareto:
        return Pareto(law.scale**k, law.alpha / k, validate_args=False)
    if cls is Kumaraswamy:
        return Kumaraswamy(law.concentration1 / k, law.concentration0, validate_args=False)
    return None


# --- maps without numbers -----------------------------------------------------------------------


def _logistic_of(law: Any) -> Distribution:
    """What the sigmoid of is a RelaxedBernoulli."""
    return dist.Logistic(
        law.logits / law.temperature, (1 / law.temperature).expand(law.logits.shape)
    )


def _relaxed_bernoulli(law: Any) -> Distribution:
    temperature = 1 / law.scale
    return torch.distributions.RelaxedBernoulli(temperature, logits=law.loc * temperature)


def _logistic_of_uniform(law: Any) -> Distribution | None:
    if not (constant(law.low, 0.0) and constant(law.high, 1.0)):
        return None
    return dist.Logistic(torch.zeros_like(law.low), torch.ones_like(law.low))


def _shifted_exponential(law: Any) -> Distribution:
    return torch.distributions.TransformedDistribution(
        Exponential(law.alpha, validate_args=False), AffineTransform(law.scale.log(), 1.0)
    )


_IMAGES: dict[tuple[type, type, bool], Image] = {
    (Normal, ExpTransform, False): lambda law: LogNormal(law.loc, law.scale, validate_args=False),
    (LogNormal, ExpTransform, True): lambda law: Normal(law.loc, law.scale, validate_args=False),
    (Exponential, ExpTransform, False): lambda law: Pareto(
        torch.ones_like(law.rate), law.rate, validate_args=False
    ),
    (Pareto, ExpTransform, True): _shifted_exponential,
    (dist.Logistic, SigmoidTransform, False): _relaxed_bernoulli,
    (torch.distributions.RelaxedBernoulli, SigmoidTransform, True): _logistic_of,
    (Uniform, SigmoidTransform, True): _logistic_of_uniform,
}


# --- folded at 0 --------------------------------------------------------------------------------


def centred(law: Any) -> bool:
    """Whether a law is symmetric about 0, as far as is known."""
    return class_of(law) in (*_SYMMETRIC, StudentT) and constant_value(law.loc)


def constant_value(loc: Tensor) -> bool:
    """Whether a location is 0: half a law has no gradient by it, by symmetry."""
    return settled(loc, lambda v: v == 0)


_HALVES: dict[type, Callable[[Any], Distribution]] = {
    Normal: lambda law: HalfNormal(law.scale, validate_args=False),
    Cauchy: lambda law: HalfCauchy(law.scale, validate_args=False),
    Laplace: lambda law: Exponential(1 / law.scale, validate_args=False),
}


def named_half(law: Distribution) -> Distribution | None:
    """The law of |x| if it is a family of its own; None if not."""
    half = _HALVES.get(class_of(law))
    return half(law) if half is not None and centred(law) else None


def unfolded(law: Any) -> Distribution | None:
    """The law symmetric about 0 of which a law on the half-line is the half; None if unknown."""
    cls = class_of(law)
    if cls is HalfNormal:
        return Normal(torch.zeros_like(law.scale), law.scale, validate_args=False)
    if cls is HalfCauchy:
        return Cauchy(torch.zeros_like(law.scale), law.scale, validate_args=False)
    if cls is Exponential:
        return Laplace(torch.zeros_like(law.rate), 1 / law.rate, validate_args=False)
    if is_a(law, dist.FoldedDistribution) and centred(law.base_dist):
        return law.base_dist
    return None
