"""Linear-Gaussian state-space distributions, and the KL of two of them in linear time.

Row vectors, as in Pyro: z_t = z_{t-1} F_t + b_t + N(0, Q_t), x_t = z_t H_t + c_t + N(0, R_t).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...numerics.special.divergences import itakura_saito
from ..gaussian.factors import cholesky, diagonal, solve_lower
from .scan import Elements, prefixes


@dataclass(frozen=True)
class Chain:
    """The distribution of x_1..x_T, in float64.

    Attributes:
        mean: of z_0, (..., 1, n): a row.
        covariance: of z_0, (..., n, n).
        f: transition, (..., T, n, n), a row for each old and a column for each new coordinate.
        b: its shift, (..., T, 1, n).
        q: covariance of its noise, (..., T, n, n).
        h: observation, (..., T, n, m).
        c: its shift, (..., T, 1, m).
        r: covariance of its noise, (..., T, m, m).
    """

    mean: Tensor
    covariance: Tensor
    f: Tensor
    b: Tensor
    q: Tensor
    h: Tensor
    c: Tensor
    r: Tensor

    @property
    def hidden_dim(self) -> int:
        return self.mean.shape[-1]

    def padded(self, more: int) -> Chain:
        """The same distribution with `more` hidden coordinates, which are 0 and not observed."""
        if more == 0:
            return self
        row, square = (0, more), (0, more, 0, more)
        return replace(
            self,
            mean=pad(self.mean, row),
            covariance=pad(self.covariance, square),
            f=pad(self.f, square),
            b=pad(self.b, row),
            q=pad(self.q, square),
            h=pad(self.h, (0, 0, 0, more)),
        )

    def expanded(self, batch_shape: torch.Size, steps: int) -> Chain:
        """All parameters expanded to this batch shape, and those with a time dim to `steps`."""
        initial = {
            name: getattr(self, name).expand(batch_shape + getattr(self, name).shape[-2:])
            for name in ("mean", "covariance")
        }
        timed = {
            f.name: getattr(self, f.name).expand(
                (*batch_shape, steps, *getattr(self, f.name).shape[-2:])
            )
            for f in fields(self)
            if f.name not in initial
        }
        return Chain(**initial, **timed)

    def merged(self) -> Chain:
        """The joint distribution of the independent chains along the last batch dim.

        The states stand side by side. All parameters must have their full batch shape.
        """
        return Chain(
            mean=self.mean.movedim(-3, -2).flatten(-2),
            covariance=_blocks(self.covariance.movedim(-3, -1)),
            f=_blocks(self.f.movedim(-4, -1)),
            b=self.b.movedim(-4, -2).flatten(-2),
            q=_blocks(self.q.movedim(-4, -1)),
            h=_blocks(self.h.movedim(-4, -1)),
            c=self.c.movedim(-4, -2).flatten(-2),
            r=_blocks(self.r.movedim(-4, -1)),
        )

    def marginals(self) -> tuple[Tensor, Tensor]:
        """Mean (..., T, 1, m) and covariance (..., T, m, m) of each x_t by itself."""
        first = self.f[..., :1, :, :]
        start = self.mean.unsqueeze(-3) @ first + self.b[..., :1, :, :]
        spread = first.mT @ self.covariance.unsqueeze(-3) @ first + self.q[..., :1, :, :]
        elements = (
            torch.cat((torch.zeros_like(first), self.f[..., 1:, :, :]), -3),
            torch.cat((start, self.b[..., 1:, :, :]), -3),
            torch.cat((spread, self.q[..., 1:, :, :]), -3),
        )
        _, mean, covariance = prefixes(combine_moments, elements)
        return mean @ self.h + self.c, _symmetric(self.h.mT @ covariance @ self.h) + self.r

    def joint(self) -> tuple[Tensor, Tensor]:
        """Mean (..., T m) and covariance (..., T m, T m) of the whole sequence, O(T^2)."""
        mean, covariance = self.mean, self.covariance
        # covariances of all states up to now with the present state
        across = covariance[..., :0, :]
        locs, columns, reads = [], [], []
        for t in range(self.f.shape[-3]):
            f, h = self.f[..., t, :, :], self.h[..., t, :, :]
            mean = mean @ f + self.b[..., t, :, :]
            covariance = f.mT @ covariance @ f + self.q[..., t, :, :]
            across = torch.cat((across @ f, covariance), -2)
            locs.append(mean @ h + self.c[..., t, :, :])
            columns.append(across @ h)
            reads.append(h)
        n, rows = self.hidden_dim, []
        for t, column in enumerate(columns):
            seen = [reads[s].mT @ column[..., n * s : n * (s + 1), :] for s in range(t + 1)]
            seen[-1] = seen[-1] + self.r[..., t, :, :]
            upper = torch.cat(seen, -2)
            left = len(columns) - t - 1
            rows.append(pad(upper, (0, 0, 0, left * upper.shape[-1])))
        upper = torch.cat(rows, -1)
        m = self.c.shape[-1]
        blocks = torch.arange(upper.shape[-1], device=upper.device) // m
        above = blocks.unsqueeze(-1) < blocks
        both = upper + torch.where(above, upper, 0.0).mT
        return torch.cat(locs, -1).squeeze(-2), _symmetric(both)


@dataclass(frozen=True)
class Filtered:
    """The part of Kalman's filter that does not depend on data.

    Attributes:
        gain: (..., T, m, n), from a row of innovations to a row of states.
        scale_tril: of the innovations x_t - E[x_t | x_1..x_{t-1}], (..., T, m, m).
    """

    gain: Tensor
    scale_tril: Tensor


def kl_chains(p: Chain, q: Chain, batch_shape: torch.Size, steps: int) -> Tensor:
    r"""KL(p || q), the sum of a part from covariances and one from means, neither negative.

    By the chain rule over time, with x_t | x_1..x_{t-1} ~ N(m_t, S_t) under p and N(n_t, U_t)
    under q,

        KL = sum_t KL(N(0, S_t) || N(0, U_t)) + tr(U_t^-1 E_p[e_t' e_t]) / 2,  e_t = n_t - m_t.

    Both predictions are linear in p's innovations, which are independent: the state of p's filter
    and the difference of the two filters' states follow one linear recursion. It uses differences
    of parameters, so that the KL keeps its digits where p is close to q.
    """
    more = max(p.hidden_dim, q.hidden_dim)
    p = p.padded(more - p.hidden_dim).expanded(batch_shape, steps)
    q = q.padded(more - q.hidden_dim).expanded(batch_shape, steps)
    p_filter, q_filter = kalman(p), kalman(q)
    own, other = p_filter.scale_tril, q_filter.scale_tril
    ratio = solve_lower(other, own)
    spread = itakura_saito(diagonal(own).square(), diagonal(other).square()).sum((-1, -2))
    spread = spread + ratio.tril(-1).square().sum((-1, -2, -3))
    shift, covariance = _gap(p, q, p_filter, q_filter)
    # V itself and not its root in tr(U^-1 V): V may be singular
    white = solve_lower(other, solve_lower(other, covariance).mT)
    moved = solve_lower(other, shift.mT).square().sum((-1, -2, -3))
    return 0.5 * (spread + diagonal(white).sum((-1, -2)) + moved)


def kalman(chain: Chain) -> Filtered:
    """Gains and innovation covariances of Kalman's filter, in O(log T) batched steps.

    Reference:
        Särkkä & García-Fernández (2021), "Temporal parallelization of Bayesian smoothers",
        eq. 10-14, without the data.
    """
    f, q, h = chain.f, chain.q, chain.h
    first = f[..., :1, :, :]
    start = first.mT @ chain.covariance.unsqueeze(-3) @ first + q[..., :1, :, :]
    # the first step starts from the initial distribution and has nothing before it
    forgets = torch.cat((torch.zeros_like(first), f[..., 1:, :, :]), -3)
    noise = torch.cat((start, q[..., 1:, :, :]), -3)
    gain, tril = _gain(noise, h, chain.r)
    keeps = torch.eye(f.shape[-1], dtype=f.dtype, device=f.device) - h @ gain
    seen = solve_lower(tril, (forgets @ h).mT)
    elements = forgets @ keeps, _symmetric(noise @ keeps), seen.mT @ seen
    _, posterior, _ = prefixes(combine_filters, elements)
    later = f[..., 1:, :, :].mT @ posterior[..., :-1, :, :] @ f[..., 1:, :, :] + q[..., 1:, :, :]
    predicted = torch.cat((start, later), -3)
    return Filtered(*_gain(predicted, h, chain.r))


def combine_filters(earlier: Elements, later: Elements) -> Elements:
    """Two successive parts of a chain as one: (A, C, J) is N(z'; z A, C) exp(-z J z^T / 2)."""
    a, c, j = earlier
    a_later, c_later, j_later = later
    n = c.shape[-1]
    eye = torch.eye(n, dtype=c.dtype, device=c.device)
    solved = torch.linalg.solve(eye + c @ j_later, torch.cat((c, a.mT), -1))
    both, reach = solved[..., :n], solved[..., n:]
    return (
        reach.mT @ a_later,
        _symmetric(a_later.mT @ both @ a_later) + c_later,
        _symmetric(a @ j_later @ reach) + j,
    )


def _gain(predicted: Tensor, h: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """S^-1 H' P and the Cholesky factor of S = H' P H + R."""
    seen = h.mT @ predicted
    tril = cholesky(_symmetric(seen @ h) + r)
    return torch.cholesky_solve(seen, tril), tril


def _gap(p: Chain, q: Chain, p_filter: Filtered, q_filter: Filtered) -> tuple[Tensor, Tensor]:
    """Mean and covariance under p of q's prediction minus p's, at every step."""
    dh, dc = q.h - p.h, q.c - p.c
    start, matrix, shift, driven = _joint_recursion(p, q, p_filter, q_filter)
    noise = driven @ p_filter.scale_tril
    nothing = torch.zeros_like(matrix[..., :1, :, :])
    elements = (
        torch.cat((nothing, matrix[..., 1:, :, :]), -3),
        torch.cat((start, shift[..., 1:, :, :]), -3),
        torch.cat((nothing, (noise @ noise.mT)[..., :-1, :, :]), -3),
    )
    _, mean, covariance = prefixes(combine_moments, elements)
    reads = torch.cat((dh, q.h), -2)
    return mean @ reads + dc, reads.mT @ covariance @ reads


def _joint_recursion(
    p: Chain, q: Chain, p_filter: Filtered, q_filter: Filtered
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The predicted state m of p's filter and the gap d to q's, as one linear recursion.

    With the gains G and V, D for q's parameter minus p's, an innovation i of p, and ' for the next
    step:

        e = d H_q + m DH + Dc,   m' = (m + i G) F'_p + b'_p,
        d' = (d + i (V - G) - e V) F'_q + (m + i G) DF' + Db'.

    Returns:
        (m, d) before the first step; the matrix and the shift that lead to each step (the first
        ones are not used); for each step the transposed matrix from its innovation to the next.
    """
    df, db, dh, dc = q.f - p.f, q.b - p.b, q.h - p.h, q.c - p.c
    g, v = p_filter.gain, q_filter.gain
    mean, gap = p.mean.unsqueeze(-3), (q.mean - p.mean).unsqueeze(-3)
    p_f, p_b, q_f, d_f, d_b = (x[..., :1, :, :] for x in (p.f, p.b, q.f, df, db))
    start = torch.cat((mean @ p_f + p_b, gap @ q_f + mean @ d_f + d_b), -1)
    dh_before, dc_before, h_before, v_before = (torch.roll(x, 1, -3) for x in (dh, dc, q.h, v))
    learns = v_before @ q.f
    matrix = torch.cat(
        (
            torch.cat((p.f, df - dh_before @ learns), -1),
            torch.cat((torch.zeros_like(p.f), q.f - h_before @ learns), -1),
        ),
        -2,
    )
    shift = torch.cat((p.b, db - dc_before @ learns), -1)
    f_next, q_next, df_next = (torch.roll(x, -1, -3) for x in (p.f, q.f, df))
    driven = torch.cat((g @ f_next, (v - g) @ q_next + g @ df_next), -1).mT
    return start, matrix, shift, driven


def combine_moments(earlier: Elements, later: Elements) -> Elements:
    """Two successive steps of u' = u M + v + N(0, C) as one."""
    matrix, shift, covariance = earlier
    matrix_later, shift_later, covariance_later = later
    return (
        matrix @ matrix_later,
        shift @ matrix_later + shift_later,
        _symmetric(matrix_later.mT @ covariance @ matrix_later) + covariance_later,
    )


def _blocks(matrices: Tensor) -> Tensor:
    """Block-diagonal matrices from blocks along the last dim of (..., n, k, blocks)."""
    return torch.diag_embed(matrices, dim1=-4, dim2=-2).flatten(-4, -3).flatten(-2)


def _symmetric(x: Tensor) -> Tensor:
    return 0.5 * (x + x.mT)
