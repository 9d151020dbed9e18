"""Every class of `pyro.distributions`, and the method of the KL of two of its members."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from ..messages import see, without_link
from ..registry.checks import METHODS
from ..registry.register import family_of, pair_of
from ..registry.warnings import quiet
from .bounds import bounds, has_bounds
from .kl import kl

#: Why a class has no KL, and what there is instead.
NO_KL: Mapping[str, str] = {
    "ImproperUniform": "not normalised: its KL is defined up to a constant only",
    "Rejector": "the proposal and the acceptance rate are arbitrary functions",
    "Stable": "no density in Pyro; StableWithLogProb has one",
}
#: What holds for other members of a class than those on the line, which its row is about.
_OTHERS: Mapping[str, str] = {
    "MixtureSameFamily": "of vectors: bound and estimate",
}


@dataclass(frozen=True)
class ClassRow:
    """One class, and the method of the KL of two of its members.

    Attributes:
        name: the class's name.
        method: a deterministic method, "bound and estimate", "estimate" or "no density".
        reason: where the formula is, or why there is none.
    """

    name: str
    method: str
    reason: str

    @property
    def deterministic(self) -> bool:
        """Whether the KL is one number without sampling."""
        return self.method in METHODS


def concrete_classes() -> list[type[Any]]:
    """All classes that `pyro.distributions` exports and that define a density.

    A class that leaves `log_prob` abstract, or to torch's base class, is a base class only.
    """
    known = (Distribution, dist.Distribution)
    found = {
        value
        for value in vars(dist).values()
        if isinstance(value, type) and issubclass(value, known)
    }
    return sorted((c for c in found if not _is_base(c)), key=lambda c: c.__name__)


def _is_base(cls: type[Any]) -> bool:
    owner = next(c for c in cls.__mro__ if "log_prob" in vars(c))
    return inspect.isabstract(cls) or owner in (Distribution, dist.Distribution)


def class_rows() -> list[ClassRow]:
    """A row for every concrete class.

    Raises:
        LookupError: a class has neither an example nor a reason, as one that is new in Pyro.
    """
    return [_row(cls) for cls in concrete_classes()]


def _row(cls: type[Any]) -> ClassRow:
    name = cls.__name__
    if name in NO_KL:
        return ClassRow(name, "no density", NO_KL[name])
    p, q, *_ = members(cls)
    try:
        with quiet():
            found = kl(p, q)
    except NotImplementedError as missing:
        if has_bounds(p, q):
            return ClassRow(name, "bound and estimate", bounds(p, q).method)
        return ClassRow(name, "estimate", without_link(missing).split(". ")[0])
    reason = [_without_numbers(found.reason), _OTHERS.get(name)]
    return ClassRow(name, found.method, "; ".join(filter(None, reason)))


def _without_numbers(reason: str) -> str:
    """The source of the formula, without what is true of the example only."""
    return reason.split("; ")[0]


def members(cls: type[Any]) -> tuple[Distribution, ...]:
    """Two members or more: the examples below, or those of the family's or pair's declaration.

    Raises:
        LookupError: the class has no density, or no example.
    """
    if cls.__name__ in NO_KL:
        raise LookupError(f"{cls.__name__}: {NO_KL[cls.__name__]}." + see("no-such-pair"))
    if cls.__name__ in _EXAMPLES:
        return _EXAMPLES[cls.__name__]()
    family = family_of(cls)
    if family is not None:
        return tuple(_made(cls, example) for example in family.examples)
    pair = pair_of(cls, cls)
    if pair is not None and pair.cases:
        case = next((c for c in pair.cases if dict(c.p) != dict(c.q)), pair.cases[0])
        return _made(pair.make_p or pair.p, case.p), _made(pair.make_q or pair.q, case.q)
    raise LookupError(
        f"{cls.__name__} has no example: give one, or a reason, in {__name__}"
        + see("no-such-pair")
    )


def _made(make: Callable[..., Distribution], parameters: Mapping[str, Any]) -> Distribution:
    return make(**{k: torch.as_tensor(x, dtype=torch.float64) for k, x in parameters.items()})


# --- examples of wrappers, and of classes whose parameters are no tensors -----------------------


def _t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _normal(loc: float = 0.0) -> Any:
    return dist.Normal(_t(loc), _t(1.0))


def _two(make: Any) -> Any:
    """A maker of two members, at 0 and at 1."""
    return lambda: (make(0.0), make(1.0))


def _mixture(loc: float) -> Any:
    weights = dist.Categorical(logits=_t(0.0, 1.0))
    return dist.MixtureSameFamily(weights, dist.Normal(_t(loc, 2.0), _t(1.0, 0.5)))


def _hmm(loc: float) -> Any:
    seen = dist.Normal(_t(loc, 2.0), _t(1.0, 1.0))
    logits = torch.stack([_t(1.0, loc), _t(0.0, 1.0)])
    return dist.DiscreteHMM(_t(0.0, loc), logits, seen, duration=3)


def _gamma_hmm(loc: float) -> Any:
    eye = torch.eye(1).double()
    return dist.GammaGaussianHMM(
        dist.Gamma(torch.tensor(3.0 + loc).double(), torch.tensor(2.0).double()),
        dist.MultivariateNormal(_t(loc), eye),
        0.5 * eye,
        dist.MultivariateNormal(_t(0.0), eye),
        eye,
        dist.MultivariateNormal(_t(0.0), eye),
        duration=3,
    )


def _tril(scale: float) -> Tensor:
    return torch.eye(2).double() * (1.0 + scale)


_EXAMPLES: Mapping[str, Any] = {
    "AVFMultivariateNormal": _two(
        lambda x: dist.AVFMultivariateNormal(_t(x, 0.0), _tril(x), torch.zeros(2, 1, 2).double())
    ),
    "AffineBeta": _two(lambda x: dist.AffineBeta(2.0 + x, 3.0, 0.0, 2.0)),
    "Delta": _two(lambda x: dist.Delta(_t(1.0), _t(x))),
    "DiscreteHMM": _two(_hmm),
    "ExpandedDistribution": _two(lambda x: dist.ExpandedDistribution(_normal(x), (2, 1))),
    "FoldedDistribution": _two(lambda x: dist.FoldedDistribution(_normal(x))),
    "GammaGaussianHMM": _two(_gamma_hmm),
    "GaussianScaleMixture": lambda: (
        dist.GaussianScaleMixture(_t(1.0, 2.0), _t(0.0, 1.0), _t(1.0, 2.0)),
        dist.GaussianScaleMixture(_t(2.0, 1.0), _t(0.0, 0.0), _t(1.0, 2.0)),
    ),
    "MaskedDistribution": _two(lambda x: dist.MaskedDistribution(_normal(x), torch.tensor(True))),
    "MaskedMixture": _two(
        lambda x: dist.MaskedMixture(torch.tensor([True]), _normal(x), _normal(x + 1))
    ),
    "MixtureOfDiagNormals": _two(
        lambda x: dist.MixtureOfDiagNormals(
            torch.stack([_t(x, 0.0), _t(2.0, 1.0)]), torch.ones(2, 2).double(), _t(0.0, 1.0)
        )
    ),
    "MixtureOfDiagNormalsSharedCovariance": _two(
        lambda x: dist.MixtureOfDiagNormalsSharedCovariance(
            torch.stack([_t(x, 0.0), _t(2.0, 1.0)]), _t(1.0, 1.0), _t(0.0, 1.0)
        )
    ),
    "MixtureSameFamily": _two(_mixture),
    "NanMaskedMultivariateNormal": _two(
        lambda x: dist.NanMaskedMultivariateNormal(_t(x, 0.0), torch.eye(2).double())
    ),
    "OMTMultivariateNormal": _two(lambda x: dist.OMTMultivariateNormal(_t(x, 0.0), _tril(x))),
    "RelaxedOneHotCategoricalStraightThrough": _two(
        lambda x: dist.RelaxedOneHotCategoricalStraightThrough(
            torch.tensor(0.5).double(), logits=_t(x, 0.0)
        )
    ),
    "OneHotCategoricalStraightThrough": _two(
        lambda x: dist.OneHotCategoricalStraightThrough(logits=_t(x, 0.0))
    ),
    "LogNormalNegativeBinomial": _two(
        lambda x: dist.LogNormalNegativeBinomial(_t(3.0), _t(x), _t(0.5))
    ),
    "StableWithLogProb": _two(lambda x: dist.StableWithLogProb(_t(1.5), _t(0.2), _t(1.0), _t(x))),
    "TransformedDistribution": _two(
        lambda x: dist.TransformedDistribution(_normal(x), dist.transforms.TanhTransform())
    ),
    "TruncatedPolyaGamma": _two(lambda x: dist.TruncatedPolyaGamma(_t(1.0))),
    "ZeroInflatedDistribution": _two(
        lambda x: dist.ZeroInflatedDistribution(dist.Poisson(_t(1.0 + x)), gate=_t(0.3))
    ),
}
