"""Two ranks on two cores fit a logistic regression in at most 0.6 of one rank's time.

The data are a memory map that all ranks open. `torchrun` starts one rank and two in turn, with one
thread each; the fits of a process are repeated, without its start, and the shortest counts.
Printed are the ratio of the medians over the turns (limit 0.6), the machine's load before each
turn, and the largest difference of the posteriors. Where others use the cores, too, wall time says
little: the CPU time of the busiest rank stands beside it, which leaves out what a rank waits for.

    python -m benchmarks.two_ranks_take_half_the_time [--rows 1000000] [--features 50] [--turns 3]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import distributed

from pyro_kl.glm import LogisticRegression

REPEATS = 5


def write(folder, rows, features):
    """Synthetic data in single precision."""
    generator = np.random.default_rng(0)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (rows, features))
    weights = generator.standard_normal(features) / features**0.5
    y = np.empty(rows, dtype=bool)
    for start in range(0, rows, 100_000):
        part = generator.standard_normal((min(100_000, rows - start), features), dtype=np.float32)
        x[start : start + len(part)] = part
        chance = 1 / (1 + np.exp(-part @ weights))
        y[start : start + len(part)] = generator.random(len(part)) < chance
    np.save(folder / "y.npy", y)


def fit(folder):
    """The fits of one rank: rank 0 writes the shortest times and the posterior."""
    distributed.init_process_group("gloo")
    x, y = (np.load(folder / f"{name}.npy", mmap_mode="c") for name in "xy")
    times = []
    for _ in range(1 + REPEATS):  # the first one reads the file
        distributed.barrier()
        start, used = time.perf_counter(), time.process_time()
        fitted = LogisticRegression().fit(x, y)
        cpu = torch.tensor(time.process_time() - used)
        distributed.all_reduce(cpu, distributed.ReduceOp.MAX)
        times.append((time.perf_counter() - start, float(cpu)))
    if distributed.get_rank() == 0:
        wall, cpu = map(min, zip(*times[1:], strict=True))
        result = {"wall": wall, "cpu": cpu, "loc": fitted.loc_.tolist()}
        (folder / "result.json").write_text(json.dumps(result))
    distributed.destroy_process_group()
    time.sleep(0.2)  # a thread of gloo needs the interpreter for a moment after a message


def turn(folder, ranks):
    """The result of some ranks."""
    launch = "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"
    command = sys.executable, "-m", *launch, "-m", __spec__.name, "--folder", str(folder)
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return json.loads((folder / "result.json").read_text())


def main(rows, features, turns):
    found = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), rows, features)
        for _ in range(turns):
            for ranks, results in found.items():
                load = os.getloadavg()[0]
                results.append(turn(Path(name), ranks))
                wall, cpu = results[-1]["wall"], results[-1]["cpu"]
                print(f"{ranks} ranks: {wall:.3f} s, {cpu:.3f} s of CPU; load before {load:.1f}")
    for kind in ("wall", "cpu"):
        one, two = (median(result[kind] for result in found[ranks]) for ranks in found)
        print(f"{rows:,} x {features}: ratio of {kind} time {two / one:.3f} (limit 0.6)")
    one, two = (torch.tensor(found[ranks][0]["loc"]) for ranks in found)
    print(f"largest difference of the posterior means {float((one - two).abs().max()):.1g}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=50)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="of the data; given to the ranks")
    options = parser.parse_args()
    if options.folder:
        fit(options.folder)
    else:
        main(options.rows, options.features, options.turns)
