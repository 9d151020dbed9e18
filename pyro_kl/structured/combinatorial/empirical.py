"""Empirical: weighted atoms, of which equal ones count as one."""

from __future__ import annotations

import math

import torch
from pyro.distributions import (
    Empirical,
    ExpandedDistribution,
    ImproperUniform,
    MaskedDistribution,
    MaskedMixture,
)
from torch import Tensor
from torch.distributions import Distribution, Poisson, TransformedDistribution

from ...numerics.dtypes import in_float64, promoted
from ...numerics.special.divergences import kl_div_of_logs
from ...numerics.special.logarithms import safe_log
from ...registry.at_points import AtPoints, at_atoms
from ...registry.family import Family, in_rows
from ...registry.pair import Case
from ...registry.reduction import no_formula
from ...registry.register import family_of, register
from ...registry.shapes import any_of_last, broadcast_batch, nan_in
from ...wrappers.log_prob import log_prob_anywhere

#: Wrappers that the rules for wrapped distributions take apart first.
_WRAPPERS = (MaskedDistribution, ExpandedDistribution, MaskedMixture, TransformedDistribution)


_THREE = {"samples": [1.0, 2.0, 1.0], "log_weights": [0.0, 0.0, 0.0]}
_TWO = {"samples": [2.0, 1.0], "log_weights": [0.0, 0.0]}
_OTHER = {"samples": [2.0, 3.0], "log_weights": [0.0, 0.0]}


@register(
    Empirical,
    Empirical,
    cases=[Case(_THREE, _TWO, 0.0566330122651324909668082988411), Case(_TWO, _OTHER, math.inf)],
    finite="every atom of p is one of q's",
    reference="the definition, summed over distinct atoms",
    method="exact sum",
)
def kl_empirical_empirical(p: Empirical, q: Empirical) -> Tensor:
    """sum_i w_i (log w_i - log v_i) over distinct atoms, of weight w_i under p and v_i under q."""
    shape = broadcast_batch(p, q)
    at = at_common_atoms(p, q)
    total = kl_div_of_logs(at.log_p, at.log_q).sum(-1) + _missing(p) + _missing(q)
    return total.to(promoted((p.log_weights, q.log_weights))).expand(shape)


@at_atoms([Empirical], [Empirical])
def at_common_atoms(p: Empirical, q: Empirical) -> AtPoints:
    """The log masses of both at all atoms of either."""
    shape = broadcast_batch(p, q)
    (p_atoms, p_log), (q_atoms, q_log) = _expanded(p, shape), _expanded(q, shape)
    n = p_atoms.shape[len(shape)]
    _, index = _distinct(torch.cat([p_atoms, q_atoms], len(shape)), len(shape))
    size = int(index.max()) + 1
    return AtPoints(_merged(p_log, index[..., :n], size), _merged(q_log, index[..., n:], size))


@register(
    Empirical,
    Distribution,
    cases=[Case(_THREE, {"rate": 2.0}, 0.670338651145241872132344055925)],
    finite="q is discrete and has mass at every atom of p",
    reference="the definition, summed over distinct atoms; an atom has no density",
    method="exact sum",
    make_q=Poisson,
)
def kl_empirical(p: Empirical, q: Distribution) -> Tensor:
    """sum_i w_i (log w_i - log q(x_i)) over distinct atoms; +inf against a density."""
    shape, dtype = broadcast_batch(p, q), p.log_weights.dtype
    at = at_own_atoms(p, q)
    if at is None:
        raise no_formula(p, q)
    total = kl_div_of_logs(at.log_p, at.log_q).sum(-1) + at.q_elsewhere + _missing(p)
    return total.to(dtype).expand(shape)


