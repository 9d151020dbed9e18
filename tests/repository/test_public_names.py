"""What a user sees of the package: its public names, and nothing else."""

import pickle
import rlcompleter
import subprocess
import sys

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


def test_results_survive_pickling():
    p, q = torch.distributions.Gamma(2.0, 1.0), torch.distributions.LogNormal(0.0, 1.0)
    for result in (pyro_kl.kl(p, q), pyro_kl.compare(p, q, 100).exact, pyro_kl.registered()[0]):
        assert pickle.loads(pickle.dumps(result)) == result
