"""The ranks of a fit: the processes of the group that `torch.distributed` has initialised."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from ..messages import see
from ..registry.warnings import warn_once

#: Whether this build of torch has process groups; asked for once, since steps are short.
_IS_BUILT = distributed.is_available()


def num_ranks() -> int:
    """How many processes fit together; 1 without an initialised group.

    The group is the user's to initialise, as for torch's DistributedDataParallel:
    `torch.distributed.init_process_group("gloo")`, or "nccl" where the tensors are on GPUs.
    """
    return distributed.get_world_size() if _IS_BUILT and distributed.is_initialized() else 1


def this_rank() -> int:
    """The number of this process among those of the group; 0 without one."""
    return distributed.get_rank() if num_ranks() > 1 else 0


def warn_if_alone() -> None:
    """Say once that torchrun has started several processes which do not know of one another."""
    processes = (
        int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1
    )
    if processes > 1 and not distributed.is_initialized():
        warn_once(
            "ranks without a group",
            f"torchrun has started {processes} processes, and each of them fits by itself: call "
            'torch.distributed.init_process_group("gloo") before the fit if they are to fit '
            "together." + see("ranks"),
        )


def sum_over_ranks(values: Sequence[float]) -> list[float]:
    """The sums of some numbers over all ranks; the same bits on each of them."""
    total = torch.tensor(values, dtype=torch.float64, device=device_of_group())
    distributed.all_reduce(total)
    return total.tolist()


def any_rank(*flags: bool) -> list[bool]:
    """For each flag, whether it is set on any rank."""
    return [*flags] if num_ranks() == 1 else [total > 0 for total in sum_over_ranks(flags)]


def average(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their means over the ranks, in place; the same bits on each rank.

    Tensors of one dtype and device are one message.
    """
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for group in groups.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        distributed.all_reduce(flat)
        flat /= num_ranks()
        parts = flat.split([tensor.numel() for tensor in group])
        for tensor, part in zip(group, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def gather(value: Any) -> list[Any]:
    """What each rank gave, in the order of the ranks; plain data."""
    values: list[Any] = [None] * num_ranks()
    distributed.all_gather_object(values, value)
    return values


@torch.no_grad()
def broadcast(tensors: Iterable[Tensor]) -> None:
    """Give tensors the values that they have on rank 0, in place."""
    for tensor in tensors:
        message = tensor.contiguous()
        distributed.broadcast(message, src=0)
        tensor.copy_(message)


def device_of_group() -> torch.device:
    """Where tensors have to be to be sent, if they are on no GPU yet."""
    if distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
