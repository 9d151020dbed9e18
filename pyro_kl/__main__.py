"""Command line: `python -m pyro_kl pairs | classes | explain P Q | compare P Q | fit FILE`."""

from __future__ import annotations

import argparse
import difflib
import inspect
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import product
from typing import Any

import pyro
import pyro.distributions
import torch
from torch.distributions import Distribution, Independent

from . import __version__, fit_command, kl, registered
from .divergence.classes import class_rows, members
from .divergence.compare import compare
from .registry.pair import Pair, PairTable
from .registry.reduction import describe, no_formula_for
from .registry.register import pair_of
from .registry.text_columns import columns
from .registry.warnings import quiet


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; for bad input print one line that says what to do and return 2."""
    arguments = _parser().parse_args(argv)
    try:
        print(_COMMANDS[arguments.command](arguments))
        sys.stdout.flush()
    except (LookupError, NotImplementedError, fit_command.Refused) as error:
        print(error.args[0], file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pyro_kl", description=__doc__)
    versions = f"pyro_kl {__version__}, torch {torch.__version__}, pyro {pyro.__version__}"
    parser.add_argument("--version", action="version", version=versions)
    commands = parser.add_subparsers(dest="command", required=True)
    pairs = commands.add_parser("pairs", help="the registered pairs")
    pairs.add_argument(
        "family", nargs="*", help="only pairs that have this class on a side; two: of the two"
    )
    pairs.add_argument("--method", help="only pairs of this method, e.g. quadrature")
    commands.add_parser("classes", help="every class of pyro.distributions")
    for name, purpose in (
        ("explain", "formula, condition and reference of one pair"),
        ("compare", "exact against sampled, on the classes' examples"),
    ):
        command = commands.add_parser(name, help=purpose)
        command.add_argument("p", help="class of the first argument, e.g. Gamma")
        command.add_argument("q", help="class of the second argument, e.g. LogNormal")
    fit_command.add_arguments(
        commands.add_parser(
            "fit",
            help="a Bayesian logistic regression of a table",
            usage=f"{parser.prog} fit FILE --target COLUMN [options]",
        )
    )
    return parser


def _width() -> int | None:
    """The width of the terminal, or COLUMNS; None for a file or a pipe."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return None
    return shutil.get_terminal_size().columns


# --- tables -------------------------------------------------------------------------------------


def _pairs(arguments: argparse.Namespace) -> str:
    table = registered()
    methods = {pair.method for pair in table}
    if arguments.method not in (None, *methods):
        raise LookupError(f"no pair has the method {arguments.method!r}; {_instead(methods)}")
    sides = [_registered_as(name, table) for name in arguments.family]
    chosen = [
        pair
        for pair in table
        if arguments.method in (None, pair.method) and _has_sides(pair, sides)
    ]
    if not chosen:
        raise LookupError("no pair has all of that; `explain P Q` looks for an integral too")
    return PairTable(chosen).text(_width())


def _has_sides(pair: Pair, sides: Sequence[type[Any]]) -> bool:
    if len(sides) < 2:
        return all(side in (pair.p, pair.q) for side in sides)
    return {pair.p, pair.q} == set(sides)


def _registered_as(name: str, table: Iterable[Pair]) -> type[Any]:
    """The class of that name, or its nearest base, that pairs are registered for."""
    known = {side for pair in table for side in (pair.p, pair.q)} - {Distribution}
    cls = _class_named(name, known)
    return next((base for base in cls.__mro__ if base in known), cls)


def _classes(arguments: argparse.Namespace) -> str:
    rows = [(row.name, row.method, row.reason) for row in class_rows()]
    return columns([("class", "method", "where, or why not"), *rows], _width())


# --- classes by their names ---------------------------------------------------------------------


def _class_named(name: str, others: Iterable[type[Any]] = ()) -> type[Any]:
    """A class of pyro.distributions, or one of the others; lower and upper case are the same.

    Raises:
        LookupError: there is none; the message suggests similar names.
    """
    found = {cls.__name__: cls for cls in others}
    for key, value in vars(pyro.distributions).items():
        if isinstance(value, type) and issubclass(value, Distribution):
            found[key] = value
    if name in found:
        return found[name]
    folded = {key.lower(): key for key in found}
    if name.lower() in folded:
        return found[folded[name.lower()]]
    close = difflib.get_close_matches(name.lower(), folded, n=3)
    hint = _instead([folded[key] for key in close]) if close else "`classes` lists them."
    raise LookupError(f"{name!r} is not a class of pyro.distributions; {hint}")


def _instead(words: Collection[str]) -> str:
    return f"did you mean {' or '.join(sorted(words))}?"


# --- one pair -----------------------------------------------------------------------------------


