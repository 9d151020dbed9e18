"""The training objective, separate from the ELBO itself: beta, schedules, free bits, capacity.

The loss is -E_q[log likelihood] + penalty(K), where K holds the KL of each site, averaged over
the particles first: a nonlinear penalty of single particles would be biased.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..messages import see
from ..results.by_site import shortened
from .free_bits import PER, Counted
from .schedules import Level, warn_unless_reaches_one

#: One level for all sites, or one for each of some sites.
Levels = Level | Mapping[str, Level]


@dataclass(frozen=True)
class Weighted:
    """The penalty and its slopes.

    Attributes:
        penalty: what the KLs add to the loss, in nats.
        weights: site -> d penalty / d KL of the site, for each KL that is counted; detached.
    """

    penalty: Tensor | float
    weights: dict[str, Tensor | float]


class Objective:
    """From the KL of each site to what they add to the loss.

    Args:
        beta: weight of the KL: a number, a schedule, or `{site: number or schedule}`; sites that
            are not named weigh 1.
        free_bits: nats below which a KL is not reduced further: each KL that is counted adds
            `beta * max(KL, free_bits)` (Kingma and others 2016, Improved Variational Inference
            with Inverse Autoregressive Flow, eq. 15); a number or `{site: number}`; 0 is off.
        capacity: the target of the KL: adds `beta * |KL - capacity|` (Burgess and others
            2018, Understanding disentangling in beta-VAE, eq. 5); a number or a schedule for
            the sum over all sites, or `{site: ...}` for single ones.
        free_bits_per: what `free_bits` counts: "site", "element" or "batch"; see `counting`.
        capacity_per: what `capacity` counts, likewise; None is the sum over all sites for one
            number, and "site" for `{site: ...}`.
        kl_balance: alpha in [0, 1] of KL balancing, for all sites or `{site: alpha}`; see
            `balance`. None is the plain gradient.
    """

    def __init__(
        self,
        beta: Levels = 1.0,
        free_bits: Levels = 0.0,
        capacity: Levels | None = None,
        free_bits_per: str = "site",
        capacity_per: str | None = None,
        kl_balance: float | Mapping[str, float] | None = None,
    ) -> None:
        if capacity is not None and free_bits != 0.0:
            raise ValueError(
                "free_bits and capacity both bend the KL: give one of them, not both."
                + see("option")
            )
        for what, per in (("free_bits_per", free_bits_per), ("capacity_per", capacity_per)):
            if per not in (*PER, *([None] if what == "capacity_per" else [])):
                raise ValueError(
                    f"{what} must be one of {', '.join(PER)}, got {per!r}" + see("option")
                )
        self.sums_all = capacity is not None and not isinstance(capacity, Mapping)
        self.sums_all &= capacity_per is None
        if self.sums_all and isinstance(beta, Mapping):
            raise ValueError(
                "A capacity for the sum of all KLs needs one beta for all sites; give "
                'capacity={site: ...} or capacity_per="site" to weigh sites differently.'
                + see("option")
            )
        shares = kl_balance.values() if isinstance(kl_balance, Mapping) else [kl_balance]
        if kl_balance is not None and not all(_is_share(share) for share in shares):
            raise ValueError(
                f"kl_balance must be a number in [0, 1], got {kl_balance!r}" + see("option")
            )
        self.kl_balance = kl_balance
        self.beta = beta
        self.free_bits = free_bits
        self.capacity = capacity
        self.free_bits_per, self.capacity_per = free_bits_per, capacity_per or "site"
        #: Whether the penalty is a weighted sum, so that particles need not be averaged first.
        self.is_linear = capacity is None and free_bits == 0.0
        #: Name of the option, name of the site or None, level; in the order of `levels`.
        self.entries: list[tuple[str, str | None, Level]] = []
        for what, levels in (("beta", beta), ("free_bits", free_bits), ("capacity", capacity)):
            _check(what, levels)
            if isinstance(levels, Mapping):
                self.entries += [(what, name, level) for name, level in levels.items()]
            elif levels is not None and (what != "free_bits" or levels != 0.0):
                self.entries.append((what, None, levels))
        _warn_of_schedules([(name, level) for what, name, level in self.entries if what == "beta"])

    @property
    def named_sites(self) -> set[str]:
        """Sites that the user has named."""
        groups = (self.beta, self.free_bits, self.capacity, self.kl_balance)
        return {name for group in groups if isinstance(group, Mapping) for name in group}

    def balance(self, name: str) -> float | None:
        """Alpha of a site's KL; None if its gradient is left alone."""
        return (
            self.kl_balance.get(name) if isinstance(self.kl_balance, Mapping) else self.kl_balance
        )

    def per(self, name: str) -> str:
        """What the KL of a site is counted per."""
        for level, per in (
            (self.free_bits, self.free_bits_per), (self.capacity, self.capacity_per)
        ):  # fmt: skip
            if level not in (None, 0.0) and (not isinstance(level, Mapping) or name in level):
                return per
        return "site"

    def check_sites(self, groups: Mapping[str, str]) -> None:
        """Raise ValueError if a name in beta, free_bits or capacity cannot be weighted.

        Args:
            groups: latent -> names of the sites whose terms only count together, joined.
        """
        known = set(groups)
        tied = sorted(name for name in self.named_sites & known if groups[name] != name)
        if tied:
            raise ValueError(
                f"{', '.join(tied)} cannot be weighed alone: the guide draws {groups[tied[0]]} "
                "jointly, by a distribution that is not recognised. Give one number for all sites."
                + see("joint-sites")
            )
        uncounted = sorted(
            n for n, group in groups.items() if n != group and self.per(n) != "site"
        )
        if uncounted:
            raise ValueError(
                f"The KL of {', '.join(uncounted)} cannot be counted per element or coordinate: "
                f"the guide draws {groups[uncounted[0]]} jointly, by a distribution that is not "
                'recognised. Count per "site".' + see("joint-sites")
            )
        check_names("beta, free_bits, capacity or kl_balance", self.named_sites, groups)

    def levels(self, step: int) -> list[float]:
        """All numbers at `step`, in a fixed order, as `penalty` takes them."""
        return [
            float(level(step)) if callable(level) else float(level) for _, _, level in self.entries
        ]

    def one_weight(self, levels: Any) -> Any:
        """The weight of every KL, if the penalty is a sum with one weight; else None."""
        return levels[0] if self.is_linear and not isinstance(self.beta, Mapping) else None

    def describe(self, levels: Any) -> str:
        """The objective in words; empty if it is the ELBO itself."""
        words = []
        for (what, name, _), level in zip(self.entries, levels, strict=False):
            value = float(level)
            if value != {"beta": 1.0, "free_bits": 0.0}.get(what):
                per = "" if what == "beta" else self._per_in_words(what, name)
                words.append(f"{what}{'' if name is None else f'[{name}]'} = {value:g}{per}")
        shares = self.kl_balance
        for name, share in shares.items() if isinstance(shares, Mapping) else [(None, shares)]:
            if share is not None:
                words.append(f"kl_balance{'' if name is None else f'[{name}]'} = {share:g}")
        return ", ".join(words)

    def _per_in_words(self, what: str, name: str | None) -> str:
        per = "all" if what == "capacity" and self.sums_all else getattr(self, f"{what}_per")
        words = {"element": " per element", "batch": " per coordinate, averaged over the batch"}
        return words.get(per, "")

    def weigh(self, kls: Mapping[str, Counted], levels: Sequence[float] | Tensor) -> Weighted:
        """The penalty at the KLs, and its slopes.

        Args:
            kls: site -> its KLs, as `count` gives them.
            levels: as `levels(step)` gives them, or a tensor of them.
        """
        at: dict[tuple[str, str | None], float | Tensor] = {}
        for i, (what, name, _) in enumerate(self.entries):
            at[what, name] = levels[i]
        betas = {name: at.get(("beta", name), at.get(("beta", None), 1.0)) for name in kls}
        if self.sums_all:
            total = sum(kl.values for kl in kls.values())
            return _towards(total, at["capacity", None], betas)
        penalty: Tensor | float = 0.0
        weights: dict[str, Tensor | float] = {}
        for name, kl in kls.items():
            free = at.get(("free_bits", name), at.get(("free_bits", None), 0.0))
            aim = at.get(("capacity", name), at.get(("capacity", None)))
            bent = kl.values
            weights[name] = beta = betas[name]
            if kl.bends and not _is_zero(free):
                above = kl.values > free * kl.size
                bent = torch.where(above, kl.values, free * kl.size)
                weights[name] = beta * above.to(bent.dtype)
            elif aim is not None and kl.bends:
                gap = kl.values - aim * kl.size
                bent, weights[name] = gap.abs(), beta * gap.sign()
            penalty = penalty + _cost(beta, bent.sum())
        return Weighted(penalty, weights)


