"""The KL of every site of a report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..elbo.report import KLReport, SiteReport
from ..messages import see
from .style import BLACK, SERIES, axes_or_new, finish, legend, nats, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: How the KL of a site was found -> how it is drawn.
_KINDS = {"exact": SERIES[0], "exact given other sites": SERIES[2], "sampled": SERIES[1]}


def site_kls(report: KLReport, *, ax: Axes | None = None) -> Axes:
    """Draw KL(guide || prior) of every site as a bar, and whether it is exact or sampled.

    Args:
        report: of an ELBO, as `TraceKL_ELBO.evaluate` returns it.
        ax: the axes to draw on; None makes a figure.

    Returns:
        The axes.

    Raises:
        ValueError: no site of the report has a KL.
    """
    rows = [row for row in report if row.kind != "likelihood"]
    if not rows:
        raise ValueError("no site of the report has a KL" + see("picture"))
    ax = axes_or_new(ax, 6.4, 1.6 + 0.36 * len(rows))
    seen: set[str] = set()
    for place, row in enumerate(rows):
        kind = _kind(row)
        error = 0.0 if math.isnan(row.standard_error) else 2 * row.standard_error
        length = row.nats if math.isfinite(row.nats) else 0.0
        ax.barh(
            place, length, 0.7, xerr=error or None, ecolor=BLACK, capsize=3,
            **_KINDS[kind].area, label="" if kind in seen else kind,
        )  # fmt: skip
        seen.add(kind)
        if not math.isfinite(row.nats):
            ax.annotate(
                f"{row.nats}", (0.0, place), (4, 0), textcoords="offset points", va="center"
            )
    ax.axvline(0.0, color=BLACK, lw=0.8)
    ax.set_yticks(range(len(rows)), [plain(row.site) for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    errors = any(row.standard_error > 0 for row in rows)
    note = "; error bars: ± 2 standard errors" if errors else ""
    ax.set_xlabel(f"KL(guide || prior), nats{note}")
    handles = dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
    kinds = [kind for kind in _KINDS if kind in handles]
    legend(ax, handles=[handles[kind] for kind in kinds], labels=kinds)
    return finish(
        ax,
        f"KL(guide || prior) of each site: {nats(report.kl)} nats; ELBO {nats(report.elbo)} nats",
        grid="x",
    )


def _kind(row: SiteReport) -> str:
    """Exact, exact given others, or sampled."""
    if not row.exact:
        return "sampled"
    return "exact" if row.standard_error == 0 else "exact given other sites"
