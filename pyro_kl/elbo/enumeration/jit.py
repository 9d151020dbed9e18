"""JitTraceEnumKL_ELBO: the gradient step with enumeration, traced once."""

from __future__ import annotations

from ..jit import JitTraceKL_ELBO
from .trace_enum_kl_elbo import TraceEnumKL_ELBO


class JitTraceEnumKL_ELBO(JitTraceKL_ELBO, TraceEnumKL_ELBO):
    """`TraceEnumKL_ELBO` whose gradient step is traced once by `pyro.ops.jit` and then replayed.

    The limits are those of `pyro.infer.JitTraceEnum_ELBO`: static structure, all tensors in
    `*args`, everything else in `**kwargs`. The report of a step shows the sum over the sites that
    the model sums out as one row; that of `evaluate` takes it apart.
    """
