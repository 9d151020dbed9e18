"""The syntax of an expression: a bounded tree of calls, lists, names and numbers."""

from __future__ import annotations

import ast
import warnings

from .mistake import Mistake, Place

#: Characters of an expression, and how deep calls and lists may be inside one another.
_LONGEST, _DEEPEST = 10_000, 60
#: What an expression may consist of.
_ALLOWED = (
    ast.Call, ast.keyword, ast.Name, ast.Attribute, ast.Constant, ast.List, ast.Tuple,
    ast.BinOp, ast.UnaryOp, ast.Load,
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.UAdd, ast.USub,
)  # fmt: skip
#: What is written instead by those who expect Python.
_INSTEAD = {
    ast.Lambda: "functions cannot be written here",
    ast.Subscript: "[...] after a value is not possible here",
    ast.Compare: "comparisons are not possible here",
    ast.Dict: "dictionaries are not possible here",
    ast.Starred: "*... is not possible here: write the arguments out",
    ast.Set: "sets are not possible here: write a list, [...]",
    ast.JoinedStr: "f-strings are not possible here",
}


def parse(text: str) -> ast.expr:
    """The tree of an expression.

    Raises:
        Mistake: the text is no expression, is too long or too deep, or has a part that is more
            than calls, lists, names and numbers.
    """
    if not text.strip():
        raise Mistake("the expression is empty: write a distribution, as 'Gamma(2, 1)'")
    if len(text) > _LONGEST:
        raise Mistake(f"the expression has {len(text):,} characters; {_LONGEST:,} are possible")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's, of `1if x` and of the like
            tree = ast.parse(text.strip(" \t"), mode="eval").body
    except SyntaxError as error:
        raise _unparsed(text, error) from None
    except (ValueError, UnicodeError):  # a null byte, half of a surrogate pair
        raise Mistake("the expression has characters that cannot be part of one") from None
    except (RecursionError, MemoryError):
        raise Mistake("the expression is too deep") from None
    _check(tree, 0)
    return tree


def _unparsed(text: str, error: SyntaxError) -> Mistake:
    """Python's own message, at its place."""
    column = max((error.offset or 1) - 1, 0)
    lines = text.strip(" \t").splitlines() or [""]
    line = min(max(error.lineno or 1, 1), len(lines))
    in_bytes = len(lines[line - 1][:column].encode(errors="replace"))
    what = (error.msg or "it does not parse").removeprefix("invalid syntax. ")
    return Mistake(f"this is no expression: {what}", Place(line, in_bytes))


def _check(node: ast.AST, depth: int) -> None:
    if not isinstance(node, _ALLOWED):
        operator = isinstance(node, (ast.operator, ast.unaryop, ast.boolop))
        raise Mistake(
            "only + - * / ** are possible between numbers"
            if operator or isinstance(node, ast.BoolOp)
            else _INSTEAD.get(type(node), "an expression has calls, lists, names and numbers"),
            node,
        )
    if isinstance(node, ast.keyword) and node.arg is None:
        raise Mistake("**... is not possible here: write the arguments out", node)
    if depth > _DEEPEST:
        raise Mistake(f"the expression is more than {_DEEPEST} levels deep", node)
    for child in ast.iter_child_nodes(node):
        try:
            _check(child, depth + 1)
        except Mistake as mistake:
            if not hasattr(mistake.at, "lineno"):  # an operator has no place of its own
                mistake.at = node
            raise


def dotted(node: ast.expr) -> str | None:
    """`a.b.c` of names and attributes; None for another expression."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return None if head is None else f"{head}.{node.attr}"
    return None


def is_class_name(text: str) -> bool:
    """Whether a text is one name, which stands for the examples of that class."""
    return text.strip().isidentifier()
