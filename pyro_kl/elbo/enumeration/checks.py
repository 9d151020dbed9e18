"""Pyro's checks of a pair of traces with enumeration, and one that Pyro does not make."""

from __future__ import annotations

from typing import Any

from pyro.infer.traceenum_elbo import _check_tmc_elbo_constraint
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_traceenum_requirements

from ...messages import see
from ...registry.warnings import warn
from ..trace_checks import TraceChecks

_NOTHING = (
    "TraceEnumKL_ELBO found no sample sites configured for enumeration. To enumerate sites, use "
    'config_enumerate or infer={{"enumerate": "parallel"}}; if there is nothing to enumerate, '
    "TraceKL_ELBO is faster." + see("enumerated-site")
)
_SHARED = (
    "{} and {} are enumerated along the same dim, one by the model and one by the guide, and {} "
    "may depend on both: the loss may be wrong, as that of TraceEnum_ELBO is. Use range in place "
    "of pyro.markov, or enumerate both in the model." + see("enumerated-site")
)


class EnumerationChecks(TraceChecks):
    """The checks that `pyro.infer.TraceEnum_ELBO` makes where validation is on.

    Args:
        strict: whether to warn if there is nothing to enumerate.
    """

    def __init__(self, strict: bool) -> None:
        super().__init__()
        self.strict = strict
        self._told: set[str] = set()

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
            self._tell(_NOTHING)
        sharing = _of_one_dim(model_trace.nodes, guide_trace.nodes)
        if sharing:
            self._tell(_SHARED, *sharing)

    def _tell(self, message: str, *sites: str) -> None:
        """Warn once."""
        if message not in self._told:
            self._told.add(message)
            warn(message.format(*sites))


def _of_one_dim(nodes: Any, of_guide: Any) -> tuple[str, str, str] | None:
    """Two enumerated sites that share a dim, one of them of the guide, and a site in their scope.

    The dims of the guide are given out first. Inside of `pyro.markov`, a dim of the guide is free
    in the model until its site is reached: a site that is to be summed out may take it.
    """
    for name, node in nodes.items():
        scope = node["infer"].get("_markov_scope") if node["type"] == "sample" else None
        owners: dict[int, str] = {}
        for other, depth in (scope or {}).items():
            infer = nodes[other]["infer"] if other in nodes else {}
            dim = infer.get("_enumerate_dim")
            if dim is None or infer.get("_markov_depth") != depth:
                continue  # not enumerated, or its context has ended
            owner = owners.setdefault(dim, other)
            if (owner in of_guide) != (other in of_guide):
                return owner, other, name
    return None
