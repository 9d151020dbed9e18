"""The file of a checkpoint: written atomically, read without running code from it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..messages import see

#: The number of the format; a file with another one is refused.
FORMAT = 1

#: What wrote a file, unless it says otherwise.
SVI = "pyro_kl.SVI"


def write(path: str | os.PathLike[str], state: Mapping[str, Any], kind: str = SVI) -> None:
    """Write a checkpoint, so that at every moment `path` is the old file or the whole new one.

    Args:
        path: the file; its folder exists.
        state: tensors, numbers, texts, None, and lists, tuples and dicts of them.
        kind: what writes it.

    Raises:
        TypeError: there is anything else in it, which `read` would refuse.
    """
    plain = _plain("", {"kind": kind, "format": FORMAT, **state})
    with replacing(path) as part, part.open("wb") as file:
        torch.save(plain, file)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Replace a file: at every moment `path` is the old file or the whole new one.

    The context has the path of a file to write. It is complete on the disk before it takes the
    place of the old one. A process that is killed before that leaves a file with the ending
    `.part`, which the next one overwrites.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    yield part
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    if os.name != "nt":  # the new name, too, has to reach the disk
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: str | os.PathLike[str], kind: str = SVI) -> dict[str, Any]:
    """Read a checkpoint; a file from elsewhere can do no harm.

    Raises:
        ValueError: it is no checkpoint of that kind, or one of another format.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # which one depends on the bytes of the other file
        raise ValueError(
            f"{path} is no checkpoint of {kind}: {error}" + see("checkpoint")
        ) from error
    if not isinstance(state, dict) or state.get("kind") != kind:
        raise ValueError(f"{path} is no checkpoint of {kind}." + see("checkpoint"))
    if state["format"] != FORMAT:
        raise ValueError(
            f"{path} has format {state['format']}, this version of pyro_kl reads {FORMAT}: load "
            "it with the version that wrote it." + see("checkpoint")
        )
    return state


def _plain(where: str, value: Any) -> Any:
    """The same value, of types that are read again without running code from the file."""
    if value is None or isinstance(value, Tensor) or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        plain = {key: _plain(f"{where}[{key!r}]", inner) for key, inner in value.items()}
        return Counter(plain) if isinstance(value, Counter) else plain
    if isinstance(value, (list, tuple)):
        items = [_plain(f"{where}[{index}]", inner) for index, inner in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, Real):  # numpy's
        return int(value) if isinstance(value, Integral) else float(value)
    raise TypeError(
        f"A checkpoint cannot hold {where}, which is a {type(value).__name__}: only tensors, "
        "numbers and texts. Give an optimiser or a schedule whose state_dict has nothing else."
        + see("checkpoint")
    )


def check_target(path: str | os.PathLike[str] | None, every: int | None) -> None:
    """Refuse a run whose checkpoints could not be written, before its first step.

    Raises:
        ValueError: `every` is below 1, or there is no file for it.
        FileNotFoundError: the folder does not exist.
    """
    if every is not None and (path is None or every < 1):
        raise ValueError(
            f"every={every} has to be at least 1 and needs checkpoint=, a file."
            + see("checkpoint")
        )
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(
            f"There is no folder for the checkpoint {path}." + see("checkpoint")
        )
