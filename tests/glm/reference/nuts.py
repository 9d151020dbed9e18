"""Long NUTS runs on real tables: the posteriors that the tests of pyro_kl.glm compare with.

Run from the repository root, after ``make .venv-numpyro/.done``::

    python -m tests.glm.reference.nuts [TABLE ...]

It writes ``nuts.json`` next to itself. The model is that of the estimators: bias ~ Normal(0, 5),
weights ~ Normal(0, 1) on standardised features.

Source: Hoffman and Gelman (2014), The No-U-Turn Sampler.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import sklearn
import statsmodels

from tests.glm.reference.data_sets import TABLES, Table

BIAS_SCALE = 5.0
WEIGHT_SCALE = 1.0
CHAINS = 4
WARMUP = 2_000
SAMPLES = 25_000
SEED = 20
PATH = Path(__file__).with_suffix(".json")
WORKER = Path(__file__).with_name("numpyro_chains.py")
PYTHON = Path(__file__).parents[3] / ".venv-numpyro" / "bin" / "python"


def stored() -> dict[str, dict]:
    """What ``nuts.json`` holds, by the name of the table."""
    return json.loads(PATH.read_text()) if PATH.exists() else {}


def sample(table: Table) -> dict:
    """Run the chains of a table in NumPyro's process and return their summary."""
    precision = np.full(table.design.shape[1], WEIGHT_SCALE**-2)
    precision[0] = BIAS_SCALE**-2
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.npz"
        np.savez(
            path,
            design=table.design,
            target=table.target,
            precision=precision,
            poisson=table.likelihood == "poisson",
        )
        command = [PYTHON, WORKER, path, *map(str, (CHAINS, WARMUP, SAMPLES, SEED))]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(answer.stdout)


def main(*names: str) -> None:
    """Sample the named tables, all of them without a name, and store each at once."""
    for name in names or TABLES:
        table = TABLES[name]()
        started = time.perf_counter()
        summary = sample(table)
        seconds = time.perf_counter() - started
        result = {
            "rows": len(table.target),
            "likelihood": table.likelihood,
            "prior": f"bias ~ Normal(0, {BIAS_SCALE:g}), weights ~ Normal(0, {WEIGHT_SCALE:g})",
            "sampler": f"NumPyro's NUTS, {CHAINS} chains of {SAMPLES} after {WARMUP}",
            "versions": [f"{x.__name__} {x.__version__}" for x in (sklearn, statsmodels)],
            "names": ["bias", *table.names],
            **summary,
        }
        everything = {**stored(), name: result}
        lines = [f'"{key}": {json.dumps(everything[key])}' for key in sorted(everything)]
        PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        print(
            f"{name}: {seconds:.0f} s, r_hat at most {max(summary['r_hat']):.4f}, effective "
            f"sample size at least {min(summary['effective_sample_size']):.0f}, "
            f"{summary['divergent']} divergent"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
