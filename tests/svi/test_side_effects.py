"""What a run changes in Python by itself: counted is allowed, kept is noticed, read is refused."""

import random

import numpy as np
import pyro
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from pyro_kl.svi.surroundings import Surroundings

from .test_surroundings import program

SAMPLE = """
def sample():
    return pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
"""
NET = """
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.n, self.last, self.history = torch.nn.Linear(2, 2), 0, None, []
    def forward(self, w):
        {}
        return self.linear(w)
net = Net()
def model(): return net(sample())
"""
PYRO_NET = NET.replace("torch.nn.Module", "PyroModule").replace(
    "torch.nn.Linear(", "PyroModule[torch.nn.Linear]("
)
OBJECT = """
class Thing:
    total = 0
    def __init__(self):
        self.n, self.log, self.last, self.seen, self.flag = 0, [], None, {{}}, False
    def __call__(self):
        w = sample()
        {}
        return w
model = Thing()
"""
GLOBAL = """
n, x, log, counts, queue, seen = 0, 0.0, [], {{}}, deque([1, 2], maxlen=2), set()
last = None
def model():
    global n, x, last, log
    w = sample()
    {}
    return w
"""
ALLOWED = [
    GLOBAL.format("n += 1"),
    GLOBAL.format("n = n + 1"),
    GLOBAL.format("n = 1 + n"),
    GLOBAL.format("n = (n + 1) % 7"),
    GLOBAL.format("(n := n + 1)"),
    GLOBAL.format("n ^= 1"),
    GLOBAL.format("log.append(1)"),
    GLOBAL.format("log += ['a']"),
    GLOBAL.format("log.extend([1, 2])"),
    GLOBAL.format("counts['n'] = counts.get('n', 0) + 1"),
    GLOBAL.format("counts.setdefault('n', 0); counts['n'] += 1"),
    GLOBAL.format("queue.append(1)"),
    GLOBAL.format("globals()['n'] += 1"),
    "calls = {'n': 0}\ndef model():\n  calls['n'] += 1\n  return sample()",
    "calls = Counter()\ndef model():\n  calls['n'] += 1\n  return sample()",
    "calls = Counter()\ndef model():\n  calls.update(['n'])\n  return sample()",
    "calls = defaultdict(int)\ndef model():\n  calls['n'] += 1\n  return sample()",
    "calls = [0]\ndef model():\n  calls[0] += 1\n  return sample()",
    "def model():\n  model.calls += 1\n  return sample()\nmodel.calls = 0",
    "calls = itertools.count()\ndef model():\n  next(calls)\n  return sample()",
    "def bump(calls): calls['n'] += 1\ncalls = {'n': 0}\n"
    "def model():\n  bump(calls)\n  return sample()",
    "def make():\n  n = 0\n  def model():\n    nonlocal n\n    n += 1\n    return sample()\n"
    "  return model\nmodel = make()",
    "def counted(f):\n  @functools.wraps(f)\n  def wrapper():\n    wrapper.calls += 1\n"
    "    return f()\n  wrapper.calls = 0\n  return wrapper\n"
    "@counted\ndef model(): return sample()",
    OBJECT.format("self.n += 1"),
    OBJECT.format("self.log.append('x')"),
    OBJECT.format("Thing.total += 1"),
    OBJECT.format("type(self).total += 1"),
    OBJECT.format("self.__class__.total += 1"),
    OBJECT.format("setattr(self, 'n', self.n + 1)"),
    OBJECT.format("self.__dict__['n'] += 1"),
    NET.format("self.n += 1"),
    NET.format("self.history.append(1)"),
    PYRO_NET.format("self.n += 1"),
    # Nothing changes, or only in the first run.
    "def model(): return sample()",
    OBJECT.format("self.n = 5"),
    OBJECT.format("self.last = w if self.last is None else self.last"),
    OBJECT.format("if 'w' not in self.seen: self.seen['w'] = w"),
    OBJECT.format("self.flag = True; self.flag = False"),
    "@functools.lru_cache\ndef f(): return torch.zeros(2)\ndef model(): return sample() + f()",
    "class C:\n  @functools.cached_property\n  def zeros(self): return torch.zeros(2)\nc = C()\n"
    "def model(): return sample() + c.zeros",
    # A stream is written to, and the clock is not seen.
    "import io\nstream = io.StringIO()\ndef model():\n  print('run', file=stream)\n"
    "  return sample()",
]
NOTICED = [
    (GLOBAL.format("last = w"), "`last` of model"),
    (GLOBAL.format("log.append(w.detach())"), "`log` of model"),
    (GLOBAL.format("counts['w'] = w"), "`counts['w']` of model"),
    (GLOBAL.format("x = float(w.sum())"), "`x` of model"),
    (GLOBAL.format("last = w; w = last + 1"), "`last` of model"),  # read after it is written
    (OBJECT.format("self.last = w"), "`last` of Thing"),
    (OBJECT.format("self.last = (w, w)"), "`last` of Thing"),
    (OBJECT.format("self.n += 1; self.last = (self.n, w)"), "`last` of Thing"),
    (OBJECT.format("self.n += 1; self.log.append((self.n, w))"), "`log` of Thing"),
    (OBJECT.format("self.last = {'w': w}"), "`last` of Thing"),
    (NET.format("self.last = w"), "`net.last` of model"),
    (PYRO_NET.format("self.last = w"), "`net.last` of model"),
    (PYRO_NET.format("self.history.append(w)"), "`net.history` of model"),
]
REFUSED = [
    *(
        (GLOBAL.format(f"n += 1\n    {use}"), "model reads `n`, which it changes itself")
        for use in [
            "w = w * n",
            "w = n * w",
            "w = w ** n",
            "w = torch.mul(w, n)",
            "w = torch.full((2,), n) * w",
            "w = torch.tensor(n) * w",
            "w = w[n:]",
            "w = w.reshape(1, -1) if n > 50 else w",
            "w = w if n else -w",
            "w = -w if n == 3 else w",
            "beta = n / 100; w = w * beta",
            "beta = min(1.0, n / 100)",
            "beta = float(n)",
            "beta = math.exp(-n)",
            "beta = np.float64(0.1) * n; w = w * beta",
            "[w for _ in range(n)]",
            "pyro.sample(f'x{n}', dist.Normal(0.0, 1.0))",
            "pyro.sample('x' + str(n), dist.Normal(0.0, 1.0))",
            "pyro.sample('x', dist.Normal(0.0, n))",
            "poutine.scale(lambda: pyro.sample('x', dist.Normal(0.0, 1.0)), n)()",
            "{1: w}.get(n)",
            "n in (1, 2)",
            "assert isinstance(n, int) and n >= 0",
        ]
    ),
    (GLOBAL.format("w = w if n % 2 == 0 else -w; n += 1"), "model reads `n`"),
    (GLOBAL.format("x = 0.9 * x + 1\n    w = w * x"), "model reads `x`"),
    (GLOBAL.format("log.append(1)\n    w = w * len(log)"), "model reads `log`"),
    (GLOBAL.format("log.append(1)\n    w = w if log else -w"), "model reads `log`"),
    (GLOBAL.format("log.append(1)\n    w = w * sum(log)"), "model reads `log`"),
    (GLOBAL.format("log.append(w.detach())\n    w = w * log[-1]"), "model reads `log`"),
    (GLOBAL.format("log = log + [1]\n    w = w * len(log)"), "model reads `log`"),
    (GLOBAL.format("queue.append(w.detach())\n    w = sum(queue)"), "model reads `queue"),
    (GLOBAL.format("seen.add(len(seen))"), "model reads `seen`"),
    (GLOBAL.format("last = w if last is None else last + w"), "model reads `last`"),
    (GLOBAL.format("if last is not None: w = 0.5 * (w + last)\n    last = w"), "reads `last`"),
    (GLOBAL.format("if last is not None: w = torch.stack([w, last])[0]\n    last = w"), "`last`"),
    (GLOBAL.format("x = 'a' if x != 'a' else 'b'"), "model reads `x`"),
    (OBJECT.format("self.n += 1; w = w * self.n"), "Thing reads `n`"),
    (OBJECT.format("self.n += 1; w = w * getattr(self, 'n')"), "Thing reads `n`"),
    (OBJECT.format("self.n += 1; w = w * vars(self)['n']"), "Thing reads `n`"),
    (OBJECT.format("self.flag = not self.flag"), "Thing reads `flag`"),
    (OBJECT.format("Thing.total += 1; w = w * self.total"), "class Thing reads `total`"),
    (NET.format("self.n += 1; w = w * self.n"), "model reads `net.n`"),
    (PYRO_NET.format("self.n += 1; w = w * self.n"), "model reads `net.n`"),
    (PYRO_NET.format("if self.n > 3: w = -w\n        self.n += 1"), "model reads `net.n`"),
    ("calls = itertools.count()\ndef model(): return sample() * next(calls)", "reads `calls`"),
    ("batches = iter([torch.ones(2)] * 9)\ndef model(): return sample() * next(batches)",
     "model reads the iterator `batches`"),
    ("def numbers():\n  yield from range(9)\nns = numbers()\ndef model(): return next(ns)",
     "model reads the iterator `ns`"),
    ("def model(): return sample() * random.random()", "draws from Python's module random"),
    ("def model(): return sample() * np.random.rand()", "draws from NumPy's global generator"),
    ("rng = random.Random(0)\ndef model(): return sample() * rng.random()", "draws from `rng`"),
    ("rng = np.random.default_rng(0)\ndef model(): return sample() * rng.normal()", "from `rng`"),
    ("g = torch.Generator()\ndef model(): return sample() * torch.rand(2, generator=g)",
     "draws from `g` of model"),
    ("t = torch.zeros(2)\ndef model():\n  t.add_(1)\n  return sample()",
     "changes `t` of model in"),
    ("a = np.zeros(2)\ndef model():\n  a[0] += 1\n  return sample()",
     "changes `a` of model in"),
    ("net = torch.nn.BatchNorm1d(2)\ndef model(): return net(sample().expand(3, 2))",
     "changes `net.running_mean` of model in place"),
    ("net = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(2, 2))\n"
     "def model(): return net(sample())", "_u` of model in place"),
]  # fmt: skip


