"""Examples of Gaussian sequences, and the KL of every pair of them from dense covariances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyro.distributions import (
    GaussianHMM,
    GaussianMRF,
    IndependentHMM,
    LinearHMM,
    MultivariateNormal,
    Normal,
)
from torch import Tensor
from torch.distributions import Independent, constraints

from ...registry.pair import Case
from ...registry.structured_family import StructuredFamily

_ROW = constraints.real_vector
_MATRIX = constraints.independent(constraints.real, 2)
_SCALES = constraints.independent(constraints.positive, 1)
_ALL_SCALES = constraints.independent(constraints.positive, 2)


def _hmm(
    initial: Tensor, matrix: Tensor, noise: Tensor, reads: Tensor, loc: Tensor, scale: Tensor
) -> GaussianHMM:
    """Any state with independent errors: z_0 ~ N(initial, 1), reads is H, loc varies in time."""
    return GaussianHMM(
        Normal(initial, 1.0).to_event(1),
        matrix.unsqueeze(-3),
        MultivariateNormal(initial[..., None, :] * 0, scale_tril=noise.unsqueeze(-3)),
        reads.unsqueeze(-3),
        Normal(loc, scale.unsqueeze(-2)).to_event(1),
    )


def _linear(
    initial: Tensor, matrix: Tensor, noise: Tensor, reads: Tensor, loc: Tensor, scale: Tensor
) -> LinearHMM:
    """The same distribution, which Pyro can sample and has no density of."""
    return LinearHMM(
        Normal(initial, 1.0).to_event(1),
        matrix.unsqueeze(-3),
        MultivariateNormal(initial[..., None, :] * 0, scale_tril=noise.unsqueeze(-3)),
        reads.unsqueeze(-3),
        Normal(loc, scale.unsqueeze(-2)).to_event(1),
    )


def _markov_field(loc: Tensor, initial: Tensor, transition: Tensor, observation: Tensor) -> Any:
    """One hidden coordinate; the factors are joint Gaussians, given by their Cholesky factors."""
    zero = initial.unsqueeze(-2) * 0
    pair = zero.expand(*zero.shape[:-1], 2)
    return GaussianMRF(
        MultivariateNormal(initial, scale_tril=zero + 1),
        MultivariateNormal(pair, scale_tril=transition[..., None, :, :]),
        MultivariateNormal(loc, scale_tril=observation[..., None, :, :]),
    )


def _independent_hmms(matrix: Tensor, noise: Tensor, loc: Tensor, scale: Tensor) -> IndependentHMM:
    """One hidden coordinate for each observed one; loc is (time, coordinates)."""
    timed = (matrix[..., None, None, None], noise[..., None, None])
    return IndependentHMM(
        GaussianHMM(
            Normal(matrix.unsqueeze(-1) * 0, 1.0).to_event(1),
            timed[0],
            Normal(timed[1] * 0, timed[1]).to_event(1),
            timed[0] * 0 + 1,
            Normal(loc.mT.unsqueeze(-1), scale[..., None, None]).to_event(1),
        )
    )


def _product(loc: Tensor, scale: Tensor) -> Independent:
    return Normal(loc, scale).to_event(2)


_STATE = {
    "initial": _ROW,
    "matrix": _MATRIX,
    "noise": constraints.lower_cholesky,
    "reads": _MATRIX,
    "loc": _MATRIX,
    "scale": _SCALES,
}
#: How members are made, by class.
FAMILIES: Mapping[type[Any], StructuredFamily] = {
    GaussianHMM: StructuredFamily(GaussianHMM, _STATE, _hmm),
    LinearHMM: StructuredFamily(
        LinearHMM, _STATE, _linear, samples="Pyro has no density of a LinearHMM"
    ),
    GaussianMRF: StructuredFamily(
        GaussianMRF,
        {
            "loc": _MATRIX,
            "initial": _ROW,
            "transition": constraints.lower_cholesky,
            "observation": constraints.lower_cholesky,
        },
        _markov_field,
        samples="Pyro has no samples of a GaussianMRF",
    ),
    IndependentHMM: StructuredFamily(
        IndependentHMM,
        {"matrix": _ROW, "noise": _SCALES, "loc": _MATRIX, "scale": _SCALES},
        _independent_hmms,
    ),
    Independent: StructuredFamily(Independent, {"loc": _MATRIX, "scale": _ALL_SCALES}, _product),
}
_LOC = [[0.1, -0.2], [0.3, 0.0], [-0.5, 0.4]]
_TWO_STATES = {
    "initial": [0.5, -0.25],
    "matrix": [[0.9, 0.2], [-0.1, 0.7]],
    "noise": [[0.6, 0.0], [0.2, 0.5]],
    "reads": [[1.0, 0.3], [0.0, -0.8]],
    "loc": _LOC,
    "scale": [0.4, 0.7],
}
_ONE_STATE = {
    "initial": [1.0],
    "matrix": [[0.8]],
    "noise": [[0.5]],
    "reads": [[0.7, -0.6]],
    "loc": [[0.0, 0.0], [0.25, 0.0], [0.0, 0.5]],
    "scale": [0.6, 0.9],
}
#: Parameters as p and as q, by class.
EXAMPLES: Mapping[type[Any], tuple[dict[str, Any], dict[str, Any]]] = {
    GaussianHMM: (_TWO_STATES, _ONE_STATE),
    LinearHMM: (_TWO_STATES, _ONE_STATE),
    GaussianMRF: (
        {
            "loc": [[0.0, 0.2, -0.1], [0.5, 0.0, 0.3], [0.0, 0.0, 0.0]],
            "initial": [0.5],
            "transition": [[1.0, 0.0], [0.5, 0.8]],
            "observation": [[1.2, 0.0, 0.0], [0.6, 0.7, 0.0], [-0.4, 0.1, 0.9]],
        },
        {
            "loc": [[0.0, 0.0, 0.0], [0.0, 0.1, 0.2], [0.3, 0.0, 0.0]],
            "initial": [0.0],
            "transition": [[1.5, 0.0], [0.3, 1.0]],
            "observation": [[1.0, 0.0, 0.0], [0.2, 1.1, 0.0], [0.3, 0.0, 0.8]],
        },
    ),
    IndependentHMM: (
        {"matrix": [0.9, 0.5], "noise": [0.3, 0.6], "loc": _LOC, "scale": [0.5, 0.8]},
        {
            "matrix": [0.7, 0.8],
            "noise": [0.5, 0.4],
            "loc": [[0.0, 0.0], [0.0, 0.25], [0.0, 0.0]],
            "scale": [0.7, 0.6],
        },
    ),
    Independent: (
        {"loc": _LOC, "scale": [[0.5, 0.8], [0.7, 0.6], [0.9, 1.1]]},
        {
            "loc": [[0.0, 0.0], [0.0, 0.25], [0.0, 0.0]],
            "scale": [[1.0, 1.2], [1.5, 0.9], [1.3, 1.0]],
        },
    ),
}
#: The KL of p's example and q's, from dense covariances at 50 digits.
_DENSE: Mapping[tuple[type[Any], type[Any]], float] = {
    (GaussianHMM, GaussianHMM): 1.678363381111893851,
    (GaussianHMM, GaussianMRF): 1.607726551687599886,
    (GaussianHMM, IndependentHMM): 0.93065951069032157397,
    (GaussianHMM, Independent): 1.5349065838236274288,
    (GaussianMRF, GaussianHMM): 1.0958087389292400349,
    (GaussianMRF, GaussianMRF): 0.49140065017416713259,
    (GaussianMRF, IndependentHMM): 0.76938725654950009474,
    (GaussianMRF, Independent): 0.69865837767293515418,
    (IndependentHMM, GaussianHMM): 1.3260675898701821654,
    (IndependentHMM, GaussianMRF): 1.4665731025734178533,
    (IndependentHMM, IndependentHMM): 1.0841824362454584879,
    (IndependentHMM, Independent): 1.3021317830768862418,
    (Independent, GaussianHMM): 1.2385468667605559848,
    (Independent, GaussianMRF): 1.0995909828429104386,
    (Independent, IndependentHMM): 1.5565514576884965487,
}


def _with_linear(value: Mapping[tuple[type[Any], type[Any]], float]) -> dict[Any, float]:
    """LinearHMM's examples are GaussianHMM's, and so are its values."""
    swap = {GaussianHMM: (GaussianHMM, LinearHMM)}
    return {
        (p, q): kl
        for (a, b), kl in value.items()
        for p in swap.get(a, (a,))
        for q in swap.get(b, (b,))
    }


#: The same, of every pair.
VALUES = _with_linear(_DENSE)


def cases(p: type[Any], q: type[Any]) -> list[Case]:
    """The declared case of a pair."""
    return [Case(EXAMPLES[p][0], EXAMPLES[q][1], VALUES[p, q])]
