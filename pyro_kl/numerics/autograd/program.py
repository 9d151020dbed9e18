"""Programs: a recorded formula on parameters, with the partial derivatives of its value.

Autograd spends several microseconds on every operation of a formula, forward and backward, which
is most of the time for a few thousand numbers. Here the formula is recorded once, as a graph of
elementwise operations. The chain rule is applied to the graph, equal subexpressions are computed
once, and the result is one function from the parameters to the value and its partial derivatives.
A formula that cannot be recorded (vectors, exact sums, a branch on a shape) is left to autograd:
`program` returns None.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

from ..concrete import is_step_recorded
from .tracer import BlockKernel, Step, Tracer

#: The derivative of the value by an intermediate result: a symbol, or a constant number.
Adjoint: TypeAlias = Any
Rule: TypeAlias = Callable[..., Sequence[Adjoint | None]]


class NotElementwise(Exception):
    """The formula contains an operation that has no rule here."""


def _negated(x: Adjoint) -> Adjoint:
    """-x, or what x is the negative of."""
    if isinstance(x, fx.Proxy) and x.node.target is operator.neg:
        return fx.Proxy(x.node.args[0], x.tracer)  # type: ignore[arg-type]
    return -x


def _is_negative(x: Adjoint) -> bool:
    return x.node.target is operator.neg if isinstance(x, fx.Proxy) else x == -1


def _product(a: Adjoint, b: Adjoint) -> Adjoint:
    """a b, where a constant 1 costs nothing and a minus sign moves to the result."""
    for x, other in ((a, b), (b, a)):
        if _is_negative(x):
            return _negated(_product(_negated(x), other))
        if isinstance(x, float) and x == 1:
            return other
    return a * b


def _over(a: Adjoint, b: Adjoint) -> Adjoint:
    """a / b, in the same way."""
    return _negated(_negated(a) / b) if _is_negative(a) else a / b


def _sum(a: Adjoint, b: Adjoint) -> Adjoint:
    """a + b."""
    if _is_negative(b):
        return a - _negated(b)
    return b - _negated(a) if _is_negative(a) else a + b


def _quotient(g: Adjoint, out: Any, a: Any, b: Any) -> Sequence[Adjoint | None]:
    by_a = _over(g, b)
    return by_a, _negated(_product(by_a, out))


def _power(g: Adjoint, out: Any, x: Any, n: float) -> Sequence[Adjoint | None]:
    if not isinstance(n, int | float):
        raise NotElementwise("x ** tensor")
    return (_product(g, float(n) * x ** (n - 1)) if n != 2 else _product(g, x + x), None)


def _same(g: Adjoint, out: Any, x: Any, *_: Any, **__: Any) -> Sequence[Adjoint | None]:
    return (g,)


# From the adjoint of an operation's result, the result and the arguments, to the arguments'
# adjoints.
_RULES: dict[str, Rule] = {
    "add": lambda g, out, a, b: (g, g),
    "sub": lambda g, out, a, b: (g, _product(-1.0, g)),
    "mul": lambda g, out, a, b: (_product(g, b), _product(g, a)),
    "truediv": _quotient,
    "neg": lambda g, out, a: (_product(-1.0, g),),
    "pow": _power,
    "square": lambda g, out, x: (_product(g, x + x),),
    "reciprocal": lambda g, out, x: (_negated(_product(g, out * out)),),
    "log": lambda g, out, x: (_over(g, x),),
    "log1p": lambda g, out, x: (_over(g, 1.0 + x),),
    "exp": lambda g, out, x: (_product(g, out),),
    "expm1": lambda g, out, x: (_product(g, out + 1.0),),
    "tanh": lambda g, out, x: (_product(g, 1.0 - out * out),),
    "sqrt": lambda g, out, x: (_over(g, out + out),),
    "lgamma": lambda g, out, x: (_product(g, torch.digamma(x)),),
    "digamma": lambda g, out, x: (_product(g, torch.polygamma(1, x)),),  # as autograd does
    "sigmoid": lambda g, out, x: (_product(g, out * (1.0 - out)),),
    "log_sigmoid": lambda g, out, x: (_product(g, torch.sigmoid(-x)),),
    "special_ndtr": lambda g, out, x: (_product(g, torch.exp(-0.5 * x * x) * 0.3989422804014327),),
    "special_erfcx": lambda g, out, x: (_product(g, 2.0 * x * out - 1.1283791670955126),),
    "atanh": lambda g, out, x: (_over(g, 1.0 - x * x),),
    "abs": lambda g, out, x: (_product(g, torch.sign(x)),),
    "relu": lambda g, out, x: (torch.where(x > 0.0, g, 0.0),),
    "sin": lambda g, out, x: (_product(g, torch.cos(x)),),
    "cos": lambda g, out, x: (_product(g, -torch.sin(x)),),
    "sinh": lambda g, out, x: (_product(g, torch.cosh(x)),),
    "cosh": lambda g, out, x: (_product(g, torch.sinh(x)),),
    "logaddexp": lambda g, out, a, b: (
        _product(g, torch.sigmoid(a - b)),
        _product(g, torch.sigmoid(b - a)),
    ),
    "where": lambda g, out, m, a, b: (None, torch.where(m, g, 0.0), torch.where(m, 0.0, g)),
    "addcmul": lambda g, out, x, a, b, value=1: (
        g,
        _product(_product(float(value), g), b),
        _product(_product(float(value), g), a),
    ),
    "clone": _same,
    "to": _same,
}  # fmt: skip
#: Operations without a derivative.
_STEPS = {
    "lt", "le", "gt", "ge", "eq", "ne", "and_", "or_", "invert", "isinf", "isfinite", "isneginf",
    "sign", "ones_like", "zeros_like", "full_like", "getattr",
}  # fmt: skip
#: Elementwise operations that occur only inside functions with derivatives of their own.
_INNER = {
    "polygamma", "special_zeta", "minimum", "maximum", "clamp", "xlogy", "special_i0e",
    "special_i1e", "fmax",
}  # fmt: skip
#: Other names of the same operations.
_ALIASES = {
    "absolute": "abs",
    "div": "truediv",
    "true_divide": "truediv",
    "logsigmoid": "log_sigmoid",
}


def name_of(node: fx.Node) -> str:
    """The name of a node's operation in the tables above."""
    target = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return _ALIASES.get(name, name)


