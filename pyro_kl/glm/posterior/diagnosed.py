"""How far a fitted Gaussian is from the posterior of the regression."""

from __future__ import annotations

from ...diagnosis.diagnose import diagnose
from ...diagnosis.diagnosis import Diagnosis
from ...messages import see
from ..passes.rows import Rows, in_memory
from .guide import SITES
from .posterior import Posterior
from .pyro_model import RegressionModel

#: The ELBO of the same rows differs by no more than this, as a share of it and in nats.
_SAME, _LEAST = 1e-5, 1e-3


def diagnosed(posterior: Posterior, rows: Rows, num_samples: int = 10_000) -> Diagnosis:
    """Draw from the fit, and weigh the draws by the regression's own density.

    Args:
        posterior: of a fit.
        rows: the rows of the fit, in the units that it has seen.
        num_samples: draws from the fit.

    Raises:
        ValueError: the fit is not of Bayes' posterior; rows are sparse or weighed; they are not
            those of the fit.
    """
    if posterior.beta != 1.0:
        raise ValueError(
            f"the fit has beta={posterior.beta:g}: its target is not the posterior, to which a KL "
            "could be estimated" + see("option")
        )
    if rows.is_sparse:
        raise ValueError("X is sparse: give a dense array to diagnose" + see("features"))
    all_rows = in_memory(rows)
    if all_rows.weight is not None:
        raise ValueError(
            "the rows have weights, so that their density is not that of a model" + see("features")
        )
    model = RegressionModel(posterior.prior, posterior.likelihood, SITES, lambda x: x)
    target = all_rows.target.to(posterior.loc.dtype)
    found = diagnose(
        model,
        posterior.guide(),
        all_rows.features,
        target,
        num_samples=num_samples,
        max_plate_nesting=1,
    )
    elbo, error = float(found.elbo), float(found.elbo.standard_error)
    if abs(elbo - posterior.elbo) > 5 * error + _SAME * abs(posterior.elbo) + _LEAST:
        raise ValueError(
            f"the ELBO of these rows is {elbo:.2f} +- {error:.2g}, that of the fit "
            f"{posterior.elbo:.2f}: they are not the rows of the fit, or it gave them weights"
            + see("other-columns")
        )
    return found
