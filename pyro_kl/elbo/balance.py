"""KL balancing: prior and guide learn from their KL at different rates.

    alpha KL(sg(q) || p) + (1 - alpha) KL(q || sg(p)),    sg: no gradient reaches its parameters,

has the value of KL(q || p). Its gradient in the parameters of p is alpha times that of KL(q || p),
and in the parameters of q it is 1 - alpha times that (so that 1/2 halves both).

Reference: Hafner and others (2021), Mastering Atari with Discrete World Models, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from pyro.distributions.util import detach
from torch import Tensor

from ..messages import see
from .terms import Term
from .traces import Site


def stopped(site: Site) -> Any:
    """The distribution of a site, with parameters that no gradient reaches.

    Args:
        site: of the model.

    Raises:
        ValueError: a function or an object keeps parameters that cannot be detached.
    """
    fixed = detach(site["fn"])
    if fixed.log_prob(site["value"].detach()).requires_grad:
        raise ValueError(
            f"kl_balance: the prior of {site['name']}, {type(fixed).__name__}, has parameters "
            "that cannot be taken out of the gradient: a function or an object keeps them. "
            "Give kl_balance={site: ...} for the other sites." + see("kl-balance")
        )
    return fixed


def check_no_scores(terms: Iterable[Term]) -> None:
    """Raise ValueError if a term has a score function."""
    scored = [term.name for term in terms if term.score is not None]
    if scored:
        raise ValueError(
            f"kl_balance stops gradients of parameters, and {', '.join(scored)} has those "
            "of a score function, which cannot be taken apart: reparametrise it."
            + see("kl-balance")
        )


def balanced(term: Term, fixed: Term, share: float) -> Term:
    """A term with `share` of the prior's gradient and 1 - `share` of the guide's.

    Args:
        term: with the gradient of both.
        fixed: the same with the gradient of the guide alone.
        share: alpha.
    """

    def mixed(both: Any, guide: Any) -> Any:
        if not isinstance(both, Tensor):
            return both
        mix = share * both + (1 - 2 * share) * guide + share * both.detach()
        return torch.where(both.isfinite(), mix, both)

    dims, surrogate = mixed(term.dims, fixed.dims), mixed(term.surrogate, fixed.surrogate)
    return replace(term, surrogate=surrogate, dims=dims)
