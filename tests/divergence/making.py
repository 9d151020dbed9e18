"""Numbers in float64, and distributions with such parameters."""

import torch


def number(x):
    return torch.tensor(x, dtype=torch.float64)


def of(cls, *parameters):
    return cls(*(number(x) for x in parameters))
