"""The process that compiles a block: `python -m pyro_kl.svi.build` and the arguments of `main`.

It is a process of its own because torch.export and the inductor change the process that they run
in: one switches validation of distributions off, for example.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .block import Block

#: Options of the inductor. The flags of the processor are known, so that four small programs that
#: try them need not be compiled; headers are not precompiled, which takes 300 MB for one build.
#: Threads that share an operation have so many elements each that starting them pays.
OPTIONS = {
    "aot_inductor.precompile_headers": False,
    "aot_inductor.enable_line_tables": False,
    "cpp.vec_isa_ok": True,
    "cpp.min_chunk_size": 16_384,
    "compile_threads": 1,
}
#: Memory on the stack makes a step of many small operations five times faster. It is a rarely used
#: part of the inductor; if a build with it fails, there is one without.
ON_STACK = "aot_inductor.allow_stack_allocation"


def build(block: Block, inputs: Sequence[Tensor], threads: int, package: Path, key: str) -> None:
    """Compile a block, compare the result with the block itself and put it at `package`.

    Args:
        block: what is compiled.
        inputs: an example; shapes, dtypes and strides become those of the package.
        threads: the most that an operation may be shared by.
        package: the path; a file that is there is replaced, and no one ever sees half a file.
        key: is written into the package.

    Raises:
        Exception: whatever stops the compilation.
    """
    options = {**OPTIONS, "cpp.threads": threads, "aot_inductor.metadata": {"pyro_kl": key}}
    with suppress(Exception):
        _build(block, inputs, package, {**options, ON_STACK: True})
        return
    _build(block, inputs, package, options)


def _build(
    block: Block, inputs: Sequence[Tensor], package: Path, options: Mapping[str, Any]
) -> None:
    """`build` with these options of the inductor."""
    import torch._inductor
    from torch.fx.experimental.proxy_tensor import make_fx

    known = {*torch._inductor.list_options()}  # which are not the same in all versions
    with torch.no_grad():
        traced = make_fx(block)(*inputs)
        exported = torch.export.export(traced, tuple(inputs), strict=False)
    new = package.with_suffix(f".{os.getpid()}.pt2")
    try:
        torch._inductor.aoti_compile_and_package(
            exported,
            package_path=str(new),
            inductor_configs={name: value for name, value in options.items() if name in known},
        )
        _check(new, inputs, block(*inputs))
        os.replace(new, package)
    finally:
        new.unlink(missing_ok=True)


def _check(path: Path, inputs: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Raise ValueError if a package computes something else than its block.

    The tolerance is that of a gross error: sums are added in another order, and Adam's first step
    depends on the sign of a gradient alone.
    """
    loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", True, 1, -1)
    for i, (new, old) in enumerate(zip(loader.run(list(inputs)), expected, strict=True)):
        size = (old - inputs[0] if i == 0 else old).double().norm()
        same_form = (new.shape, new.dtype) == (old.shape, old.dtype)
        if not (same_form and (new.double() - old.double()).norm() <= 0.01 * size):
            raise ValueError(f"output {i} of the compiled block is {new} instead of {old}")


def _end_with_parent(folder: Path) -> None:
    """Let this process, and the compilers it has started, end when its parent does.

    The parent holds the other end of the standard input; the system closes it, however the
    parent ends.
    """

    def wait() -> None:
        os.read(0, 1)
        shutil.rmtree(folder, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def _message(error: Exception) -> str:
    """An error in one line: its first, and that of the compiler."""
    lines = [line.strip() for line in f"{type(error).__name__}: {error}".splitlines()]
    return "; ".join([lines[0], *[line for line in lines[1:] if "error:" in line][:1]])


def main(specification: str, package: str, dtype: str, threads: str) -> None:
    """Build the package that a file specifies; what went wrong goes to the standard error.

    Args:
        specification: the file.
        package: the path of the package.
        dtype: torch's default dtype, by name. Loading a graph computes its constants by it.
        threads: the most that an operation may be shared by.
    """
    _end_with_parent(Path(specification).parent)
    os.nice(10)
    torch.set_num_threads(1)
    torch.set_default_dtype(getattr(torch, dtype))
    warnings.simplefilter("ignore")
    try:
        block, inputs, key = torch.load(specification, weights_only=False)
        build(block, inputs, int(threads), Path(package), key)
    except Exception as error:
        sys.exit(_message(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
