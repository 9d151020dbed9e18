"""Record one gradient of an ELBO as a flat graph of tensor operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import torch
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from ..elbo.guides.plan import Run
from ..elbo.trace_kl_elbo import TraceKL_ELBO
from ..numerics.concrete import Choices, recording_step
from ..registry.provenance import recording as recording_formulas
from .arguments import Arguments
from .draws import Draw, separate
from .graph import is_random, lifted, simplified, without_mutation
from .tensor_reads import Declined, Reads

#: Loss and surrogate, in nats, and the error of each integral in multiples of its tolerance.
_Losses = tuple[Any, Any, list[Tensor]]


@dataclass(frozen=True)
class Recording:
    """One gradient of an ELBO, recorded.

    Attributes:
        step: a pure function of tensors, without mutation and randomness:
            `(*parameters, *draws, levels, *fixed) -> (loss, ok, *gradients)`. The loss is in
            nats; `ok` is whether Python would read the same numbers from tensors again, and
            whether each integral is as exact as requested.
        parameters: name and unconstrained leaf of each parameter that has a gradient.
        draws: the random draws of one step, in the order of the model's own.
        undrawable: sites whose draws depend on parameters or data. If there are any, there are
            no `draws`, and `step` draws.
        captured: tensors that model and guide use beside their arguments; they come after those
            of the arguments in `fixed`.
        places: where Python has read numbers from tensors.
        choices: what was decided by the values at hand, such as numbers of nodes.
    """

    step: GraphModule
    parameters: Mapping[str, Tensor]
    draws: Sequence[Draw]
    undrawable: Sequence[str]
    captured: Sequence[Tensor]
    places: Sequence[str]
    choices: Sequence[Any]


def levels_of(elbo: Any, ahead: int = 0) -> list[float]:
    """The weights of the KLs some steps ahead of the next one; none for an ELBO without."""
    if not isinstance(elbo, TraceKL_ELBO):
        return []
    return elbo.objective.levels(elbo.step_count + ahead)


def record(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    elbo: Any,
    parameters: Mapping[str, Tensor],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    methods: Mapping[str, str],
    choices: Sequence[Any] = (),
) -> Recording:
    """Run model and guide, and record loss and gradient.

    Random draws are taken, and the caller puts the generators' state back. Parameters, the state
    of the ELBO and of the optimiser do not change.

    Args:
        model: the model.
        guide: the guide.
        elbo: a TraceKL_ELBO, Trace_ELBO or TraceMeanField_ELBO.
        parameters: name -> unconstrained leaf; model and guide have run before.
        args: positional arguments of model and guide.
        kwargs: keyword arguments of both.
        methods: site -> how its KL is computed when nothing is recorded; see `SetUp`.
        choices: those of an earlier recording of the same step.

    Raises:
        Declined: the gradient cannot be recorded, with the reason.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    losses = _losses_of(elbo, methods)
    levels = torch.tensor(levels_of(elbo), dtype=torch.float64)
    # An alias of each argument is passed: a model may hold the same tensor in a closure too,
    # which stays what it is when the argument is another one.
    args, kwargs = pytree.tree_map_only(Tensor, _alias, (args, kwargs))
    inputs = [*parameters.values(), levels, *Arguments(args, kwargs).tensors]
    reads = Reads()
    used: dict[str, Tensor] = {}
    run = Run(model, guide, args, kwargs)

    def gradient(*_: Tensor) -> list[Tensor]:
        with reads.noted():
            loss, surrogate, errors = losses(elbo, run, levels)
            if not isinstance(surrogate, Tensor) or not surrogate.requires_grad:
                raise Declined("the loss does not depend on a parameter")
            leaves = [*parameters.values()]
            gradients = torch.autograd.grad(surrogate, leaves, allow_unused=True)
            ok = _all_hold(reads, errors, loss)
        named = zip(parameters.items(), gradients, strict=True)
        used.update(item for item, gradient in named if gradient is not None)
        return [loss, ok, *(gradient for gradient in gradients if gradient is not None)]

    decided = Choices(given=choices)
    with _as_recorded(decided), _plans_kept(elbo):
        traced = make_fx(gradient)(*inputs)
    if len(used) < len(parameters):  # a parameter without a gradient is read as data are
        return record(model, guide, elbo, used, args, kwargs, methods, decided.made)
    return _recording(traced, inputs, reads, parameters, decided.made)


def _recording(
    traced: GraphModule,
    inputs: Sequence[Tensor],
    reads: Reads,
    parameters: Mapping[str, Tensor],
    choices: Sequence[Any],
) -> Recording:
    """From the graph that make_fx returns to a recording."""
    module, captured = lifted(traced, inputs)
    module = simplified(without_mutation(module, [*inputs, *captured]))
    _refuse_reads_of_draws(module, reads)
    step, draws, inner = separate(module, len(parameters), [draw.strides for draw in reads.draws])
    undrawable = list(dict.fromkeys(reads.draws[i].site for i in inner))
    places = list(dict.fromkeys(read.where for read in reads.found))
    return Recording(step, parameters, draws, undrawable, captured, places, choices)


