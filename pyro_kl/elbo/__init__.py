"""ELBOs whose KL terms are exact wherever they can be."""

from .compare_sites import SiteComparison, SiteComparisons, compare_sites
from .jit import JitTraceKL_ELBO
from .report import KLReport, SiteReport
from .schedules import Constant, Cyclical, LinearWarmup
from .trace_kl_elbo import TraceKL_ELBO

__all__ = [
    "Constant",
    "Cyclical",
    "JitTraceKL_ELBO",
    "KLReport",
    "LinearWarmup",
    "SiteComparison",
    "SiteComparisons",
    "SiteReport",
    "TraceKL_ELBO",
    "compare_sites",
]
