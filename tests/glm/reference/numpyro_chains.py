"""NUTS chains of one table, in NumPyro's own environment: reads a .npz, prints JSON.

``nuts.py`` starts it. The potential is written out by hand, so that the reference shares
nothing with pyro_kl.
"""

import json
import sys

import numpy as np


def main(path, chains, warmup, samples, seed):
    """Draw the chains one after the other and print what is stored of them."""
    # Imported here: pytest, which reads every file of tests/, has neither of them.
    import jax
    import numpyro
    from jax import numpy as jnp
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
    from numpyro.infer import MCMC, NUTS

    numpyro.enable_x64()
    data = np.load(path)
    design, target = jnp.asarray(data["design"]), jnp.asarray(data["target"])
    precision, poisson = jnp.asarray(data["precision"]), bool(data["poisson"])

    def negative_log_posterior(coefficients):
        predictor = design @ coefficients
        log_partition = jnp.exp(predictor) if poisson else jax.nn.softplus(predictor)
        log_likelihood = target @ predictor - log_partition.sum()
        return 0.5 * (precision * coefficients**2).sum() - log_likelihood

    # In the coordinates of the curvature at the mode every direction has about the same scale.
    mode = jnp.zeros(design.shape[1])
    for _ in range(100):
        gradient = jax.grad(negative_log_posterior)(mode)
        hessian = jax.hessian(negative_log_posterior)(mode)
        step = jnp.linalg.solve(hessian, gradient)
        mode = mode - step / jnp.maximum(1.0, jnp.abs(step).max())
    tril = jnp.linalg.inv(jnp.linalg.cholesky(hessian)).T

    kernel = NUTS(
        potential_fn=lambda z: negative_log_posterior(mode + tril @ z), target_accept_prob=0.9
    )
    mcmc = MCMC(
        kernel,
        num_warmup=warmup,
        num_samples=samples,
        num_chains=chains,
        chain_method="sequential",
        progress_bar=False,
    )
    starts = 2.0 * jax.random.normal(jax.random.key(seed + 1), (chains, len(mode)))
    mcmc.run(
        jax.random.key(seed),
        init_params=starts,
        extra_fields=("diverging",),
    )
    draws = np.asarray(mode + mcmc.get_samples(group_by_chain=True) @ tril.T)
    square = (draws - draws.mean((0, 1))) ** 2
    mean, sd = draws.mean((0, 1)), np.sqrt(square.mean((0, 1)))
    ess = effective_sample_size(draws)
    # The delta method gives the error of the sd from that of the variance.
    variance_error = square.std((0, 1)) / np.sqrt(effective_sample_size(square))
    result = {
        "mean": mean,
        "sd": sd,
        "mean_standard_error": sd / np.sqrt(ess),
        "sd_standard_error": variance_error / (2.0 * sd),
        "skewness": ((draws - mean) ** 3).mean((0, 1)) / sd**3,
        "effective_sample_size": ess,
        "r_hat": split_gelman_rubin(draws),
    }
    rounded = {key: [float(f"{x:.7g}") for x in value] for key, value in result.items()}
    rounded["divergent"] = int(mcmc.get_extra_fields()["diverging"].sum())
    print(json.dumps(rounded))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