def side_effects(source):
    pyro.clear_param_store()
    module = program("import itertools\n" + SAMPLE + source)
    surroundings = Surroundings(module.model, lambda: None)
    runs = []

    def run_once():
        with torch.random.fork_rng():  # the caller may keep the generator
            runs.append(module.model())

    found = surroundings.side_effects(run_once)
    return module, surroundings, found, len(runs)


@pytest.mark.parametrize("source", ALLOWED)
def test_what_is_only_counted_is_allowed(source):
    module, surroundings, found, runs = side_effects(source)
    assert found.refusals == []
    assert found.notices == []
    assert runs <= 4
    taken = surroundings.take()
    module.model()  # a run in between counts, and what it counts is not read
    assert surroundings.difference(taken) is None


@pytest.mark.parametrize(("source", "expected"), NOTICED)
def test_what_a_run_leaves_for_the_user_is_noticed(source, expected):
    module, surroundings, found, _ = side_effects(source)
    assert found.refusals == []
    [notice] = found.notices
    assert f"{expected} keeps the value of the recorded step" in notice
    taken = surroundings.take()
    module.model()
    assert surroundings.difference(taken) is None


@pytest.mark.parametrize(("source", "expected"), REFUSED)
def test_what_a_run_changes_and_reads_is_refused(source, expected):
    _, _, found, _ = side_effects(source)
    assert any(expected in refusal for refusal in found.refusals)


