"""CSVLogger: the log of a fit as a file that a table program reads."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from ...messages import see
from ...registry.warnings import warn
from ..checkpoint import replacing
from ..ranks import this_rank
from .logger import COLUMNS, Logger, Row


class CSVLogger(Logger):
    """Writes step, loss, ELBO, log likelihood, KL and the KL of each site to a CSV.

    The columns are `step`, `loss`, `elbo`, `log_likelihood`, `kl` and one `kl[site]` for each
    site. A site that a later step has for the first time gets a column of its own, which is empty
    in the rows before. Each row is in the file before the next step begins.

    A fit that goes on from a checkpoint goes on with its file: rows of steps that are taken again
    are replaced. A fit that begins at step 1 begins a new file; one that is there is kept under
    the name with `.old` behind it, and a warning says so.

    Args:
        path: the file; its folder exists.
        every: how many steps lie between two rows.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: at the first row: the file is there, and is no log of a `CSVLogger`.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> def model():
        ...     z = pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
        ...     pyro.sample("x", pyro.distributions.Normal(z, 1.0), obs=torch.tensor(2.0))
        >>> guide = pyro.infer.autoguide.AutoNormal(model)
        >>> svi = pyro_kl.SVI(model, guide, torch.optim.Adam, pyro_kl.TraceKL_ELBO())
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "fit.csv")
        ...     result = svi.run(20, callbacks=[pyro_kl.loggers.CSVLogger(path, every=10)])
        ...     print(path.read_text().splitlines()[0])
        step,loss,elbo,log_likelihood,kl,kl[z]
    """

    def __init__(self, path: str | os.PathLike[str], every: int = 1) -> None:
        super().__init__(every)
        self.path = Path(path).absolute()
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"There is no folder for the log {path}." + see("log-file"))
        self._header: list[str] = []
        self._last = 0

    def log(self, row: Row) -> None:
        """Append a row to the file."""
        if this_rank() > 0:
            return
        cells = row.cells()
        if not self._header or row.step <= self._last:
            self._begin(row.step)
        new = [name for name in cells if name not in self._header]
        if new:
            rows = _rows(self.path)[1:] if self.path.exists() else []
            self._header += new
            self._write(rows)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(_line([str(cells.get(name, "")) for name in self._header]))
        self._last = row.step

    def _begin(self, step: int) -> None:
        """Go on with the file that is there, without its rows from `step` on."""
        self._header = []
        if not self.path.exists() or not self.path.stat().st_size:
            return
        try:
            header, *rows = _rows(self.path) or [[]]
            kept = [cells for cells in rows if int(cells[0]) < step]
        except ValueError:  # it is no text, or has no numbers of steps
            header, rows, kept = [], [], []
        if tuple(header[: len(COLUMNS)]) != COLUMNS:
            raise ValueError(
                f"{self.path} is no log of CSVLogger: its first line does not begin with "
                f"{','.join(COLUMNS)}, or others not with a number. Choose another file."
                + see("log-file")
            )
        if rows and not kept:
            old = self.path
            while old.exists():  # a fit before that one may have been put aside too
                old = old.with_name(old.name + ".old")
            os.replace(self.path, old)
            warn(
                f"{self.path} is begun anew at step {step}; the log of another fit is {old} now."
                + see("log-file")
            )
            return
        self._header = header
        self._write(kept)

    def _write(self, rows: list[list[str]]) -> None:
        """Write the whole file again: the header, and these rows with empty cells at their end."""
        width = len(self._header)
        lines = [self._header, *([*cells, *[""] * (width - len(cells))] for cells in rows)]
        with replacing(self.path) as part:
            part.write_text("".join(map(_line, lines)), encoding="utf-8", newline="")


def _rows(path: Path) -> list[list[str]]:
    """The rows of a file, without a last one that a killed process has left unfinished."""
    with path.open(newline="", encoding="utf-8") as file:
        text = file.read()
    rows = [*csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))]
    return [cells for cells in rows if len(cells) == len(rows[0])]


def _line(cells: list[str]) -> str:
    """A line of a CSV."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
