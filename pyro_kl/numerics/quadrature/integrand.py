"""How an integrand is evaluated at nodes: by a program recorded once, or by autograd.

The terms at a node are a composition of elementwise operations, as a formula's are
(`autograd.program`). Here the chain rule is followed by one more rewriting: a sum over nodes is
linear, so that factors which belong to a row of the batch leave it, and those which belong to a
node become weights. What depends on the nodes alone is a program of its own, the prelude, whose
results are kept as long as the nodes are.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

from ..autograd.program import (
    Program,
    finish,
    is_elementwise,
    name_of,
    results_of,
    share,
)
from ..autograd.tracer import Tracer
from ..concrete import holds_everywhere

#: `integrand(z, *parameters) -> (log p(z), log q(z) - log p(z))`, z of shape (nodes, rows).
Integrand = Callable[..., tuple[Tensor, Tensor]]


def weighted_sum(weights: Tensor, x: Tensor) -> Tensor:
    """Over the nodes, which are the first dimension; (1, rows)."""
    if weights.shape[1] == 1:
        return torch.mm(weights.t(), x)
    return (weights * x).sum(0, keepdim=True)


_OVER_NODES = (weighted_sum, torch.sum)
#: If the integral of q over the nodes differs from 1 by less, all of q's mass is at the nodes:
#: the rounding of a sum of some hundred terms, with a margin of 10.
COVERED = 1e-13
#: A KL below this is computed as a sum of p log(p / q) - p + q, whose terms are not negative.
NEAR = 1e-3


def at_nodes(
    integrand: Integrand, z: Tensor, parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """P and log q - log p; 0 and 0 where nothing is left of p.

    There log q and log p may be infinite themselves, or have slopes that are, and the product of
    such a slope with 0 is nan: those nodes are moved to 0 before anything is differentiated.
    """
    log_p, ratio = integrand(z, *parameters)
    alive = torch.exp(log_p.detach()) > 0
    if torch.is_grad_enabled() and not holds_everywhere(alive, lambda x: x):
        log_p, ratio = integrand(torch.where(alive, z, 0.0), *parameters)
    density = torch.exp(torch.where(alive, log_p, -math.inf))
    return density, torch.where(alive, ratio, 0.0)


def near_shift(value: Tensor, masses: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of q - p over the nodes, where the KL is near 0 and q is covered, else 0; and where.

    It is 0 but for rounding, which is that of p log(p / q): the sum of both keeps its digits.
    """
    shift = (masses * torch.expm1(ratio.clamp(max=60.0))).sum(0)
    covered = (shift.detach().abs() <= COVERED) & (value.detach() < NEAR)
    return torch.where(covered, shift, 0.0), covered


