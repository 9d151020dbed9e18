"""The command `pyro-kl fit FILE --target COLUMN`: a logistic regression of a table."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .refused import Refused

if TYPE_CHECKING:
    from pyro_kl.glm import LogisticRegression
    from pyro_kl.glm.passes.rows import Rows
    from pyro_kl.glm.posterior.posterior import Posterior
    from pyro_kl.glm.tables.table_rows import TableRows

#: The width of a printed line.
WIDTH = 80
#: A table whose features have at most this many bytes is read once and kept in memory.
SMALL = 1 << 28
#: Coefficients in the picture of prior and posterior.
PICTURED = 6
#: Coefficients in the picture of intervals.
LISTED = 40
_SEPARATORS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}

Tell = Callable[[str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add = parser.add_argument
    add("file", metavar="FILE", help="CSV, Parquet or Arrow, or a folder of Parquet files")
    add("--target", required=True, metavar="COLUMN", help="the column to predict; two values")
    add("--positive", metavar="VALUE", help="the value that is 1 (yes, true, 1, or the second)")
    columns: dict[str, Any] = {
        "nargs": "+",
        "action": "extend",
        "default": [],
        "metavar": "COLUMN",
    }
    add("--drop", **columns, help="columns that are not used")
    add("--keep", **columns, help="columns that are used though they look like identifiers")
    add("--weight", metavar="COLUMN", help="the column of the rows' weights")
    add("--impute", action="store_true", help="fill missing values in; else rows are left out")
    add("--missing", **{**columns, "metavar": "WORD"}, help="more words that mean a missing value")
    add("--raw", action="store_true", help="numbers as they are; else with mean 0 and sd 1")
    add("--sep", metavar="CHARACTER", help="the separator of a CSV file (found)")
    add("--encoding", help="of a CSV file (found)")
    add("--prior", default="normal", help="normal, laplace, studentt or horseshoe (normal)")
    add("--prior-scale", type=_scale, default=1.0, help='of the weights; or "learn" (1)')
    add("--bias-scale", type=float, default=5.0, help="prior scale of the bias (5)")
    add("--covariance", default="full", help="full, diagonal or low_rank (full)")
    add("--tol", type=float, default=1e-4, help="nats from the optimum (1e-4)")
    add("--held-out", type=_fraction, metavar="FRACTION", help="of the rows, to score the fit on")
    add("--diagnose", action="store_true", help="estimate the fit's KL to the true posterior")
    add("--seed", type=int, default=0, help="of the held-out rows and of the diagnosis (0)")
    add("--out", type=Path, metavar="FILE", help="write the posterior, and pictures beside it")


def _scale(text: str) -> float | str:
    try:
        return text if text == "learn" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor learn") from None


def _fraction(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, got {text}")
    return value


def run(arguments: argparse.Namespace) -> str:
    """Read the table, fit, write what was asked for; return the table of KLs.

    Args:
        arguments: as `add_arguments` declares them.

    Raises:
        Refused: the table or an option cannot be used.
    """
    try:
        return _fitted(arguments, lambda line: print(line, flush=True))
    except BrokenPipeError:
        raise
    except (ValueError, ImportError, OSError) as error:
        raise Refused(_one_line(f"error: {error}")) from error


def _fitted(arguments: argparse.Namespace, tell: Tell) -> str:
    from pyro_kl.glm import LogisticRegression
    from pyro_kl.glm.watched import WatchedRows

    if arguments.out is not None and not arguments.out.parent.is_dir():
        raise ValueError(f"--out {arguments.out}: the folder does not exist; make it first")
    estimator = LogisticRegression(
        prior=arguments.prior,
        prior_scale=arguments.prior_scale,
        bias_scale=arguments.bias_scale,
        covariance=arguments.covariance,
        tol=arguments.tol,
    )
    tell(f"Reading {arguments.file}")
    table = _opened(arguments)
    train, held_out = _parts(table, arguments)
    told = table.report
    for line in (*told, f"Fitting {len(train.names)} features, {train.num_rows:,} rows"):
        tell(_wrapped(line))
    watched = WatchedRows(train, table.target)
    estimator.fit(watched)
    watched.close()
    for line in table.report[len(told) :]:  # how many rows were left out is known by now
        tell(_wrapped(line))
    posterior = replace(
        estimator.posterior_, shift=table.shift, scale=table.scale, classes=table.target.classes
    )
    lines = [str(posterior)]
    if not arguments.raw:
        lines.append(
            "Numbers are standardised: a coefficient is the effect of one sd (--raw: of 1)."
        )
    if held_out is not None:
        lines.append(_held_out_line(estimator, held_out))
    if arguments.diagnose:
        lines += ["", _diagnosed(estimator, train, arguments.seed)]
    if arguments.out is not None:
        lines += _written(posterior, arguments.out)
    return "\n".join(lines)


def _opened(arguments: argparse.Namespace) -> TableRows:
    from pyro_kl.glm.tables import read_table

    separator = arguments.sep and _SEPARATORS.get(arguments.sep, arguments.sep)
    if separator is not None and len(separator) != 1:
        raise ValueError(f"--sep {arguments.sep!r}: a separator is one character, or tab")
    return read_table(
        arguments.file,
        arguments.target,
        positive=arguments.positive,
        drop=arguments.drop,
        keep=arguments.keep,
        weight=arguments.weight,
        impute=arguments.impute,
        standardise=not arguments.raw,
        missing=arguments.missing,
        separator=separator,
        encoding=arguments.encoding,
    )


def _parts(table: TableRows, arguments: argparse.Namespace) -> tuple[Rows, Rows | None]:
    """The rows to fit and those held out; small tables in memory."""
    from pyro_kl.glm.held_out import RandomPart
    from pyro_kl.glm.passes.rows import in_memory

    rows: Rows = table
    if table.num_rows * len(table.names) * table.dtype.itemsize <= SMALL:
        rows = in_memory(table)
    if arguments.held_out is None:
        return rows, None
    share, seed = arguments.held_out, arguments.seed
    parts = [RandomPart(rows, share, seed, others=others) for others in (True, False)]
    train, held_out = map(in_memory, parts) if rows.is_in_memory else parts
    return train, held_out


def _held_out_line(estimator: LogisticRegression, rows: Rows) -> str:
    """Accuracy and log loss on the rows that were held out."""
    from pyro_kl.glm.held_out import score

    result = score(rows, estimator.likelihood, estimator.posterior_)
    return (
        f"Held out: {result.weight:,.0f} rows, accuracy {100 * result.accuracy:.1f} %, log loss "
        f"{result.log_loss:.4f} nats a row\n({result.base_log_loss:.4f} by the share of the ones "
        "alone)"
    )


def _diagnosed(estimator: LogisticRegression, rows: Rows, seed: int) -> str:
    """How far the Gaussian is from the posterior, and what to trust."""
    import torch

    from pyro_kl.glm.posterior.diagnosed import diagnosed

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return diagnosed(estimator.posterior_, rows).summary


def _written(posterior: Posterior, path: Path) -> list[str]:
    """Write the posterior and, where matplotlib is installed, two pictures; name the files."""
    posterior.save(path)
    paths = [path]
    try:
        figures = _pictures(posterior)
    except ImportError:
        return [f"Written: {path}; pictures need matplotlib: pip install matplotlib"]
    for name, figure in figures.items():
        paths.append(path.with_name(f"{path.stem}_{name}.png"))
        figure.savefig(paths[-1])
    return ["Written:", *(f"  {path}" for path in paths)]


def _pictures(posterior: Posterior) -> dict[str, Any]:
    """Prior against posterior where the KLs are largest, and the intervals of coefficients."""
    from matplotlib.figure import Figure

    from pyro_kl import plot
    from pyro_kl.glm.posterior.coefficients import marginals, select

    rows = posterior.to_dicts()
    largest = sorted(range(len(rows)), key=lambda i: -rows[i]["kl"])[:PICTURED]
    prior, marginal = marginals(posterior.prior.distribution()), posterior.marginals()
    columns = min(3, len(largest))
    lines = -(-len(largest) // columns)
    panels = Figure((3.4 * columns, 2.7 * lines), dpi=150, layout="constrained")
    for place, i in enumerate(largest, 1):
        plot.prior_posterior(
            select(marginal, i),
            select(prior, i),
            kl=rows[i]["kl"],
            name=rows[i]["coefficient"],
            ax=panels.add_subplot(lines, columns, place),
        )
    listed = min(LISTED, len(rows))
    intervals = Figure((7.0, 1.4 + 0.26 * listed), dpi=150, layout="constrained")
    plot.coefficients(posterior, largest=listed, ax=intervals.subplots())
    return {"prior_posterior": panels, "coefficients": intervals}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _wrapped(line: str) -> str:
    return textwrap.fill(_one_line(line), WIDTH, subsequent_indent="  ")
