"""RelaxedBernoulli(temperature, probs or logits): sigmoid of Logistic(logits / t, 1 / t).

E log x, E log(1 - x) and the entropy have a closed form for temperature 1 only, so that the KL is
an integral, or infinite because of the supports.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import RelaxedBernoulli
from torch.nn.functional import logsigmoid

from ...numerics.dtypes import Parameters
from ...numerics.special.bernoulli import log_masses
from ...registry.family import UNIT_INTERVAL, Family, probs_or_logits
from ...registry.line import Point, unit_line
from ...registry.register import declare


def read(p: RelaxedBernoulli) -> Parameters:
    """The temperature, and the parameter that the user gave."""
    return {"temperature": p.temperature, **probs_or_logits(p.base_dist)}


def log_odds(probs: Tensor | None = None, logits: Tensor | None = None) -> Tensor:
    if logits is not None:
        return logits
    log_p1, log_p0 = log_masses(probs)
    return log_p1 - log_p0


def log_density_at(point: Point, temperature: Tensor, **flip: Tensor) -> Tensor:
    log_x, log_rest = point.log_unit()
    z = log_odds(**flip) - temperature * (log_x - log_rest)
    return torch.log(temperature) + logsigmoid(z) + logsigmoid(-z) - log_x - log_rest


def index(temperature: Tensor, **_: Tensor) -> Tensor:
    """The tail index at both ends."""
    return temperature


relaxed_bernoulli = declare(
    Family(
        RelaxedBernoulli,
        parameters=("temperature", "probs", "logits"),
        support=UNIT_INTERVAL,
        density="temperature * odds * (x * (1 - x))**(-temperature - 1) / (odds * "
        "x**(-temperature) + (1 - x)**(-temperature))**2",
        examples=(
            {"temperature": 1.0, "probs": 0.4},
            {"temperature": 0.5, "logits": 1.0},
            {"temperature": 3.0, "probs": 0.9},
        ),
        reference="Maddison, Mnih & Teh (2017), arXiv:1611.00712, appendix B",
        read=read,
        safe={"temperature": 1.0, "probs": 0.5, "logits": 0.0},
        line=unit_line(
            log_density_at,
            centre=lambda temperature, **flip: log_odds(**flip) / temperature,
            width=lambda temperature, **flip: 1 / temperature + 0 * log_odds(**flip),
            standard={"temperature": 1.0, "logits": 0.0},
            index=(index, index),
        ),
    )
)
