"""A fit from Parquet costs little more than reading the file, in a bounded memory.

    python -m benchmarks.glm_larger_than_memory [--rows 50000000] [--folder FOLDER]

Writes a file of float32 features and a target of 0 and 1 (6 GB with 50,000,000 rows and 30
features), reads it, and fits it by pyro_kl.glm.LogisticRegression with a full covariance. Prints
wall times, how often the fit has read the file, and the largest resident memory of the fit. All
cores are used, by the reader as by the fit.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pyro_kl.glm import LogisticRegression, read_table

#: Rows of a row group.
GROUP = 1 << 20


def write(path: Path, num_rows: int, num_features: int) -> None:
    """Normal features; the logits have a standard deviation of 2."""
    rng = np.random.default_rng(0)
    weights = 2.0 * rng.standard_normal(num_features, dtype=np.float32) / num_features**0.5
    names = [f"x{j}" for j in range(num_features)]
    schema = pa.schema([*((name, pa.float32()) for name in names), ("y", pa.int8())])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, num_rows, GROUP):
            x = rng.standard_normal((num_features, min(GROUP, num_rows - start)), dtype=np.float32)
            y = rng.random(x.shape[1]) < 1.0 / (1.0 + np.exp(-(weights @ x) - 0.3))
            columns = [*(pa.array(column) for column in x), pa.array(y.astype(np.int8))]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=GROUP)


def read(path: Path) -> float:
    """Seconds to read all columns of the file once, a batch of rows at a time."""
    start = time.perf_counter()
    total = 0
    for batch in pq.ParquetFile(path, memory_map=True).iter_batches(1 << 16):
        total += batch.num_rows
    return time.perf_counter() - start


def memory(name: str) -> float:
    """GB, of /proc/self/status."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if name in x)
    return int(line.split()[1]) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--features", type=int, default=30)
    parser.add_argument("--folder", help="where the file is written (a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder, "rows.parquet")
        write(path, arguments.rows, arguments.features)
        print(f"{path.stat().st_size / 1e9:.2f} GB, {arguments.rows:,} x {arguments.features}")
        read(path)  # from now on the file is in the system's cache, if that is large enough
        once = read(path)
        Path("/proc/self/clear_refs").write_text("5")  # the largest memory is counted from here
        start = time.perf_counter()
        rows = read_table(str(path), "y")
        opened = time.perf_counter() - start
        model = LogisticRegression().fit(rows)
        seconds = time.perf_counter() - start
        again = read(path)
    reading = model.n_iter_ * (once + again) / 2
    print(f"reading once: {once:.1f} s before, {again:.1f} s after; opening: {opened:.1f} s")
    readings = f"{model.n_iter_} passes: {seconds / reading:.2f} of as many readings"
    print(f"fit: {seconds:.1f} s, {readings}")
    print(f"largest resident memory: {memory('VmHWM'):.2f} GB; ELBO {model.elbo_:.3f}")


if __name__ == "__main__":
    main()
