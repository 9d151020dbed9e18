"""`torchrun -m tests.glm.on_ranks FOLDER FIT [SECONDS]`: a fit by several ranks.

Each rank writes FOLDER/<fit>.<rank>: the posterior, or the text of an error. With SECONDS the fit
has a checkpoint in FOLDER/<fit>, a chunk takes that long, and each rank notes its process and the
chunks that it has computed.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import scipy.sparse
import torch

from pyro_kl.glm.logistic import LogisticRegression
from pyro_kl.glm.passes import checkpoint
from pyro_kl.glm.passes import rows as chunks
from pyro_kl.glm.passes.rows import ArrayRows
from pyro_kl.glm.poisson import PoissonRegression
from pyro_kl.svi.ranks import num_ranks, this_rank

#: Of 2 KiB, so that small tables have many of them; the last one has fewer rows.
LENGTH = 64
ROWS, FEATURES = 75 * LENGTH - 13, 4


def data(num_rows=ROWS):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(num_rows, FEATURES, generator=generator, dtype=torch.float64)
    rate = (0.3 * x.sum(-1)).exp()
    return x, torch.poisson(rate, generator=generator)


def full(folder):
    x, y = data()
    return LogisticRegression().fit(x, y > 0)


def few(folder):
    """Fewer chunks than ranks."""
    x, y = data(5 * LENGTH)
    return LogisticRegression(prior="laplace").fit(x, y > 0, sample_weight=y + 0.5)


def sparse(folder):
    """The step of the mean is a solution by conjugate gradients, with many sums."""
    x, y = data()
    x = scipy.sparse.csr_matrix(np.where(x > 0.5, x, 0.0))
    fitted = LogisticRegression(covariance="diagonal").fit(x, y > 0, checkpoint=folder / "sums")
    again = LogisticRegression(covariance="diagonal").fit(x, y > 0, checkpoint=folder / "sums")
    np.testing.assert_allclose(again.loc_, fitted.loc_, rtol=1e-12, atol=1e-12)
    return fitted


def other_rows(folder):
    x, y = data(ROWS - this_rank())
    return LogisticRegression().fit(x, y > 0)


def other_settings(folder):
    x, y = data()
    return LogisticRegression(prior_scale=1.0 + this_rank()).fit(x, y > 0)


class Slow(ArrayRows):
    """Rows of which a chunk takes some time; the numbers of the chunks are noted in a file."""

    def __init__(self, features, target, seconds, path):
        super().__init__(features, target)
        self.seconds, self.path = seconds, path

    def chunk(self, index):
        if index not in (0, self.num_chunks - 1):  # these are read for other purposes, too
            time.sleep(self.seconds)
            with self.path.open("a") as file:
                print(index, file=file)
        return super().chunk(index)


def killed(folder, seconds):
    """A fit that may be killed at any moment; each chunk is a block."""
    checkpoint.WAIT = 0.0
    rank = this_rank()
    (folder / f"process.{rank}").write_text(str(os.getpid()))
    rows = Slow(*data(), seconds, folder / f"chunks.{os.getpid()}")
    return PoissonRegression().fit(rows, checkpoint=folder / "killed")


def main(folder, name, *seconds):
    """Fit, and write what came of it."""
    torch.set_num_threads(1)
    chunks.CHUNK_BYTES, chunks.LEAST_ROWS = 8 * FEATURES * LENGTH, 1
    try:
        fitted = globals()[name](folder, *map(float, seconds))
        result = {"loc": fitted.loc_, "scale": fitted.scale_, "trace": fitted.trace_}
        result = {of: torch.from_numpy(value) for of, value in result.items()}
        result["elbo"] = torch.tensor(fitted.elbo_, dtype=torch.float64)
    except ValueError as error:
        result = {"error": str(error)}
    torch.save(result, folder / f"{name}.{this_rank()}")


if __name__ == "__main__":
    if "TORCHELASTIC_RUN_ID" in os.environ:
        torch.distributed.init_process_group("gloo")
    main(Path(sys.argv[1]), *sys.argv[2:])
    if num_ranks() > 1:
        torch.distributed.destroy_process_group()
        time.sleep(0.5)  # a thread of gloo needs the interpreter for a moment after a message
