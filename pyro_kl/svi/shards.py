"""Plates of which each rank holds a part of the rows."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from pyro.poutine.messenger import Messenger

from .ranks import num_ranks


class Shards(Messenger):
    """Scales the sites of such plates by the number of ranks, whose losses are averaged.

    The mean over R ranks of the terms R f_r is the sum of the f_r, whatever the number of rows of
    each of them is. Sites outside of the plates are the same on all ranks, so that their mean is
    one of them: their KL is counted once.

    Args:
        plates: their names. In the model their size is the number of this rank's rows.
    """

    def __init__(self, plates: Collection[str]) -> None:
        super().__init__()
        self.plates = frozenset(plates)

    def _pyro_sample(self, msg: Any) -> None:
        if any(frame.name in self.plates for frame in msg["cond_indep_stack"]):
            msg["scale"] = msg["scale"] * num_ranks()


class Survey(Messenger):
    """What a run of model and guide tells of the plates.

    Args:
        shards: the plates of which each rank holds a part; entered inside of this block.

    Attributes:
        sizes: name -> size of each plate.
        is_scaled: whether an observed site has another scale than 1.
        latents: sites that are drawn in a plate of which each rank holds a part.
        parameters: of single rows of such a plate.
    """

    def __init__(self, shards: Shards) -> None:
        super().__init__()
        self._shards = shards.plates
        self.sizes: dict[str, int] = {}
        self.is_scaled = False
        self.latents: set[str] = set()
        self.parameters: set[str] = set()

    def _pyro_sample(self, msg: Any) -> None:
        frames = {frame.name: frame for frame in msg["cond_indep_stack"]}
        self.sizes.update((name, int(of.full_size or of.size)) for name, of in frames.items())
        if msg["is_observed"]:
            self.is_scaled |= bool((torch.as_tensor(msg["scale"]) != 1).any())
        elif self._shards & frames.keys():
            self.latents.add(msg["name"])

    def _pyro_param(self, msg: Any) -> None:
        names = {frame.name for frame in msg["cond_indep_stack"]}
        if self._shards & names and msg["kwargs"].get("event_dim") is not None:
            self.parameters.add(msg["name"])
