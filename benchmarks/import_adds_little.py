"""What `import pyro_kl` adds to `import pyro`, in fresh processes with compiled bytecode.

CPU seconds of each process, the median and the least of the repeats; the limit is 0.3 s. The
process of the third line has imported pyro.infer's parts before, as a script with an autoguide
has.

    python -m benchmarks.import_adds_little [--repeats 9]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from statistics import median

CODE = """
import time
import pyro, pyro.distributions
{before}
start = time.process_time()
{imported}
print(time.process_time() - start)
"""

CASES = {
    "import pyro_kl": ("", "import pyro_kl"),
    "... and all of its names": ("", "from pyro_kl import *"),
    "import pyro_kl, autoguides imported": ("import pyro.infer.autoguide", "import pyro_kl"),
}


def seconds(environment, before, imported):
    code = CODE.format(before=before, imported=imported)
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(run.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for name, case in CASES.items():
            seconds(environment, *case)  # compiles
            spent = [seconds(environment, *case) for _ in range(repeats)]
            print(f"{name:<36} median {median(spent):.3f} s, least {min(spent):.3f} s")


if __name__ == "__main__":
    main()
