"""KL-penalised policies: rewards, penalties with the right gradient, the optimum, controllers.

The objective J(pi) = E_pi[R] - beta KL(pi || pi_0) is beta times an ELBO whose prior is the
reference policy pi_0 and whose log likelihood is R / beta. All functions take and return tensors.
"""

from .control import AdaptiveBeta, Controller, FixedBeta, aggregate
from .optimum import forward_optimum, objective, optimum
from .penalty import PenaltyWarning, penalty, sampled_kl, sequence_kl
from .reward import (
    LLAMA2_BETA,
    Moments,
    gate,
    llama2_reward,
    logit,
    moments,
    penalised_reward,
    whiten,
)
from .vocabulary import exact_kl

__all__ = [
    "LLAMA2_BETA",
    "AdaptiveBeta",
    "Controller",
    "FixedBeta",
    "Moments",
    "PenaltyWarning",
    "aggregate",
    "exact_kl",
    "forward_optimum",
    "gate",
    "llama2_reward",
    "logit",
    "moments",
    "objective",
    "optimum",
    "penalised_reward",
    "penalty",
    "sampled_kl",
    "sequence_kl",
    "whiten",
]
