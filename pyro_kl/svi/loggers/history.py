"""History: the log of a fit in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ...results.result import Result
from ...results.table import SHOWN, Table
from .logger import COLUMNS, Logger, Row

#: A table of more columns is too wide to print.
MOST_COLUMNS = 8


class History(Logger, Result):
    """Keeps loss, ELBO and the KL of each site in memory: what `pyro_kl.plot.training` draws.

    A fit that goes on from an earlier checkpoint takes some steps again: their new rows replace
    the old ones.

    Args:
        every: how many steps lie between two rows.

    Attributes:
        rows: one `Row` for each logged step.

    Example:
        >>> def model():
        ...     z = pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
        ...     pyro.sample("x", pyro.distributions.Normal(z, 1.0), obs=torch.tensor(2.0))
        >>> guide = pyro.infer.autoguide.AutoNormal(model)
        >>> svi = pyro_kl.SVI(model, guide, torch.optim.Adam, pyro_kl.TraceKL_ELBO())
        >>> history = pyro_kl.loggers.History(every=50)
        >>> result = svi.run(200, callbacks=[history])
        >>> history.steps
        [50, 100, 150, 200]
        >>> list(history.kls)
        ['z']
        >>> len(history.kls["z"])
        4
    """

    def __init__(self, every: int = 1) -> None:
        super().__init__(every)
        self.rows: list[Row] = []

    def log(self, row: Row) -> None:
        """Keep a row."""
        while self.rows and self.rows[-1].step >= row.step:
            self.rows.pop()
        self.rows.append(row)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @property
    def steps(self) -> list[int]:
        """The number of each logged step."""
        return [row.step for row in self.rows]

    @property
    def losses(self) -> list[float]:
        """The training objective at each logged step; nats."""
        return [row.loss for row in self.rows]

    @property
    def elbo(self) -> list[float]:
        """The ELBO itself at each logged step, with beta = 1; nats."""
        return [row.elbo for row in self.rows]

    @property
    def log_likelihood(self) -> list[float]:
        """The expected log likelihood at each logged step; nats."""
        return [row.log_likelihood for row in self.rows]

    @property
    def kl(self) -> list[float]:
        """The sum of the KLs at each logged step, unweighted; nats."""
        return [row.kl for row in self.rows]

    @property
    def kls(self) -> dict[str, list[float]]:
        """Site -> its KL at each logged step in nats; nan where a step did not have the site."""
        sites = dict.fromkeys(site for row in self.rows for site in row.kls)
        return {site: [row.kls.get(site, math.nan) for row in self.rows] for site in sites}

    def to_dicts(self) -> list[dict[str, float]]:
        """One dictionary for each row, with the columns of `CSVLogger`."""
        return [row.cells() for row in self.rows]

    def _table(self) -> Table:
        names = [*COLUMNS, *(f"kl[{site}]" for site in self.kls)]
        left = len(names) - MOST_COLUMNS
        names = names[:MOST_COLUMNS]
        first = max(0, len(self.rows) - SHOWN)
        cells = [
            [f"{cells.get(name, math.nan):.6g}" for name in names]
            for cells in (row.cells() for row in self.rows[first:])
        ]
        notes = [f"{len(self.rows):,} rows; nats"]
        if first:
            notes.append(f"the first {first:,} rows are left out: to_dicts() has them")
        if left > 0:
            notes.append(f"{left:,} sites are left out: kls has them")
        return Table(names, cells, "r" * len(names), notes)
