"""The weights of KLs that are part of a sum over the model's discrete sites.

In log sum_k p(k) p(z | k) f(k) - log q(z) the KLs of k and of z cannot be taken apart. A weight of
either is a power of densities; free bits and a capacity have no meaning there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..messages import see
from ..results.by_site import shortened
from .objective import Objective
from .schedules import Level


def weight_inside(objective: Objective, name: str, levels: Any) -> Any:
    """The weight of the KL of a latent whose prior is inside of a sum.

    Args:
        objective: has it.
        name: of the latent.
        levels: the numbers of the objective at a step.

    Raises:
        ValueError: free bits or a capacity would bend the KL, which the sum does not have apart.
    """
    weight: Any = 1.0
    for i, (what, site, level) in enumerate(objective.entries):
        if site not in (None, name):
            continue
        if what == "beta":
            weight = levels[i]
        elif what == "capacity" or level != 0.0:
            raise ValueError(
                f"{what} cannot be used for {name}: its prior is inside of the sum over "
                f"discrete sites of the model, where it has no KL of its own. Give {what} as "
                "{site: ...} for other sites, or enumerate in the guide." + see("option")
            )
    return weight


def weight_of_sum(objective: Objective, names: Sequence[str], levels: Any) -> Any:
    """The weight of the KL of sites that are summed out together.

    Only `beta={site: ...}` weighs it: it cannot be bent, and for 0 there is no sum.

    Args:
        objective: has it.
        names: of the sites.
        levels: the numbers of the objective at a step.

    Raises:
        ValueError: the sites have different weights, a weight of 0, or another option.
    """
    weight: Any = 1.0
    named: dict[str, Level] = {}
    for i, (what, site, level) in enumerate(objective.entries):
        if site is not None and site in names:
            if what != "beta":
                raise _not_bent(what, site)
            weight, named[site] = levels[i], level
    balanced = objective.kl_balance
    if isinstance(balanced, Mapping) and not balanced.keys().isdisjoint(names):
        raise _not_bent("kl_balance", *sorted(balanced.keys() & set(names)))
    if any(named.get(name, 1.0) != named.get(names[0], 1.0) for name in names):
        raise ValueError(
            f"{shortened(names)} are summed out together and have one KL: give all of them "
            "the same beta." + see("option")
        )
    if not isinstance(weight, Tensor) and not weight > 0:
        raise ValueError(
            f"beta of {names[0]}, which the model sums out, must be above 0, got {weight:g}."
            + see("option")
        )
    return weight


def _not_bent(what: str, *sites: str) -> ValueError:
    return ValueError(
        f"{what} cannot be used for {', '.join(sites)}, which the model sums out: the KL of an "
        "exact posterior is not bent. Let the guide enumerate it, or weigh it by beta={site: ...}."
        + see("option")
    )