def check_names(what: str, names: Collection[str], known: Collection[str]) -> None:
    """Raise ValueError if names of sites are not among those that there are."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(
            f"The sites named in {what} are not all sampled by the model: {shortened(unknown)}. "
            f"Its latent sites are: {shortened(list(known))}." + see("no-such-site")
        )


def _towards(
    total: Tensor | float, capacity: float | Tensor, betas: dict[str, float | Tensor]
) -> Weighted:
    """beta * |sum of KLs - capacity|, with the same slope for every site."""
    gap = torch.as_tensor(total - capacity) if not isinstance(total, Tensor) else total - capacity
    beta = next(iter(betas.values()), 1.0)
    return Weighted(beta * gap.abs(), dict.fromkeys(betas, beta * gap.sign()))


def _cost(beta: float | Tensor, bent: Tensor) -> Tensor:
    """beta * bent; what weighs nothing costs nothing, infinite or not."""
    if not isinstance(beta, Tensor):
        return beta * bent if beta else torch.zeros_like(bent)
    return torch.where(beta == 0, torch.zeros_like(bent), beta * bent)


def _warn_of_schedules(betas: Sequence[tuple[str | None, Level]]) -> None:
    """Warn of each schedule that does not end at 1, once for all sites that share it."""
    sharing: list[tuple[Level, list[str | None]]] = []
    for name, level in betas:
        names = next((names for other, names in sharing if other is level), None)
        if names is None:
            sharing.append((level, [name]))
        else:
            names.append(name)
    for level, (first, *others) in sharing:
        of = "beta" if first is None else f"beta[{first!r}]"
        warn_unless_reaches_one(level, f"{of} and {len(others)} others" if others else of)


def _is_share(share: Any) -> bool:
    return isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share <= 1


def _is_zero(level: float | Tensor) -> bool:
    return not isinstance(level, Tensor) and level == 0.0


def _check(what: str, level: Levels | None) -> None:
    """Refuse what is neither a number of at least 0 nor a schedule."""
    if isinstance(level, Mapping):
        for name, value in level.items():
            _check(f"{what}[{name!r}]", value)
    elif level is not None and not callable(level):
        if isinstance(level, bool) or not isinstance(level, int | float) or not level >= 0:
            raise ValueError(
                f"{what} must be a number of at least 0 or a schedule, got {level!r}"
                + see("option")
            )
