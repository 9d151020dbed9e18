"""Builds of packages, each in a process of its own in the background."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from .block import Block
from .break_even import estimated_seconds, remember_seconds
from .package import Package, can_load, key_of, settings_of_torch
from .package_cache import evict, find, path_of, usual_folder, writable_folder


class Build:
    """The package of a block: from the cache folder, or built by a process that `start` starts.

    The process ends when this object or this process does. Nothing here raises.

    Args:
        block: what is compiled.
        inputs: an example for which the losses are finite; contiguous.

    Attributes:
        package: the package, as soon as it is there.
        reason: why there is none and will be none; "" as long as there may be.
        notice: what the user should know about the cache folder, or "".
        seconds: what the build has taken so far, or an estimate before `start`.
    """

    def __init__(self, block: Block, inputs: Sequence[Tensor]) -> None:
        self.package: Package | None = None
        self.reason = self.notice = ""
        self.seconds = self._started = 0.0
        self._block, self._inputs = block, inputs
        self._process: subprocess.Popen[bytes] | None = None
        if not can_load():
            self.reason = f"torch {torch.__version__} cannot load compiled steps"
            return
        self._key = key_of(block, inputs)
        self._folder = usual_folder()  # which may be one that others have filled
        self._find()
        if self.package is None:
            self._folder, notice = writable_folder()
            self.notice = " ".join(filter(None, (self.notice, notice)))
            self.seconds = estimated_seconds(block.num_operations, self._folder)
            self._find()

    def start(self) -> None:
        """Start the process, unless there is a package or a reason why there will be none."""
        if self.package or self.reason or self._process:
            return
        self.reason = _no_compiler()
        if self.reason:
            return
        self._started = time.monotonic()
        package = path_of(self._key, self._folder)
        try:
            self._work = Path(tempfile.mkdtemp(prefix="pyro_kl_"))
            try:
                self._process = _process(self._work, package, self._block, self._inputs, self._key)
            except BaseException:
                shutil.rmtree(self._work, ignore_errors=True)
                raise
        except Exception as error:  # such as a full disk
            self.reason = f"their compilation could not be started: {error}"
            return
        self._end = weakref.finalize(self, _end, self._process, self._work, os.getpid())

    @property
    def running(self) -> bool:
        """Whether the process has been started and its result is not known yet."""
        return self._process is not None and not (self.package or self.reason)

    def poll(self) -> bool:
        """Whether it is known if there is a package; looks at the process."""
        if self.running and self._process is not None and self._process.poll() is not None:
            self._finish(self._process.returncode)
        return bool(self.package or self.reason)

    def wait(self) -> Package | None:
        """The package, after the end of the process that was started."""
        if self.running and self._process is not None:
            self._process.wait()
        self.poll()
        return self.package

    def cancel(self) -> None:
        """End the process."""
        if self.running:
            self.reason = "their compilation was ended"
            self._end()

    def _finish(self, returncode: int) -> None:
        self.seconds = time.monotonic() - self._started
        if returncode == 0:
            self._find()
        if self.package is None:
            self.reason = f"their compilation failed: {_last_line(self._work / 'errors')}"
        else:
            remember_seconds(self._block.num_operations, self.seconds, self._folder)
            evict(self._folder)
        self._end()

    def _find(self) -> None:
        self.package, notice = find(self._key, self._folder)
        self.notice = " ".join(filter(None, (self.notice, notice)))


def _no_compiler() -> str:
    """Why nothing can be compiled here, or ""."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if os.name != "posix" or not sys.executable:
        return f"steps are not compiled on {sys.platform} by {sys.executable or 'this program'}"
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler {compiler}; install it, or name one by CXX"
    return ""


def _process(
    folder: Path, package: Path, block: Block, inputs: Sequence[Tensor], key: str
) -> subprocess.Popen[bytes]:
    """Start the process, with all its files in `folder`."""
    specification = folder / "specification"
    # Without a copy, all of the tensor would be saved of which an input is a part.
    copies = [each.detach().clone() for each in inputs]
    torch.save((block, copies, key), specification)
    command = [sys.executable, "-m", "pyro_kl.svi.build"]
    root = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(folder),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
    }
    with open(folder / "errors", "wb") as errors:
        return subprocess.Popen(
            [*command, specification, package, *settings_of_torch()],
            stdin=subprocess.PIPE,  # never written to: its end tells the process to end
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd=folder,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the fit
        )


def _end(process: subprocess.Popen[bytes], folder: Path, owner: int) -> None:
    """End a process and the compilers that it has started, and remove its files."""
    if os.getpid() != owner:  # a fork of this process ends earlier
        return
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
    shutil.rmtree(folder, ignore_errors=True)


def _last_line(errors: Path) -> str:
    """What an error says."""
    try:
        lines = errors.read_text(errors="replace").split("\n")
    except OSError:
        lines = []
    said = [line.strip() for line in lines if line.strip()]
    return said[-1] if said else "without a message"
