"""Fits by several processes: `torchrun --standalone --nproc-per-node=2 -m examples.several_ranks`.

First a logistic regression without sampling, from a memory map of which each rank reads its own
part, with a checkpoint; then the same model by SVI, each rank with its part of the rows. Without
torchrun one process does the same.

`--max-restarts=3` lets torchrun start all processes again when one is lost. After a restart torch
2.13 waits for the addresses of the lost processes, unless TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, distributed

import pyro_kl
from pyro_kl.glm import LogisticRegression


def write_data(folder: Path, rows: int) -> None:
    """Write a table of numbers as a memory map, and its targets."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((rows, 10))
    chance = 1 / (1 + np.exp(-x @ np.linspace(-1, 1, 10)))
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", generator.random(rows) < chance)


def model(x: Tensor, y: Tensor) -> None:
    """A logistic regression; `sharded` makes the plate that of all data."""
    bias = pyro.sample("bias", dist.Normal(x.new_zeros(()), 5.0))
    weights = pyro.sample("weights", dist.Normal(x.new_zeros(x.shape[1]), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=bias + x @ weights), obs=y)


def main(folder: Path, rows: int, steps: int) -> None:
    """Fit by both ways, and print both posteriors."""
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun has started this process
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if rank == 0:
        write_data(folder, rows)
    if ranks > 1:
        distributed.barrier()
    x, y = (np.load(folder / f"{name}.npy", mmap_mode="c") for name in "xy")

    exact = LogisticRegression().fit(x, y, checkpoint=folder / f"sums of {rows} rows")

    part = slice(rows * rank // ranks, rows * (rank + 1) // ranks)
    guide = pyro.infer.autoguide.AutoNormal(model)
    svi = pyro_kl.SVI(
        model, guide, torch.optim.Adam, pyro_kl.TraceKL_ELBO(), optim_args={"lr": 0.02},
        schedule=lambda step: 0.05 ** (step / steps), sharded=["rows"],
    )  # fmt: skip
    svi.run(steps, torch.from_numpy(x[part]), torch.from_numpy(y[part]).double())

    if rank == 0:
        means = guide.median()["weights"].numpy()
        print(f"{ranks} ranks, {rows:,} rows, ELBO {exact.elbo_:.4f} nats")
        print("weight   fit of sums   SVI")
        for number, (of_sums, of_svi) in enumerate(zip(exact.loc_[1:], means, strict=True)):
            print(f"{number:6}   {of_sums:11.4f}   {of_svi:.4f}")
    if ranks > 1:
        distributed.destroy_process_group()
        time.sleep(0.2)  # a thread of gloo needs the interpreter for a moment after a message


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("out/several_ranks"))
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--smoke", action="store_true", help="a few rows and steps")
    options = parser.parse_args()
    if options.smoke:
        options.rows, options.steps = 2_000, 20
    main(options.folder, options.rows, options.steps)