@dataclass(frozen=True)
class Programs:
    """An integrand as two programs.

    Args:
        prelude: from z and the weights to (-masses, masses, kept...).
        main: from kept... and the parameters to (terms, [p, log q - log p], sums...), terms
            being what is to be summed with `-masses` as weights, and sums the derivatives.
        is_fixed: whether the density at the nodes depends on no parameter; the masses then
            contain it, the terms are log q - log p themselves, and `main` gives no more of them.
        nodes: what the rule keeps of nodes that are the same for all rows.
    """

    prelude: Program
    main: Program
    is_fixed: bool
    nodes: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ByAutograd:
    """The same of an integrand that is not recorded: its derivatives come from autograd.

    Args:
        function: the integrand.
        wanted: for each parameter, whether its derivative is.
        is_density: whether p integrates to 1.
    """

    function: Integrand
    wanted: tuple[bool, ...]
    is_density: bool = True
    is_fixed: bool = False

    def prelude(self, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        z, weights = inputs
        return -weights, weights, z, weights

    def main(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        z, weights, *given = inputs
        parameters = [
            x.detach().requires_grad_(w) for x, w in zip(given, self.wanted, strict=True)
        ]
        leaves = [x for x in parameters if x.requires_grad]
        with torch.set_grad_enabled(bool(leaves)):
            density, ratio = at_nodes(self.function, z, parameters)
            masses = weights * density
            value = -(masses * ratio).sum(0)
            if leaves and self.is_density and (value < NEAR).any():
                value = value + near_shift(value, masses, ratio)[0]
            total = value.sum()
        slopes: Sequence[Tensor] = ()
        if leaves:
            slopes = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
        density, ratio = density.detach(), ratio.detach()
        return density * ratio, density, ratio, *slopes


Evaluation: TypeAlias = Programs | ByAutograd


@dataclass(eq=False)
class Recorded:
    """An integrand that is kept, with the programs that were made of it.

    Args:
        function: the integrand.
        programs: by the derivatives that were wanted; None if they cannot be recorded.
    """

    function: Integrand
    programs: dict[tuple[bool, ...], Programs | None] = field(default_factory=dict)

    def __call__(self, z: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        return self.function(z, *parameters)


def evaluation_of(
    integrand: Integrand, wanted: tuple[bool, ...], is_density: bool = True
) -> Evaluation:
    """How the integrand and the derivatives that are wanted are evaluated."""
    found = None
    if isinstance(integrand, Recorded):
        if wanted not in integrand.programs:
            integrand.programs[wanted] = _record(integrand.function, wanted)
        found = integrand.programs[wanted]
    return found or ByAutograd(integrand, wanted, is_density)


def _record(function: Integrand, wanted: Sequence[bool]) -> Programs | None:
    graph = fx.Graph()
    tracer = Tracer(graph)
    z, w = tracer.symbol("z"), tracer.symbol("w")
    symbols = [tracer.symbol(f"theta_{i}") for i in range(len(wanted))]
    try:
        recorded: tuple[Any, Any] = function(z, *symbols)
        log_p, d = recorded
        by_row = _ancestry(graph, [x.node for x in symbols])
        is_fixed = log_p.node not in by_row
        mass: Any = torch.exp(log_p)
        terms = d if is_fixed else d * mass  # in the order of the chain rule, which has it, too
        slopes = results_of(tracer, terms, symbols, wanted)[1:]
        with tracer.without_steps():
            masses = w * mass if is_fixed else w
            minus = -masses
    except Exception:
        # symbols have no values and no shapes: code that reads them runs on tensors instead
        return None
    known = () if is_fixed else (mass, d)
    graph.output(tuple(x.node for x in (minus, masses, terms, *known, *slopes)))
    share(graph)
    output = next(x for x in graph.nodes if x.op == "output")
    results = output.args[0]
    first = 3 if is_fixed else 5
    with graph.inserting_before(output):
        sums = _Sums(graph, z.node, results[0])
        found = [sums.of(x) for x in results[first:]]
    output.args = ((*results[:first], *found),)
    constants = finish(graph, lambda x: is_elementwise(x) or x.target in _OVER_NODES)
    return None if constants is None else _split(graph, len(wanted), constants, is_fixed)


def _ancestry(graph: fx.Graph, roots: Sequence[fx.Node]) -> set[fx.Node]:
    """All nodes that depend on one of these."""
    found = set(roots)
    for node in graph.nodes:
        if any(x in found for x in node.all_input_nodes):
            found.add(node)
    return found


class _Sums:
    """Rewrites the sum over nodes of an expression, which must be elementwise."""

    def __init__(self, graph: fx.Graph, z: fx.Node, masses: fx.Node) -> None:
        self.graph, self.masses = graph, masses
        self.by_node = _ancestry(graph, [z])
        roots = [x for x in graph.nodes if x.op == "placeholder" and x.name.startswith("theta")]
        self.by_row = _ancestry(graph, roots)
        self.known: dict[tuple[fx.Node, fx.Node], fx.Node] = {}
        self.products: dict[tuple[fx.Node, fx.Node], fx.Node] = {}

    def of(self, x: fx.Node, weights: fx.Node | None = None) -> fx.Node:
        weights = weights or self.masses
        key = x, weights
        if key not in self.known:
            self.known[key] = self._new(x, weights)
        return self.known[key]

    def _call(self, target: Callable[..., Any], *args: Any) -> fx.Node:
        return self.graph.call_function(target, args)

    def _of_any(self, x: Any, weights: fx.Node) -> Any:
        if isinstance(x, fx.Node) and x in self.by_node:
            return self.of(x, weights)
        total = self._call(torch.sum, weights, 0, True)
        return self._call(operator.mul, total, x)

    def _new(self, x: fx.Node, weights: fx.Node) -> fx.Node:
        if x not in self.by_node:
            return self._of_any(x, weights)
        name, args = name_of(x), x.args
        if name in ("add", "sub"):
            target = operator.add if name == "add" else operator.sub
            return self._call(target, *(self._of_any(a, weights) for a in args))
        if name == "neg":
            return self._call(operator.neg, self.of(args[0], weights))  # type: ignore[arg-type]
        if name == "truediv" and args[1] not in self.by_node:
            numerator = self.of(args[0], weights)  # type: ignore[arg-type]
            return self._call(operator.truediv, numerator, args[1])
        if name == "mul":
            for a, b in (args, args[::-1]):
                if a not in self.by_node:
                    return self._call(operator.mul, a, self.of(b, weights))  # type: ignore[arg-type]
            for a, b in (args, args[::-1]):
                if a not in self.by_row and b in self.by_row:
                    product = self._weights(weights, a)  # type: ignore[arg-type]
                    return self.of(b, product)  # type: ignore[arg-type]
        return self._call(weighted_sum, weights, x)

    def _weights(self, weights: fx.Node, factor: fx.Node) -> fx.Node:
        key = factor, weights
        if key not in self.products:
            self.products[key] = self._call(operator.mul, weights, factor)
        return self.products[key]


def _split(graph: fx.Graph, count: int, constants: Sequence[float], is_fixed: bool) -> Programs:
    """What depends on no parameter goes to the prelude."""
    placeholders = [x for x in graph.nodes if x.op == "placeholder"]
    z, w, *rest = (x for x in placeholders if not x.name.startswith("c_"))
    numbers = [x for x in placeholders if x.name.startswith("c_")]
    by_row = _ancestry(graph, rest)
    output = next(x for x in graph.nodes if x.op == "output")
    results = output.args[0]
    early = [x for x in graph.nodes if x not in by_row and x.op not in ("placeholder", "output")]
    kept = [x for x in (z, w) if any(user in by_row for user in x.users)]
    kept += [x for x in early if any(user in by_row for user in x.users)]
    kept = list(dict.fromkeys([*kept, *(x for x in results[2:] if x not in by_row)]))
    kept = [x for x in kept if x not in numbers]

    prelude = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for x in (z, w, *numbers):
        copies[x] = prelude.placeholder(x.name)
    for x in early:
        copies[x] = prelude.node_copy(x, lambda n: copies[n])
    prelude.output(tuple(copies[x] for x in (*results[:2], *kept)))
    prelude.eliminate_dead_code()

    main = fx.Graph()
    there: dict[fx.Node, fx.Node] = {}
    for i, x in enumerate(kept):
        there[x] = main.placeholder(f"kept_{i}")
    for x in (*rest, *numbers):
        there[x] = main.placeholder(x.name)
    for x in graph.nodes:
        if x in by_row and x.op not in ("placeholder", "output"):
            there[x] = main.node_copy(x, lambda n: there[n])
    main.output(tuple(there[x] for x in results[2:]))
    main.eliminate_dead_code()
    assert len(rest) == count
    return Programs(Program(prelude, constants), Program(main, constants), is_fixed)
