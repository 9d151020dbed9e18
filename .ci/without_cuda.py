"""Let a CUDA build of torch be imported without CUDA and without 2 GB of NVIDIA's libraries.

    python .ci/without_cuda.py <site-packages>

PyPI has no other build for Linux on x86-64. pip is kept from installing those libraries, and in
the place of each lies one whose functions all answer 100, cudaErrorNoDevice, so that
`torch.cuda.is_available()` is False. For tests only. A CPU build of torch is left as it is.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

REQUIREMENT = re.compile(r"Requires-Dist: (nvidia|cuda|triton)")
LIBRARY = re.compile(r"NEEDED.*\[(lib(?:cu|nv|nccl).*)\]")
#: An undefined symbol, and the version that it must have: most often its library's name.
SYMBOL = re.compile(r" U (_*(?:cu|nv|nccl)\w*)(?:@+(\S+))?$", re.MULTILINE)


def printed_by(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def ask_for_nothing(site_packages: Path) -> None:
    (metadata,) = site_packages.glob("torch-*.dist-info/METADATA")
    lines = metadata.read_text().splitlines(keepends=True)
    metadata.write_text("".join(line for line in lines if not REQUIREMENT.match(line)))


def make_library(path: Path, functions: dict[str, set[str]]) -> None:
    """A shared library with functions of these versions; "" is none."""
    with tempfile.TemporaryDirectory() as folder:
        code, versions = Path(folder, "code.c"), Path(folder, "versions")
        names = sorted(set().union(*functions.values()))
        code.write_text("".join(f"int {name}(void) {{ return 100; }}\n" for name in names))
        listed = [(v, "; ".join(sorted(names))) for v, names in functions.items() if v]
        versions.write_text("".join(f"{v} {{ {names}; }};\n" for v, names in listed))
        script = [f"-Wl,--version-script={versions}"] if listed else []
        command = ["gcc", "-w", "-shared", f"-Wl,-soname,{path.name}", *script]
        subprocess.run([*command, "-o", str(path), str(code)], check=True)


def fill_in(libraries: Path) -> None:
    needed: set[str] = set()
    functions: dict[str, set[str]] = defaultdict(set)
    for library in map(str, libraries.glob("*.so*")):
        needed |= set(LIBRARY.findall(printed_by("readelf", "-dW", library)))
        for name, version in SYMBOL.findall(printed_by("nm", "-D", library)):
            functions[version].add(name)
    absent = sorted(name for name in needed if not (libraries / name).exists())
    of_library = {name: {name: functions.pop(name)} for name in absent if name in functions}
    for name in absent[1:]:
        make_library(libraries / name, of_library.get(name, {}))
    for name in absent[:1]:  # what names no library may be in any of them
        make_library(libraries / name, of_library.get(name, {}) | functions)


if __name__ == "__main__":
    ask_for_nothing(Path(sys.argv[1]))
    fill_in(Path(sys.argv[1]) / "torch" / "lib")
