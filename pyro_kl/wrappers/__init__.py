"""Wrapped laws, one file for each wrapper: rules that call `kl_divergence` again.

The order is that of their trial: first what says nothing of the law (masks, batches, choices),
then what maps it, then where it lives.
"""

from . import (  # noqa: F401  they register
    masked,
    expanded,
    masked_mixture,
    independent,
    delta,
    improper_uniform,
    unit,
    folded,
    transformed,
    circle,
    zero_inflated,
    atoms,
)
