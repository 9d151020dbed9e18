"""A hidden Markov model of how many large earthquakes there are in a year.

Reference: Zucchini & MacDonald (2009), Hidden Markov Models for Time Series, table 1.1 and section
1.2: earthquakes of magnitude 7 or more, worldwide.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

FIRST_YEAR = 1900
#: From 1900 to 2006.
COUNT = (
    13, 14, 8, 10, 16, 26, 32, 27, 18, 32, 36, 24, 22, 23, 22, 18, 25, 21, 21, 14, 8, 11, 14, 23,
    18, 17, 19, 20, 22, 19, 13, 26, 13, 14, 22, 24, 21, 22, 26, 21, 23, 24, 27, 41, 31, 27, 35, 26,
    28, 36, 39, 21, 17, 22, 17, 19, 15, 34, 10, 15, 22, 18, 15, 20, 15, 22, 19, 16, 30, 27, 29, 23,
    20, 16, 21, 21, 25, 16, 18, 15, 18, 14, 10, 15, 8, 15, 6, 11, 8, 7, 18, 16, 13, 12, 13, 20, 15,
    16, 12, 18, 15, 16, 13, 15, 16, 11, 11,
)  # fmt: skip
#: Where a fit starts: the rate of each state.
START = (13.0, 20.0, 30.0)


def model() -> None:
    """Three states, each with a rate of its own; years tend to stay in the state of the last."""
    count = len(START)
    stay = 1.0 + 4.0 * torch.eye(count)
    moves = pyro.sample("moves", dist.Dirichlet(stay).to_event(1))
    rates = pyro.sample("rates", dist.Gamma(4.0 * torch.ones(count), 0.2).to_event(1))
    state = None
    for t in pyro.markov(range(len(COUNT))):
        probs = torch.ones(count) / count if state is None else moves[state]
        name = f"state_{t}"
        state = pyro.sample(name, dist.Categorical(probs), infer={"enumerate": "parallel"})
        seen = torch.tensor(float(COUNT[t]))
        pyro.sample(f"count_{t}", dist.Poisson(rates[state]), obs=seen)
