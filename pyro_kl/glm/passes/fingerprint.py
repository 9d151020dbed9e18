"""A description of data and settings, in which another fit differs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from ...likelihoods.likelihood import Likelihood
from .rows import Chunk, Rows


def fingerprint(rows: Rows, likelihood: Likelihood, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return a line for each thing that the sums of a fit depend on.

    Of the data, these are the names of the columns, the number of chunks, and the sums of the
    first chunk and the last one: reading all would cost a pass. Of the program it is the version.

    Args:
        rows: the data.
        likelihood: of a target.
        settings: numbers, texts, tensors and dataclasses of them by name.
    """
    from ... import __version__  # the package is complete when a fit starts

    return {
        "version": __version__,
        "columns": f"{len(rows.names)} ({_checksum(repr(rows.names).encode())})",
        "dtype": str(rows.dtype).removeprefix("torch."),
        "number of chunks": str(rows.num_chunks),
        "first rows": _of_chunk(rows.chunk(0)),
        "last rows": _of_chunk(rows.chunk(rows.num_chunks - 1)),
        "likelihood": likelihood.name,
        **{name.replace("_", " "): described(value) for name, value in settings.items()},
    }


def described(value: Any) -> str:
    """Return a short text that is another one for another value."""
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        return f"{tuple(plain.shape)} ({_checksum(plain.numpy().tobytes())})"
    if is_dataclass(value) and not isinstance(value, type):
        inner = ", ".join(
            f"{of.name}={described(getattr(value, of.name))}" for of in fields(value)
        )
        return f"{type(value).__name__}({inner})"
    return str(value)


def _of_chunk(chunk: Chunk) -> str:
    parts = (chunk.features, chunk.target, chunk.weight)
    sums = ", ".join(repr(float(part.sum())) for part in parts if part is not None)
    return f"{chunk.features.shape[0]} of sum {sums}"


def _checksum(data: bytes) -> str:
    return f"{zlib.crc32(data):08x}"
