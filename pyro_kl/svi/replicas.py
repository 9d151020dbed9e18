"""One fit on several ranks: the same parameters on each, moved by the mean of the gradients."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from ..messages import see
from ..registry.warnings import warn
from .random_state import random_state_kept
from .ranks import average, broadcast, gather, num_ranks, sum_over_ranks, this_rank
from .shards import Shards, Survey
from .used_parameters import UsedParameters


@dataclass(frozen=True)
class _Rank:
    """What one rank tells the others before the first step; plain data."""

    steps: dict[str, str]
    parameters: dict[str, str]
    plates: dict[str, str]
    arguments: list[str]
    is_scaled: bool
    seed: int


class Replicas:
    """Keeps the fits of all ranks the same one.

    Each rank has an estimate of the same ELBO, from rows and draws of its own. Loss and gradient
    of a step are the means over the ranks, and each rank takes the same step.

    Args:
        sharded: names of the plates of which each rank holds a part.

    Attributes:
        shards: scales the sites of these plates.
        seed: what the draws of the ranks above 0 follow from; None before the first step.
        is_set_up: whether the ranks have agreed; a loaded checkpoint asks for it again.
    """

    def __init__(self, sharded: Collection[str]) -> None:
        if isinstance(sharded, str):
            raise TypeError(
                f"sharded has to be a list of names of plates, got {sharded!r}." + see("ranks")
            )
        self.shards = Shards(sharded)
        self.seed: int | None = None
        self.is_set_up = False
        self._leaves: dict[str, Tensor] = {}

    # --- before the first step ----------------------------------------------------------------

    def set_up(
        self,
        evaluate: Callable[[], Any],
        guide: Any,
        step: int,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Give all ranks the parameters of rank 0, and other draws than those of rank 0.

        Args:
            evaluate: runs model and guide without a gradient; they declare their parameters.
            guide: the guide.
            step: how many steps have been taken.
            args: positional arguments of model and guide.
            kwargs: keyword arguments of both.

        Raises:
            ValueError: the ranks do not fit the same model, or their rows are not parts of one
                data set.
        """
        with random_state_kept(), Survey(self.shards) as survey, UsedParameters() as used:
            evaluate()
        leaves = used.distinct()
        self._leaves = {name: leaves[name] for name in sorted(leaves)}
        self._check_local(survey, guide)
        arguments = [of for of in (*args, *kwargs.values()) if torch.is_tensor(of)]
        ranks: list[_Rank] = gather(self._told(survey, step, arguments))
        self.seed = ranks[0].seed
        _check_same("number of", [rank.steps for rank in ranks], "load the same checkpoint on all")
        _check_same(
            "parameter", [rank.parameters for rank in ranks], "all need the same model and guide"
        )
        _check_same(
            "plate",
            [rank.plates for rank in ranks],
            "give it the size of all data, or name it in sharded=[...] if each rank holds a part",
        )
        self._warn_of_arguments(ranks)
        broadcast(self._leaves.values())
        self.draw_apart(step)
        self.is_set_up = True

    def _told(self, survey: Survey, step: int, arguments: Sequence[Tensor]) -> _Rank:
        """What this rank tells the others."""
        seed = zlib.crc32(torch.get_rng_state().numpy().tobytes())
        shared = sorted(survey.sizes.keys() - self.shards.plates)
        return _Rank(
            {"steps": str(step)},
            {name: f"{leaf.dtype} {tuple(leaf.shape)}" for name, leaf in self._leaves.items()},
            {name: f"of {survey.sizes[name]} rows" for name in shared},
            [_fingerprint(tensor) for tensor in arguments],
            survey.is_scaled,
            seed if self.seed is None else self.seed,
        )

    def _check_local(self, survey: Survey, guide: Any) -> None:
        """Refuse plates that are not there, and parameters of rows that one rank alone holds."""
        unknown = self.shards.plates - survey.sizes.keys()
        if unknown:
            raise ValueError(
                f"sharded names {_listed(unknown)}; the plates are {_listed(survey.sizes)}."
                + see("ranks")
            )
        local = survey.parameters or (isinstance(guide, AutoGuide) and survey.latents)
        if local:
            raise ValueError(
                f"The guide has parameters for single rows of {_listed(self.shards.plates)} "
                f"({_listed(local)}), and no two ranks hold the same rows: compute them from the "
                "data by a network, or give the plate the size of all data and this rank's rows "
                "as its subsample, without sharded." + see("ranks")
            )

    def _warn_of_arguments(self, ranks: Sequence[_Rank]) -> None:
        """Say so if plates and arguments do not fit together."""
        is_same = all(rank.arguments == ranks[0].arguments for rank in ranks)
        if not is_same and not self.shards.plates and not any(rank.is_scaled for rank in ranks):
            warn(
                "The ranks have other arguments each, but no plate is larger than its rows: the "
                "mean over the ranks counts the likelihood of a part of the data, and the whole "
                "KL. Give the plate the size of all data, or name it in sharded=[...]."
                + see("ranks")
            )
        if is_same and self.shards.plates and ranks[0].arguments:
            warn(
                f"The ranks have the same arguments, and {_listed(self.shards.plates)} is "
                "sharded: each row counts once for each rank. Give each rank a part of the rows."
                + see("ranks")
            )

    def draw_apart(self, step: int) -> None:
        """Let each rank above 0 draw numbers of its own from here on.

        They follow from the seed, the step and the rank alone, so that a fit that goes on from a
        checkpoint of this step draws the same.
        """
        if this_rank() > 0 and self.seed is not None:
            pyro.set_rng_seed(zlib.crc32(f"{self.seed} {step} {this_rank()}".encode()))

    # --- in a step ----------------------------------------------------------------------------

    def running(self) -> AbstractContextManager[Any]:
        """The block in which model and guide run."""
        return self.shards if self.shards.plates and num_ranks() > 1 else nullcontext()

    def mean(self, loss: Any, leaves: Mapping[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
        """The means over the ranks: that of the loss, and that of the gradients in place.

        Args:
            loss: of this rank, a number or a tuple of them.
            leaves: the parameters that this rank has read, by name.

        Returns:
            The loss, and the parameters that any rank has read, in the same order on all ranks.
            A gradient that a rank does not have counts as zero.

        Raises:
            ValueError: a parameter was not there in the first step.
        """
        numbers = loss if isinstance(loss, tuple) else (loss,)
        new = sorted(leaves.keys() - self._leaves.keys())
        self._leaves.update((name, leaf) for name, leaf in leaves.items() if name not in new)
        flags = [
            flag
            for name, leaf in self._leaves.items()
            for flag in (name in leaves, leaf.grad is not None)
        ]
        is_new, *sums = sum_over_ranks([bool(new), *numbers, *flags])
        if is_new:
            raise ValueError(
                f"The parameters {_listed(set().union(*gather(new)))} were not declared by the "
                "first step. On several ranks model and guide have to declare all of them there."
                + see("ranks")
            )
        left = iter(sums)
        means = tuple(next(left) / num_ranks() for _ in numbers)
        moved = {}
        for name, leaf in self._leaves.items():
            is_read, has_gradient = next(left), next(left)
            if has_gradient and leaf.grad is None:
                leaf.grad = torch.zeros_like(leaf)
            if is_read:
                moved[name] = leaf
        average(leaf.grad for leaf in moved.values() if leaf.grad is not None)
        return means if isinstance(loss, tuple) else means[0], moved


def _check_same(kind: str, ranks: Sequence[Mapping[str, str]], advice: str) -> None:
    """Refuse ranks of which one has something else than rank 0, by name."""
    for rank, here in enumerate(ranks):
        for name in sorted(here.keys() | ranks[0].keys()):
            first, other = ranks[0].get(name, "not there"), here.get(name, "not there")
            if first != other:
                raise ValueError(
                    f"The {kind} {name} is {first} on rank 0 and {other} on rank {rank}: {advice}."
                    + see("ranks")
                )


def _fingerprint(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.detach().sum().item()}"


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"
