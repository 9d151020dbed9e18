"""What model and guide read from Python: a change is named, and nothing else is taken for one.

Each row is a program and a line that changes something; the functions need not be models, because
nothing here depends on what they return.
"""

import gc
import sys
import weakref
from types import ModuleType

import pyro
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from pyro_kl.svi.surroundings import Surroundings

PREAMBLE = """
import enum, functools, math, random, types
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
import numpy as np, torch, pyro, pyro.distributions as dist
from pyro import poutine
from pyro.nn import PyroModule, PyroParam, PyroSample
"""
NET = """
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
        self.layers = torch.nn.ModuleList([torch.nn.Dropout(0.5)])
        self.register_buffer("offset", torch.zeros(2))
        self.flag, self.history = False, []
    def forward(self):
        return self.linear(self.offset), self.flag, self.layers
net = Net()
def model():
    return net()
"""
THING = """
class Thing:
    scale, unused = 1.0, 1.0
    def __init__(self):
        self.flag, self.history = False, []
    @property
    def half(self):
        return self.scale / 2
    def helper(self):
        return self.half
    def __call__(self):
        return self.flag, self.helper(), getattr(self, "extra", None)
model = Thing()
"""


def program(source):
    """A module that was made from the source."""
    module = ModuleType("program")
    exec(PREAMBLE + source, vars(module))
    return module


def run(module, line):
    exec(line, vars(module))


