"""What is declared of families and pairs, and what follows from it.

The rules that derive pairs of families are imported in the order of their trial.
"""

from . import compose, integrate_counts, integrate
