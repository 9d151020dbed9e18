"""`python -m tests.svi.killed FOLDER COMPILE KILLS SEED`: a fit that is killed again and again.

Each child is a fork of this process, with an empty parameter store and a guide of its own, that
goes on from the checkpoint. The last one may finish.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pyro
import torch
from pyro.infer.autoguide import AutoNormal

import pyro_kl
from models import eight_schools

STEPS, EVERY = 120, 2


def fit(path: Path, compile_mode: str) -> dict[str, torch.Tensor]:
    """Go on from the checkpoint, if there is one, up to the last step."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    options = {} if compile_mode == "none" else {"compile": compile_mode}
    svi = pyro_kl.SVI(
        eight_schools.model,
        AutoNormal(eight_schools.model),
        torch.optim.Adam,
        pyro_kl.TraceKL_ELBO(beta=pyro_kl.LinearWarmup(90)),
        optim_args={"lr": 0.05},
        schedule=lambda step: 0.99**step,
        **options,
    )
    if path.exists():
        svi.load(path)
    svi.run(STEPS - svi.step_count, checkpoint=path, every=EVERY)
    return {k: v.detach() for k, v in pyro.get_param_store().named_parameters()}


def main(folder: Path, compile_mode: str, kills: int, seed: int) -> None:
    """Fit without an interruption, then with kills; print how many of them met a fit."""
    torch.set_num_threads(1)
    for _ in range(2):  # the first fit imports and records more
        (folder / "whole.fit").unlink(missing_ok=True)
        start = time.monotonic()
        torch.save(fit(folder / "whole.fit", compile_mode), folder / "whole")
        whole = time.monotonic() - start
    moments, killed = random.Random(seed), 0
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            fit(folder / "killed.fit", compile_mode)
            os._exit(0)
        time.sleep(moments.uniform(0, 1.2 * whole / kills))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    torch.save(fit(folder / "killed.fit", compile_mode), folder / "killed")
    print(killed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
