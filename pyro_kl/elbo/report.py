"""KLReport: every term of an ELBO in nats, with the method that made it."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class SiteReport:
    """One term of an ELBO.

    Attributes:
        site: name of the site.
        kind: "likelihood", "latent" or "auxiliary".
        nats: expected log likelihood or KL, scaled and masked, as it enters the ELBO.
        raw: the same without the site's scale.
        standard_error: of `nats`, over the particles; 0 where no particle differs, nan where
            there is one only.
        method: "closed form", "exact sum", "quadrature", "monte carlo", "point density", ...
        reason: why this method.
        source: where a reader finds the formula.
        weight: derivative of the training objective by this KL: beta, unless free bits or a
            capacity change it; nan for a likelihood.
        scale: of the site: plates times `poutine.scale`; the mean if it is a tensor.
        masked: fraction of the site's elements that a mask leaves out.
        shape: of the site's value.
        per_dimension: KL of each element of the site, averaged over particles, neither scaled nor
            masked; nested lists, None where the KL was sampled.
    """

    site: str
    kind: str
    nats: float
    raw: float
    standard_error: float
    method: str
    reason: str
    source: str
    weight: float
    scale: float
    masked: float
    shape: tuple[int, ...]
    per_dimension: Any = None

    @property
    def exact(self) -> bool:
        """Whether no sample of this site's own value is in the number."""
        return self.method not in ("monte carlo", "observed", "prior")


@dataclass(frozen=True)
class KLReport:
    """Every term of an ELBO, and their sums.

    Attributes:
        sites: one `SiteReport` for each site, likelihood first.
        loss: the training objective, to be minimised; nats.
        elbo: the ELBO itself, with beta = 1, without free bits and capacity; nats.
        elbo_standard_error: of `elbo`, over the particles.
        log_likelihood: expected log likelihood; nats.
        kl: sum of the KLs, unweighted; nats.
        num_particles: draws from the guide.
        step: of the schedules.
        objective: what the objective is, in words.
    """

    sites: tuple[SiteReport, ...]
    loss: float
    elbo: float
    elbo_standard_error: float
    log_likelihood: float
    kl: float
    num_particles: int
    step: int
    objective: str

    def __getitem__(self, site: str) -> SiteReport:
        for row in self.sites:
            if row.site == site:
                return row
        raise KeyError(f"no site {site!r}; there are {', '.join(row.site for row in self.sites)}")

    def __iter__(self) -> Iterator[SiteReport]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)

    @property
    def kls(self) -> dict[str, float]:
        """Site -> KL in nats."""
        return {row.site: row.nats for row in self.sites if row.kind != "likelihood"}

    # --- text -----------------------------------------------------------------------------------

    def _cells(self) -> list[list[str]]:
        return [
            [
                row.site, row.kind, _number(row.nats), _error(row.standard_error),
                "" if math.isnan(row.weight) else f"{row.weight:g}",
                f"{row.scale:g}", "x".join(map(str, row.shape)) or "scalar", row.method,
            ]
            for row in self.sites
        ]  # fmt: skip

    def _notes(self) -> list[str]:
        reasons = {row.site: row.reason for row in self.sites if row.reason}
        return [f"{site}: {reason}" for site, reason in reasons.items()]

    def _summary(self) -> list[str]:
        error = _error(self.elbo_standard_error)
        lines = [
            f"ELBO {_number(self.elbo)}{' +- ' + error if error else ''} = log likelihood "
            f"{_number(self.log_likelihood)} - KL {_number(self.kl)}",
            f"{self.num_particles:,} draw{'s' if self.num_particles != 1 else ''}; nats",
        ]
        if self.objective:
            lines[1] += f"; objective {_number(self.loss)} at step {self.step}: {self.objective}"
        return lines

    def __str__(self) -> str:
        return "\n".join(
            [*table(_HEADER, self._cells(), "llrrrrll"), *self._summary(), *self._notes()]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        notes = "<br>".join(map(html.escape, [*self._summary(), *self._notes()]))
        return f"{html_table(_HEADER, self._cells())}<p>{notes}</p>"

    # --- data -----------------------------------------------------------------------------------

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary for each site."""
        return [asdict(row) for row in self.sites]

    def to_json_lines(self) -> str:
        """One JSON object for each site, and one for the whole; not-a-number becomes null."""
        whole = {name: getattr(self, name) for name in _WHOLE}
        return "".join(json.dumps(_clean(row)) + "\n" for row in [*self.to_dicts(), whole])

    def to_dataframe(self) -> Any:
        """A `pandas.DataFrame` with one row for each site.

        Raises:
            ImportError: pandas is missing: `pip install pandas`.
        """
        return dataframe(self.to_dicts(), "site", "to_dicts() and to_json_lines() do without.")


_HEADER = ["site", "kind", "nats", "+- s.e.", "weight", "scale", "shape", "method"]
_WHOLE = (
    "loss", "elbo", "elbo_standard_error", "log_likelihood", "kl", "num_particles", "step",
    "objective",
)  # fmt: skip


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in HTML, for notebooks."""
    head = "".join(f"<th>{name}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
        for cells in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def dataframe(rows: Sequence[Mapping[str, Any]], index: str, otherwise: str) -> Any:
    """A `pandas.DataFrame`.

    Args:
        rows: one dictionary each.
        index: the column that becomes the index.
        otherwise: what there is without pandas.

    Raises:
        ImportError: pandas is missing.
    """
    try:
        import pandas
    except ImportError:
        raise ImportError(
            f"to_dataframe() needs pandas: pip install 'pyro-kl[report]'; {otherwise}"
        ) from None
    return pandas.DataFrame(rows).set_index(index)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """Lines of a table; `align` has l or r for each column."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(cells, widths, align, strict=True)
        ).rstrip()
        for cells in [header, *rows]
    ]


def _number(x: float) -> str:
    return f"{x:.4f}" if abs(x) < 1e5 else f"{x:.6g}"


def _error(x: float) -> str:
    """A standard error in text; empty if it is nan."""
    return "" if math.isnan(x) else "0" if x == 0 else f"{x:.2g}"


def _clean(value: Any) -> Any:
    """A value in which JSON's null replaces infinity and nan."""
    if isinstance(value, Mapping):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
