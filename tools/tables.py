"""The tables of the documentation, made from the registry.

python -m tools.tables pairs > docs/pairs.md
python -m tools.tables classes > docs/classes.md
python -m tools.tables likelihoods
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TypedDict

import torch

from pyro_kl import Pair, registered
from pyro_kl.divergence.classes import class_rows
from pyro_kl.likelihoods import LIKELIHOODS, Likelihood

#: The largest relative error of each pair; `python -m tools.accuracy --write` writes it.
ACCURACY = Path(__file__).with_name("accuracy.json")


class Measured(TypedDict):
    """The largest relative error of a pair, rounded up, and over how many values."""

    error: float
    values: int
    reference: str


@cache
def measured() -> dict[str, Measured]:
    """The measured errors, by the pairs' names."""
    table: dict[str, Measured] = json.loads(ACCURACY.read_text())
    return table


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def pairs_in_markdown() -> str:
    """docs/pairs.md: every registered pair, by p."""
    pairs = registered()
    counts = Counter(pair.method for pair in pairs)
    total = ", ".join(f"{count} {method}" for method, count in counts.most_common())
    sections = [
        "# Pairs",
        "Made by `python -m tools.tables pairs`; do not edit. `python -m pyro_kl explain P "
        "Q` shows the formula of one.",
        f"{len(pairs)} ordered pairs: {total}. *Error* is the largest relative error against "
        "reference values made from the densities alone, rounded up; *finite* is when the KL is.",
    ]
    for name, group in groupby(pairs, key=lambda pair: pair.p.__name__):
        sections.append(_section(name, list(group)))
    replaced = [(f"{pair.name}", pair.replaces) for pair in pairs if pair.replaces]
    sections.append("## Formulas of torch's and Pyro's that are replaced, and why")
    sections.append(table(("p \\|\\| q", "reason"), [(a, b or "") for a, b in replaced]))
    return "\n\n".join(sections) + "\n"


def classes_in_markdown() -> str:
    """docs/classes.md: every class of pyro.distributions."""
    rows = class_rows()
    exact = sum(row.deterministic for row in rows)
    head = [
        "# Classes",
        "Made by `python -m tools.tables classes`; do not edit. The method is that of two "
        "members, found by asking `pyro_kl.kl`; a wrapper's is that of what it wraps.",
        f"{len(rows)} concrete classes of `pyro.distributions`, {exact} with a deterministic KL "
        "of one member and another.",
    ]
    cells = [(row.name, row.method, row.reason) for row in rows]
    return "\n\n".join([*head, table(("class", "method", "where, or why not"), cells)]) + "\n"


def likelihoods_in_markdown() -> str:
    """The likelihoods of which `pyro_kl.expected_log_likelihood` knows the expectation."""
    rows = [
        (
            each.name,
            each.distribution.__name__,
            each.link,
            ", ".join(each.parameters),
            each.possible,
            each.method,
            _largest_error(each),
            each.reference,
        )
        for each in LIKELIHOODS
    ]
    return table(
        ("name", "class", "link", "parameters", "y", "method", "error", "reference"), rows
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


def _section(name: str, pairs: Sequence[Pair]) -> str:
    """All pairs of one p: a row for each that can be finite, a line for those that cannot."""
    rows = [
        (pair.q.__name__, pair.method, pair.finite, _error(pair), pair.reference)
        for pair in pairs
        if pair.finite != "never"
    ]
    never = ", ".join(pair.q.__name__ for pair in pairs if pair.finite == "never")
    blocks = [f"## {name}"]
    if rows:
        blocks.append(table(("q", "method", "finite", "error", "reference"), rows))
    if never:
        blocks.append(f"Infinite, whatever the parameters, against: {never}.")
    return "\n\n".join(blocks)


def _error(pair: Pair) -> str:
    found = measured().get(pair.name)
    return f"{found['error']:.0e}" if found else ""


if __name__ == "__main__":
    tables = {
        "pairs": pairs_in_markdown,
        "classes": classes_in_markdown,
        "likelihoods": likelihoods_in_markdown,
    }
    print(tables[sys.argv[1]]())