@pytest.mark.parametrize("source", [*ALLOWED, *(row[0] for row in NOTICED + REFUSED)])
def test_the_places_hold_afterwards_what_they_held(source):
    def plain(module):
        return {
            name: repr(value)
            for name, value in vars(module).items()
            if isinstance(value, (int, float, str, list, dict, set, type(None), np.ndarray))
            and name != "__builtins__"
        }

    state = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    before = plain(program("import itertools\n" + SAMPLE + source))
    module, *_ = side_effects(source)
    assert plain(module) == before
    assert state == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002


def test_attributes_are_put_back():
    module, *_ = side_effects(OBJECT.format("self.n += 1; self.log.append((self.n, w))"))
    assert module.model.n == 0
    assert module.model.log == []
    module, *_ = side_effects("net = torch.nn.BatchNorm1d(2)\n"
                              "def model(): return net(sample().expand(3, 2))")  # fmt: skip
    assert module.net.running_mean.tolist() == [0.0, 0.0]
    assert module.net.num_batches_tracked == 0


def test_a_run_that_fails_leaves_the_places_in_order():
    source = GLOBAL.format("n += 1; log.append(w); w[n]")
    module = program("import itertools\n" + SAMPLE + source)
    with pytest.raises(IndexError):
        Surroundings(module.model, lambda: None).side_effects(
            lambda: [module.model() for _ in range(3)]
        )
    assert type(module.n) is int
    assert type(module.log) is list


