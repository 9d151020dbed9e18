"""When a package takes over from the recorded step."""

import math
import os
import shutil
from types import SimpleNamespace

import pyro
import pytest
import torch

import pyro_kl
from pyro_kl.svi import faster as module
from pyro_kl.svi.faster import Faster

from .packages import small


class Build:
    """A build that is there at the second look."""

    def __init__(self, reason=""):
        self.package, self.reason, self.running, self.seconds = None, reason, False, 10.0
        self.started = 0

    def start(self):
        self.started, self.running = self.started + 1, True

    def poll(self):
        self.package, self.running = "package", False

    wait = poll


def runners(loss=1.0, reason=""):
    fx = SimpleNamespace(
        num_operations=100, eps=1e-7, evaluate=lambda levels, fixed: [torch.tensor(1.0)]
    )
    aot = SimpleNamespace(build=Build(reason), evaluate=lambda levels, fixed: loss)
    return fx, aot


def next_runner(faster, remaining):
    return faster.runner(remaining, [], [])


@pytest.fixture(autouse=True)
def look_at_once(monkeypatch):
    monkeypatch.setattr(module, "_LOOK", -math.inf)


def test_a_build_starts_when_the_steps_still_to_come_pay_for_it():
    fx, aot = runners()
    faster = Faster(fx, aot, wait=False)
    assert next_runner(faster, 10**9) is fx  # nothing has been measured yet
    faster.took(10, 10 * 2e-4)
    assert next_runner(faster, 1_000) is fx
    assert aot.build.started == 0
    assert next_runner(faster, 10**6) is fx  # 100 s are saved, and a build takes 10
    assert aot.build.started == 1
    assert next_runner(faster, 10**6) is aot


def test_single_steps_build_when_they_have_taken_as_long():
    fx, aot = runners()
    faster = Faster(fx, aot, wait=False)
    faster.took(10_000, 9.0)
    next_runner(faster, None)
    assert aot.build.started == 0
    faster.took(10_000, 9.0)
    next_runner(faster, None)
    assert aot.build.started == 1


def test_the_first_step_waits():
    fx, aot = runners()
    assert next_runner(Faster(fx, aot, wait=True), None) is aot


def test_a_package_with_another_loss_is_not_used():
    fx, aot = runners(loss=1.001)
    faster = Faster(fx, aot, wait=True)
    assert next_runner(faster, None) is fx
    assert "a loss of 1.001" in faster.reason
    assert next_runner(faster, None) is fx


def test_a_reason_ends_the_waiting():
    fx, aot = runners(reason="there is no compiler")
    assert next_runner(Faster(fx, aot, wait=True), None) is fx
    assert aot.build.started == 0


@pytest.mark.sweep
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler")
def test_auto_changes_to_a_package_in_the_middle_of_a_fit(monkeypatch, tmp_path):
    """Batches of two shapes have a package each; the fit is the one that runs model and guide."""
    monkeypatch.setenv("PYRO_KL_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "pays", lambda *numbers: True)

    def fit(compile):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        problem = small()
        x = problem.batch(0)[0]
        svi = pyro_kl.SVI(
            problem.model, problem.guide, torch.optim.Adam, pyro_kl.TraceKL_ELBO(),
            optim_args={"lr": 0.01}, compile=compile,
        )  # fmt: skip
        losses, packages = [], 0
        for step in range(4_000):
            losses.append(svi.step(x[: 7 - step % 2]))
            if compile and step == 20:  # both builds have been started
                for entry in svi._stepper._entries.values():
                    entry.faster[1].aot.build.wait()
        if compile:
            entries = svi._stepper._entries.values()
            packages = sum(entry.faster[1]._is_checked for entry in entries)
        leaves = pyro.get_param_store()._params.values()
        return torch.tensor(losses), [leaf.detach().clone() for leaf in leaves], packages

    losses, leaves, _ = fit(None)
    auto_losses, auto_leaves, packages = fit("auto")
    assert packages == 2
    torch.testing.assert_close(auto_losses, losses, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(auto_leaves, leaves, rtol=1e-4, atol=1e-5)
