"""Compiled blocks of steps: what they compute, and what happens where they cannot be had."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from models.problems import PROBLEMS
from pyro_kl.svi import break_even, building, package_cache
from pyro_kl.svi.block import Block
from pyro_kl.svi.optimiser import Optimiser
from pyro_kl.svi.package import key_of
from pyro_kl.svi.package_cache import path_of
from pyro_kl.svi.update_rules import update_rule

from .packages import Fit, gamma_guide, small

ROOT = Path(__file__).parents[2]
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="packages are compiled by g++, which is not here"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("PYRO_KL_CACHE", str(tmp_path))
    return tmp_path


def schedule(step):
    """Of the learning rate."""
    return 1 / (1 + 0.1 * step)


def close(xs, ys, tolerance):
    """Whether the largest difference of each pair is small beside its largest number."""
    return all(
        (x - y).abs().max() <= tolerance * y.abs().max() for x, y in zip(xs, ys, strict=True)
    )


# --- without a compiler -------------------------------------------------------------------------


class Uncompiled:
    """In place of a package."""

    def __init__(self, block):
        self.call = lambda inputs: list(block(*inputs))


@pytest.mark.parametrize("steps", [1, 4, 16])
def test_steps_of_a_call_are_those_of_fx(folder, double, steps):
    expected = Fit(small(), schedule=schedule).run(21)
    fit = Fit(small(), steps, schedule)
    fit.runner.build.package = Uncompiled(fit.block)
    with torch.no_grad():
        assert close(fit.run(21), expected, 1e-12)


def hand_made(steps, factor=1.0, **settings):
    """A block whose gradient is its draw, and whose branch holds for finite draws."""

    def step(x, draw, levels):
        return factor * (x * draw).sum(), draw.isfinite().all(), factor * draw

    x = torch.nn.Parameter(torch.ones(2))
    optimiser = Optimiser(torch.optim.SGD, optim_args={"lr": 0.5, **settings})
    optimiser.add({"x": x})
    rule, _ = update_rule(optimiser, [("x", 0, x.shape)])
    return Block(torch.fx.symbolic_trace(step), (x.shape,), 1, steps, rule)


def test_a_block_takes_as_many_steps_as_asked():
    draws = torch.tensor([[1.0, 2.0], [3.0, 4.0], [torch.nan, 0.0]])
    block, start, rates = hand_made(3), torch.ones(2), torch.full((3,), 0.5, dtype=torch.float64)
    for count, end, ok in ((1, [0.5, 0.0], True), (2, [-1.0, -2.0], True), (3, None, False)):
        inputs = torch.tensor(count), rates, torch.empty(3, 0), draws
        flat, losses, held = block(start, *inputs)
        assert losses[:count].tolist()[:2] == [3.0, 1.5][:count]
        assert held.item() is ok
        assert end is None or flat.tolist() == end


def test_a_call_that_fails_changes_nothing(folder):
    fit = Fit(small(), 4)
    fit.runner.build.package = Uncompiled(fit.block)
    with torch.no_grad():
        fit.take(4)
        before = [leaf.clone() for leaf in fit.recording.parameters.values()]
        state = fit.runner._state
        fixed = [each * torch.nan for each in fit.fixed]
        assert fit.runner.take(fit.levels(2), fixed) is None
    assert fit.optimiser.steps == 4
    assert fit.runner._state is state
    assert all(map(torch.equal, before, fit.recording.parameters.values()))


@pytest.mark.parametrize(
    "change",
    [
        lambda leaf: leaf.data.add_(1.0),
        lambda leaf: setattr(leaf, "data", leaf.data + 1.0),
    ],
    ids=["in place", "other memory"],
)
def test_a_user_may_change_a_parameter_between_steps(folder, double, change):
    results = []
    for steps in (None, 4):
        fit = Fit(small(), steps)
        if steps:
            fit.runner.build.package = Uncompiled(fit.block)
        with torch.no_grad():
            fit.take(5)
            change(next(iter(fit.recording.parameters.values())))
            results.append(fit.run(5))
    assert close(*results, 1e-12)


def test_draws_that_depend_on_parameters_are_refused_by_name():
    fit = Fit(gamma_guide(), 1)
    assert fit.block is None
    assert fit.reason == "the draws of z depend on parameters or data"


@pytest.mark.parametrize(
    ("block", "dtype", "rows"),
    [
        (hand_made(5), torch.float32, 3),
        (hand_made(4, factor=2.0), torch.float32, 3),
        (hand_made(4, momentum=0.9), torch.float32, 3),
        (hand_made(4), torch.float64, 3),
        (hand_made(4), torch.float32, 2),
    ],
    ids=["steps", "graph", "rule", "dtype", "shape"],
)
def test_a_package_of_something_else_has_another_key(block, dtype, rows):
    key = key_of(hand_made(4), [torch.ones(2), torch.ones(3, 2)])
    assert key == key_of(hand_made(4), [torch.zeros(2), torch.zeros(3, 2)])
    assert key != key_of(block, [torch.ones(2), torch.ones(rows, 2, dtype=dtype)])


def test_settings_of_torch_are_in_the_key(double):
    key = key_of(hand_made(4), [torch.ones(2)])
    torch.set_default_dtype(torch.float32)
    assert key_of(hand_made(4), [torch.ones(2, dtype=torch.float64)]) != key


def test_a_second_recording_has_the_same_key(folder):
    keys = {Fit(small(), 4).runner.build._key for _ in range(2)}
    assert len(keys) == 1


def test_no_compiler(folder, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    build = Fit(small(), 1).runner.build
    build.start()
    assert build.poll()
    assert build.reason == (
        "there is no C++ compiler no-such-compiler; install it, or name one by CXX"
    )


def test_no_cache_folder(monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("PYRO_KL_CACHE", str(file / "folder"))
    folder, notice = package_cache.writable_folder()
    assert folder.is_dir()
    assert package_cache.writable_folder()[0] == folder
    assert str(file / "folder") in notice
    assert "PYRO_KL_CACHE" in notice
    build = Fit(small(), 1).runner.build
    assert not build.package
    assert build.notice == notice


@pytest.mark.parametrize("content", [b"", b"no package", b"PK\x05\x06" + bytes(18)])
def test_a_damaged_package_is_removed_with_a_notice(folder, content):
    build = Fit(small(), 1).runner.build
    path = path_of(build._key, folder)
    path.write_bytes(content)
    build = Fit(small(), 1).runner.build
    assert build.package is None
    assert not build.reason
    assert "compiled again" in build.notice
    assert not path.exists()


def process(code):
    """In place of the process that builds: some Python."""

    def start(folder, *_):
        with open(folder / "errors", "wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE, stderr=errors, start_new_session=True,
            )  # fmt: skip

    return start


def test_a_build_that_fails(folder, monkeypatch):
    monkeypatch.setattr(building, "_process", process("import sys; sys.exit('no space left')"))
    build = Fit(small(), 1).runner.build
    build.start()
    work = build._work
    assert build.wait() is None
    assert build.reason == "their compilation failed: no space left"
    assert build.seconds < 60
    assert not work.exists()


def test_a_build_that_cannot_start(folder, monkeypatch):
    places = []

    def fails(folder, *_):
        places.append(folder)
        raise OSError("disk is full")

    monkeypatch.setattr(building, "_process", fails)
    build = Fit(small(), 1).runner.build
    build.start()
    assert build.wait() is None
    assert build.reason == "their compilation could not be started: disk is full"
    assert not places[0].exists()


def test_a_build_that_is_not_waited_for(folder, monkeypatch):
    monkeypatch.setattr(building, "_process", process("input()"))
    build = Fit(small(), 1).runner.build
    build.start()
    assert build.running
    assert not build.poll()
    process_of_build, work = build._process, build._work
    del build
    gc.collect()
    assert process_of_build.returncode == -signal.SIGKILL
    assert not work.exists()


def test_the_process_ends_when_its_parent_is_killed(tmp_path):
    (tmp_path / "specification").touch()
    code = "from pyro_kl.svi import build; from pathlib import Path; import sys, time\n"
    code += f"build._end_with_parent(Path({str(tmp_path)!r})); print('on', flush=True)\n"
    code += "time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    ) as started:  # fmt: skip
        assert started.stdout.readline() == b"on\n"
        started.stdin.close()
        assert started.wait(60) == -signal.SIGKILL
    assert not tmp_path.exists()


def test_oldest_packages_are_evicted(folder, monkeypatch):
    monkeypatch.setattr(package_cache, "MOST_BYTES", 250)
    for i, name in enumerate(["oldest", "used", "newest"]):
        path = path_of(name, folder)
        path.write_bytes(bytes(100))
        os.utime(path, (i, i))
    package_cache.evict(folder)
    assert {path.stem for path in folder.glob("*.pt2")} == {"used", "newest"}


@pytest.mark.parametrize(
    ("remaining", "spent", "expected"),
    [
        (1_000, 0.0, False),  # one second is left
        (100_000, 0.0, True),  # 100 seconds, of which one stays
        (21_000, 0.0, True),
        (20_000, 0.0, False),
        (None, 19.0, False),
        (None, 21.0, True),
    ],
)
def test_a_build_that_takes_20_seconds_pays(remaining, spent, expected):
    assert break_even.pays(remaining, 1e-3, 1e-5, 20.0, spent) is expected


def test_a_build_never_pays_if_compiled_steps_are_slower():
    assert not break_even.pays(10**9, 1e-3, 2e-3, 20.0, 1e3)
    assert not break_even.pays(None, 1e-3, 2e-3, 20.0, 1e3)


def test_estimates_learn_from_builds(folder):
    first = break_even.estimated_seconds(1_000, folder)
    for _ in range(10):
        break_even.remember_seconds(
            200, 3 * break_even.estimated_seconds(200, Path("none")), folder
        )
    assert break_even.estimated_seconds(1_000, folder) == pytest.approx(3 * first, rel=0.01)


# --- with one -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """A cache folder with a package of four steps in float64, built once for all workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = folder / "packages"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, lock(folder / "lock"):
        patch.setenv("PYRO_KL_CACHE", str(folder))
        torch.set_default_dtype(torch.float64)
        build = Fit(small(), 4).runner.build
        build.start()
        assert build.wait() is not None, build.reason
        torch.set_default_dtype(torch.float32)
    return folder


