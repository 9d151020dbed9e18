"""What a user sees of the package: its public names, and nothing else."""

import pickle
import rlcompleter
import subprocess
import sys
from types import ModuleType

import pytest
import torch

import pyro_kl

ON_DEMAND = ("glm", "loggers", "plot")


def test_dir_is_the_public_page():
    assert sorted(dir(pyro_kl)) == sorted([*pyro_kl.__all__, "__version__", *ON_DEMAND])
    for name in dir(pyro_kl):
        assert getattr(pyro_kl, name) is not None


def test_tab_completion_offers_nothing_private():
    completer = rlcompleter.Completer({"pyro_kl": pyro_kl})
    offered = set()
    while (word := completer.complete("pyro_kl.", len(offered))) is not None:
        offered.add(word)
    names = {word.removeprefix("pyro_kl.").rstrip("()") for word in offered}
    assert names == {*pyro_kl.__all__, *ON_DEMAND}


def test_submodules_are_importable_all_the_same():
    """In a process of its own: here the suite has imported everything already."""
    code = (
        "import pyro_kl; import pyro_kl.plot, pyro_kl.registry.register;"
        "from pyro_kl import policy, plot; from pyro_kl.registry.pair import Pair;"
        "assert pyro_kl.policy is policy and pyro_kl.plot is plot and pyro_kl.Pair is Pair;"
        "from pyro_kl import *; kl, TraceKL_ELBO"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_registers_everything_and_leaves_the_rest():
    """In a process of its own; the rooms above are imported when a name of theirs is asked for."""
    code = (
        "import sys, pyro_kl; pairs = len(pyro_kl.registered());"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('pyro_kl.')};"
        "print(*sorted(rooms));"
        "[getattr(pyro_kl, name) for name in pyro_kl.__all__];"
        "assert len(pyro_kl.registered()) == pairs > 1000"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    above = {"arviz", "divergence", "elbo", "glm", "likelihoods", "plot", "policy", "svi"}
    assert not above & set(printed.stdout.split())


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pyro_kl' has no attribute 'k1'"):
        _ = pyro_kl.k1
    assert "parse" not in dir(pyro_kl)


@pytest.mark.parametrize("name", dir(pyro_kl))
def test_public_objects_are_pickled(name):
    """Classes and functions by reference, and constants by value."""
    public = getattr(pyro_kl, name)
    if not isinstance(public, ModuleType):
        assert pickle.loads(pickle.dumps(public)) == public


def test_results_survive_pickling():
    p, q = torch.distributions.Gamma(2.0, 1.0), torch.distributions.LogNormal(0.0, 1.0)
    for result in (pyro_kl.kl(p, q), pyro_kl.compare(p, q, 100).exact, pyro_kl.registered()[0]):
        assert pickle.loads(pickle.dumps(result)) == result
