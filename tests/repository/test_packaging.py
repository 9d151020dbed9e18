"""What is imported is declared where it is imported, and what is declared is needed."""

import ast
import re
import sys
from pathlib import Path

import pytest

import pyro_kl

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Where a package's name is not that of its module.
MODULES = {"pyro-ppl": "pyro", "scikit-learn": "sklearn", "pytest-xdist": "xdist"}
OURS = {"pyro_kl", "pyro_kl_cli", "models", "examples", "tests", "tools", "benchmarks"}


def declared(requirements):
    """The modules that a list of requirements brings."""
    names = {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements}
    return {MODULES.get(name, name).replace("-", "_") for name in names} - OURS


def imported(folder):
    """The modules that a folder's files import, anywhere in a file."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - OURS


REQUIRED = declared(PROJECT["dependencies"])
PLOT = declared(PROJECT["optional-dependencies"]["plot"])
EXAMPLES = REQUIRED | PLOT | declared(PROJECT["optional-dependencies"]["examples"])
REPORT = declared(PROJECT["optional-dependencies"]["report"])
ARVIZ = declared(PROJECT["optional-dependencies"]["arviz"]) | {"arviz_base"}  # of ArviZ 1.x
GLM = declared(PROJECT["optional-dependencies"]["glm"])
TEST = EXAMPLES | REPORT | GLM | ARVIZ | declared(PROJECT["optional-dependencies"]["test"])


@pytest.mark.parametrize(
    ("folder", "available"),
    [
        # imported when a picture or a progress bar is drawn, a report is asked for as a
        # DataFrame or for ArviZ, a table is read, a posterior is saved, scikit-learn asks for its
        # tags, or rich prints a result
        ("pyro_kl", REQUIRED | REPORT | GLM | PLOT | ARVIZ | {"rich", "tqdm", "sklearn"}),
        ("pyro_kl_cli", REQUIRED | PLOT | {"rich"}),  # for tables where it is there
        ("models", EXAMPLES),
        # for `--model PATH` only, and for one example
        ("examples", EXAMPLES | {"transformers", "lightning"}),
        ("tests", TEST | {"jax", "numpyro"}),  # these have an environment of their own
    ],
)
def test_imports_are_declared(folder, available):
    """Nothing is there only because another package happens to bring it."""
    assert imported(folder) - {"tomllib"} - available == set()  # tomllib: since Python 3.11


def test_the_package_asks_for_its_foundations():
    """numpy and scipy come with many environments, and must come with the bare package."""
    assert {"torch", "pyro", "numpy", "scipy"} <= REQUIRED


def constraints(name):
    lines = (ROOT / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-oldest.txt"])
def test_a_package_has_one_version(name):
    """Two for one Python cannot be installed: those of a package are told apart by markers."""
    markers = {}
    for line in constraints(name):
        requirement, _, marker = line.partition(";")
        markers.setdefault(requirement.partition("==")[0], []).append(marker.strip())
    assert [x for x, own in markers.items() if len(own) > 1 and "" in own] == []
    assert [x for x, own in markers.items() if len(own) > len(set(own))] == []


def test_what_is_declared_is_constrained():
    """Every package that the tests run with has a tested version."""
    pinned = declared(constraints("constraints.txt"))
    extras = PROJECT["optional-dependencies"].values()
    assert declared([*PROJECT["dependencies"], *(r for group in extras for r in group)]) <= pinned


def test_the_oldest_that_is_declared_is_what_is_tried():
    """Every foundation has a lower bound, and the short form of the suite runs on just that."""
    wanted = {requirement.replace(">=", "==") for requirement in PROJECT["dependencies"]}
    assert wanted <= set(constraints("constraints-oldest.txt"))


# --- a release ----------------------------------------------------------------------------------


def test_the_version_is_told_once():
    """CITATION.cff and the changelog have the version of the package."""
    version = pyro_kl.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_the_pythons_that_are_named_are_those_that_ci_tries():
    """CI tries each version of a classifier, or runs the whole suite with it."""
    named = {line[-4:] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    tried = set(re.findall(r"3\.\d+", (ROOT / ".ci" / "environments").read_text()))
    assert {"3.10", "3.11"} <= named <= tried | {"3.11"}
