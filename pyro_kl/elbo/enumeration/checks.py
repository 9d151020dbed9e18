"""Pyro's checks of a pair of traces with enumeration."""

from __future__ import annotations

from typing import Any

from pyro.infer.traceenum_elbo import _check_tmc_elbo_constraint
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_traceenum_requirements

from ...messages import see
from ...registry.warnings import warn
from ..trace_checks import TraceChecks


class EnumerationChecks(TraceChecks):
    """The checks that `pyro.infer.TraceEnum_ELBO` makes where validation is on.

    Args:
        strict: whether to warn if there is nothing to enumerate.
    """

    def __init__(self, strict: bool) -> None:
        super().__init__()
        self.strict = strict

    def _check(self, model_trace: Any, guide_trace: Any, max_plate_nesting: Any) -> None:
        super()._check(model_trace, guide_trace, max_plate_nesting)
        without_rows = [prune_subsample_sites(trace) for trace in (model_trace, guide_trace)]
        check_traceenum_requirements(*without_rows)
        _check_tmc_elbo_constraint(*without_rows)
        if self.strict and not any(
            node["infer"].get("enumerate")
            for trace in (guide_trace, model_trace)
            for node in trace.nodes.values()
            if node["type"] == "sample"
        ):
            self.strict = False  # it is told once
            warn(
                "TraceEnumKL_ELBO found no sample sites configured for enumeration. To enumerate "
                'sites, use config_enumerate or infer={"enumerate": "parallel"}; if there is '
                "nothing to enumerate, TraceKL_ELBO is faster." + see("enumerated-site")
            )
