"""How long the commands of `make demo` take, and the longest time for which they print nothing.

python -m benchmarks.demo_is_never_silent
"""

from __future__ import annotations

import os
import re
import selectors
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def commands() -> list[list[str]]:
    """The commands of the target `demo`, as this Python runs them."""
    recipe = re.search(r"^demo:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    lines = recipe.group(1).replace("$(BIN)/python", shlex.quote(sys.executable))
    return [shlex.split(line.replace("$(DEMO_ARGS)", "")) for line in lines.splitlines()]


def watch(command: list[str]) -> tuple[float, float, int]:
    """Run a command: its seconds, the longest of them without output, the widest line."""
    start = last = time.monotonic()
    silence, text = 0.0, bytearray()
    with (
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
        selectors.DefaultSelector() as open_streams,
    ):
        for stream in (process.stdout, process.stderr):
            open_streams.register(stream, selectors.EVENT_READ)
        while open_streams.get_map():
            for key, _ in open_streams.select():
                part = os.read(key.fd, 1 << 16)
                now = time.monotonic()
                silence, last = max(silence, now - last), now
                if not part:
                    open_streams.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    text += part
    if process.returncode:
        raise SystemExit(f"{shlex.join(command)} failed with code {process.returncode}")
    width = max(map(len, text.decode().splitlines()))
    return time.monotonic() - start, silence, width


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as the Makefile does
    total, longest = 0.0, 0.0
    print(f"{'command':<40}{'seconds':>9}{'silent':>9}{'columns':>9}")
    for command in commands():
        seconds, silence, width = watch(command)
        print(f"{' '.join(command[1:]):<40}{seconds:9.1f}{silence:9.2f}{width:9}", flush=True)
        total, longest = total + seconds, max(longest, silence)
    print(f"{'in all':<40}{total:9.1f}{longest:9.2f}")


if __name__ == "__main__":
    main()
