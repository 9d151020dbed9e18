"""Expected log likelihoods of sites whose predictor is affine in the guide's Normal draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask, sum_rightmost
from torch import Tensor
from torch.distributions import Distribution, Independent

from ..likelihoods import BERNOULLI_LOGIT, BINOMIAL, GAUSSIAN, NEGATIVE_BINOMIAL, POISSON
from ..likelihoods.likelihood import Likelihood
from ..registry.subclasses import is_a
from .affine import (
    NormalDraw,
    NotAffineError,
    affine_in,
    check_independent,
    depends_on,
    mean_and_scale,
    operation,
)
from .guides.guide_site import FromPrior
from .guides.plan import Plan
from .traces import Site, Traces, has_score_function, is_factor

#: Key of a node of the model's trace: how its density was computed, or why not as asked.
METHOD, REASON = "pyro_kl_method", "pyro_kl_reason"


@dataclass(frozen=True)
class _Predictor:
    """A likelihood of the table, its linear predictor and its other parameters.

    Attributes:
        likelihood: of the table.
        value: the predictor.
        start: where autograd's graph of the predictor starts.
        parameters: the likelihood's own.
    """

    likelihood: Likelihood
    value: Tensor
    start: tuple[Any, int]
    parameters: dict[str, Tensor]


def integrate_likelihoods(plan: Plan, traces: Traces, vectorized: bool) -> dict[str, str]:
    """Replace the log densities of observed sites by their expectations, where that is possible.

    Args:
        plan: how each latent is drawn.
        traces: of model and guide, with their graph.
        vectorized: whether the traces have a dim of particles.

    Returns:
        Site -> why its log density is that of the draw.
    """
    observed = [name for name in plan.observed if not is_factor(traces.model.nodes[name])]
    refused: dict[str, str] = {}
    draws: list[NormalDraw] | None = None
    for name in observed:
        node = traces.model.nodes[name]
        try:
            if vectorized:
                raise NotAffineError("vectorize_particles=True mixes the particles' draws")
            with torch.enable_grad():
                draws = _normal_draws(plan, traces) if draws is None else draws
                _integrate(node, draws)
        except NotAffineError as error:
            refused[name] = node[REASON] = str(error)
    return refused


def _normal_draws(plan: Plan, traces: Traces) -> list[NormalDraw]:
    """The guide's Normal draws, which are independent of one another."""
    draws: dict[str, NormalDraw] = {}
    for how in plan.decisions.values():
        if isinstance(how.site, FromPrior):
            raise NotAffineError(f"the guide does not draw {how.site.name}")
        for part in how.site.parts:
            node = traces.guide.nodes[part]
            if not isinstance(node["fn"], Delta) and has_score_function(node["fn"]):
                raise NotAffineError(f"the guide's {part} is not reparametrised")
            draw = NormalDraw.of(part, node["fn"], node["value"])
            if draw is not None:
                draws[part] = draw
    return list(draws.values())


def _integrate(node: Site, draws: list[NormalDraw]) -> None:
    """Give a site its expected log likelihood as its log density."""
    distribution, event_dim = node["fn"], 0
    while is_a(distribution, Independent):
        event_dim += distribution.reinterpreted_batch_ndims
        distribution = distribution.base_dist
    found = _predictor(distribution)
    used = affine_in(found.start, draws)
    if not used:
        raise NotAffineError("no Normal draw of the guide that has a gradient is in its predictor")
    check_independent(used)
    for name, part in {**found.parameters, "value": node["value"], "scale": node["scale"]}.items():
        if isinstance(part, Tensor) and depends_on(part, used):
            raise NotAffineError(f"its {name} depends on the guide's draws")
    loc, scale = mean_and_scale(found.value, used)
    y, loc, scale, *own = torch.broadcast_tensors(
        node["value"], loc, scale, *found.parameters.values()
    )
    own = dict(zip(found.parameters, own, strict=True))
    value = found.likelihood.expected(y.to(loc.dtype), loc, scale, **own).value
    value = sum_rightmost(value, event_dim)
    node["unscaled_log_prob"] = value
    node["log_prob"] = scale_and_mask(value, node["scale"], node["mask"])
    node["log_prob_sum"] = node["log_prob"].sum()
    node[METHOD] = found.likelihood.method
    names = ", ".join(draw.name for draw in used)
    node[REASON] = f"the expectation over {names}, in which the predictor is affine"


def _predictor(distribution: Distribution) -> _Predictor:
    """How a distribution depends on a linear predictor.

    Raises:
        NotAffineError: it is not in the table of likelihoods, or has another link there.
    """
    for likelihood, read in _READ:
        if is_a(distribution, likelihood.distribution):
            found = read(likelihood, distribution)
            if found is not None:
                return found
    raise NotAffineError(
        f"{type(distribution).__name__} has no linear predictor: Bernoulli, Binomial and "
        "NegativeBinomial have one by logits, Poisson by torch.exp, Normal by its mean"
    )


def _of_logits(likelihood: Likelihood, distribution: Any) -> _Predictor | None:
    logits = distribution.__dict__.get("logits")
    if logits is None or distribution._param is not logits:
        return None
    parameters = {name: getattr(distribution, name) for name in likelihood.parameters}
    return _Predictor(likelihood, logits, (logits.grad_fn, logits.output_nr), parameters)


def _of_log_rate(likelihood: Likelihood, distribution: Any) -> _Predictor | None:
    node = distribution.rate.grad_fn
    while node is not None and operation(node) in _RESHAPING:
        node = node.next_functions[0][0]
    if node is None or operation(node) != "Exp":
        return None
    return _Predictor(likelihood, distribution.rate.log(), node.next_functions[0], {})


def _of_mean(likelihood: Likelihood, distribution: Any) -> _Predictor | None:
    loc = distribution.loc
    return _Predictor(likelihood, loc, (loc.grad_fn, loc.output_nr), {"noise": distribution.scale})


_RESHAPING = ("Alias", "Clone", "Expand", "Squeeze", "Unsqueeze", "View")
_READ = (
    (BERNOULLI_LOGIT, _of_logits),
    (BINOMIAL, _of_logits),
    (NEGATIVE_BINOMIAL, _of_logits),
    (POISSON, _of_log_rate),
    (GAUSSIAN, _of_mean),
)
