"""Command line: `python -m pyro_kl pairs | classes | explain P Q | compare P Q`."""

from __future__ import annotations

import argparse
import inspect
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import pyro
import pyro.distributions
from torch.distributions import Distribution

from . import compare, registered
from .accuracy import error_of
from .class_table import class_rows
from .markdown import classes_in_markdown, pairs_in_markdown
from .pair import Pair
from .reduction import no_formula_for
from .registry import family_of, pair_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 2 for bad input, with one line that says what to do."""
    parser = argparse.ArgumentParser(prog="python -m pyro_kl", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    pairs = commands.add_parser("pairs", help="every registered pair")
    pairs.add_argument("--markdown", action="store_true", help="as docs/pairs.md has it")
    classes = commands.add_parser("classes", help="every class of pyro.distributions")
    classes.add_argument("--markdown", action="store_true", help="as docs/classes.md has it")
    for name, purpose in (
        ("explain", "formula, condition and reference of one pair"),
        ("compare", "exact against sampled, on the families' examples"),
    ):
        command = commands.add_parser(name, help=purpose)
        command.add_argument("p", help="class of the first argument, e.g. Gamma")
        command.add_argument("q", help="class of the second argument, e.g. LogNormal")
    arguments = parser.parse_args(argv)
    if arguments.command == "pairs":
        print(pairs_in_markdown() if arguments.markdown else registered())
        return 0
    if arguments.command == "classes":
        print(classes_in_markdown() if arguments.markdown else _classes())
        return 0
    try:
        pair = _find(arguments.p, arguments.q)
    except LookupError as error:
        print(error, file=sys.stderr)
        return 2
    print(_explained(pair) if arguments.command == "explain" else _compared(pair))
    return 0


def _classes() -> str:
    return "\n".join(f"{row.name:40}{row.method:20}{row.reason}" for row in class_rows())


def _find(p: str, q: str) -> Pair:
    classes = []
    for name in (p, q):
        cls = getattr(pyro.distributions, name, None)
        if not (isinstance(cls, type) and issubclass(cls, Distribution)):
            raise LookupError(f"{name!r} is not a class of pyro.distributions.")
        classes.append(cls)
    pair = pair_of(*classes)
    if pair is None:
        raise LookupError(no_formula_for(p, q))
    return pair


def _explained(pair: Pair) -> str:
    rows = [
        f"KL({pair.name})",
        f"  method     {pair.method}",
        f"  finite     {pair.finite}",
        f"  reference  {pair.reference}",
        f"  error      {error_of(pair)}",
        f"  declared   {pair.source}",
    ]
    if pair.replaces:
        rows.append(f"  replaces   {pair.replaces}")
    doc = inspect.cleandoc(pair.formula.__doc__ or "")
    blocks = ["\n".join(rows), textwrap.indent(doc, "  ")]
    blocks += [f"  {name}\n{_code_of(term)}" for name, term in pair.terms.items()]
    return "\n\n".join(blocks)


def _code_of(term: Callable[..., Any]) -> str:
    """A declared function as its author wrote it."""
    try:
        code = inspect.getsource(term)
    except OSError:  # declared at a prompt
        return f"    {term.__name__}"
    return textwrap.indent(textwrap.dedent(code).rstrip(), "    ")


def _compared(pair: Pair) -> str:
    p, q = family_of(pair.p), family_of(pair.q)
    if p is None or q is None:
        return _explained(pair)
    pyro.set_rng_seed(0)
    lines = []
    for a, b in zip(p.examples, q.examples, strict=False):
        lines.append(f"p = {a}, q = {b}")
        lines.append(str(compare(p.make(a), q.make(b))))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
