"""KL divergences for Pyro: exact where there is a formula, with the method of each value.

`import pyro_kl` registers its pairs with `torch.distributions.kl_divergence` and does nothing
else.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from . import families, policy, structured, wrappers  # noqa: F401  importing registers
from .divergence.bounds import Bounds, bounds
from .divergence.check import check
from .divergence.check_report import CheckReport, CheckResult
from .divergence.compare import Comparison, compare
from .divergence.estimate import Estimate
from .divergence.kl import kl
from .divergence.monte_carlo import monte_carlo
from .elbo.compare_sites import SiteComparison, SiteComparisons, compare_sites
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
from .registry.register import declare, formula, guard_upstream, register, registered
from .svi.result import SVIResult
from .svi.svi import SVI

if TYPE_CHECKING:  # what is imported on first use, see `__getattr__`
    from . import glm as glm

guard_upstream()

__version__ = "0.1.0"

__all__ = [
    "COUNTS",
    "INFINITE",
    "POSITIVE",
    "REAL",
    "SVI",
    "UNIT_INTERVAL",
    "Bounds",
    "Case",
    "CheckReport",
    "CheckResult",
    "Comparison",
    "Constant",
    "Cyclical",
    "Estimate",
    "Family",
    "JitTraceKL_ELBO",
    "KLReport",
    "Line",
    "LinearWarmup",
    "Moment",
    "Pair",
    "Point",
    "SVIResult",
    "SiteComparison",
    "SiteComparisons",
    "SiteReport",
    "Support",
    "TraceKL_ELBO",
    "above",
    "below",
    "bounds",
    "check",
    "compare",
    "compare_sites",
    "declare",
    "expected_log_likelihood",
    "formula",
    "kl",
    "location_scale_line",
    "monte_carlo",
    "policy",
    "positive_line",
    "register",
    "registered",
    "scale_line",
    "unit_line",
]


#: Modules that are imported when they are asked for: who does without does not wait for them.
_ON_DEMAND = ("glm", "loggers", "plot")


def __getattr__(name: str) -> ModuleType:
    """Import a module when it is asked for."""
    if name in _ON_DEMAND:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names alone: `dir` and tab completion leave out the rooms of the package."""
    return [*__all__, "__version__", *_ON_DEMAND]
