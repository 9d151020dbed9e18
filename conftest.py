"""What doctests find in their namespace, and the short form of the suite."""

from collections import defaultdict

import pyro
import pytest
import torch

import pyro_kl

#: How many cases of a parametrised test its short form keeps, at least.
FEW = 12
#: Tests that start processes of their own, for minutes: the short form leaves them out.
PROCESSES = {"test_packages.py", "test_kill.py", "test_checkpoint.py", "test_ranks.py"}


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace.update(torch=torch, pyro=pyro, pyro_kl=pyro_kl)
    pyro.set_rng_seed(0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--short", action="store_true", help=f"about {FEW} cases of every parametrised test"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every k-th case of a test, so that each test runs and the cases are spread evenly."""
    if not config.getoption("short"):
        return
    tests: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        tests[item.nodeid.partition("[")[0]].append(item)
    kept = {
        item
        for cases in tests.values()
        for item in cases[:: max(1, len(cases) // FEW)]
        if item.path.name not in PROCESSES
    }
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]
