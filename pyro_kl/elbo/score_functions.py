"""The part of a gradient that goes through draws that are not reparametrised.

The gradient of E_q[cost] by the parameters of such a draw is the expectation of its score function
times the cost. Each score function is multiplied by the costs that the draw can change only: those
of its own plates, and of these the ones that may depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.infer.util import MultiFrameTensor
from torch import Tensor

from .baselines import Baselines
from .draws import DrawsBehind
from .guides.plan import Plan
from .terms import Term
from .traces import Traces


def score_function_part(
    terms: Sequence[Term], plan: Plan, traces: Traces, baselines: Baselines | None
) -> Any:
    """Sum over the sites that are not reparametrised of score function times cost.

    The cost is log likelihood minus weighted KLs. An exact KL of the site itself is no cost of its
    samples and left out.

    Args:
        terms: of one pair of traces, weighted.
        plan: of the pair.
        traces: of model and guide.
        baselines: of score functions.
    """
    total: Any = 0.0
    scored = {term.name: term for term in terms if term.score is not None}
    if not scored or not torch.is_grad_enabled():
        return total
    draws = DrawsBehind(plan, traces, scored)
    draws.learn(terms)
    costs = {name: MultiFrameTensor() for name in scored}
    for term in terms:
        value = term.value.detach()
        for name in draws.of(term):
            costs[name].add((term.frames, value if term.kind == "likelihood" else -value))
    for name, term in scored.items():
        at_site = costs[name].sum_to(term.score_frames)
        options = traces.guide.nodes.get(name, {}).get("infer", {}).get("baseline")
        if options and baselines is not None and isinstance(at_site, Tensor):
            baseline, own_loss = baselines.of(name, options, at_site)
            at_site, total = at_site - baseline, total - own_loss
        total = total + (at_site * term.score).sum()
    return total
