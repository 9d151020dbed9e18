"""The file of a posterior: safetensors, with all that is no tensor as JSON in its header."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from ...messages import see
from ...svi.checkpoint import replacing
from ..covariances.covariance import DiagonalCovariance, FullCovariance, LowRankCovariance
from ..priors.prior import GaussianPrior, NormalPrior
from ..priors.shrinkage import HorseshoePrior, LaplacePrior, StudentTPrior

T = TypeVar("T")

#: What the header says of our files, and the number of the format.
KIND, FORMAT = "pyro_kl.glm.Posterior", "1"

#: The classes that a file may name: the parts of a posterior.
PARTS = {
    part.__name__: part
    for part in (
        DiagonalCovariance,
        FullCovariance,
        LowRankCovariance,
        GaussianPrior,
        NormalPrior,
        LaplacePrior,
        StudentTPrior,
        HorseshoePrior,
    )
}


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that make a fit."""
    found = {"python": platform.python_version()}
    for package in ("pyro-kl", "torch", "pyro-ppl", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a source tree on the path, without its metadata
            continue
    return found


def write(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Write named values, so that at every moment `path` is the old file or the whole new one.

    Args:
        path: the file; its folder exists.
        values: tensors, covariances, priors, and what JSON can hold.

    Raises:
        ImportError: safetensors is not installed.
        TypeError: a value is none of these.
    """
    save_file = _safetensors("torch").save_file
    tensors: dict[str, Tensor] = {}
    header = {"kind": KIND, "format": FORMAT}
    for name, value in values.items():
        try:
            header[name] = json.dumps(_plain(name, value, tensors))
        except TypeError as error:
            raise TypeError(
                f"{name} of the posterior cannot be saved: {error}" + see("posterior-file")
            ) from None
    with replacing(path) as part:
        save_file(tensors, part, metadata=header)


def read(path: str | os.PathLike[str], make: Callable[..., T]) -> T:
    """Call `make` with the values that `write` wrote; no code is run from the file.

    Raises:
        ImportError: safetensors is not installed.
        FileNotFoundError: there is no such file.
        ValueError: it is no posterior, a damaged one, or one of another format.
    """
    safetensors = _safetensors("")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file" + see("posterior-file"))
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is no posterior of pyro_kl: {error}" + see("posterior-file")
        ) from None
    if header.pop("kind", None) != KIND:
        raise ValueError(
            f"{path} is no posterior of pyro_kl, but another safetensors file."
            + see("posterior-file")
        )
    if (number := header.pop("format", None)) != FORMAT:
        raise ValueError(
            f"{path} has format {number}, this version of pyro_kl reads {FORMAT}: load it with "
            "the version that wrote it." + see("posterior-file")
        )
    try:
        return make(**{name: _whole(json.loads(text), tensors) for name, text in header.items()})
    except (KeyError, TypeError, ValueError) as error:  # another text, tensor or part than written
        raise ValueError(
            f"{path} is a damaged posterior of pyro_kl: {type(error).__name__} {error}"
            + see("posterior-file")
        ) from None


def _safetensors(module: str) -> Any:
    try:
        import safetensors
        import safetensors.torch
    except ImportError:
        raise ImportError(
            "posteriors are saved with safetensors: pip install 'pyro-kl[glm]'"
            + see("missing-library")
        ) from None
    return safetensors.torch if module else safetensors


def _plain(name: str, value: Any, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON can hold it; its tensors are added to `tensors`."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if is_dataclass(value):
        inner = {
            field.name: _plain(f"{name}.{field.name}", getattr(value, field.name), tensors)
            for field in fields(value)
        }
        return {"part": type(value).__name__, **inner}
    if isinstance(value, tuple):
        return [_plain(name, item, tensors) for item in value]
    return value.item() if hasattr(value, "item") else value  # a number of numpy


def _whole(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `_plain` made plain."""
    if isinstance(value, list):
        return tuple(_whole(item, tensors) for item in value)
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "part" in value:
        inner = {key: _whole(item, tensors) for key, item in value.items() if key != "part"}
        return PARTS[value["part"]](**inner)
    return value
