"""Laws mapped from the line against any prior: what an autoguide's site is compared with."""

from . import priors, rule, sources  # noqa: F401  they register, in the order of their trial