@contextmanager
def lock(path):
    """Wait until no other process is here."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.sweep
@needs_compiler
def test_a_package_takes_the_steps_of_fx(compiled, double, monkeypatch):
    monkeypatch.setenv("PYRO_KL_CACHE", str(compiled))
    expected = Fit(small(), schedule=schedule).run(39)
    fit = Fit(small(), 4, schedule)
    assert fit.runner.build.package is not None
    got = fit.run(39)
    assert close(got, expected, 1e-10)


@pytest.mark.sweep
@needs_compiler
def test_a_folder_that_cannot_be_written_to_is_read(compiled, double, monkeypatch):
    monkeypatch.setenv("PYRO_KL_CACHE", str(compiled))
    monkeypatch.setattr(package_cache.tempfile, "TemporaryFile", refuse)
    build = Fit(small(), 4).runner.build
    assert build.package is not None
    assert not build.notice


def refuse(dir):
    """In place of a function that makes a file, in a file system that is mounted read-only."""
    raise PermissionError(f"{dir} is read-only")


@pytest.mark.sweep
@needs_compiler
def test_another_process_needs_no_compiler_and_stays_as_it_is(compiled):
    path = {"PATH": "", "PYRO_KL_CACHE": str(compiled), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.svi.packages"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    losses, imported, validation = done.stdout.splitlines()
    assert torch.tensor(json.loads(losses)).isfinite().all()
    assert imported == "False"
    assert "False" not in validation


@pytest.mark.sweep
@needs_compiler
def test_a_package_that_is_cut_changed_or_another_one_is_not_loaded(compiled, double, folder):
    key = Fit(small(), 4).runner.build._key
    whole = path_of(key, compiled).read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for content in (whole[:middle], changed):
        path_of(key, folder).write_bytes(content)
        package, notice = package_cache.find(key, folder)
        assert package is None
        assert "damaged" in notice
    path_of("other", folder).write_bytes(whole)
    package, notice = package_cache.find("other", folder)
    assert package is None
    assert "another package" in notice


@pytest.mark.sweep
@needs_compiler
@pytest.mark.sweep
@pytest.mark.parametrize("name", PROBLEMS)
def test_every_model_takes_the_steps_of_fx(folder, double, name):
    expected = Fit(PROBLEMS[name]()).run(200)
    fit = Fit(PROBLEMS[name](), 4)
    fit.runner.build.start()
    assert fit.runner.build.wait() is not None, fit.runner.build.reason
    assert close(fit.run(200), expected, 1e-10)


@pytest.mark.sweep
@needs_compiler
@pytest.mark.sweep
@pytest.mark.parametrize("steps", [1, 4, 16])
def test_single_precision_takes_the_steps_of_fx(folder, steps):
    expected = Fit(PROBLEMS["breast cancer"]()).run(200)
    fit = Fit(PROBLEMS["breast cancer"](), steps)
    fit.runner.build.start()
    assert fit.runner.build.wait() is not None, fit.runner.build.reason
    assert close(fit.run(200), expected, 1e-6)
