"""Pages with one table: the classes of Pyro, the likelihoods, the versions that are tested."""

from __future__ import annotations

import re
from pathlib import Path

import pyro.distributions as dist
import torch

from pyro_kl.divergence.classes import class_rows
from pyro_kl.likelihoods import LIKELIHOODS, Likelihood

from .citations import cited
from .classes_of_pairs import family_names, structured_classes
from .pages import table, write_page


def write_tables(root: Path) -> None:
    """docs/reference/classes.md, likelihoods.md and compatibility.md."""
    reference = root / "docs/reference"
    write_page(reference / "classes.md", _classes())
    write_page(reference / "likelihoods.md", _likelihoods())
    write_page(reference / "compatibility.md", _compatibility(root))


def _classes() -> str:
    rows = class_rows()
    exact = sum(row.deterministic for row in rows)
    structured = {cls.__name__ for cls in structured_classes()}
    cells = [(_linked(row.name, structured), row.method, row.reason) for row in rows]
    return "\n\n".join(
        [
            "# Classes of Pyro",
            f"{len(rows)} concrete classes of `pyro.distributions`, {exact} with a deterministic "
            "KL of one member and another. The method is what `pyro_kl.kl` reports for two "
            "examples of the class; a wrapper's is that of what it wraps.",
            table(("class", "method", "where, or why not"), cells),
        ]
    )


def _linked(name: str, structured: set[str]) -> str:
    """The page of the class or of its nearest base that has one."""
    for base in getattr(dist, name).__mro__:
        if base.__name__ in family_names():
            return f"[{name}](families/{base.__name__}.md)"
        if base.__name__ in structured:
            return f"[{name}](structured/{base.__name__}.md)"
    return name


def _likelihoods() -> str:
    head = ("name", "class", "link", "parameters", "y", "method", "error", "reference")
    rows = [
        (
            each.name,
            each.distribution.__name__,
            each.link,
            ", ".join(each.parameters),
            each.possible,
            each.method,
            _largest_error(each),
            cited(each.reference),
        )
        for each in LIKELIHOODS
    ]
    return "\n\n".join(
        [
            "# Likelihoods",
            "The likelihoods of which `pyro_kl.expected_log_likelihood` knows the expectation "
            "under a Normal predictor. *Error* bounds the error in nats, the largest of some "
            "scales up to 10.",
            table(head, rows),
        ]
    )


def _largest_error(likelihood: Likelihood) -> str:
    """The bound of the error in nats, the largest of some scales up to 10, at a mean of 0."""
    if likelihood.method != "quadrature" or likelihood.error is None:
        return ""
    zero = torch.zeros(1, dtype=torch.float64)
    y, *own = (zero + x for x in likelihood.examples[0].values())
    parameters = dict(zip(likelihood.parameters, own, strict=True))
    scales = (0.02, 0.1, 0.17, 0.25, 1.0, 10.0)  # each rule of E softplus is worst at its end
    bound = max(likelihood.error(y, zero, zero + x, **parameters).item() for x in scales)
    of = "".join(f", {name} {likelihood.examples[0][name]:g}" for name in likelihood.parameters)
    return f"{bound:.0e}{of}"


# --- compatibility ------------------------------------------------------------------------------


def _compatibility(root: Path) -> str:
    """The versions that the tests run on, from the constraints and the CI's scripts."""
    newest = (root / "constraints.txt").read_text()
    new = _pins(newest, "3.11")
    old = {**_pins(newest, "3.10"), **_pins((root / "constraints-oldest.txt").read_text(), "3.10")}
    names = ("torch", "pyro-ppl", "numpy", "scipy", "pandas", "scikit-learn", "matplotlib")
    rows = [(name, old[name], new[name]) for name in names]
    script = (root / ".ci/environments").read_text()
    versions = re.search(r"for version in ([\d. ]+);", script)
    pythons = ", ".join(versions[1].split()) if versions else ""
    return "\n\n".join(
        [
            "# Compatibility",
            "The tests run on the oldest and the newest versions of this table. Between them "
            "nothing is known to fail, and nothing is tested.",
            table(("package", "oldest", "newest"), rows),
            "The oldest versions pass the short form of the tests with Python 3.10 "
            "(`constraints-oldest.txt`); the newest (`constraints.txt`) pass all tests with "
            "Python 3.11 and the short form with Python 3.13. The wheel is installed with each "
            f"of Python {pythons}, where a smoke test and `pyro-kl check` pass; a Python that "
            "the machine does not have is skipped with a line that says so.",
        ]
    )


def _pins(text: str, python: str) -> dict[str, str]:
    """The pinned versions of a constraints file for one Python."""
    pins = {}
    for name, version, marker in re.findall(
        r"^([\w.-]+)==([\w.]+)(?:; python_version ([<>=]+ \"[\d.]+\"))?", text, re.MULTILINE
    ):
        old = python == "3.10"
        if not marker or (marker.startswith("<") == old):
            pins[name] = version
    return pins
