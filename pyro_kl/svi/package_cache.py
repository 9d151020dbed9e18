"""The folder that packages are kept in."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from .package import Package

#: Beyond this many bytes the packages that were not used for the longest time are removed.
MOST_BYTES = 500_000_000


def usual_folder() -> Path:
    """$PYRO_KL_CACHE, else $XDG_CACHE_HOME/pyro_kl, else ~/.cache/pyro_kl; it may be missing."""
    chosen = os.environ.get("PYRO_KL_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "pyro_kl")


def writable_folder() -> tuple[Path, str]:
    """The usual folder; if it cannot be written to, one of this process alone and a notice."""
    folder = usual_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder, ""
    except OSError as error:
        return Path(_temporary().name), (
            f"Compiled steps are kept for this process alone, because {folder} cannot be written "
            f"to ({error}). Set the environment variable PYRO_KL_CACHE to a folder that can."
        )


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="pyro_kl_")


def path_of(key: str, folder: Path) -> Path:
    """The file of a package."""
    return folder / f"{key}.pt2"


def find(key: str, folder: Path) -> tuple[Package | None, str]:
    """The package with this key, if it is there, and a notice if it is but cannot be used.

    A package that cannot be used is removed.
    """
    path = path_of(key, folder)
    try:
        package = Package(path, key)
    except (FileNotFoundError, NotADirectoryError):
        return None, ""
    except Exception as error:  # a damaged file may lead to any
        with suppress(OSError):
            path.unlink()
        return None, f"Compiled steps are compiled again, because a package fails: {error}."
    with suppress(OSError):
        os.utime(path)
    return package, ""


def evict(folder: Path) -> None:
    """Remove the packages that were not used for the longest time, beyond `MOST_BYTES`."""
    with suppress(OSError):
        files = [
            (path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob("*.pt2")
        ]
        size = 0
        for _, bytes_of_file, path in sorted(files, reverse=True):
            size += bytes_of_file
            if size > MOST_BYTES:
                path.unlink(missing_ok=True)
