"""Anderson acceleration of the fixed point: a step that combines the last ones.

Mean and covariance of a posterior wait for one another where the rows' variances are large; plain
steps then approach the optimum slowly. The combination of the last steps whose residuals nearly
cancel reaches it in a few.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: The number of steps that are combined.
DEPTH = 3


class _Pair(NamedTuple):
    """A plain step: where it ends, and how far that is from where it began."""

    loc: Tensor
    precision: Tensor
    move: Tensor
    change: Tensor


class Anderson:
    """The last plain steps.

    Reference: Walker & Ni (2011), Anderson acceleration for fixed-point iterations, SIAM Journal
    on Numerical Analysis 49, 1715-1735, section 1.
    """

    def __init__(self) -> None:
        self._pairs: list[_Pair] = []

    def forget(self) -> None:
        """Forget the steps, after one that did not raise the ELBO."""
        self._pairs.clear()

    def add(self, loc: Tensor, move: Tensor, before: Tensor, after: Tensor) -> None:
        """Keep a whole step from ``loc`` by ``move``, and between two precisions."""
        self._pairs.append(_Pair(loc + move, after, move, after - before))
        del self._pairs[:-DEPTH]

    def combined(self, root: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Return mean and precision of the combined step; None before there are two.

        Lengths of residuals are those of the Kullback-Leibler divergence to second order:
        ``move' P move + tr(S change S change) / 2``.

        Args:
            root: of the last covariance S = root root', or None where precisions are diagonals.
        """
        if len(self._pairs) < 2:
            return None
        residuals = torch.stack([self._residual(pair, root) for pair in self._pairs], dim=-1)
        last = residuals[:, -1:]
        shares = torch.linalg.lstsq(residuals[:, :-1] - last, -last).solution[:, 0]
        shares = torch.cat([shares, 1.0 - shares.sum().reshape(1)])
        locs, precisions = (
            torch.stack([getattr(pair, name) for pair in self._pairs], dim=-1)
            for name in ("loc", "precision")
        )
        return locs @ shares, precisions @ shares

    def _residual(self, pair: _Pair, root: Tensor | None) -> Tensor:
        last = self._pairs[-1].precision
        if root is None:
            return torch.cat([pair.move * last.sqrt(), pair.change / (last * 2.0**0.5)])
        move = torch.linalg.solve_triangular(root, pair.move.unsqueeze(-1), upper=False)
        change = root.mT @ pair.change @ root
        return torch.cat([move.squeeze(-1), change.flatten() / 2.0**0.5])