# name: (program, the line that changes something, the difference)
CHANGES = {
    "a global": ("flag = False\ndef model(): return flag", "flag = True",
                 "`flag` of model was False and is True"),
    "a closure's variable": (
        "def make():\n  n = 1\n  def model(): return n\n  def change():\n    nonlocal n\n"
        "    n = 2\n  return model, change\nmodel, change = make()",
        "change()", "`n` of model was 1 and is 2"),
    "an int that becomes a float": ("n = 1\ndef model(): return n", "n = 1.0",
                                    "`n` of model was 1 and is 1.0"),
    "the sign of zero": ("x = 0.0\ndef model(): return x", "x = -0.0",
                         "`x` of model was 0.0 and is -0.0"),
    "a string": ("kind = 'a'\ndef model(): return kind", "kind = 'b'", "was 'a' and is 'b'"),
    "None": ("kind = None\ndef model(): return kind", "kind = 1", "was None and is 1"),
    "an enum": (
        "class Kind(enum.Enum):\n  A = 1\n  B = 2\nkind = Kind.A\ndef model(): return kind",
                "kind = Kind.B", "`kind` of model was <Kind.A: 1> and is <Kind.B: 2>"),
    "a dtype": ("kind = torch.float32\ndef model(): return kind", "kind = torch.float64",
                "was torch.float32 and is torch.float64"),
    "a NumPy scalar": (
        "n = np.float64(1)\ndef model(): return n", "n = np.float64(2)", "`n` of m"),
    "a tuple": ("shape = (1, 2)\ndef model(): return shape", "shape = (1, 3)",
                r"`shape` of model was (1, 2) and is (1, 3)"),
    "an element": ("sizes = [1, [2]]\ndef model(): return sizes", "sizes[1][0] = 3",
                   "`sizes[1][0]` of model was 2 and is 3"),
    "a longer list": ("sizes = [1]\ndef model(): return sizes", "sizes.append(1)",
                      "`sizes` of model had 1 elements and has 2"),
    "a shorter list": ("sizes = [1, 2]\ndef model(): return sizes", "sizes.pop()",
                       "`sizes` of model had 2 elements and has 1"),
    "a list that is no longer empty": ("sizes = []\ndef model(): return sizes", "sizes.append(1)",
                                       "`sizes` of model had 0 elements and has 1"),
    "a list in a tuple": ("sizes = ([1],)\ndef model(): return sizes", "sizes[0].append(2)",
                          "`sizes[0]` of model had 1 elements and has 2"),
    "a long list": ("sizes = [0.5] * 2000\ndef model(): return sizes", "sizes[7] = 1.5",
                    "`sizes` of model contains other elements"),
    "a long dictionary": ("d = {i: 0.5 for i in range(2000)}\ndef model(): return d",
                          "d[7] = 1.5", "`d` of model contains other elements"),
    "an entry": ("config = {'a': 1}\ndef model(): return config['a']", "config['a'] = 2",
                 "`config['a']` of model was 1 and is 2"),
    "a further key": ("config = {'a': 1}\ndef model(): return config", "config['b'] = 1",
                      "`config` of model had 1 elements and has 2"),
    "another key": ("config = {'a': 1}\ndef model(): return config",
                    "del config['a']; config['b'] = 1", "`config` of model contains other elem"),
    "a set": ("s = {1, 2}\ndef model(): return s", "s.remove(1); s.add(5)",
              "`s` of model contains other elements"),
    "a deque": ("d = deque([1, 2])\ndef model(): return d", "d.rotate()", "`d[0]` of model was 1"),
    "a dataclass": (
        "@dataclass\nclass C:\n  a: int = 1\nc = C()\ndef model(): return c.a", "c.a = 2",
        "`c.a` of model was 1 and is 2"),
    "another dataclass": (
        "@dataclass(frozen=True)\nclass C:\n  a: int = 1\nc = C()\ndef model(): return c",
        "c = C(2)", "`c` of model was a C and is another object"),
    "a namespace": ("c = types.SimpleNamespace(a=1)\ndef model(): return c.a", "c.a = 2",
                    "`c.a` of model was 1 and is 2"),
    "what a namespace contains": (
        "c = types.SimpleNamespace(a=types.SimpleNamespace(b=1))\ndef model(): return c.a.b",
        "c.a.b = 2", "`c.a.b` of model was 1 and is 2"),
    "a further name in a namespace": (
        "c = types.SimpleNamespace()\ndef model(): return getattr(c, 'a', 0)", "c.a = 2",
        "`c.a` of model is new"),
    "slots": (
        "class C:\n  __slots__ = ('a',)\nc = C()\nc.a = 1\ndef model(): return c.a", "c.a = 2",
              "`c.a` of model was 1 and is 2"),
    "an attribute of a module": (
        "config = types.ModuleType('config')\nconfig.flag = False\n"
        "def model(): return config.flag",
        "config.flag = True", "`config.flag` of model was False and is True"),
    "an attribute of a function": (
        "def model(): return model.beta\nmodel.beta = 1", "model.beta = 2",
                                   "`beta` of model was 1 and is 2"),
    "a tensor": ("x = torch.zeros(3)\ndef model(): return x", "x = torch.zeros(3)",
                 "`x` of model was a tensor of shape (3,) and is another object"),
    "a tensor of one number": ("x = torch.tensor(1.0)\ndef model(): return x",
                               "x = torch.tensor(1.0)", "`x` of model was a tensor of shape ()"),
    "a tensor's shape": ("x = torch.zeros(3)\ndef model(): return x", "x.resize_(2)",
                         "`x` of model had shape (3,) and has (2,)"),
    "a tensor's data": ("x = torch.zeros(3)\ndef model(): return x",
                        "x.data = torch.zeros(3, dtype=torch.float64)",
                        "`x` of model had dtype torch.float32 and has torch.float64"),
    "whether a tensor has a gradient": (
        "x = [torch.zeros(3)]\ndef model(): return x", "x[0].requires_grad_()",
        "`x[0]` of model had requires_grad False and has True"),
    "an array": ("x = np.zeros(3)\ndef model(): return torch.tensor(x)", "x[1] = 1",
                 "the numbers of `x` of model have changed"),
    "a distribution": ("prior = dist.Normal(0.0, 1.0).to_event(0)\ndef model(): return prior",
                       "prior.loc = torch.ones(())", "`prior.loc` of model was a tensor"),
    "a nested distribution": (
        "prior = dist.Normal(torch.zeros(2), 1.0).to_event(1)\ndef model(): return prior",
        "prior.base_dist.loc = torch.ones(2)", "`prior.base_dist.loc` of model was a tensor"),
    "a function": ("def f(): pass\ndef g(): pass\ndef model(): return f()", "f = g",
                   "`f` of model was f and is g"),
    "a function that is called": ("a = 1\ndef f(): return a\ndef model(): return f()", "a = 2",
                                  "`a` of f was 1 and is 2"),
    "a function that a called function calls": (
        "a = 1\ndef g(): return a\ndef f(): return g()\ndef model(): return f()", "a = 2",
        "`a` of g was 1 and is 2"),
    "a function's code": ("def f(): return 1\ndef model(): return f()",
                          "f.__code__ = (lambda: 2).__code__", "`__code__` of f was a code"),
    "a function in a container": (
        "a = 1\nfs = {'f': [lambda: a]}\ndef model(): return fs", "a = 2",
                                  "`a` of the lambda in line"),
    "a comprehension": (
        "a = 1\ndef model(): return [a for _ in range(2)]", "a = 2", "`a` of model"),
    "a nested function": (
        "a = 1\ndef model():\n  def inner(): return a\n  return inner()", "a = 2",
                          "`a` of model was 1"),
    "a lambda": ("a = 1\nmodel = lambda: a", "a = 2", "`a` of the lambda in line"),
    "a default argument": ("def model(options={'a': 1}): return options",
                           "model.__defaults__[0]['a'] = 2",
                           "`__defaults__[0]['a']` of model was 1"),
    "other default arguments": ("def model(a=1, *, b=2): return a, b", "model.__defaults__ = (2,)",
                                "`__defaults__` of model was (1,) and is (2,)"),
    "a keyword's default": ("def model(*, b=2): return b", "model.__kwdefaults__['b'] = 3",
                            "`__kwdefaults__['b']` of model was 2 and is 3"),
    "a partial": ("def f(a, b): return a, b\noptions = [1]\nmodel = functools.partial(f, options)",
                  "options.append(1)", "had 1 elements and has 2"),
    "a partial's function": ("a = 1\ndef f(b): return a, b\nmodel = functools.partial(f, 2)",
                             "a = 2", "`a` of f was 1 and is 2"),
    "a decorated function": (
        "a = 1\ndef deco(f):\n  @functools.wraps(f)\n  def wrapper(): return f()\n"
        "  return wrapper\n@deco\ndef model(): return a",
        "a = 2", "`a` of model"),
    "a function decorated by torch": ("a = 1\n@torch.no_grad()\ndef f(): return a\n"
                                      "def model(): return f()", "a = 2", "`a` of f was 1"),
    "a cached function": (
        "a = 1\n@functools.lru_cache\ndef f(): return a\ndef model(): return f()",
                          "a = 2", "`a` of f was 1"),
    "a handler": ("a = 1\ndef f(): return a\nmodel = poutine.block(f)", "a = 2", "`a` of f was 1"),
    "what a handler holds": (
        "def f(): pass\nhandler = poutine.scale(scale=2.0)\nmodel = handler(f)",
        "handler.scale = 3.0", "`func.args[0].scale` of the handlers of f was 2.0 and is 3.0"),
    "two handlers": (
        "def f(): pass\nhandler = poutine.scale(scale=2.0)\n"
        "model = poutine.block(handler(functools.partial(f, 1, 2)))",
        "handler.scale = 3.0",
        "`func.args[1].func.args[0].scale` of the handlers of f was 2.0 and is 3.0"),
    "data that are conditioned on": (
        "def f(): pass\ndata = {'y': torch.zeros(2)}\nmodel = poutine.condition(f, data=data)",
        "data['y'] = torch.ones(2)", "`func.args[0].data['y']` of the handlers of f was a tensor"),
    "a callable object": (THING, "model.flag = True", "`flag` of Thing was False and is True"),
    "a bound method": (THING + "model = Thing().helper", "model.__self__.scale = 2.0",
                       "`scale` of Thing is new"),
    "an attribute of a class": (THING, "Thing.scale = 2.0", "`scale` of class Thing was 1.0"),
    "an attribute that hides that of the class": (THING, "model.scale = 2.0",
                                                  "`scale` of Thing is new"),
    "an attribute that did not exist": (THING, "model.extra = 1", "`extra` of Thing is new"),
    "an attribute that is deleted": (THING, "del model.flag", "`flag` of Thing no longer exists"),
    "a method": (
        THING, "Thing.helper = lambda self: 1", "`helper` of class Thing was Thing.helper"),
    "a method of one object": (THING, "model.helper = lambda: 1", "`helper` of Thing is new"),
    "a property": (THING, "Thing.half = 2", "`half` of class Thing was a property and is 2"),
    "a base class": (THING + "class Sub(Thing): pass\nmodel = Sub()", "Thing.scale = 2.0",
                     "`scale` of class Thing was 1.0 and is 2.0"),
    "an object that is constructed in the run": (
        "a = 1\nclass C:\n  def __init__(self): self.a = a\ndef model(): return C()", "a = 2",
        "`a` of C.__init__ was 1"),
    "an attribute under a computed name": (
        "class C: pass\nc = C()\nc.layer1 = 1\ndef model(): return getattr(c, f'layer{1}')",
        "c.layer1 = 2", "`c.layer1` of model was 1 and is 2"),
    "a further attribute under a computed name": (
        "class C: pass\nc = C()\ndef model(): return getattr(c, f'layer{1}', None)",
        "c.layer1 = 2", "`c.layer1` of model is new"),
    "a plain attribute of a module": (NET, "net.flag = True", "`net.flag` of model was False"),
    "training": (NET, "net.eval()", "`net.training` of model was True and is False"),
    "training of a part": (NET, "net.layers.eval()", "`net.layers.training` of model was True"),
    "an option of torch's module": (
        NET, "net.layers[0].p = 0.1", "`net.layers.0.p` of model was 0.5"),
    "the forward of one module": (
        NET, "net.forward = lambda: 1", "`net.forward` of model is new"),
    "the forward of one of torch's modules": (
        NET, "net.linear.forward = lambda x: 1", "`net.linear.forward` of model is new"),
    "a function that torch's module calls": (
        "net = torch.nn.TransformerEncoderLayer(2, 1, 2)\ndef model(): return net",
        "net.activation = torch.nn.functional.gelu", "`net.activation` of model was relu"),
    "a function that torch maps": (
        "a = 1\ndef f(x): return a\ng = torch.vmap(f)\ndef model(): return g", "a = 2",
        "`a` of f was 1 and is 2"),
    "a parameter": (NET, "net.linear.weight = torch.nn.Parameter(torch.zeros(2, 2))",
                    "`net.linear.weight` of model was a tensor of shape (2, 2) and is another"),
    "a frozen parameter": (NET, "net.linear.weight.requires_grad_(False)",
                           "`net.linear.weight` of model had requires_grad True and has False"),
    "a buffer": (NET, "net.offset = torch.ones(2)", "`net.offset` of model was a tensor"),
    "another part": (
        NET, "net.linear = torch.nn.Linear(2, 3)", "`net.linear` of model was a Linear"),
    "a further part": (
        NET, "net.layers.append(torch.nn.ReLU())", "`net.layers._modules` of model had 1"),
    "a hook": (
        NET, "net.linear.register_forward_hook(lambda *a: None)", "`net.linear._forward_hook"),
    "a model in a module": (NET + "model = net", "net.flag = True", "`flag` of Net was False"),
    "the class of a module": (
        "net = torch.nn.Linear(2, 2)\ndef model(): return net",
        "pyro.nn.module.to_pyro_module_(net)", "`net.__class__` of model was Linear and is"),
    "what a library's base class reads": (
        "class Drop(torch.nn.Dropout): pass\nnet = Drop(0.5)\ndef model(): return net",
        "net.p = 0.1", "`net.p` of model was 0.5 and is 0.1"),
    "a field that a library reads": (
        "import collections\nclass Options(collections.UserDict): pass\n"
        "o = Options(a=1)\ndef model(): return o['a']", "o['a'] = 2", "`o.data['a']` of model"),
    "all fields of a dataclass": (
        "import dataclasses\n@dataclass\nclass C:\n  a: int = 1\nc = C()\n"
        "def model(): return dataclasses.asdict(c)", "c.a = 2", "`c.a` of model was 1 and is 2"),
    "a field of a class pattern": (
        "class C: pass\nc = C()\nc.a = 1\n"
        "def model():\n  match c:\n    case C(a=1): return 1", "c.a = 2", "`c.a` of model was 1"),
    "a method of a named tuple": (
        "from typing import NamedTuple\na = 1\nclass P(NamedTuple):\n  b: int = 1\n"
        "  def prior(self): return a\np = P()\ndef model(): return p.prior()",
        "a = 2", "`a` of P.prior was 1 and is 2"),
    "a method of an enum": (
        "a = 1\nclass Kind(enum.Enum):\n  A = 1\n  def prior(self): return a\nkind = Kind.A\n"
        "def model(): return kind.prior()", "a = 2", "`a` of Kind.prior was 1 and is 2"),
    "a name in a string": (
        "import operator\nclass C: pass\nc = C()\nc.a = C()\nc.a.b = 1\n"
        "def model(): return operator.attrgetter('a.b')(c)", "c.a.b = 2", "`c.a.b` of model was"),
    "an attribute of a dictionary": (
        "class D(dict): pass\nd = D()\nd.flag = 1\ndef model(): return d.flag", "d.flag = 2",
        "`d.flag` of model was 1 and is 2"),
    "a prior of a PyroModule": (
        "net = PyroModule[torch.nn.Linear](2, 2)\nnet.weight = PyroSample(dist.Normal(0.0, 1.0))\n"
        "def model(): return net",
        "net.weight = PyroSample(dist.Normal(1.0, 1.0))", "`net.weight` of model"),
    "a prior of the user's PyroModule": (
        "class Net(PyroModule):\n  def __init__(self):\n    super().__init__()\n"
        "    self.w = PyroSample(lambda self: dist.Normal(self.a, 1.0))\n    self.a = 1.0\n"
        "  def forward(self): return self.w\nmodel = Net()",
        "model.a = 2.0", "`a` of Net was 1.0 and is 2.0"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_named(name):
    source, line, expected = CHANGES[name]
    module = program(source)
    surroundings = Surroundings(module.model, lambda: None)
    taken = surroundings.take()
    assert surroundings.difference(taken) is None
    assert taken.is_unchanged()
    run(module, line)
    difference = surroundings.difference(taken)
    assert difference is not None
    assert expected in difference
    assert surroundings.difference(surroundings.take()) is None


# name: (program, a line that changes nothing that the model reads, or sets an equal value)
NO_CHANGES = {
    "an equal float": ("a = 2.0\ndef model(): return a", "a = float('2.0')"),
    "nan": ("a = math.nan\ndef model(): return a", "a = float('nan')"),
    "an equal list": ("a = [1, (2, 'b')]\ndef model(): return a", "a = [1, (2, 'b')]"),
    "an equal dictionary": ("a = {'b': [1]}\ndef model(): return a", "a = {'b': [1]}"),
    "an equal dataclass": ("@dataclass\nclass C:\n  a: int = 1\nc = C()\ndef model(): return c.a",
                           "c = C()"),
    "an equal partial": ("def g(a): pass\nf = functools.partial(g, 1)\ndef model(): return f",
                         "f = functools.partial(g, 1)"),
    "the same method": ("class C:\n  def f(self): pass\nc = C()\nf = c.f\ndef model(): return f",
                        "f = c.f"),
    "another global": ("a = b = 1\ndef model(): return a", "b = 2"),
    "a new global": ("a = 1\ndef model(): return a", "c = 2"),
    "the numbers of a tensor": ("x = torch.zeros(3)\ndef model(): return x", "x += 1"),
    "a parameter's numbers": (NET, "net.linear.weight.data.add_(1)"),
    "a history that is not read": (NET, "net.history.append(1.5)"),
    "a history of an object that is not read": (THING, "model.history.append(1.5)"),
    "an attribute of a class that is not read": (THING, "Thing.unused = 3"),
    "a further attribute that is not read": (THING, "model.note = 3"),
    "a history of a module with a library's base": (
        "class Drop(torch.nn.Dropout): pass\nnet = Drop(0.5)\nnet.history = []\n"
        "def model(): return net", "net.history.append(1)"),
    "a library's own function": ("def model(): return np.zeros(3)", "np.my_own_attribute = 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_CHANGES)
def test_what_is_no_change(name):
    source, line = NO_CHANGES[name]
    module = program(source)
    surroundings = Surroundings(module.model, lambda: None)
    taken = surroundings.take()
    run(module, line)
    assert surroundings.difference(taken) is None
    assert taken.is_unchanged()  # the fast comparison, from now on


def test_an_equal_object_is_the_one_that_is_compared_from_then_on():
    module = program("a = [1]\ndef model(): return a")
    surroundings = Surroundings(module.model, lambda: None)
    taken = surroundings.take()
    run(module, "a = [1]")
    assert surroundings.difference(taken) is None
    run(module, "a.append(2)")
    assert "had 1 elements and has 2" in surroundings.difference(taken)


def test_what_was_taken_earlier_is_compared_as_it_was_taken():
    module = program("n, flag = 0, True\ndef model():\n  global n\n  n += flag")
    surroundings = Surroundings(module.model, lambda: None)
    surroundings.side_effects(module.model)
    first = surroundings.take()
    module.flag = False
    assert surroundings.side_effects(module.model).unread == set()
    second = surroundings.take()
    assert surroundings.difference(first) == "`flag` of model was True and is False"
    module.flag, module.n = True, 1
    assert surroundings.difference(first) is None  # n is only counted
    assert "`n` of model was 0 and is 1" in second.differences(surroundings.take())


def test_a_module_that_is_imported_in_the_function(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_config", program("flag = False"))
    module = program("def model():\n  import my_config\n  return my_config.flag")
    surroundings = Surroundings(module.model, lambda: None)
    taken = surroundings.take()
    run(sys.modules["my_config"], "flag = True")
    assert surroundings.difference(taken) == "`flag` of my_config was False and is True"


@pytest.mark.parametrize(
    ("switch", "expected"),
    [
        (lambda: torch.set_default_dtype(torch.float64), "the type and the device of new tensors"),
        (lambda: torch.set_default_device("meta"), "the type and the device of new tensors"),
        (lambda: torch.set_autocast_enabled("cpu", True), "autocast on cpu was False and is True"),
        (
            lambda: pyro.settings.set(cholesky_relative_jitter=7.0),
            "cholesky_relative_jitter was 4.0",
        ),
    ],
    ids=["dtype", "device", "autocast", "setting"],
)
def test_what_torch_and_pyro_read(switch, expected):
    surroundings = Surroundings(lambda: None, lambda: None)
    taken = surroundings.take()
    assert surroundings.difference(taken) is None
    try:
        switch()
        difference = surroundings.difference(taken)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_autocast_enabled("cpu", False)
        pyro.settings.set(cholesky_relative_jitter=4.0)
    assert expected in difference
    assert surroundings.difference(taken) is None


def test_a_handler_around_the_step():
    surroundings = Surroundings(lambda: None, lambda: None)
    taken = surroundings.take()
    with pyro.poutine.scale(scale=0.5):
        assert "the handlers of Pyro" in surroundings.difference(taken)
    assert surroundings.difference(taken) is None


def test_an_autoguide_reads_the_model():
    module = program(
        "a = 1.0\ndef model():\n  pyro.sample('w', dist.Normal(0.0, a).expand([2]).to_event(1))"
    )
    guide = AutoNormal(module.model)
    guide()
    surroundings = Surroundings(lambda: None, guide)
    taken = surroundings.take()
    guide()  # an eager run in between is no change
    assert surroundings.difference(taken) is None
    run(module, "a = 2.0")
    assert surroundings.difference(taken) == "`a` of model was 1.0 and is 2.0"


def test_objects_live_as_long_as_what_was_taken():
    module = program("x = torch.zeros(3)\ndef model(): return x")
    surroundings = Surroundings(module.model, lambda: None)
    taken = surroundings.take()
    tensor = weakref.ref(module.x)
    del module.x
    assert surroundings.difference(taken) == "`x` of model no longer exists"
    del taken
    gc.collect()
    assert tensor() is None
