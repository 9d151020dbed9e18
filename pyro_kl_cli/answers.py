"""What `explain`, `compare` and `entropy` compute by the functions of `pyro_kl`."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor
from torch.distributions import Distribution

from pyro_kl import Comparison, Estimate, compare, entropy, kl
from pyro_kl.registry.reduction import describe, no_formula_for
from pyro_kl.registry.register import pair_of

from .expressions.syntax import is_class_name
from .index import IndexedPair, index
from .operands import Operand, Operands, are_examples, double_precision, operand, operands
from .pairs import as_dict
from .refused import Refused
from .text import field, fields

S = TypeVar("S")
T = TypeVar("T")

#: Examples of two classes that are compared.
_EXAMPLES = 3
#: Characters of a name in a picture.
_LONGEST_NAME = 25
#: Errors whose messages say what is wrong.
_FOR_USERS = (ValueError, TypeError, NotImplementedError, OSError)
#: More samples than this take minutes.
_MOST_SAMPLES = 100_000_000
#: NumPy's generator, which Pyro seeds too, takes no larger one.
_LARGEST_SEED = 2**32 - 1


def explained_by_kl(arguments: argparse.Namespace) -> str:
    """The KL of two distributions by `kl`, and the pair of classes that it used, if it is one."""
    with double_precision():
        chosen, found = next(_pairs_answered(arguments, kl))
    p, q = chosen.p, chosen.q
    pair = pair_of(type(p), type(q))
    stored = index().pair_of(pair.p.__name__, pair.q.__name__) if pair else None
    if arguments.json:
        row = {**_named(chosen), **_estimate(found), "pair": stored and as_dict(stored)}
        return _as_json(row)
    return _explained(chosen, found, stored)


def _explained(chosen: Operands, found: Estimate, stored: IndexedPair | None) -> str:
    from .explain import explained

    own = {"p": chosen.p_text, "q": chosen.q_text, "KL": found.line()}
    if stored is not None:
        return explained(stored, own)
    title = f"KL({describe(chosen.p)} || {describe(chosen.q)})"
    return f"{title}\n{field('method', found.method)}\n{fields(own)}"


def run_compare(arguments: argparse.Namespace) -> str:
    """The exact KL beside a sampled one, for two distributions or for the examples of classes."""
    if not 2 <= arguments.samples <= _MOST_SAMPLES:
        raise Refused(f"--samples {arguments.samples}: from 2 to {_MOST_SAMPLES:,} are possible")
    if not 0 <= arguments.seed <= _LARGEST_SEED:
        raise Refused(f"--seed {arguments.seed}: from 0 to {_LARGEST_SEED} are possible")
    if arguments.plot is not None and not arguments.plot.suffix:
        raise Refused(f"--plot {arguments.plot}: the name of a file ends in .png, .pdf or .svg")
    divergence, alpha = arguments.divergence, arguments.alpha
    if (alpha is None) == (divergence == "renyi"):
        raise Refused("--alpha is the order of --divergence renyi: give both or neither")
    if arguments.plot is not None and divergence != "kl":
        raise Refused("--plot draws the KL: leave --divergence out")

    def compared(p: Distribution, q: Distribution) -> Comparison:
        return compare(p, q, num_samples=arguments.samples, divergence=divergence, alpha=alpha)

    with double_precision(arguments.seed):
        answers = list(islice(_pairs_answered(arguments, compared), _EXAMPLES))
        if arguments.plot is not None:
            _draw(answers[0][0], arguments.plot)
    if arguments.json:
        rows = [
            {
                **_named(chosen),
                "divergence": found.divergence,
                "exact": _estimate(found.exact),
                "sampled": _estimate(found.sampled),
                "z": _numbers(found.z_score),
            }
            for chosen, found in answers
        ]
        return _as_json(rows if are_examples(arguments.p, arguments.q) else rows[0])
    blocks = [_compared(chosen, found) for chosen, found in answers]
    if arguments.plot is not None:
        blocks.append(f"Written: {arguments.plot}")
    return "\n".join(blocks)


def _compared(chosen: Operands, found: Comparison) -> str:
    rows = {
        "p": chosen.p_text,
        "q": chosen.q_text,
        "exact": found.exact.line(),
        "sampled": found.sampled.line(),
        "z": found.shown_z(),
    }
    return f"{found.divergence}({found.name})\n{fields(rows)}"


def run_entropy(arguments: argparse.Namespace) -> str:
    """The entropy of a distribution, or of the examples of a class."""

    def found_of(chosen: Operand) -> Estimate:
        return entropy(chosen.p)

    missing = f"No formula for the entropy of {arguments.p}."
    with double_precision():
        candidates = operand(arguments.p, f"the entropy of {arguments.p}")
        answers = list(islice(_answered(candidates, found_of, missing), _EXAMPLES))
    if arguments.json:
        rows = [
            {"name": describe(chosen.p), "p": chosen.p_text, **_estimate(found)}
            for chosen, found in answers
        ]
        return _as_json(rows if is_class_name(arguments.p) else rows[0])
    return "\n".join(
        f"entropy({describe(chosen.p)})\n" + fields({"p": chosen.p_text, "entropy": found.line()})
        for chosen, found in answers
    )


def _draw(chosen: Operands, path: Path) -> None:
    """The picture of one KL: where on the line it comes from, else how its samples converge."""
    try:
        from matplotlib.figure import Figure

        from pyro_kl import plot
    except ImportError:
        raise Refused("--plot needs matplotlib: pip install matplotlib") from None
    univariate = not (*chosen.p.batch_shape, *chosen.p.event_shape)
    draw = plot.kl_integrand if univariate else plot.convergence
    figure = Figure(figsize=(8.0, 4.5), dpi=150, layout="constrained")
    try:
        draw(chosen.p, chosen.q, names=_names(chosen), ax=figure.subplots())
        figure.savefig(path)
    except Exception as error:  # a class of the user's may raise anything
        raise Refused(f"--plot {path}: {_one_line(error)}") from None


def _names(chosen: Operands) -> tuple[str, str]:
    """What the picture calls the two: as they were typed, where that is short."""
    names = chosen.p_text, chosen.q_text
    return names if max(map(len, names)) <= _LONGEST_NAME else ("p", "q")


def _pairs_answered(
    arguments: argparse.Namespace, function: Callable[[Distribution, Distribution], T]
) -> Iterator[tuple[Operands, T]]:
    """The pairs of distributions for which there is an answer, each with it."""
    p, q = arguments.p, arguments.q
    return _answered(operands(p, q), lambda x: function(x.p, x.q), no_formula_for(p, q))


def _answered(
    candidates: Iterator[S], function: Callable[[S], T], missing: str
) -> Iterator[tuple[S, T]]:
    """The candidates for which the function has a result, each with it.

    Raises:
        Refused: there is none.
    """
    declined, answers = "", 0
    for chosen in candidates:
        try:
            found = function(chosen)
        except NotImplementedError as error:
            declined = declined or str(error)
            continue
        except Exception as error:  # a class of the user's may raise anything
            raise Refused(_one_line(error)) from None
        answers += 1
        yield chosen, found
    if not answers:
        raise Refused(declined or missing)


def _one_line(error: Exception) -> str:
    """The message; with the kind of error where the message was not made for users."""
    message, kind = " ".join(str(error).split()), type(error).__name__
    return message if message and isinstance(error, _FOR_USERS) else f"{kind}: {message}"


# --- JSON ---------------------------------------------------------------------------------------


def _named(chosen: Operands) -> dict[str, str]:
    name = f"{describe(chosen.p)} || {describe(chosen.q)}"
    return {"name": name, "p": chosen.p_text, "q": chosen.q_text}


def _estimate(found: Estimate) -> dict[str, Any]:
    """A KL for JSON: nats, with the error that its method has."""
    row = {"value": _numbers(found.value), "method": found.method, "reason": found.reason}
    if found.error is not None:
        row["error"] = _numbers(found.error)
    if not found.exact:
        row["standard_error"] = _numbers(found.standard_error)
        row["num_samples"] = found.num_samples
    return row


def _numbers(values: Tensor) -> Any:
    """Numbers in lists as the batch has them; JSON has no infinity, which is the word "inf"."""

    def clean(x: Any) -> Any:
        if isinstance(x, list):
            return [clean(item) for item in x]
        if math.isnan(x):
            return None
        return x if math.isfinite(x) else str(x)

    return clean(values.detach().tolist())


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
