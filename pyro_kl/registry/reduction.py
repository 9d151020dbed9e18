"""Reductions: rules that turn a question about wrapped distributions into one about plainer
distributions.

torch's dispatch chooses by two classes, and what a wrapper means is seen only inside of it. All
that is said of wrappers is therefore tried where torch's dispatch ends: on (Distribution,
Distribution), the least specific pair of all. Whatever anybody registers, now or later, comes
first, and no pair of classes can be ambiguous because of a wrapper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from pyro.distributions import (
    ExpandedDistribution,
    FoldedDistribution,
    MaskedDistribution,
    MaskedMixture,
    ZeroInflatedDistribution,
)
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MixtureSameFamily,
    TransformedDistribution,
    kl_divergence,
    register_kl,
)

from .provenance import Use, mark, note, rewind
from .shapes import check_event_shapes, some_tensor
from .subclasses import is_a, is_upstream, keeps_density

#: KL(p || q) by plainer distributions, or None where the rule does not apply.
Rule = Callable[[Any, Any], "Tensor | None"]
#: The plainest distribution that is equal to a distribution, in one step; the distribution itself
#: if it is plain.
Step = Callable[[Any], Distribution]

#: What rules look into. (Of any other class there may be a formula that is yet to be asked.)
_OPENED = (
    ExpandedDistribution, FoldedDistribution, Independent, MaskedDistribution, MaskedMixture,
    MixtureSameFamily, TransformedDistribution, ZeroInflatedDistribution,
)  # fmt: skip

_RULES: list[Rule] = []
_STEPS: list[tuple[type[Distribution], Step]] = []


class NoDivergence(NotImplementedError):
    """There is no KL of the two, whatever another rule may make of them."""


class OutOfReach(NotImplementedError):
    """A declared density has more of the integral than floats can reach: `log_prob` has less."""


def reduction(rule: Rule) -> Rule:
    """Add a rule; the first that applies and does not end without a formula wins."""
    _RULES.append(rule)
    return rule


def first_reduction(rule: Rule) -> Rule:
    """Add a rule that sees both distributions as they were given, before either is made plain."""
    _RULES.insert(0, rule)
    return rule


def reductions() -> tuple[Rule, ...]:
    """Every rule, in the order of their trial; the docstrings say what they do."""
    return tuple(_RULES)


def canonical(wrapper: type[Distribution]) -> Callable[[Step], Step]:
    """Declare how a wrapper of a plain distribution is made plain; subclasses come first."""

    def declare(step: Step) -> Step:
        _STEPS.append((wrapper, step))
        return step

    return declare


class AsItIs(Distribution):
    """A distribution that is known by its `log_prob` and its `support` alone.

    It stands for one of a subclass with a density of its own, so that no rule takes it for what
    its parent is.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, distribution: Distribution) -> None:
        self.distribution = distribution
        super().__init__(distribution.batch_shape, distribution.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        return self.distribution.support

    def log_prob(self, value: Tensor) -> Tensor:
        return self.distribution.log_prob(value)

    def expand(self, batch_shape: Any, _instance: Any = None) -> AsItIs:
        return AsItIs(self.distribution.expand(batch_shape))


def as_they_are(p: Distribution, q: Distribution) -> tuple[Distribution, Distribution]:
    """Both, each by its `log_prob` alone if its class is another one than torch or Pyro have."""
    if p is q:
        return p, q  # it is at no distance from itself
    return _as_it_is(p), _as_it_is(q)


def _as_it_is(distribution: Distribution) -> Distribution:
    cls = type(distribution)
    nearest = next(base for base in cls.__mro__ if is_upstream(base))
    return (
        distribution
        if keeps_density(cls, nearest) or isinstance(distribution, AsItIs)
        else AsItIs(distribution)
    )


def canonicalise(distribution: Distribution) -> Distribution:
    """The plainest distribution that is equal to `distribution`, itself if it is plain."""
    while True:
        step = next((step for wrapper, step in _STEPS if is_a(distribution, wrapper)), None)
        simple = distribution if step is None else step(distribution)
        if simple is distribution:
            return distribution
        distribution = simple


@reduction
def by_simplification(p: Distribution, q: Distribution) -> Tensor | None:
    """Both without what changes nothing: empty wrappers, identity maps, other names."""
    plain_p, plain_q = canonicalise(p), canonicalise(q)
    if plain_p is p and plain_q is q:
        return None
    return kl_divergence(plain_p, plain_q)


@reduction
def by_identity(p: Distribution, q: Distribution) -> Tensor | None:
    """One and the same object is at no distance from itself, whatever its distribution."""
    if p is not q:
        return None
    note(Use("closed form", "p and q are one object"))
    return some_tensor(p).detach().new_zeros(()).expand(p.batch_shape)


def by_reduction(
    p: Distribution, q: Distribution, declined: NotImplementedError | None = None
) -> Tensor:
    """KL(p || q) by the first rule that leads to formulas.

    Args:
        p: the distribution that the expectation is over.
        q: the distribution that it is compared with.
        declined: why the formula of this pair of classes could not answer, if it was asked.

    Raises:
        NotImplementedError: no rule applies, or none leads to a formula; the message is that of
            the first pair that was found missing.
        NoDivergence: there is none.
    """
    check_event_shapes(p, q)
    if p is not q:
        p, q = (
            _as_it_is(distribution) if isinstance(distribution, _OPENED) else distribution
            for distribution in (p, q)
        )
    if isinstance(declined, NoDivergence):
        raise declined
    first = declined if declined is not None and str(declined) else None
    for rule in _RULES:
        noted = mark()
        try:
            value = rule(p, q)
        except NotImplementedError as error:
            rewind(noted)
            if isinstance(error, NoDivergence):
                raise
            if isinstance(error, OutOfReach):
                first = error
            first = first or (error if str(error) else None)
        else:
            if value is not None:
                return value
    try:
        raise first or no_formula(p, q)  # with its cause, if that is an exception of others
    finally:
        del first, declined  # they know this frame


register_kl(Distribution, Distribution)(by_reduction)


# --- what to say where all of this ends ---------------------------------------------------------


def no_formula(p: Distribution, q: Distribution) -> NotImplementedError:
    """The error for a pair that nobody has a formula for, with the next step."""
    return NotImplementedError(no_formula_for(describe(p), describe(q)))


def out_of_reach(p: Distribution, q: Distribution) -> OutOfReach:
    """The error for an integral that is not known to be infinite and has no end in floats."""
    return OutOfReach(
        f"KL({describe(p)} || {describe(q)}): the tail of p under its maps goes on further than "
        "floating point can follow, and is not known to make the KL infinite. "
        "pyro_kl.monte_carlo(p, q) estimates what draws can see of it."
    )


def no_formula_for(p: str, q: str) -> str:
    """What to say, and what to do next, where there is no formula."""
    return (
        f"No formula for KL({p} || {q}). pyro_kl.kl(p, q) integrates two continuous "
        "distributions on the line, mixtures too; pyro_kl.kl(p, q, num_samples=...) and "
        "pyro_kl.monte_carlo(p, q) estimate; @pyro_kl.register declares a formula; "
        "pyro_kl.registered() lists what there is."
    )


def describe(distribution: Distribution) -> str:
    """A distribution's type, and what it wraps."""
    if isinstance(distribution, AsItIs):
        distribution = distribution.distribution
    base = getattr(distribution, "base_dist", None)
    wraps = isinstance(distribution, Independent) or type(distribution) is TransformedDistribution
    return type(distribution).__name__ + (
        f"({describe(base)})" if wraps and base is not None else ""
    )
