"""Long NUTS run of the breast-cancer logistic regression: the reference of the tests.

Run from the repository root::

    python -m tests.conformance.reference.nuts_breast_cancer

It writes ``nuts_breast_cancer.json`` next to itself (about three minutes on one core). The
model is ``models.logistic_regression`` with its default priors on all 569 rows, standardised
by their own mean and standard deviation. The potential is written out by hand, so that the
reference shares no code with the model beyond the data: a mistake in the model cannot hide
in both.

Source: Hoffman and Gelman (2014), The No-U-Turn Sampler.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import sklearn
import torch
from pyro.infer import MCMC, NUTS
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from sklearn.datasets import load_breast_cancer

WEIGHT_SCALE = 1.0
BIAS_SCALE = 5.0
CHAINS = 4
WARMUP = 1500
SAMPLES = 6000
SEED = 20
PATH = Path(__file__).with_suffix(".json")


def load() -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Return the standardised features (569, 30), the labels (569,) and the names."""
    data = load_breast_cancer()
    x = np.asarray(data.data, dtype=np.float64)
    x = (x - x.mean(0)) / x.std(0)
    return (
        torch.tensor(x),
        torch.tensor(data.target, dtype=torch.float64),
        list(data.feature_names),
    )


def run_chain(seed: int, warmup: int, samples: int) -> torch.Tensor:
    """Draw one chain of (bias, weights); shape (samples, 31)."""
    features, labels, _ = load()
    # log p(y | logit) = log sigmoid(sign * logit), so the signs go into the design matrix once.
    design = torch.cat([torch.ones(len(labels), 1, dtype=torch.float64), features], dim=1)
    design = design * (2.0 * labels - 1.0).unsqueeze(-1)
    precision = torch.full((design.shape[1],), WEIGHT_SCALE**-2, dtype=torch.float64)
    precision[0] = BIAS_SCALE**-2

    def potential(params: dict[str, torch.Tensor]) -> torch.Tensor:
        theta = params["theta"]
        log_likelihood = torch.nn.functional.logsigmoid(design @ theta).sum()
        return 0.5 * (precision * theta * theta).sum() - log_likelihood

    pyro.set_rng_seed(seed)
    kernel = NUTS(potential_fn=potential, full_mass=True, target_accept_prob=0.8)
    start = {"theta": 0.3 * torch.randn(design.shape[1], dtype=torch.float64)}
    mcmc = MCMC(
        kernel,
        num_samples=samples,
        warmup_steps=warmup,
        initial_params=start,
        disable_progbar=True,
    )
    mcmc.run()
    return mcmc.get_samples()["theta"]


def summarise(draws: torch.Tensor, names: list[str]) -> dict[str, Any]:
    """Means, standard deviations and their standard errors from draws (chains, samples, 31)."""
    flat = draws.flatten(0, 1)
    mean, sd = flat.mean(0), flat.std(0)
    ess = effective_sample_size(draws, chain_dim=0, sample_dim=1)
    # The sd's error comes from the error of the variance, by the delta method; the squared
    # deviations have an effective sample size of their own.
    square = (flat - mean).square().reshape(draws.shape)
    square_ess = effective_sample_size(square, chain_dim=0, sample_dim=1)
    sd_error = square.flatten(0, 1).std(0) / square_ess.sqrt() / (2.0 * sd)
    return {
        "names": ["bias", *names],
        "mean": mean.tolist(),
        "sd": sd.tolist(),
        "mean_standard_error": (sd / ess.sqrt()).tolist(),
        "sd_standard_error": sd_error.tolist(),
        "ess": ess.tolist(),
        "r_hat": split_gelman_rubin(draws, chain_dim=0, sample_dim=1).tolist(),
    }


def main() -> None:
    """Run the chains one after the other and write the JSON file."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    draws = torch.stack([run_chain(SEED + c, WARMUP, SAMPLES) for c in range(CHAINS)])
    seconds = time.perf_counter() - started
    result = {
        "data": "scikit-learn breast cancer, all 569 rows, standardised (population sd)",
        "model": f"weights ~ Normal(0, {WEIGHT_SCALE}), bias ~ Normal(0, {BIAS_SCALE})",
        "sampler": "pyro NUTS, full mass matrix, target_accept_prob=0.8",
        "weight_scale": WEIGHT_SCALE,
        "bias_scale": BIAS_SCALE,
        "chains": CHAINS,
        "warmup": WARMUP,
        "samples_per_chain": SAMPLES,
        "seed": SEED,
        "seconds": round(seconds, 1),
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "pyro": pyro.__version__,
            "scikit-learn": sklearn.__version__,
        },
        **summarise(draws, load()[2]),
    }
    PATH.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{PATH.name}: {seconds:.0f} s, max r_hat {max(result['r_hat']):.4f}, ", end="")
    print(f"min ess {min(result['ess']):.0f}")


if __name__ == "__main__":
    main()
