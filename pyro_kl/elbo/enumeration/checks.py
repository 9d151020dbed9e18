"""Pyro's checks of a pair of traces with enumeration."""

from __future__ import annotations

from typing import Any

from pyro.infer.traceenum_elbo import _check_tmc_elbo_constraint
from pyro.util import check_model_guide_match, check_traceenum_requirements

from ...messages import see
from ...registry.warnings import warn
from ..trace_checks import TraceChecks, check_shapes


class EnumerationChecks(TraceChecks):
    """The checks that `pyro.infer.TraceEnum_ELBO` makes where validation is on.

    Args:
        strict: whether to warn if there is nothing to enumerate.
    """

    def __init__(self, strict: bool) -> None:
        super().__init__()
        self.strict = strict
        self._told = False

    def check(self, model_trace: Any, guide_trace: Any, max_plate_nesting: float) -> None:
        """As `TraceChecks.check`."""
        nesting: Any = max_plate_nesting
        check_model_guide_match(model_trace, guide_trace, nesting)
        for trace in (model_trace, guide_trace):
            check_shapes(trace, max_plate_nesting)
        check_traceenum_requirements(model_trace, guide_trace)
        _check_tmc_elbo_constraint(model_trace, guide_trace)
        if (
            self.strict
            and not self._told
            and not any(
                node["infer"].get("enumerate")
                for trace in (guide_trace, model_trace)
                for node in trace.nodes.values()
                if node["type"] == "sample"
            )
        ):
            self._told = True
            warn(
                "TraceEnumKL_ELBO found no sample sites configured for enumeration. To enumerate "
                'sites, use config_enumerate or infer={"enumerate": "parallel"}; if there is '
                "nothing to enumerate, TraceKL_ELBO is faster." + see("enumerated-site")
            )
