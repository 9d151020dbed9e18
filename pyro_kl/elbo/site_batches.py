"""Exact KLs of many sites at once: one call of a formula instead of one for each site.

A model with fifty Normal sites spends most of a step on dispatch. Sites whose KL is between the
same two univariate families, unscaled and unmasked, are laid end to end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import kl_divergence

from ..numerics.dtypes import Parameters
from ..registry.family import Family
from ..registry.register import family_of, pair_of
from .guides.pair_kl import UnivariatePair
from .guides.plan import Decision
from .terms import Term


class Member(NamedTuple):
    """A latent whose term is its exact KL, without scale and mask.

    Attributes:
        how: the decision about it.
        frames: the plates that it is in.
        shape: of its value, batch and event.
        kl_shape: of its KL per element.
        event_dims: how many rightmost dims of that KL belong to the event.
    """

    how: Decision
    frames: tuple[Any, ...]
    shape: torch.Size
    kl_shape: torch.Size
    event_dims: int

    def term(self, dims: Tensor) -> Term:
        """Its term.

        Args:
            dims: the KL per element.
        """
        value = sum_rightmost(dims, self.event_dims)
        return Term(
            name=self.how.site.name,
            kind="latent",
            value=value,
            surrogate=value,
            frames=self.frames,
            method=self.how.method,
            source=self.how.source,
            reason=self.how.reason,
            score=None,
            score_frames=self.frames,
            own_cost=False,
            dims=dims,
            scale=1.0,
            mask=None,
            shape=tuple(self.shape),
        )


#: A latent's pair of distributions, and what else its term consists of.
PairAndMember = tuple[UnivariatePair, Member]


@dataclass
class SiteBatch:
    """KLs of several sites, per element, end to end.

    Attributes:
        flat: nats.
        members: the sites.
    """

    flat: Tensor
    members: list[Member]

    def detached(self) -> SiteBatch:
        """The same without its graph."""
        return SiteBatch(self.flat.detach(), self.members)

    def terms(self) -> list[Term]:
        """One term for each site."""
        parts = self.flat.split([member.kl_shape.numel() for member in self.members])
        return [
            member.term(part.view(member.kl_shape))
            for part, member in zip(parts, self.members, strict=True)
        ]


class _Formula(NamedTuple):
    """The KL of two families, element by element, from their parameters."""

    q: Family
    p: Family
    kl: Callable[[Parameters, Parameters], Tensor]


def in_batches(pairs: Sequence[PairAndMember]) -> tuple[list[SiteBatch], list[Term]]:
    """The sites that one call of a formula computes together, and the terms of all others."""
    groups: dict[Any, list[PairAndMember]] = {}
    for each in pairs:
        groups.setdefault(each[0].families, []).append(each)
    batches: list[SiteBatch] = []
    terms: list[Term] = []
    for families, group in groups.items():
        formula = _formula_of(*families)
        if formula is None:
            terms += [member.term(pair.kl().dims) for pair, member in group]
            continue
        for alike in [group] if len(group) == 1 else _of_one_dtype(formula.q, group):
            if len(alike) > 1:
                batches.append(_batch(formula, alike))
            else:
                terms.append(_alone(formula, *alike[0]))
    return batches, terms


@lru_cache(maxsize=256)
def _formula_of(q: Any, p: Any) -> _Formula | None:
    """The formula of two classes whose KL is elementwise in one number for each parameter."""
    of_q, of_p = family_of(q), family_of(p)
    if of_q is None or of_p is None or of_q.support.discrete or of_p.support.discrete:
        return None
    pair = pair_of(q, p)
    if pair is None or pair is not pair_of(of_q.distribution, of_p.distribution):
        return None
    make_q: Any = of_q.distribution
    make_p: Any = of_p.distribution

    def on_distributions(mine: Parameters, theirs: Parameters) -> Tensor:
        members = make_q(**mine, validate_args=False), make_p(**theirs, validate_args=False)
        return kl_divergence(*members)

    return _Formula(of_q, of_p, getattr(pair.formula, "on_parameters", on_distributions))


def _of_one_dtype(family: Family, group: Sequence[PairAndMember]) -> list[list[PairAndMember]]:
    """Sites whose parameters can be laid end to end: of one dtype, on one device."""
    alike: dict[Any, list[PairAndMember]] = {}
    for pair, member in group:
        first = next(iter(family.of(pair.drawn).values()))
        alike.setdefault((first.dtype, first.device), []).append((pair, member))
    return list(alike.values())


def _alone(formula: _Formula, pair: UnivariatePair, member: Member) -> Term:
    """The term of a site that no other site has the families of."""
    dims = formula.kl(formula.q.of(pair.drawn), formula.p.of(pair.p))
    if dims.shape != member.kl_shape:
        dims = dims.expand(member.kl_shape)
    return member.term(dims if pair.excess is None else dims + pair.excess)


def _batch(formula: _Formula, group: Sequence[PairAndMember]) -> SiteBatch:
    """The KLs of sites between the same two families."""
    shapes = [member.kl_shape for _, member in group]
    q = _joined(formula.q, [pair.drawn for pair, _ in group], shapes)
    p = _joined(formula.p, [pair.p for pair, _ in group], shapes)
    flat = formula.kl(q, p)
    if any(pair.excess is not None for pair, _ in group):
        zero = flat.new_zeros(())
        excess = [zero if pair.excess is None else pair.excess for pair, _ in group]
        flat = flat + _end_to_end(excess, shapes)
    return SiteBatch(flat, [member for _, member in group])


def _joined(
    family: Family, members: Sequence[Any], shapes: Sequence[torch.Size]
) -> dict[str, Tensor]:
    """The parameters of all members, end to end."""
    of_members = [family.of(member) for member in members]
    return {
        name: _end_to_end([values[name] for values in of_members], shapes)
        for name in family.parameters
    }


def _end_to_end(tensors: Sequence[Tensor], shapes: Sequence[torch.Size]) -> Tensor:
    """Tensors of these shapes, or that broadcast to them, as one vector."""
    parts = []
    for x, shape in zip(tensors, shapes, strict=True):
        if x.shape != shape:
            x = x.expand(shape)
        parts.append(x if x.dim() == 1 else x.reshape(-1))
    return torch.cat(parts)
