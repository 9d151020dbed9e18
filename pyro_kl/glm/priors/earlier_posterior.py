"""The posterior of earlier data as the prior of later ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...messages import see
from ..covariances.covariance import Covariance, DiagonalCovariance, FullCovariance
from ..passes.rows import Rows
from .prior import GaussianPrior


def prior_from(posterior: Any, rows: Rows, classes: Any = None) -> GaussianPrior:
    """Return a posterior as the prior of other rows, in the units that their features have.

    Args:
        posterior: a `pyro_kl.glm.posterior.posterior.Posterior`.
        rows: the later data.
        classes: the labels of 0 and 1 in the later data; None where the target has no classes.

    Raises:
        ValueError: it is no posterior, or has features of other names or other classes.
    """
    if not hasattr(posterior, "names"):
        raise ValueError(
            "prior must be a posterior, the `posterior_` of a fit, got "
            f"{type(posterior).__name__}; the name of a family of priors goes to the constructor"
            + see("posterior-as-prior")
        )
    if tuple(posterior.names) != tuple(rows.names):
        raise ValueError(
            f"the prior is a posterior of the features {', '.join(posterior.names[:4])}, ...; the "
            f"rows have {', '.join(rows.names[:4])}, ..." + see("posterior-as-prior")
        )
    if None not in (classes, posterior.classes) and tuple(posterior.classes) != tuple(classes):
        raise ValueError(
            f"the prior is a posterior of the classes {posterior.classes}; y has {tuple(classes)}"
            + see("posterior-as-prior")
        )
    old, new = _units(posterior, posterior.loc), _units(rows, posterior.loc)
    if torch.equal(old, new):
        return GaussianPrior(posterior.loc, posterior.covariance)
    return GaussianPrior(*_in_units(posterior.loc, posterior.covariance, old, new))


def _units(source: Any, like: Tensor) -> Tensor:
    """What each feature was shifted by and divided by, shape ``(2, D)``."""
    if getattr(source, "shift", None) is None:
        return torch.stack([torch.zeros_like(like[1:]), torch.ones_like(like[1:])])
    return torch.stack([source.shift, source.scale]).to(like)


def _in_units(
    loc: Tensor, covariance: Covariance, old: Tensor, new: Tensor
) -> tuple[Tensor, FullCovariance]:
    """Return mean and covariance of the coefficients of features in other units.

    The predictor stays: ``z = (new shift - old shift + new scale z') / old scale``. The bias takes
    up the shifts, which correlates it with the weights.
    """
    change = torch.eye(len(loc), dtype=loc.dtype)
    change[0, 1:] = (new[0] - old[0]) / old[1]
    change[1:, 1:] = torch.diag(new[1] / old[1])
    root = (
        torch.diag(covariance.root)
        if isinstance(covariance, DiagonalCovariance)
        else covariance.root
    )
    # S = (change root) (change root)', whose Cholesky factor is that of a QR decomposition.
    upper = torch.linalg.qr((change @ root).mT).R
    return change @ loc, FullCovariance(upper.mT * upper.diagonal().sign())
