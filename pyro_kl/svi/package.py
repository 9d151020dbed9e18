"""A compiled block: what identifies it, and how it is loaded."""

from __future__ import annotations

import hashlib
import importlib.resources
import itertools
import platform
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .block import Block


class Package:
    """A compiled block; `call` is the block as a function of a list of tensors.

    Shapes, dtypes and strides of the tensors are those of the example that it was built with; they
    are not checked.

    Args:
        path: of the file.
        key: what the file has to be.

    Raises:
        ValueError: the file is damaged, or another package.
        RuntimeError: torch cannot load it.
    """

    def __init__(self, path: Path, key: str) -> None:
        try:
            with zipfile.ZipFile(path) as archive:  # torch's reader does not compare checksums
                damaged = archive.testzip()
        except (zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"{path.name} is damaged: {error}") from error
        if damaged:
            raise ValueError(f"{path.name} is damaged: {damaged}")
        loaded = _loader_class()(str(path), "model", True, 1, -1)
        if loaded.get_metadata().get("pyro_kl") != key:
            raise ValueError(f"{path.name} is another package than its name says")
        self.call: Callable[[list[Tensor]], list[Tensor]] = loaded.run


def can_load() -> bool:
    """Whether this version of torch can load packages."""
    return _loader_class() is not None


def _loader_class() -> Any:
    """What loads a package without a compiler and without torch._inductor; None if missing."""
    return getattr(getattr(torch._C, "_aoti", None), "AOTIModelPackageLoader", None)


def key_of(block: Block, inputs: Sequence[Tensor]) -> str:
    """A hash of all that a package depends on.

    Args:
        block: what is compiled.
        inputs: an example; their values do not matter.
    """
    parts = (
        block.step.code,
        block.shapes,
        block.num_draws,
        block.steps,
        block.rule.key(),
        [(each.shape, each.dtype, each.stride(), each.device) for each in inputs],
        settings_of_torch(),
        torch.__version__,
        _sources(),
        platform.system(),
        platform.machine(),
        torch.backends.cpu.get_cpu_capability(),
        _processor(),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def settings_of_torch() -> tuple[str, str]:
    """What of this process is set in the one that builds: default dtype and number of threads."""
    return str(torch.get_default_dtype()).removeprefix("torch."), str(torch.get_num_threads())


@cache
def _sources() -> str:
    """A hash of the modules beside this one, which say what is compiled and how."""
    files = sorted(importlib.resources.files(__package__).iterdir(), key=lambda file: file.name)
    sources = [file.read_bytes() for file in files if file.name.endswith(".py")]
    return hashlib.sha256(b"\0".join(sources)).hexdigest()


@cache
def _processor() -> str:
    """Model and abilities of the processor, for which a package is compiled."""
    named = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU part")
    try:
        with open("/proc/cpuinfo") as lines:  # a paragraph for each core
            first = list(itertools.takewhile(str.strip, lines))
    except OSError:
        return platform.processor()
    return "".join(line for line in first if line.startswith(named))