# A program needs none of autograd's bookkeeping, which is a sixth of the time of small operations.
_below_autograd = getattr(torch._C, "_AutoDispatchBelowAutograd", nullcontext)


class Program:
    """Value and partial derivatives of a formula, as one function of tensors of one precision."""

    def __init__(self, graph: fx.Graph, constants: Sequence[float]) -> None:
        self._run = fx.GraphModule({}, graph).forward
        self._constants = tuple(constants)
        self._tensors: dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]] = {}

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The value, then the derivatives that the program was made for."""
        key = inputs[0].device, inputs[0].dtype
        # In a recorded step constants are numbers of its graph, whoever has called this before.
        constants = None if is_step_recorded() else self._tensors.get(key)
        if constants is None:
            # tensors that are made under torch.inference_mode could not be used outside of it
            with torch.inference_mode(mode=False):
                constants = tuple(
                    torch.tensor(c, device=key[0], dtype=key[1]) for c in self._constants
                )
            self._tensors[key] = constants
        with _below_autograd():
            return self._run(*inputs, *constants)


def program(
    kernel: Callable[[Mapping[str, Any], Mapping[str, Any]], Any],
    p_names: Sequence[str],
    q_names: Sequence[str],
    wanted: Sequence[bool],
    *,
    float32: bool = False,
) -> Program | None:
    """The program of a formula and its derivatives by the wanted parameters, p's and then q's.

    Args:
        kernel: the formula, on two mappings from names to tensors.
        p_names: keys of the first mapping.
        q_names: keys of the second mapping.
        wanted: for each parameter of p and then of q, whether its derivative is wanted.
        float32: whether the parameters will be float32 numbers, carried in float64.

    Returns:
        The program; None if the formula is not a composition of known elementwise operations.
    """
    graph = fx.Graph()
    tracer = Tracer(graph, float32=float32)
    names = [*(f"p_{name}" for name in p_names), *(f"q_{name}" for name in q_names)]
    symbols = [tracer.symbol(name) for name in names]
    p = dict(zip(p_names, symbols[: len(p_names)], strict=True))
    q = dict(zip(q_names, symbols[len(p_names) :], strict=True))
    try:
        value = kernel(p, q)
        results = results_of(tracer, value, symbols, wanted)
    except Exception:
        # Code that reads a value or a shape of a symbol fails, with any exception. If the formula
        # itself is wrong, the exception is raised again when it is run on tensors.
        return None
    graph.output(tuple(result.node for result in results))
    constants = finish(graph, is_elementwise)
    return None if constants is None else Program(graph, constants)


def program_of_results(function: Callable[..., Sequence[Any]], num_inputs: int) -> Program | None:
    """The program of an elementwise function with several results, without derivatives.

    Args:
        function: of so many tensors, to a sequence of tensors.
        num_inputs: how many.

    Returns:
        The program; None if the function is not a composition of known elementwise operations.
    """
    graph = fx.Graph()
    tracer = Tracer(graph)
    symbols = [tracer.symbol(f"x_{i}") for i in range(num_inputs)]
    try:
        results = function(*symbols)
    except Exception:
        # as above
        return None
    graph.output(tuple(result.node for result in results))
    constants = finish(graph, is_elementwise)
    return None if constants is None else Program(graph, constants)


def finish(graph: fx.Graph, is_known: Callable[[fx.Node], bool]) -> Sequence[float] | None:
    """Simplify a recorded graph in place, and take its constants out of it.

    Args:
        graph: with its output.
        is_known: whether an operation may be part of a program.

    Returns:
        The constants, which are the last inputs now; None if an operation is not known.
    """
    share(graph)
    graph.eliminate_dead_code()
    if not all(is_known(node) for node in graph.nodes):
        return None
    constants = lift_constants(graph)
    contract(graph)
    graph.eliminate_dead_code()
    return constants


def is_elementwise(node: fx.Node) -> bool:
    """Whether an operation is known to be elementwise."""
    if node.op in ("placeholder", "output"):
        return True
    if BlockKernel.is_in(node):
        return True
    name = name_of(node)
    return name in _RULES or name in _STEPS or name in _INNER


def results_of(
    tracer: Tracer, value: Any, symbols: Sequence[Any], wanted: Sequence[bool]
) -> list[fx.Proxy]:
    """The value and its derivatives by the wanted symbols, by the chain rule from the end."""
    active = {x.node for x, is_wanted in zip(symbols, wanted, strict=True) if is_wanted}
    steps = list(tracer.steps)
    for step in steps:
        name = name_of(step.node)
        if step.partials is None and name in _STEPS:
            continue
        if any(isinstance(x, Tensor) for x in step.inputs):
            raise NotElementwise("a constant tensor cannot be written into a program")
        if any(x.node in active for x in step.inputs if isinstance(x, fx.Proxy)):
            active.add(step.node)
    adjoints: dict[fx.Node, Adjoint] = {value.node: 1.0}
    with tracer.without_steps():
        for step in reversed(steps):
            g = adjoints.get(step.node)
            if g is None or step.node not in active:
                continue
            _pull_back(tracer, step, g, active, adjoints)
        found: list[Any] = [value]
        for x, is_wanted in zip(symbols, wanted, strict=True):
            if is_wanted:
                slope = adjoints.get(x.node, 0.0)
                is_number = isinstance(slope, int | float)
                found.append(torch.full_like(x, slope) if is_number else slope)
    return found


def _pull_back(
    tracer: Tracer,
    step: Step,
    g: Adjoint,
    active: set[fx.Node],
    adjoints: dict[fx.Node, Adjoint],
) -> None:
    """Add one step's adjoint to those of its inputs."""
    if step.partials is not None:
        partials = step.partials(*step.inputs)
        slopes: Sequence[Adjoint | None] = [d if d is None else _product(g, d) for d in partials]
    else:
        rule = _RULES.get(name_of(step.node))
        if rule is None:
            raise NotElementwise(name_of(step.node))
        slopes = rule(g, fx.Proxy(step.node, tracer), *step.inputs, **step.node.kwargs)
    for x, slope in zip(step.inputs, slopes, strict=False):
        if slope is None or not isinstance(x, fx.Proxy) or x.node not in active:
            continue
        known = adjoints.get(x.node)
        adjoints[x.node] = slope if known is None else _sum(known, slope)


