"""KL of two multivariate normals by the textbook's dense formula, at 50 digits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mpmath
from mpmath import mp, mpf

from .integrate import WORKING_DIGITS, exact

Parameters = Mapping[str, Any]


def _column(values: Any) -> Any:
    return mpmath.matrix([exact(x) for x in values])


def _matrix(rows: Any) -> Any:
    return mpmath.matrix([exact(row) for row in rows])


def moments(parameters: Parameters) -> tuple[Any, Any]:
    """Mean and covariance matrix, from any of torch's parameterisations or from `scale`."""
    loc = _column(parameters["loc"])
    if "scale_tril" in parameters:
        scale_tril = _matrix(parameters["scale_tril"])
        return loc, scale_tril * scale_tril.T
    if "covariance_matrix" in parameters:
        return loc, _matrix(parameters["covariance_matrix"])
    if "cov_factor" in parameters:
        factor = _matrix(parameters["cov_factor"])
        return loc, factor * factor.T + mpmath.diag(exact(parameters["cov_diag"]))
    scale = parameters["scale"]
    scales = exact(scale) if isinstance(scale, (list, tuple)) else [exact(scale)] * loc.rows
    return loc, mpmath.diag([s**2 for s in scales])


def kl(p: Parameters, q: Parameters) -> Any:
    """[log det S_q - log det S_p - d + tr(S_q^-1 S_p) + (m_q - m_p)' S_q^-1 (m_q - m_p)] / 2."""
    with mp.workdps(WORKING_DIGITS):
        (p_loc, p_cov), (q_loc, q_cov) = moments(p), moments(q)
        precision = q_cov**-1
        ratio, gap = precision * p_cov, q_loc - p_loc
        trace = sum((ratio[i, i] for i in range(p_loc.rows)), mpf(0))
        spread = (gap.T * precision * gap)[0]
        log_det = mp.log(mpmath.det(q_cov)) - mp.log(mpmath.det(p_cov))
        return (log_det - p_loc.rows + trace + spread) / 2
