"""Structures that are made at random: a change anywhere in them is seen, and nothing else is."""

import random

import pytest

from pyro_kl.svi.surroundings import Surroundings

from .test_surroundings import program

CLASSES = """
class Thing:
    def __init__(self, **parts): self.__dict__.update(parts)
class Slots:
    __slots__ = ("p", "q")
    def __init__(self, p, q): self.p, self.q = p, q
class Net(torch.nn.Module):
    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items(): setattr(self, name, part)
@dataclass
class Fields:
    p: object
    q: object
def function(*args, **kwargs): pass
"""
LEAVES = ("1", "2.5", "True", "None", "'s'", "torch.zeros(2)", "np.float64(3)", "np.zeros(3)")
# how it is made of two parts, and how the parts are reached
NODES = (
    ("[{}, {}]", "[0]", "[1]"),
    ("({}, {})", "[0]", "[1]"),
    ("deque([{}, {}])", "[0]", "[1]"),
    ("dict(p={}, q={})", "['p']", "['q']"),
    ("OrderedDict(p={}, q={})", "['p']", "['q']"),
    ("Thing(p={}, q={})", ".p", ".q"),
    ("Slots({}, {})", ".p", ".q"),
    ("Net(p={}, q={})", ".p", ".q"),
    ("Fields({}, {})", ".p", ".q"),
    ("types.SimpleNamespace(p={}, q={})", ".p", ".q"),
    ("functools.partial(function, {}, q={})", ".args[0]", ".keywords['q']"),
    ("Thing(p={}, q={}).__init__", ".__self__.p", ".__self__.q"),
)


def structure(rng, depth=0):
    """An expression, and the ways to its leaves."""
    if depth == 4 or (depth > 0 and rng.random() < 0.3):
        return rng.choice(LEAVES), [""]
    made, *steps = rng.choice(NODES)
    parts = [structure(rng, depth + 1) for _ in steps]
    ways = [step + way for step, (_, ways) in zip(steps, parts, strict=True) for way in ways]
    return made.format(*(source for source, _ in parts)), ways


@pytest.mark.parametrize("seed", range(100))
def test_a_change_of_a_leaf_is_seen(seed):
    rng = random.Random(seed)
    source, ways = structure(rng)
    module = program(f"{CLASSES}X = {source}\ndef model(): return X, 'p', 'q'")
    surroundings = Surroundings(module.model, lambda: None)
    taken = surroundings.take()
    assert surroundings.difference(taken) is None, source
    for way in ways:
        exec(f"kept = X{way}", vars(module))
        try:
            exec(f"X{way} = {rng.choice(['7', 'torch.ones(2)', '[1]'])}", vars(module))
        except (TypeError, AttributeError):
            continue  # a tuple, or the arguments of a partial
        assert surroundings.difference(taken) is not None, (source, way)
        exec(f"X{way} = kept", vars(module))
        assert surroundings.difference(taken) is None, (source, way)
