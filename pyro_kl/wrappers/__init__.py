"""Wrapped distributions: rules that call `kl_divergence` again, in the order of their trial."""

from ..registry.reduction import first_reduction, reduction
from . import improper_uniform  # it registers pairs and has no rule
from .circle import in_one_turn
from .delta import by_atoms
from .independent import by_expansion
from .masked import by_mask, by_selection
from .transformed.by_line import by_line
from .transformed.log_odds import by_log_odds
from .transformed.pullback import by_marginals, by_moved_map, by_pullback
from .transformed.rules import by_promotion, by_shared_map, by_shared_map_as_given, by_unfolding
from .zero_inflated import by_zero_inflation

for _rule in (by_promotion, by_shared_map_as_given, by_log_odds):
    first_reduction(_rule)
# First comes what leaves the distribution as it is (masks, batches, choices), then the maps,
# then the supports, and the integrals over a line are last.
for _rule in (
    by_mask, by_expansion, by_selection,
    by_unfolding, by_shared_map,
    in_one_turn, by_zero_inflation, by_atoms,
    by_pullback, by_moved_map, by_marginals,
    by_line,
):  # fmt: skip
    reduction(_rule)
