"""`pyro-kl check`: is this machine's arithmetic as promised?"""

from __future__ import annotations

import argparse
import platform
import time

import torch

from pyro_kl.registry.warnings import quiet

from .checks import CHECKS, LEFT_OUT, Check, Outcome
from .package import text_module
from .parser import versions
from .refused import Failed

_ROW = "{:<18}{:>7}{:>8}{:>8}  {}"


def run(arguments: argparse.Namespace) -> str:
    """Run all checks, a line for each as soon as it is done; the last line is the result.

    Raises:
        Failed: a check failed.
    """
    fill = text_module().fill  # to 80 columns, in a file too
    _tell(fill(f"{versions()}, Python {platform.python_version()}"))
    capability = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    _tell(f"{platform.machine()}, {capability}, {threads} thread{'s' if threads > 1 else ''}")
    _tell("")
    _tell(_ROW.format("check", "pairs", "values", "failed", "largest"))
    wrong: list[Outcome] = []
    started = time.monotonic()
    with quiet():
        for name, (check, largest) in CHECKS.items():
            wrong += _checked(name, check, largest, arguments.full)
    _tell("")
    for name, reason in LEFT_OUT.items():
        _tell(fill(f"Not compared: {name}, since {reason}."))
    seconds = f"{time.monotonic() - started:.0f} s"
    if wrong:
        for outcome in wrong:
            _tell(fill(f"{outcome.pair}: {outcome.wrong}"))
        raise Failed(f"{len(wrong)} of these values are not as promised ({seconds}).")
    return f"All is as promised ({seconds})."


def _checked(name: str, check: Check, largest: str, full: bool) -> list[Outcome]:
    """Run one check and print its line; return what failed."""
    outcomes = list(check(full))
    wrong = [outcome for outcome in outcomes if outcome.wrong]
    measure = largest.format(max((x.measure for x in outcomes), default=0.0))
    pairs = len({outcome.pair for outcome in outcomes})
    _tell(_ROW.format(name, pairs, len(outcomes), len(wrong), measure).rstrip())
    return wrong


def _tell(line: str) -> None:
    print(line, flush=True)
