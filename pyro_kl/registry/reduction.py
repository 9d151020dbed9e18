"""Rules that reduce the KL of wrapped distributions to the KL of plainer ones.

torch's dispatch looks at two classes and not at what a wrapper contains. The rules are therefore
registered for (Distribution, Distribution), the least specific pair of classes, where the dispatch
ends. A formula that anybody registers for other classes takes precedence, and no rule can make the
dispatch ambiguous.
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

from ..messages import see
from .provenance import Use, mark, note, rewind
from .shapes import check_event_shapes, some_tensor
from .subclasses import is_a, is_upstream, keeps_density

#: KL(p || q) through plainer distributions, or None where the rule does not apply.
Rule = Callable[[Any, Any], "Tensor | None"]
#: One step from a distribution to a plainer one that is equal to it; it returns its argument if
#: there is none.
Step = Callable[[Any], Distribution]

#: The classes that rules unwrap.
_OPENED = (
    ExpandedDistribution, FoldedDistribution, Independent, MaskedDistribution, MaskedMixture,
    MixtureSameFamily, TransformedDistribution, ZeroInflatedDistribution,
)  # fmt: skip

_RULES: list[Rule] = []
_STEPS: list[tuple[type[Distribution], Step]] = []


class NoDivergence(NotImplementedError):
    """The two distributions have no KL, so that no other rule is tried."""


class OutOfReach(NotImplementedError):
    """The integral of declared densities goes further out than floats do; others may be tried."""


def reduction(rule: Rule) -> Rule:
    """Add a rule; the first that applies and leads to a formula is used."""
    _RULES.append(rule)
    return rule


def first_reduction(rule: Rule) -> Rule:
    """Add a rule that gets both distributions as they were given, before `by_canonical_form`."""
    _RULES.insert(0, rule)
    return rule


def canonical(wrapper: type[Distribution]) -> Callable[[Step], Step]:
    """Declare the step of a wrapper; the wrapper's subclasses must be declared before it."""

    def declare(step: Step) -> Step:
        _STEPS.append((wrapper, step))
        return step

    return declare


class LogProbOnly(Distribution):
    """A distribution with only a `log_prob` and a `support`.

    It replaces one of a subclass with another density than its parent's, so that no rule treats
    it as its parent.
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

    def expand(self, batch_shape: Any, _instance: Any = None) -> LogProbOnly:
        return LogProbOnly(self.distribution.expand(batch_shape))


def hide_parents(p: Distribution, q: Distribution) -> tuple[Distribution, Distribution]:
    """Both, as `LogProbOnly` if the class has another density than its parent of torch or Pyro."""
    if p is q:
        return p, q  # for `by_identity`
    return _hide_parent(p), _hide_parent(q)


def _hide_parent(distribution: Distribution) -> Distribution:
    cls = type(distribution)
    nearest = next(base for base in cls.__mro__ if is_upstream(base))
    return (
        distribution
        if keeps_density(cls, nearest) or isinstance(distribution, LogProbOnly)
        else LogProbOnly(distribution)
    )


def canonicalise(distribution: Distribution) -> Distribution:
    """The plainest distribution that is equal to `distribution`; itself if there is none."""
    while True:
        step = next((step for wrapper, step in _STEPS if is_a(distribution, wrapper)), None)
        simple = distribution if step is None else step(distribution)
        if simple is distribution:
            return distribution
        distribution = simple


@reduction
def by_canonical_form(p: Distribution, q: Distribution) -> Tensor | None:
    """Both without wrappers that change nothing, such as empty ones and identity maps."""
    plain_p, plain_q = canonicalise(p), canonicalise(q)
    if plain_p is p and plain_q is q:
        return None
    return kl_divergence(plain_p, plain_q)


@reduction
def by_identity(p: Distribution, q: Distribution) -> Tensor | None:
    """The KL of a distribution object to itself is 0."""
    if p is not q:
        return None
    note(Use("closed form", "p and q are one object"))
    return some_tensor(p).detach().new_zeros(()).expand(p.batch_shape)


def by_reduction(
    p: Distribution, q: Distribution, declined: NotImplementedError | None = None
) -> Tensor:
    """KL(p || q) by the first rule that leads to a formula.

    Args:
        p: the distribution that the expectation is over.
        q: the distribution that it is compared with.
        declined: the error of the formula of this pair of classes, if one was called.

    Raises:
        NotImplementedError: no rule leads to a formula; the message is that of the first pair
            without one.
        NoDivergence: the two have no KL.
    """
    check_event_shapes(p, q)
    if p is not q:
        p, q = (
            _hide_parent(distribution) if isinstance(distribution, _OPENED) else distribution
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
        raise first or no_formula(p, q)  # a chained exception keeps its cause
    finally:
        del first, declined  # an exception refers to this frame: a reference cycle


register_kl(Distribution, Distribution)(by_reduction)


# --- the errors without a formula ---------------------------------------------------------------


def no_formula(p: Distribution, q: Distribution) -> NotImplementedError:
    """The error for a pair without a formula, with the next step."""
    return NotImplementedError(no_formula_for(describe(p), describe(q)) + see("no-formula"))


def out_of_reach(p: Distribution, q: Distribution) -> OutOfReach:
    """The error for an integral that goes further out than floats and may be finite."""
    return OutOfReach(
        f"KL({describe(p)} || {describe(q)}): the tail of p under its maps goes on further than "
        "floating point can follow, and is not known to make the KL infinite. "
        "pyro_kl.monte_carlo(p, q) estimates what draws can see of it." + see("no-integral")
    )


def no_formula_for(p: str, q: str) -> str:
    """The message for a pair without a formula, with the next step."""
    return (
        f"No formula for KL({p} || {q}). pyro_kl.kl(p, q) integrates two continuous "
        "distributions on the line, mixtures too; pyro_kl.kl(p, q, num_samples=...) and "
        "pyro_kl.monte_carlo(p, q) estimate; @pyro_kl.register declares a formula; "
        "pyro_kl.registered() lists what there is."
    )


def describe(distribution: Distribution) -> str:
    """The name of a distribution's class, and of what it wraps."""
    if isinstance(distribution, LogProbOnly):
        distribution = distribution.distribution
    base = getattr(distribution, "base_dist", None)
    wraps = isinstance(distribution, Independent) or type(distribution) is TransformedDistribution
    return type(distribution).__name__ + (
        f"({describe(base)})" if wraps and base is not None else ""
    )