@at_atoms([Empirical], [Distribution])
def at_own_atoms(p: Empirical, q: Distribution) -> AtPoints | None:
    """The log masses of both at p's atoms, where a density has none; None for a wrapped q."""
    if isinstance(q, _WRAPPERS) and family_of(type(q)) is None:
        return None
    shape = broadcast_batch(p, q)
    atoms, log_weights = _expanded(p, shape)
    distinct, index = _distinct(atoms, len(shape))
    log_p = _merged(log_weights, index, len(distinct))
    support = q.support
    assert support is not None
    if not support.is_discrete:
        return AtPoints(log_p, torch.full_like(log_p, -math.inf), q_elsewhere=1.0)
    family = family_of(type(q))
    if family is not None and family.log_mass is not None:
        log_q = _masses(family, q, distinct)
    else:
        rows = distinct.reshape(len(distinct), *(1,) * len(q.batch_shape), *p.event_shape)
        rows = rows.expand(len(distinct), *q.batch_shape, *p.event_shape)
        log_q = in_float64(log_prob_anywhere(q, rows).movedim(0, -1))
    return AtPoints(log_p, log_q, q_elsewhere=1 - torch.exp(log_q).sum(-1))


def _masses(family: Family, q: Distribution, atoms: Tensor) -> Tensor:
    """Log masses of a declared family's member at any numbers."""
    assert family.log_mass is not None
    values = {name: in_float64(x) for name, x in family.of(q).items()}
    counts = (atoms >= 0) & (atoms == atoms.floor())
    k = torch.where(counts, atoms, 0).long()
    if family.num_atoms is None:
        log_q = family.log_mass(k, **values)
    else:  # `log_mass` of a finite family takes all atoms in order
        n = family.num_atoms(**values)
        every = family.log_mass(torch.arange(n, device=k.device), **values)
        counts = counts & (k < n)
        log_q = every[..., torch.where(counts, k, 0)]
    missing = nan_in(in_rows(values, family.vectors)).unsqueeze(-1)
    return torch.where(missing, math.nan, torch.where(counts, log_q, -math.inf))


def _missing(distribution: Empirical) -> Tensor:
    """nan where an atom or a weight is, otherwise 0."""
    weights = distribution.log_weights.detach()
    atoms = any_of_last(distribution._samples.detach().isnan(), len(distribution.event_shape))
    missing = (atoms | weights.isnan()).any(-1)
    return torch.where(missing, math.nan, 0.0)


def _expanded(distribution: Empirical, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Atoms and their log weights, normalised, in a batch shape."""
    atoms, log_weights = distribution._samples, in_float64(distribution.log_weights)
    n = len(distribution.batch_shape)
    return (
        atoms.expand(shape + atoms.shape[n:]),
        torch.log_softmax(log_weights, -1).expand(shape + log_weights.shape[n:]),
    )


def _distinct(atoms: Tensor, batch_dims: int) -> tuple[Tensor, Tensor]:
    """The distinct atoms of a whole batch, and which of them each atom is."""
    rows = atoms.detach().flatten(0, batch_dims)
    if rows.dim() == 1:
        distinct, index = torch.unique(rows, return_inverse=True)
    else:
        distinct, index = torch.unique(rows, dim=0, return_inverse=True)
    return distinct, index.reshape(atoms.shape[: batch_dims + 1])


def _merged(log_weights: Tensor, index: Tensor, size: int) -> Tensor:
    """Log masses of all distinct atoms, -inf for those without mass."""
    zeros = log_weights.new_zeros((*log_weights.shape[:-1], size))
    return safe_log(zeros.scatter_add(-1, index, torch.exp(log_weights)))


@register(
    Empirical,
    ImproperUniform,
    cases=[Case(_THREE, {}, math.inf)],
    finite="never",
    reference="an atom has no density",
    method="infinite",
    make_q=lambda: ImproperUniform(torch.distributions.constraints.real, (), ()),
)
def kl_empirical_improper_uniform(p: Empirical, q: ImproperUniform) -> Tensor:
    """+inf: an atom has no density."""
    return torch.full(broadcast_batch(p, q), math.inf, dtype=p.log_weights.dtype)
