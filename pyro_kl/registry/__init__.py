"""The declarations of families and pairs, and the pairs that follow from them.

- `family`: the declaration of a univariate family; `line`: its density and mass for integrals.
- `structured_family`: how members of a family of vectors, matrices or sequences are made.
- `register`: the declared families and pairs, and torch's registry; `checks`: what is refused.
- `pair`: a registered pair and its worked cases; `lift`: a formula on parameters becomes a pair.
- `compose`, `integrate_counts`, `integrate`: the rules that derive pairs of two families.
- `finiteness`, `window`, `slow_tails`: whether an integral is finite, where p has its mass, and
  tails that decay so slowly that floats do not reach their end.
- `reduction`: the rules for wrapped distributions, and the errors where there is no formula.
- `subclasses`: whether a class keeps the density of its parent; `tensors`, `user_classes`: the
  tensors of a distribution, and calls of user code.
- `provenance`: the record of the formulas that one KL used.
- `shapes`, `warnings`: batch and event shapes, the user's line.

A pair is derived by the first rule that applies: the order of these imports is the order of trial.
"""

from . import compose, integrate_counts, integrate
