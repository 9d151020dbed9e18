"""The public names: type checkers read them here, and so does `pyro_kl` itself."""

from . import glm as glm
from . import loggers as loggers
from . import plot as plot
from . import policy as policy
from .arviz import to_arviz
from .calibration.calibrate import calibrate
from .calibration.calibration import Calibration, SiteCalibration
from .diagnosis.diagnose import diagnose
from .diagnosis.diagnosis import Diagnosis, SiteDiagnosis
from .divergence.bounds import Bounds, bounds
from .divergence.check import check
from .divergence.check_report import CheckReport, CheckResult
from .divergence.compare import Comparison, compare
from .divergence.entropy import cross_entropy, entropy
from .divergence.estimate import Estimate
from .divergence.jensen_shannon import jeffreys, jensen_shannon
from .divergence.kl import kl
from .divergence.monte_carlo import monte_carlo
from .divergence.renyi import renyi
from .elbo.compare_sites import SiteComparison, SiteComparisons, compare_sites
from .elbo.enumeration.jit import JitTraceEnumKL_ELBO
from .elbo.enumeration.trace_enum_kl_elbo import TraceEnumKL_ELBO
from .elbo.jit import JitTraceKL_ELBO
from .elbo.report import KLReport, SiteReport
from .elbo.schedules import Constant, Cyclical, LinearWarmup
from .elbo.trace_kl_elbo import TraceKL_ELBO
from .likelihoods.expected_log_likelihood import expected_log_likelihood
from .registry.family import (
    COUNTS,
    INFINITE,
    POSITIVE,
    REAL,
    UNIT_INTERVAL,
    Family,
    Moment,
    Support,
    above,
    below,
)
from .registry.line import (
    Line,
    Point,
    location_scale_line,
    positive_line,
    scale_line,
    unit_line,
)
from .registry.pair import Case, Pair
from .registry.register import declare, formula, register, registered
from .svi.result import SVIResult
from .svi.svi import SVI

__version__: str

__all__ = [
    "COUNTS",
    "INFINITE",
    "POSITIVE",
    "REAL",
    "SVI",
    "UNIT_INTERVAL",
    "Bounds",
    "Calibration",
    "Case",
    "CheckReport",
    "CheckResult",
    "Comparison",
    "Constant",
    "Cyclical",
    "Diagnosis",
    "Estimate",
    "Family",
    "JitTraceEnumKL_ELBO",
    "JitTraceKL_ELBO",
    "KLReport",
    "Line",
    "LinearWarmup",
    "Moment",
    "Pair",
    "Point",
    "SVIResult",
    "SiteCalibration",
    "SiteComparison",
    "SiteComparisons",
    "SiteDiagnosis",
    "SiteReport",
    "Support",
    "TraceEnumKL_ELBO",
    "TraceKL_ELBO",
    "above",
    "below",
    "bounds",
    "calibrate",
    "check",
    "compare",
    "compare_sites",
    "cross_entropy",
    "declare",
    "diagnose",
    "entropy",
    "expected_log_likelihood",
    "formula",
    "jeffreys",
    "jensen_shannon",
    "kl",
    "location_scale_line",
    "monte_carlo",
    "policy",
    "positive_line",
    "register",
    "registered",
    "renyi",
    "scale_line",
    "to_arviz",
    "unit_line",
]
