"""Each error and warning that a user can meet ends in a link, and each link has a page."""

from __future__ import annotations

import ast
import builtins
from pathlib import Path

import pyro_kl
from pyro_kl.messages import PAGES, see, without_link

ROOT = Path(pyro_kl.__file__).parent
TREES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
    for path in sorted(ROOT.rglob("*.py"))
}

#: Exceptions that the package catches itself; a report quotes them as its reason.
INTERNAL = {"Declined", "NotAffineError", "NotElementwise", "NotTried", "TypesChanged", "Wrong"}
#: What Python's own protocols ask for: getattr, iteration, a Ctrl-C.
PROTOCOLS = {"AttributeError", "IndexError", "KeyboardInterrupt"}
#: Files whose messages are reasons in a report or in a warning, which has the link.
REASONS = {
    "calibration/processes.py",  # why a simulation failed
    "elbo/guides/joint.py",  # why a guide's site is not recognised
    "glm/passes/tree.py",  # faults of the package itself
    "registry/warnings.py",  # passes messages on
    "svi/build.py",  # why a block is not compiled
    "svi/package.py",  # why a compiled package is not used
}

#: The exceptions that the package declares.
DECLARED = {
    node.name
    for tree in TREES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.ClassDef)
    and any(ast.unparse(base).endswith(("Exception", "Error")) for base in node.bases)
}


def calls():
    """Each call in the package that makes an error or issues a warning, and its message."""
    for path, tree in TREES.items():
        if path in REASONS:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                name = node.func.id
                if name in ("warn", "warn_once"):
                    yield f"{path}:{node.lineno}", node.args[name == "warn_once"]
                elif _is_exception(name) and name not in INTERNAL | PROTOCOLS:
                    yield f"{path}:{node.lineno}", node.args[0]


def _is_exception(name):
    known = getattr(builtins, name, None)
    return (isinstance(known, type) and issubclass(known, Exception)) or name in DECLARED


def ends_in_a_link(message):
    # a constant that ends in a link, or another error's message
    if ast.unparse(message).startswith(("message.format(", "str(")):
        return True
    return (
        isinstance(message, ast.BinOp)
        and isinstance(message.right, ast.Call)
        and ast.unparse(message.right.func) == "see"
    )


def test_every_message_ends_in_a_link():
    assert not [place for place, message in calls() if not ends_in_a_link(message)]


def test_every_kind_has_a_page_and_every_page_a_message():
    linked = {
        node.args[0].value
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "see"
        and isinstance(node.args[0], ast.Constant)
    }
    assert linked == {page.stem for page in PAGES.glob("*.md")}


def test_a_quoted_message_has_no_link():
    assert without_link(ValueError("x is 3" + see("event-shapes"))) == "x is 3"
    assert without_link("a (more) b") == "a (more) b"
