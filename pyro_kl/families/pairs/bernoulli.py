"""Bernoulli || Poisson."""

from __future__ import annotations

from torch import Tensor

from ...numerics.dtypes import Parameters
from ...numerics.special.bernoulli import bernoulli_poisson_kl, bernoulli_poisson_kl_of_logits
from ...registry.pair import Case
from ...registry.register import formula
from ..discrete.bernoulli import bernoulli
from ..discrete.poisson import poisson


@formula(
    bernoulli,
    poisson,
    cases=[
        Case({"probs": 0.25}, {"rate": 0.5}, 0.1109516505211779770663),
        Case({"probs": 1e-6}, {"rate": 1.000001e-6}, 5.000006666664166493185e-13),
        Case({"logits": -3.0}, {"rate": 0.05}, 0.00121024777307297043508),
        Case({"probs": 1.0}, {"rate": 0.5}, 1.193147180559945309417),
        Case({"probs": 0.0}, {"rate": 0.0}, 0.0),
    ],
    finite="q has mass wherever p has",
    reference="the definition, summed",
    method="exact sum",
    replaces="torch gives nan for probs 0 against rate 0, and clamps probs",
)
def kl_bernoulli_poisson(p: Parameters, q: Parameters) -> Tensor:
    """The sum over both atoms, in terms that are never negative."""
    if "probs" in p:
        return bernoulli_poisson_kl(p["probs"], q["rate"])
    return bernoulli_poisson_kl_of_logits(p["logits"], q["rate"])
