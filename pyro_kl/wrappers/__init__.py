"""Wrapped distributions, one file for each wrapper: rules that call `kl_divergence` again.

The order is that of their trial: first what changes nothing of the distribution (masks, batches,
choices), then what maps it, then where it lives, at last integrals over a line.
"""

from . import masked, expanded, masked_mixture, independent, delta, improper_uniform, unit
from .transformed import folded, rules
from . import circle, zero_inflated, atoms
from .transformed import pullback, by_normal, by_line