def _alias(x: Tensor) -> Tensor:
    return x if x.requires_grad else x.detach()


@contextmanager
def _plans_kept(elbo: Any) -> Iterator[None]:
    """The ELBO decides afterwards as if nothing had been recorded."""
    if not isinstance(elbo, TraceKL_ELBO):
        yield
        return
    plans = elbo._plans
    elbo._plans = plans.copy()
    try:
        yield
    finally:
        elbo._plans = plans


@contextmanager
def _as_recorded(choices: Choices) -> Iterator[None]:
    """Nothing is validated, and no formula depends on values: later steps have others."""
    with pyro.validation_enabled(False), recording_step(choices), torch.enable_grad():
        yield


def _all_hold(reads: Reads, errors: Sequence[Tensor], loss: Any) -> Tensor:
    """Whether all numbers that Python has read are the same again, and integrals exact enough."""
    holds = [read.tensor.reshape(()) == read.value for read in reads.found]
    holds += [error <= 1 for error in errors]
    if not holds:
        return torch.ones((), dtype=torch.bool, device=loss.device)
    return torch.stack([one.to(loss.device) for one in holds]).all()


def _refuse_reads_of_draws(module: GraphModule, reads: Reads) -> None:
    """Raise Declined if a branch depends on a draw: the next step may take the other one."""
    if not reads.found:
        return
    output = next(iter(module.graph.find_nodes(op="output")))
    pending, seen = [output.args[0][1]], set()
    while pending:
        node: Node = pending.pop()
        if is_random(node):
            places = ", ".join(dict.fromkeys(read.where for read in reads.found))
            raise Declined(f"Python branches on a number that depends on a draw: {places}")
        seen.add(node)
        pending += [x for x in node.all_input_nodes if x not in seen]


# --- losses -------------------------------------------------------------------------------------


def why_not_recorded(elbo: Any) -> str:
    """Why no step of an ELBO, or of a loss function, is recorded; empty if steps are."""
    if isinstance(elbo, TraceKL_ELBO):
        base: type = TraceKL_ELBO
        if elbo.not_recordable:
            return elbo.not_recordable
    elif type(elbo) in (Trace_ELBO, TraceMeanField_ELBO):
        base = type(elbo)
    else:
        name = type(elbo).__name__ if isinstance(elbo, ELBO) else "a loss function"
        return (
            f"{name} is not recorded; TraceKL_ELBO, TraceEnumKL_ELBO, Trace_ELBO and "
            "TraceMeanField_ELBO are"
        )
    for method in ("loss", "loss_and_grads", "differentiable_loss"):
        if method in vars(elbo) or getattr(type(elbo), method) is not getattr(base, method):
            return f"{method} of {type(elbo).__name__} is not that of {base.__name__}"
    return ""


def _losses_of(elbo: Any, methods: Mapping[str, str]) -> Callable[[Any, Run, Tensor], _Losses]:
    """What computes the loss of an ELBO as a tensor."""
    if isinstance(elbo, TraceKL_ELBO):
        return partial(_of_trace_kl, methods)
    return _of_mean_field if isinstance(elbo, TraceMeanField_ELBO) else _of_trace


def _of_trace_kl(methods: Mapping[str, str], elbo: Any, run: Run, levels: Tensor) -> _Losses:
    with recording_formulas() as uses:
        result = elbo.terms(run, levels)
    for particle in result.particles:
        for term in particle.collected.terms:
            usual = methods.get(term.name, term.method)
            if term.method != usual:
                raise Declined(
                    f"the KL of site {term.name!r} ({usual}) takes decisions by its values"
                )
        for name, node in particle.traces.guide.nodes.items():
            if node.get("infer", {}).get("baseline"):
                raise Declined(f"the baseline of site {name!r} learns from the costs of each step")
    errors = [use.excess for use in uses if use.excess is not None]
    return result.loss, result.surrogate, errors


def _of_trace(elbo: Any, run: Run, levels: Tensor) -> _Losses:
    loss: Any = 0.0
    surrogate: Any = 0.0
    for model_trace, guide_trace in elbo._get_traces(run.model, run.guide, run.args, run.kwargs):
        difference = guide_trace.log_prob_sum() - model_trace.log_prob_sum()
        loss = loss + difference.detach() / elbo.num_particles
        part = elbo._differentiable_loss_particle(model_trace, guide_trace)[1]
        surrogate = surrogate + part / elbo.num_particles
    return loss, surrogate, []


def _of_mean_field(elbo: Any, run: Run, levels: Tensor) -> _Losses:
    surrogate: Any = 0.0
    for model_trace, guide_trace in elbo._get_traces(run.model, run.guide, run.args, run.kwargs):
        part = elbo._differentiable_loss_particle(model_trace, guide_trace)[1]
        surrogate = surrogate + part / elbo.num_particles
    return surrogate.detach(), surrogate, []
