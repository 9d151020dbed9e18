"""SpanningTree: random trees on a complete graph."""

from __future__ import annotations

import torch
from pyro.distributions import SpanningTree
from pyro.distributions.spanning_tree import make_complete_graph
from torch import Tensor
from torch.distributions import constraints

from ...numerics.dtypes import in_float64, promoted
from ...numerics.special.divergences import itakura_saito, kl_div_of_logs
from ...registry.at_points import AtPoints, at_atoms, check_size
from ...registry.entropy import entropy_formula
from ...registry.pair import Case
from ...registry.renyi import geometric_mixture
from ...registry.shapes import broadcast_batch
from ...registry.structured_family import StructuredFamily, register_each

TREES = StructuredFamily(
    SpanningTree,
    {"edge_logits": constraints.real_vector},
    batched=False,
    samples="Pyro's sampler is one step of a Markov chain",
)
#: How far apart two edges' logits may be for the form that keeps its digits near p = q.
_NEAR = 0.5


_CASES = [
    Case(
        {"edge_logits": [0.5, -1.0, 0.25, 0.0, 1.5, -0.5]},
        {"edge_logits": [0.0, 0.5, 1.0, -0.75, 0.25, 0.5]},
        0.60728009811626901002,
    ),
    Case(
        {"edge_logits": [0.5, -1.0, 0.25]},
        {"edge_logits": [3.0, -1.0, -4.0]},
        2.2005151976573295359,
    ),
]


@register_each(
    (TREES, TREES, _CASES),
    reference="Kirchhoff (1847), matrix-tree theorem; Nielsen & Nock (2010), Bregman divergence "
    "of the log partition function; derived in the docstring",
)
def kl_spanning_trees(p: SpanningTree, q: SpanningTree) -> Tensor:
    r"""KL of two distributions on the trees of a graph, O(V^3): the Bregman divergence of log Z.

    With m_e = P(e is in the tree), d_e what q's logit of e is above p's, and log Z = sum of the
    logs of the Laplacian's pivots (matrix-tree theorem),

        KL = log Z_q - log Z_p - sum_e m_e d_e.

    Its terms are of first order in d and cancel where d is small. There, with the edges' weights
    w, the truncated Laplacian L, the Cholesky factor C of L_p^-1/2 L_q L_p^-1/2 and the effective
    resistance r_e = m_e / w_e of each edge, all terms are of second order:

        KL = sum_e r_e [w_q - w_p - w_p log(w_q / w_p)] - sum_i [C_ii^2 - 1 - log C_ii^2 + ...]

    where ... is sum_{j<i} C_ij^2. A constant added to all of q's logits changes no distribution.
    """
    broadcast_batch(p, q)
    a, b = in_float64(p.edge_logits), in_float64(q.edge_logits)
    top = a.detach().amax()
    tril, resistance = _eliminated(_weights(a - top, p.num_vertices))
    ends = make_complete_graph(p.num_vertices).unbind(0)
    resistance = resistance[ends]
    marginal = resistance * torch.exp(a - top)
    shift = (marginal * (b - a)).sum() / (p.num_vertices - 1)
    b = b - shift  # all trees have V - 1 edges: the KL stays the same, and sum m d becomes 0
    near = (b - a).abs().amax() < _NEAR
    level = b.detach().amax()
    pivots, _ = _eliminated(_weights(b - level, p.num_vertices))
    far = 2 * (_log_diagonal(pivots) - _log_diagonal(tril)) + (level - top) * len(tril)
    close = torch.where(near, b, a)
    other, _ = _eliminated(_weights(close - top, p.num_vertices))
    ratio = torch.linalg.solve_triangular(tril, other, upper=False)
    own = (x.diagonal().square() for x in (other, tril))
    curved = itakura_saito(*own).sum() + ratio.tril(-1).square().sum()
    bent = (resistance * kl_div_of_logs(a - top, close - top)).sum()
    return torch.where(near, bent - curved, far).to(promoted((p.edge_logits, q.edge_logits)))


def _weights(logits: Tensor, vertices: int) -> Tensor:
    """The symmetric matrix of the edges' weights."""
    first, second = make_complete_graph(vertices).unbind(0)
    upper = torch.zeros(vertices, vertices, dtype=logits.dtype)
    upper = upper.index_put((first, second), torch.exp(logits))
    return upper + upper.mT


def _eliminated(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factor of the Laplacian without its last vertex, and all effective resistances.

    Vertices are removed from the graph one by one, each star being replaced by a mesh. Nothing is
    subtracted, so that weights of very different size keep their digits. Then the vertices are put
    back: the resistances of a new vertex follow from those between the vertices already there.
    """
    count = weights.shape[-1] - 1
    columns, stars = [], []
    for k in range(count):
        star = weights[0, 1:]
        total = star.sum()
        root = total.sqrt()
        column = torch.cat((root.unsqueeze(0), -star[:-1] / root))
        columns.append(torch.nn.functional.pad(column, (k, 0)))
        stars.append((star / total, total))
        mesh = weights[1:, 1:] + torch.outer(star, star) / total
        weights = mesh - torch.diag_embed(mesh.diagonal())
    resistance = torch.zeros(1, 1, dtype=weights.dtype)
    for share, total in reversed(stars):
        across = resistance @ share
        new = 1 / total + across - 0.5 * share @ across
        top = torch.cat((torch.zeros_like(new[:1]), new)).unsqueeze(0)
        resistance = torch.cat((top, torch.cat((new.unsqueeze(1), resistance), 1)), 0)
    return torch.stack(columns, -1), resistance


def _log_diagonal(tril: Tensor) -> Tensor:
    return tril.diagonal().log().sum()


# --- entropy, and what the other divergences need -----------------------------------------------


@entropy_formula(SpanningTree)
def entropy_of_spanning_tree(p: SpanningTree) -> Tensor:
    """log Z - sum_e m_e a_e, with the logits shifted so that the sum is 0."""
    a = in_float64(p.edge_logits)
    if p.num_vertices < 2:
        return a.new_zeros(())
    top = a.detach().amax()
    tril, resistance = _eliminated(_weights(a - top, p.num_vertices))
    marginal = resistance[make_complete_graph(p.num_vertices).unbind(0)] * torch.exp(a - top)
    mean = (marginal * (a - top)).sum()
    return 2 * _log_diagonal(tril) - mean


@geometric_mixture(SpanningTree)
def mixture(p: SpanningTree, q: SpanningTree, alpha: float) -> tuple[SpanningTree, Tensor]:
    """The logits are natural parameters: any vector."""
    a, b = in_float64(p.edge_logits), in_float64(q.edge_logits)
    middle = SpanningTree(b + alpha * (a - b), validate_args=False)
    return middle, torch.ones((), dtype=torch.bool, device=a.device)


@at_atoms([SpanningTree], [SpanningTree])
def _all_trees(p: SpanningTree, q: SpanningTree) -> AtPoints:
    """All V^(V - 2) trees; Pyro enumerates those of up to 6 vertices."""
    check_size(p.num_vertices ** max(p.num_vertices - 1, 0))
    first, second = p.enumerate_support().unbind(-1)
    edge = first + second * (second - 1) // 2
    log_p, log_q = (in_float64(x.edge_logits)[edge].sum(-1) for x in (p, q))
    return AtPoints(log_p - log_p.logsumexp(-1), log_q - log_q.logsumexp(-1))
