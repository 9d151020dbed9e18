"""How members of the classes of Gaussian sequences are made, and a worked case of every pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def _state_space(cls: type[Any]) -> Callable[..., Any]:
    """A maker of GaussianHMMs, or of equal LinearHMMs, which Pyro can sample.

    The first state is N(initial, 1), `reads` maps states to observations, `loc` varies in time.
    """

    def made(
        initial: Tensor, matrix: Tensor, noise: Tensor, reads: Tensor, loc: Tensor, scale: Tensor
    ) -> Any:
        return cls(
            Normal(initial, 1.0).to_event(1),
            matrix.unsqueeze(-3),
            MultivariateNormal(initial[..., None, :] * 0, scale_tril=noise.unsqueeze(-3)),
            reads.unsqueeze(-3),
            Normal(loc, scale.unsqueeze(-2)).to_event(1),
        )

    return made


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
    GaussianHMM: StructuredFamily(GaussianHMM, _STATE, _state_space(GaussianHMM)),
    LinearHMM: StructuredFamily(
        LinearHMM,
        _STATE,
        _state_space(LinearHMM),
        samples="Pyro has no density of a LinearHMM",
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
    Independent: StructuredFamily(
        Independent,
        {"loc": _MATRIX, "scale": constraints.independent(constraints.positive, 2)},
        lambda loc, scale: Normal(loc, scale).to_event(2),
    ),
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
_EXAMPLES: Mapping[type[Any], tuple[dict[str, Any], dict[str, Any]]] = {
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
#: The KL of p's example and q's, from dense covariances at 50 digits: a row for each p, and a
#: column for each q, in this order.
_ORDER = (GaussianHMM, GaussianMRF, IndependentHMM, Independent)
_VALUES = (
    (1.678363381111893851, 1.607726551687599886, 0.93065951069032157397, 1.5349065838236274288),
    (
        1.0958087389292400349,
        0.49140065017416713259,
        0.76938725654950009474,
        0.6986583776729351542,
    ),
    (1.3260675898701821654, 1.4665731025734178533, 1.0841824362454584879, 1.3021317830768862418),
    (1.2385468667605559848, 1.0995909828429104386, 1.5565514576884965487),
)
#: LinearHMM's examples are those of GaussianHMM, and so are its values.
_ALSO: Mapping[type[Any], tuple[type[Any], ...]] = {GaussianHMM: (GaussianHMM, LinearHMM)}
#: The worked case of every pair.
CASES: Mapping[tuple[type[Any], type[Any]], Case] = {
    (p, q): Case(_EXAMPLES[p][0], _EXAMPLES[q][1], value)
    for of_p, row in zip(_ORDER, _VALUES, strict=True)
    for of_q, value in zip(_ORDER, row, strict=False)
    for p in _ALSO.get(of_p, (of_p,))
    for q in _ALSO.get(of_q, (of_q,))
}
