"""What an installed pyro_kl must do: python -I tests/release/smoke.py, far from the sources.

It needs the package and its dependencies alone; no test runner, none of the extras.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import sysconfig
from pathlib import Path

PURELIB = Path(sysconfig.get_path("purelib"))
#: What the package reads beside its modules.
FILES = ("pyro_kl/py.typed", "pyro_kl/messages/pages/no-formula.md", "pyro_kl_cli/index.json")


def check_metadata() -> None:
    """The metadata name the license and the Pythons, and have the README as the description."""
    metadata = importlib.metadata.metadata("pyro-kl")
    assert metadata["License-Expression"] == "Apache-2.0", metadata["License-Expression"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "pyro_kl" in metadata["Description"][:100]
    pythons = [line for line in metadata.get_all("Classifier", []) if ":: 3." in line]
    assert len(pythons) >= 4, pythons
    extras = metadata.get_all("Provides-Extra", [])
    assert {"glm", "plot", "report"} <= set(extras), extras


def check_files() -> None:
    """The package is the installed one, and its files came with it."""
    import pyro_kl

    assert Path(pyro_kl.__file__).is_relative_to(PURELIB), pyro_kl.__file__
    assert pyro_kl.__version__ == importlib.metadata.version("pyro-kl")
    for name in FILES:
        assert (PURELIB / name).stat().st_size > 0 or name.endswith("py.typed"), name
    for absent in ("tests", "tools", "examples", "models", "benchmarks"):
        assert not (PURELIB / absent / "__init__.py").exists(), absent


def check_values() -> None:
    """A closed form, an integral and a comparison, to the digits of the README."""
    import pyro.distributions as dist

    import pyro_kl

    guide = dist.LogNormal(0.2, 0.5)
    compared = pyro_kl.compare(guide, dist.Gamma(2.0, 1.0), num_samples=1000)
    assert abs(float(compared.exact.value) - 0.258239) < 1e-5, compared
    assert abs(float(pyro_kl.kl(guide, dist.HalfCauchy(1.0)).value) - 0.548314) < 1e-5


def check_fit() -> None:
    """A short SVI has a report of every site."""
    import pyro
    import pyro.distributions as dist
    import torch
    from pyro.infer.autoguide import AutoNormal

    import pyro_kl

    def model(y: torch.Tensor) -> None:
        scale = pyro.sample("scale", dist.HalfCauchy(1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(0.0, scale), obs=y)

    pyro.set_rng_seed(0)
    elbo = pyro_kl.TraceKL_ELBO()
    svi = pyro_kl.SVI(model, AutoNormal(model), torch.optim.Adam, elbo, optim_args={"lr": 0.05})
    for _ in range(20):
        svi.step(torch.tensor([1.0, -0.5, 2.0]))
    text = str(elbo.report)
    assert "scale" in text
    assert "quadrature" in text


def check_regression() -> None:
    """A regression of arrays needs none of the extras."""
    import numpy as np

    from pyro_kl.glm import LogisticRegression

    rng = np.random.default_rng(0)
    features = rng.standard_normal((50, 2))
    target = features[:, 0] + rng.logistic(size=50) > 0
    assert "nats" in str(LogisticRegression().fit(features, target).posterior_)


def check_command() -> None:
    """The installed script answers, and says so where it cannot."""
    command = Path(sysconfig.get_path("scripts")) / "pyro-kl"
    for arguments, code, text in (
        (["--version"], 0, importlib.metadata.version("pyro-kl")),
        (["pairs", "Gamma"], 0, "Gamma || LogNormal"),
        (["explain", "Gamma", "LogNormal"], 0, "closed form"),
        (["explain", "Gama", "LogNormal"], 2, "Gamma"),
        (["help", "no-formula"], 0, "No formula"),
    ):
        done = subprocess.run([command, *arguments], capture_output=True, text=True)
        assert done.returncode == code, (arguments, done)
        assert text in done.stdout + done.stderr, (arguments, done)


if __name__ == "__main__":
    checks = check_metadata, check_files, check_values, check_fit, check_regression, check_command
    for check in checks:
        check()
        print("ok:", (check.__doc__ or "").rstrip("."), flush=True)
    print("pyro-kl", importlib.metadata.version("pyro-kl"), "on Python", sys.version.split()[0])
