"""Every public error and warning ends in a link to a page, and every page is true."""

from __future__ import annotations

import ast
import builtins
import re
import sys
import warnings
from operator import attrgetter
from pathlib import Path

import pytest

import pyro_kl
from pyro_kl.messages import PAGES, see, without_link

KINDS = sorted(page.stem for page in PAGES.glob("*.md"))
ROOT = Path(pyro_kl.__file__).parent

#: Exceptions that the package catches itself; a report quotes them as its reason.
INTERNAL = {"Declined", "NotAffineError", "NotElementwise", "NotTried", "TypesChanged", "Wrong"}
#: What Python's own protocols ask for: getattr, iteration, a Ctrl-C.
PROTOCOLS = {"AttributeError", "IndexError", "KeyboardInterrupt"}


#: Files whose messages are reasons in a report or in a warning, which has the link.
REASONS = {
    "elbo/guides/joint.py",  # why a guide's site is not recognised
    "glm/passes/tree.py",  # faults of the package itself
    "registry/warnings.py",  # passes messages on
    "svi/build.py",  # why a block is not compiled
    "svi/package.py",  # why a compiled package is not used
}


def fences(kind, language):
    """The blocks of a page in one language."""
    text = (PAGES / f"{kind}.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def provoked(code, kind, names):
    """The error or the warnings of a page's first block, as Python prints them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            exec(compile(code, "page.py", "exec"), names)
        except Exception as error:
            return [f"{type(error).__name__}: {error.args[0]}"]
    return [f"{warning.category.__name__}: {warning.message}" for warning in caught]


def in_general(message):
    """A message without its line breaks and numbers, which may differ with the machine."""
    return " ".join(re.sub(r"\d[\d.,e+-]*", "#", message).split())


@pytest.fixture
def no_figure_left():
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("nothing_warned", "registries_as_they_were", "no_figure_left")
def test_the_code_of_a_page_provokes_its_message(kind, tmp_path, monkeypatch):
    """The message on the page is the one that is printed, and ends in the page's own link."""
    monkeypatch.chdir(tmp_path)
    first, *rest = fences(kind, "python")
    names = {"__name__": "page"}
    (printed,) = fences(kind, "text")
    assert in_general(printed) in map(in_general, provoked(first, kind, names))
    assert " ".join(printed.split()).endswith(see(kind))
    for code in rest:  # what mends it says nothing: warnings are errors here
        exec(compile(code, "page.py", "exec"), names)


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_fits_a_terminal(kind):
    lines = (PAGES / f"{kind}.md").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert max(map(len, lines)) < 80
    for heading in ("## What it means", "## What to do", "## Example"):
        assert heading in lines


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_page_names_is_public(kind):
    for name in re.findall(r"\bpyro_kl((?:\.\w+)+)", (PAGES / f"{kind}.md").read_text()):
        assert attrgetter(name[1:])(pyro_kl) is not None


def calls():
    """Each call in the package that makes an error or issues a warning, and its message."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                name = node.func.id
                if path.relative_to(ROOT).as_posix() in REASONS:
                    continue
                if name in ("warn", "warn_once"):
                    yield path, node, node.args[name == "warn_once"]
                elif _is_exception(name) and name not in INTERNAL | PROTOCOLS:
                    yield path, node, node.args[0]


def _is_exception(name):
    known = getattr(builtins, name, None)
    return (isinstance(known, type) and issubclass(known, Exception)) or name in DECLARED


def declared():
    """The names of the exceptions that the package declares."""
    return {
        node.name
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and any("Exception" in ast.unparse(b) or "Error" in ast.unparse(b) for b in node.bases)
    }


DECLARED = declared()


def ends_in_a_link(message):
    if isinstance(message, ast.IfExp):
        return ends_in_a_link(message.body) and ends_in_a_link(message.orelse)
    if ast.unparse(message).startswith("message.format("):  # a constant that ends in a link
        return True
    return (
        isinstance(message, ast.BinOp)
        and isinstance(message.right, ast.Call)
        and ast.unparse(message.right.func) == "see"
    )


def test_every_message_ends_in_a_link():
    missing = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, node, message in calls()
        if not ends_in_a_link(message)
    ]
    assert not missing


def test_every_kind_has_a_page_and_every_page_a_message():
    texts = [ast.parse(path.read_text()) for path in ROOT.rglob("*.py")]
    linked = {
        node.args[0].value
        for text in texts
        for node in ast.walk(text)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "see"
        and isinstance(node.args[0], ast.Constant)
    }
    assert linked == set(KINDS)


def test_a_quoted_message_has_no_link():
    assert without_link(ValueError("x is 3" + see("event-shapes"))) == "x is 3"
    assert without_link("a (more) b") == "a (more) b"


def test_the_pages_need_nothing_but_the_standard_library():
    text = ast.parse((ROOT / "messages" / "__init__.py").read_text())
    imported = {
        name
        for node in ast.walk(text)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }
    assert imported <= set(sys.stdlib_module_names)