def _explain(arguments: argparse.Namespace) -> str:
    """The registered pair; the result of `kl` for the classes' examples, if there is none."""
    p, q = _class_named(arguments.p), _class_named(arguments.q)
    pair = pair_of(p, q)
    if pair is not None:
        return _explained(pair)
    a, b, found = next(_answered(arguments, kl, _examples(p, q)))
    example = f"p = {_one_line(a)}\n             q = {_one_line(b)}\n             {found}"
    pair = pair_of(type(a), type(b))
    if pair is not None:
        return f"{_explained(pair)}\n\n  example    {example}"
    name = f"KL({describe(a)} || {describe(b)})"
    return f"{name}\n  method     {found.method}\n  example    {example}"


def _compare(arguments: argparse.Namespace) -> str:
    p, q = _class_named(arguments.p), _class_named(arguments.q)
    pyro.set_rng_seed(0)
    examples = list(_examples(p, q))[: min(len(members(p)), len(members(q)))]
    return "\n".join(
        f"p = {_one_line(a)}, q = {_one_line(b)}\n{comparison}"
        for a, b, comparison in _answered(arguments, compare, examples)
    )


def _answered(
    arguments: argparse.Namespace,
    function: Callable[[Distribution, Distribution], Any],
    examples: Iterable[tuple[Distribution, Distribution]],
) -> Iterator[tuple[Distribution, Distribution, Any]]:
    """The examples for which there is a KL, each with the function's result.

    Raises:
        LookupError: there is none.
    """
    declined, answers = "", 0
    for a, b in examples:
        try:
            with quiet():  # the printed reason has the warning's text
                found = function(a, b)
        except NotImplementedError as missing:
            declined = declined or str(missing)
            continue
        answers += 1
        yield a, b, found
    if not answers:
        raise LookupError(declined or no_formula_for(arguments.p, arguments.q))


def _examples(p: type[Any], q: type[Any]) -> Iterator[tuple[Distribution, Distribution]]:
    """Members of both classes on one space; first the i-th of each, or the i-th and the next.

    Raises:
        LookupError: one of the classes has no density.
    """
    try:
        left, right = members(p), members(q)
    except LookupError as error:
        name = f"{p.__name__} || {q.__name__}"
        raise LookupError(f"No formula for KL({name}). {error.args[0]}") from None
    step, size = int(p is q), max(len(left), len(right))
    cells = product(range(len(left)), range(len(right)))
    for i, j in sorted(cells, key=lambda cell: (cell[0] + step - cell[1]) % size != 0):
        a, b = left[i], right[j]
        n, m = len(a.event_shape), len(b.event_shape)
        a, b = _made_wider(a, b.event_shape[: m - n]), _made_wider(b, a.event_shape[: n - m])
        if a.event_shape == b.event_shape:
            yield a, b


def _made_wider(distribution: Distribution, shape: torch.Size) -> Distribution:
    """A product of independent copies with the missing dimensions, if there are any."""
    if not shape:
        return distribution
    wide = torch.broadcast_shapes(distribution.batch_shape, shape)
    return Independent(distribution.expand(wide), len(shape))


def _one_line(distribution: Distribution) -> str:
    return " ".join(repr(distribution).split())


def _error_of(pair: Pair) -> str:
    if pair.method == "infinite":
        return "none: decided from the supports and moments"
    if pair.method == "quadrature" and pair.derived:
        return "estimated for each value: pyro_kl.kl(p, q).error"
    return "as measured over reference values, in docs/pairs.md of the repository"


def _explained(pair: Pair) -> str:
    rows = [
        f"KL({pair.name})",
        f"  method     {pair.method}",
        f"  finite     {pair.finite}",
        f"  reference  {pair.reference}",
        f"  error      {_error_of(pair)}",
        f"  declared   {pair.source}",
    ]
    if pair.replaces:
        rows.append(f"  replaces   {pair.replaces}")
    doc = inspect.cleandoc(pair.formula.__doc__ or "")
    blocks = ["\n".join(rows), textwrap.indent(doc, "  ")]
    blocks += [f"  {name}\n{_code_of(term)}" for name, term in pair.terms.items()]
    return "\n\n".join(blocks)


def _code_of(term: Callable[..., Any]) -> str:
    """The source code of a declared function."""
    try:
        code = inspect.getsource(term)
    except OSError:  # a function typed at a prompt has no source file
        return f"    {term.__name__}"
    return textwrap.indent(textwrap.dedent(code).rstrip(), "    ")


def _fit(arguments: argparse.Namespace) -> str:
    return fit_command.run(arguments, lambda line: print(line, flush=True))


_COMMANDS: dict[str, Callable[[argparse.Namespace], str]] = {
    "pairs": _pairs,
    "classes": _classes,
    "explain": _explain,
    "compare": _compare,
    "fit": _fit,
}


if __name__ == "__main__":
    sys.exit(main())
