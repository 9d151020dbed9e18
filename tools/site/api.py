"""A page for each public object from its docstring, with the pages that use it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pyro_kl

from .pages import fence, table, toctree, write

#: The modules of the public page, in the order of the index.
MODULES = ("pyro_kl", "pyro_kl.loggers", "pyro_kl.glm", "pyro_kl.policy", "pyro_kl.plot")
#: The room that defines an object, and the heading that it has in the index.
GROUPS = {
    "pyro_kl.divergence": "The KL of two distributions, and other divergences",
    "pyro_kl.elbo": "ELBO and report",
    "pyro_kl.diagnosis": "How good a fit is",
    "pyro_kl.calibration": "How good a fit is",
    "pyro_kl.svi": "SVI",
    "pyro_kl.svi.loggers": "Loggers of SVI",
    "pyro_kl.likelihoods": "Likelihoods",
    "pyro_kl.glm": "Regressions",
    "pyro_kl.policy": "Policies with a KL penalty",
    "pyro_kl.plot": "Pictures",
    "pyro_kl.arviz": "ArviZ",
    "pyro_kl.results": "What results have in common",
    "pyro_kl.registry": "Your own distributions",
}
CODE = re.compile(r"^```\{code-cell\}.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def write_api(root: Path) -> None:
    """docs/reference/api: an index by groups, and a page for each object."""
    groups: dict[str, list[tuple[str, Any]]] = {title: [] for title in GROUPS.values()}
    for qualified, found in public_objects():
        groups[_group(qualified, found)].append((qualified, found))
    uses = _code_by_page(root / "docs")
    pages = {"index": _index(groups)}
    for members in groups.values():
        for qualified, found in members:
            pages[qualified] = _page(qualified, found, uses)
    write(root / "docs/reference/api", pages)


def public_objects() -> list[tuple[str, Any]]:
    """The public objects by their public names; modules are left out."""
    objects = []
    for name in MODULES:
        module = pyro_kl if name == "pyro_kl" else getattr(pyro_kl, name.removeprefix("pyro_kl."))
        names = getattr(module, "__all__", None) or [x for x in vars(module) if x[0] != "_"]
        objects += [
            (f"{name}.{each}", getattr(module, each))
            for each in names
            if not isinstance(getattr(module, each), ModuleType)
        ]
    return objects


def _group(qualified: str, found: Any) -> str:
    home = getattr(found, "__module__", "") or ""
    if not home.startswith("pyro_kl"):  # a constant has the module of its class, or none
        home = qualified.rpartition(".")[0]
    rooms = [room for room in GROUPS if home == room or home.startswith(f"{room}.")]
    return GROUPS[max(rooms, key=len)] if rooms else GROUPS["pyro_kl.registry"]


def _index(groups: dict[str, list[tuple[str, Any]]]) -> str:
    blocks = ["# API"]
    for title, members in groups.items():
        if not members:
            continue
        rows = [(f"[`{name}`]({name}.md)", _first_sentence(found)) for name, found in members]
        blocks += [f"## {title}", table(("name", "what it is"), rows)]
        blocks.append(toctree([name for name, _ in members], hidden=True))
    return "\n\n".join(blocks) + "\n"


def _first_sentence(found: Any) -> str:
    if not (inspect.isclass(found) or callable(found)):
        return f"a `{type(found).__name__}`"
    doc = inspect.getdoc(found) or ""
    return re.sub(r"\s+", " ", doc.split("\n\n")[0])


def _page(qualified: str, found: Any, uses: dict[tuple[str, str], str]) -> str:
    blocks = [f"# {qualified}", fence(_directive(qualified, found), "{eval-rst}")]
    name = qualified.rpartition(".")[2]
    word = re.compile(rf"\b{re.escape(name)}\b")
    users = [page for page, code in uses.items() if word.search(code) and "pyro_kl" in code]
    if users:
        items = [f"- [{title}](../../{path})" for path, title in users]
        blocks += ["## Used in", "\n".join(items)]
    return "\n\n".join(blocks) + "\n"


def _directive(qualified: str, found: Any) -> str:
    if inspect.isclass(found):
        strangers = [x.__name__ for x in found.__mro__ if not x.__module__.startswith("pyro_kl")]
        options = [":members:", f":inherited-members: {', '.join(strangers)}"]
        if issubclass(found, BaseException):
            options = []
        return "\n   ".join([f".. autoclass:: {qualified}", *options])
    kind = "autofunction" if callable(found) and hasattr(found, "__name__") else "autodata"
    return f".. {kind}:: {qualified}"


def _code_by_page(docs: Path) -> dict[tuple[str, str], str]:
    """The code of each page that people write, by the page's path below docs/ and its title."""
    code = {}
    for part in ("tutorials", "how_to", "explanations"):
        for page in sorted((docs / part).glob("*.md")):
            text = page.read_text()
            title = next(line[2:] for line in text.splitlines() if line.startswith("# "))
            code[f"{part}/{page.name}", title] = "\n".join(CODE.findall(text))
    for example in sorted((docs / "gallery").glob("plot_*.py")):
        text = example.read_text()
        code[f"pictures/{example.stem}.rst", text.splitlines()[1]] = text
    return code
