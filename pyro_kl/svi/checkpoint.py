"""The file of a checkpoint: written atomically, read without running code from it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

#: The number of the format; a file with another one is refused.
FORMAT = 1

_KIND = "pyro_kl.SVI"


def write(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a checkpoint, so that at every moment `path` is the old file or the whole new one.

    The new file is complete on the disk before it takes the place of the old one. A process that
    is killed before that leaves a file with the ending `.part`, which the next one overwrites.

    Args:
        path: the file; its folder exists.
        state: tensors, numbers, texts, None, and lists and dicts of them.

    Raises:
        TypeError: there is anything else in it, which `read` would refuse.
    """
    _check("", state)
    path = Path(path)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        torch.save({"kind": _KIND, "format": FORMAT, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    if os.name != "nt":  # the new name, too, has to reach the disk
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint; a file from elsewhere can do no harm.

    Raises:
        ValueError: it is no checkpoint of a fit, or one of another format.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # which one depends on the bytes of the other file
        raise ValueError(f"{path} is no checkpoint of pyro_kl.SVI: {error}") from error
    if not isinstance(state, dict) or state.get("kind") != _KIND:
        raise ValueError(f"{path} is no checkpoint of pyro_kl.SVI.")
    if state["format"] != FORMAT:
        raise ValueError(
            f"{path} has format {state['format']}, this version of pyro_kl reads {FORMAT}: load "
            "it with the version that wrote it."
        )
    return state


def _check(where: str, value: Any) -> None:
    """Refuse what could be written, but not be read again without running code from the file."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check(f"{where}[{key!r}]", inner)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            _check(f"{where}[{index}]", inner)
    elif not isinstance(value, (Tensor, int, float, str)) and value is not None:
        raise TypeError(
            f"A checkpoint cannot hold {where}, which is a {type(value).__name__}: only tensors, "
            "numbers and texts. Give an optimiser or a schedule whose state_dict has nothing else."
        )


def check_target(path: str | os.PathLike[str] | None, every: int | None) -> None:
    """Refuse a run whose checkpoints could not be written, before its first step.

    Raises:
        ValueError: `every` is below 1, or there is no file for it.
        FileNotFoundError: the folder does not exist.
    """
    if every is not None and (path is None or every < 1):
        raise ValueError(f"every={every} has to be at least 1 and needs checkpoint=, a file.")
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder for the checkpoint {path}.")