# --- making the graph short ---------------------------------------------------------------------


def share(graph: fx.Graph) -> None:
    """Replace equal operations on equal arguments by one."""
    seen: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op in ("placeholder", "output"):
            continue
        key = (name_of(node), repr(node.args), repr(node.kwargs))
        if key in seen:
            node.replace_all_uses_with(seen[key])
            graph.erase_node(node)
        else:
            seen[key] = node


_TAKES_CONSTANTS = {"add", "sub", "mul", "truediv", "where", "lt", "le", "gt", "ge", "eq", "ne"}


def lift_constants(graph: fx.Graph) -> list[float]:
    """Make arguments of the numbers: torch would make a tensor of each one in every call."""
    first = next(node for node in graph.nodes if node.op != "placeholder")
    known: dict[float | str, fx.Node] = {}
    values: list[float] = []

    def constant(x: Any) -> Any:
        if isinstance(x, bool) or not isinstance(x, int | float):
            return x
        key = repr(float(x))
        if key not in known:
            with graph.inserting_before(first):
                known[key] = graph.placeholder(f"c_{len(values)}")
            values.append(float(x))
        return known[key]

    for node in list(graph.nodes):
        if name_of(node) == "pow" and node.args[1] == 2:
            node.op, node.target = "call_function", operator.mul
            node.args = (node.args[0], node.args[0])
        if node.op == "call_function" and name_of(node) in _TAKES_CONSTANTS:
            if name_of(node) == "truediv" and node.args[0] == 1:
                node.target, node.args = torch.reciprocal, node.args[1:]
            else:
                node.args = tuple(constant(x) for x in node.args)
    return values


def contract(graph: fx.Graph) -> None:
    """Make one operation, addcmul, of a sum and a product that is used nowhere else."""
    for node in list(graph.nodes):
        if node.op != "call_function" or name_of(node) not in ("add", "sub"):
            continue
        a, b = node.args
        if _used_once(b):
            other, factors = a, b.args
            sign = 1.0 if name_of(node) == "add" else -1.0
        elif _used_once(a) and name_of(node) == "add":
            other, factors, sign = b, a.args, 1.0
        else:
            continue
        with graph.inserting_before(node):
            kwargs: dict[str, Any] = {} if sign == 1 else {"value": sign}
            fused = graph.call_function(torch.addcmul, (other, *factors), kwargs)
        node.replace_all_uses_with(fused)
        graph.erase_node(node)


def _used_once(x: Any) -> bool:
    return isinstance(x, fx.Node) and x.target is operator.mul and len(x.users) == 1
