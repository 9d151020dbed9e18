"""The index that `pyro-kl pairs`, `classes` and `explain` read instead of importing torch.

    python -m tools.pair_index [--check]

writes pyro_kl_cli/index.json from the registry and from tools/accuracy.json, and
pyro_kl_cli/reference_values.json, of which `pyro-kl check` tries every value, from the values that
the tests have. `--check` writes nothing and says whether the files are up to date.
"""

from __future__ import annotations

import inspect
import json
import math
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions
import torch
from torch.distributions import Distribution

from pyro_kl import Pair, registered
from pyro_kl.divergence.classes import class_rows
from pyro_kl.registry.register import pair_of
from tests.conformance.cases import DUOS

from .measured import measured

FOLDER = Path(__file__).parents[1] / "pyro_kl_cli"


#: What a row of `pairs` has, in this order. A string is stored once, in `texts`, and a row has its
#: position there.
COLUMNS = (
    "p", "q", "method", "finite", "reference", "source", "replaces", "derivation",
    "terms",  # [name, code] of each
    "error",  # the measured relative error, over how many values, of which kind
)  # fmt: skip


def made() -> dict[str, Any]:
    """The content of the index.

    `registered_as` has the nearest base class with pairs of each class that has none, and
    `dispatched`, for each pair that is registered for base classes, the other classes that it
    is called for.
    """
    texts: dict[str, int] = {}
    return {
        "versions": {"torch": torch.__version__.split("+")[0], "pyro": pyro.__version__},
        "names": sorted(_classes()),
        "classes": [[row.name, row.method, row.reason] for row in class_rows()],
        "columns": COLUMNS,
        "pairs": [_row(pair, texts) for pair in registered()],
        "registered_as": _registered_as(),
        "dispatched": _dispatched(),
        "texts": list(texts),
    }


def _row(pair: Pair, texts: dict[str, int]) -> list[Any]:
    def position(text: str | None) -> int | None:
        return texts.setdefault(text, len(texts)) if text else None

    found = measured().get(pair.name)
    fields = {
        "p": position(pair.p.__name__),
        "q": position(pair.q.__name__),
        "method": position(pair.method),
        "finite": position(pair.finite),
        "reference": position(pair.reference),
        "source": position(pair.source),
        "replaces": position(pair.replaces),
        "derivation": position(inspect.cleandoc(pair.formula.__doc__ or "")),
        "terms": [[position(name), position(_code_of(f))] for name, f in pair.terms.items()],
        "error": found and [found["error"], found["values"], position(found["reference"])],
    }
    return [fields[name] for name in COLUMNS]


def _code_of(term: Callable[..., Any]) -> str:
    return textwrap.dedent(inspect.getsource(term)).rstrip()


def _classes() -> dict[str, type[Any]]:
    """All names of classes of pyro.distributions, base classes too."""
    return {
        name: value
        for name, value in vars(pyro.distributions).items()
        if isinstance(value, type) and issubclass(value, Distribution)
    }


def _registered_as() -> dict[str, str]:
    sides = {side for pair in registered() for side in (pair.p, pair.q)} - {Distribution}
    names = {side.__name__ for side in sides}
    return {
        name: next((base.__name__ for base in cls.__mro__ if base in sides), name)
        for name, cls in sorted(_classes().items())
        if name not in names
    }


def _dispatched() -> dict[str, list[list[str]]]:
    """The classes whose KL torch dispatches to a pair of other classes."""
    found: dict[str, list[list[str]]] = {}
    for p, q, pair in _resolved():
        if pair is not None and pair.name != f"{p} || {q}":
            found.setdefault(pair.name, []).append([p, q])
    return found


def _resolved() -> Iterator[tuple[str, str, Pair | None]]:
    classes = sorted(_classes().items())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's: of ambiguous pairs of Pyro's own
        for p, p_class in classes:
            for q, q_class in classes:
                yield p, q, pair_of(p_class, q_class)


def reference_values() -> dict[str, Any]:
    """One value for each pair whose error is tabulated: the one that is nearest to 1 nat.

    There log p - log q has light tails, so that samples agree with it too.
    """
    chosen = {}
    for duo in DUOS:
        rows = duo.measurable_rows()
        if rows and duo.pair.name in measured():
            row = min(rows, key=lambda row: abs(math.log(row.kl)))
            chosen[duo.pair.name] = [row.p, row.q, row.kl]
    return {"values": chosen}


def written(index: dict[str, Any]) -> str:
    """The index as compact JSON, an entry on a line, so that a change is a change of few lines."""

    def compact(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    def block(value: Any) -> str:
        if isinstance(value, (list, tuple)):
            return "[\n" + ",\n".join(map(compact, value)) + "\n]"
        return "{\n" + ",\n".join(f"{compact(k)}:{compact(v)}" for k, v in value.items()) + "\n}"

    return "{\n" + ",\n".join(f"{compact(k)}:{block(v)}" for k, v in index.items()) + "\n}\n"


def main() -> int:
    texts = {
        FOLDER / "index.json": written(made()),
        FOLDER / "reference_values.json": written(reference_values()),
    }
    if "--check" in sys.argv[1:]:
        stale = [
            path.name
            for path, text in texts.items()
            if not path.is_file() or path.read_text(encoding="utf-8") != text
        ]
        print(
            f"stale: {', '.join(stale)}: run `python -m tools.pair_index`" if stale else "current"
        )
        return int(bool(stale))
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.name}: {len(text):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
