"""The public page as users call it, with the types that mypy and pyright must find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyro.distributions as dist
import torch
from matplotlib.axes import Axes
from torch import Tensor
from typing_extensions import assert_type

import pyro_kl
from pyro_kl import glm, loggers, policy


def divergences(p: dist.TorchDistribution, q: torch.distributions.Distribution) -> None:
    exact = assert_type(pyro_kl.kl(p, q, num_samples=100, tolerance=1e-8), pyro_kl.Estimate)
    assert_type(exact.value, Tensor)
    assert_type(exact.method, str)
    assert_type(float(exact), float)
    compared = assert_type(pyro_kl.compare(p, q, 1000), pyro_kl.Comparison)
    assert_type(compared.exact, pyro_kl.Estimate)
    assert_type(pyro_kl.monte_carlo(p, q, 1000, "k3"), pyro_kl.Estimate)
    assert_type(pyro_kl.bounds(p, q), pyro_kl.Bounds)
    assert_type(pyro_kl.check(dist.Gamma, dist.LogNormal), pyro_kl.CheckReport)
    assert_type(pyro_kl.plot.convergence(p, q), Axes)
    assert_type([pair.name for pair in pyro_kl.registered()], list[str])


def elbos(model: Any, guide: Any, y: Tensor) -> None:
    elbo = pyro_kl.TraceKL_ELBO(beta=pyro_kl.LinearWarmup(100), free_bits=0.1)
    report = assert_type(elbo.evaluate(model, guide, y, num_particles=10), pyro_kl.KLReport)
    assert_type([row.site for row in report], list[str])
    assert_type(pyro_kl.compare_sites(model, guide, y), pyro_kl.SiteComparisons)
    svi = pyro_kl.SVI(model, guide, torch.optim.Adam, elbo, optim_args={"lr": 0.05})
    history = pyro_kl.loggers.History()
    result = assert_type(svi.run(20, y, callbacks=[history]), pyro_kl.SVIResult)
    assert_type(history.kls, dict[str, list[float]])
    assert_type(pyro_kl.plot.training(history), Axes)
    assert_type(result.losses, Tensor)


def logs(model: Any, guide: Any, path: Path) -> None:
    history = assert_type(pyro_kl.loggers.History(every=10), loggers.History)
    svi = pyro_kl.SVI(model, guide, torch.optim.Adam, pyro_kl.TraceKL_ELBO())
    svi.run(20, callbacks=[history, pyro_kl.loggers.CSVLogger(path)])
    assert_type(history.kls, dict[str, list[float]])
    pyro_kl.to_arviz(model, guide, num_samples=100)


def regressions(features: Any, target: Any, path: Path) -> None:
    rows = pyro_kl.glm.read_table(path, "y", impute=True)
    assert_type(rows.names, tuple[str, ...])
    fitted = assert_type(glm.LogisticRegression().fit(features, target), glm.LogisticRegression)
    posterior = assert_type(fitted.posterior_, glm.Posterior)
    assert_type(posterior.predict_proba(features), Tensor)
    posterior.save(path)
    assert_type(glm.Posterior.load(path), glm.Posterior)
    assert_type(fitted.predict_proba(features)[0], Any)


def policies(policy_logits: Tensor, reference_logits: Tensor, mask: Tensor) -> None:
    assert_type(policy.exact_kl(policy_logits, reference_logits, mask=mask), Tensor)
    assert_type(policy.AdaptiveBeta(0.1, target=1.0, horizon=100).beta, float)


class Rayleigh(torch.distributions.Distribution):
    """A distribution of a user, without a formula so far."""

    scale: Tensor


@pyro_kl.register(
    Rayleigh,
    Rayleigh,
    cases=[pyro_kl.Case({"scale": 1.0}, {"scale": 2.0}, 0.6362943611198906)],
    reference="by hand",
)
def kl_rayleigh_rayleigh(p: Rayleigh, q: Rayleigh) -> Tensor:
    ratio = (p.scale / q.scale) ** 2
    return ratio - 1.0 - torch.log(ratio)


assert_type(kl_rayleigh_rayleigh(Rayleigh(), Rayleigh()), Tensor)
