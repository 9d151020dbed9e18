"""OrderedLogistic(predictor, cutpoints): between which cutpoints a Logistic(predictor, 1) is.

It is a Categorical. Pyro computes its masses as differences of sigmoids, which are 0 beyond 17 in
float32; here the logarithms of the masses are computed from the parameters.
"""

from __future__ import annotations

import torch
from pyro.distributions import OrderedLogistic
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from ...numerics.special.logarithms import safe_log
from ...registry.family import COUNTS, Family
from ...registry.register import declare


def log_mass(k: Tensor, predictor: Tensor, cutpoints: Tensor) -> Tensor:
    """sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), b < a."""
    x = cutpoints - predictor.unsqueeze(-1)
    gap = safe_log(-torch.expm1(-cutpoints.diff(dim=-1)))
    log_p = pad(logsigmoid(x), (0, 1)) + pad(logsigmoid(-x), (1, 0)) + pad(gap, (1, 1))
    # a category that only the other distribution has gets no mass
    return pad(log_p, (0, k.shape[-1] - log_p.shape[-1]), value=-torch.inf)


ordered_logistic = declare(
    Family(
        OrderedLogistic,
        parameters=("predictor", "cutpoints"),
        support=COUNTS,
        density="1 / (1 + exp(predictor - cutpoints[k])) - 1 / (1 + exp(predictor - cutpoints[k"
        " - 1]))",
        examples=(
            (0.5, [-1.0, 0.5]),
            (-2.0, [-0.5, 3.0]),
            (-3.0, [-2.0, 0.0, 1.5]),
            (40.0, [0.0]),
        ),
        reference="McCullagh (1980), Regression models for ordinal data",
        log_mass=log_mass,
        num_atoms=lambda predictor, cutpoints: int(cutpoints.shape[-1]) + 1,
    )
)