def test_a_guide_that_hands_a_draw_to_the_model():
    """The model reads what the guide of the same run has written: a recorded step has it too."""
    module = program("import itertools\n" + SAMPLE + (
        "state = {'w': None}\ndef guide(): state['w'] = sample()\n"
        "def model():\n  pyro.sample('z', dist.Normal(state['w'], 1.0).to_event(1))"
    ))  # fmt: skip

    def run_once():
        module.guide()
        module.model()

    found = Surroundings(module.model, module.guide).side_effects(run_once)
    assert found.refusals == []
    assert "`state['w']` of model keeps" in found.notices[0]


def test_an_autoguide_that_is_made_in_the_first_run():
    module = program(SAMPLE + "def model(): return sample()")
    guide = AutoNormal(module.model)
    assert Surroundings(module.model, guide).side_effects(guide) == ([], [], set())


def test_numbers_above_a_threshold_are_not_needed_to_see_the_reading():
    _, _, found, _ = side_effects(GLOBAL.format("n += 1\n    if n > 10**6: w = -w"))
    assert found.refusals == ["model reads `n`, which it changes itself in each run"]


def test_a_large_array_is_noticed():
    source = "x = np.zeros(10_000)\ndef model(): return sample() + torch.tensor(x).sum()"
    _, _, found, _ = side_effects(source)
    assert found.notices == [
        "Compiled steps do not see a change of the numbers of `x` of model, 80000 bytes, because "
        "it is too large to be compared before each step: make it a tensor or an argument if it "
        "changes"
    ]


def test_only_the_first_run_moves_the_generator():
    module = program(SAMPLE + GLOBAL.format("n += 1"))
    torch.manual_seed(0)
    module.model()
    expected = torch.get_rng_state()
    torch.manual_seed(0)
    Surroundings(module.model, lambda: None).side_effects(module.model)
    assert torch.equal(torch.get_rng_state(), expected)


def test_validation_and_gradients_are_left_as_they_are():
    validates, grad = torch.distributions.Distribution._validate_args, torch.is_grad_enabled()
    side_effects(GLOBAL.format("n += 1; w = torch.tensor(n) * w"))
    assert torch.distributions.Distribution._validate_args == validates
    assert torch.is_grad_enabled() == grad
    assert not pyro.poutine.runtime._PYRO_STACK
