"""Expressions: the distributions that they build, and what a mistake gets."""

from __future__ import annotations

import sys

import pyro.distributions as dist
import pytest
import torch

import pyro_kl
from pyro_kl_cli.expressions.build import build
from pyro_kl_cli.expressions.mistake import Mistake
from pyro_kl_cli.operands import double_precision

t = torch.tensor


def _mixture():
    return dist.MixtureSameFamily(
        dist.Categorical(probs=t([0.3, 0.7])), dist.Normal(t([0.0, 1.0]), t(1.0))
    )


#: Expressions, and the same in Python.
SAME = [
    ("Gamma(2, 1)", lambda: dist.Gamma(2.0, 1.0)),
    ("  Gamma(concentration=4/2, rate=3**2 - 8)  ", lambda: dist.Gamma(2.0, 1.0)),
    ("Normal(0, 1).expand([3]).to_event(1)", lambda: dist.Normal(0.0, 1.0).expand([3]).to_event()),
    ("Normal([0, 1], [[1], [2]])", lambda: dist.Normal(t([0.0, 1.0]), t([[1.0], [2.0]]))),
    ("MixtureSameFamily(Categorical(probs=[.3, .7]), Normal([0., 1.], 1.))", _mixture),
    (
        "TransformedDistribution(Normal(0, 1), [ExpTransform()])",
        lambda: dist.TransformedDistribution(
            dist.Normal(0.0, 1.0), [dist.transforms.ExpTransform()]
        ),
    ),
    (
        "TransformedDistribution(Normal(0, 1), [AffineTransform(1, 2), SigmoidTransform().inv])",
        lambda: dist.TransformedDistribution(
            dist.Normal(0.0, 1.0),
            [dist.transforms.AffineTransform(1.0, 2.0), dist.transforms.SigmoidTransform().inv],
        ),
    ),
    (
        "TransformedDistribution(Normal(arange(3), 1).to_event(1), Permute([2, 0, 1]))",
        lambda: dist.TransformedDistribution(
            dist.Normal(t([0.0, 1.0, 2.0]), 1.0).to_event(1),
            dist.transforms.Permute(torch.tensor([2, 0, 1])),
        ),
    ),
    ("RelaxedBernoulli(2, .3)", lambda: dist.RelaxedBernoulli(t(2.0), t(0.3))),
    (
        "MultivariateNormal(zeros(2), covariance_matrix=[[1, .2], [.2, 2]])",
        lambda: dist.MultivariateNormal(torch.zeros(2), t([[1.0, 0.2], [0.2, 2.0]])),
    ),
    (
        "MultivariateNormal(linspace(0, 1, 3), 2 * eye(3))",
        lambda: dist.MultivariateNormal(t([0.0, 0.5, 1.0]), 2 * torch.eye(3)),
    ),
    ("Normal(full([2], pi), ones(2, 2))", lambda: dist.Normal(t(torch.pi), torch.ones(2, 2))),
    ("Normal(0, 1).mask([True, False])", lambda: dist.Normal(0.0, 1.0).mask(t([True, False]))),
    ("Normal(0, 1).mask(False)", lambda: dist.Normal(0.0, 1.0).mask(False)),
    ("Delta(1)", lambda: dist.Delta(t(1.0))),
    ("Binomial(10, 0.3)", lambda: dist.Binomial(10, 0.3)),
    ("LKJCholesky(3, 2)", lambda: dist.LKJCholesky(3, t(2.0))),
    ("Wishart(3, eye(2))", lambda: dist.Wishart(t(3.0), torch.eye(2))),
    ("DirichletMultinomial([1, 2], 5)", lambda: dist.DirichletMultinomial(t([1.0, 2.0]), 5)),
    (
        "ImproperUniform(constraints.interval(0, 1), [2], [])",
        lambda: dist.ImproperUniform(dist.constraints.interval(0.0, 1.0), (2,), ()),
    ),
    ("torch.distributions.Gamma(2, 1)", lambda: torch.distributions.Gamma(2.0, 1.0)),
    ("dist.Gamma(torch.tensor(2), math.pi)", lambda: dist.Gamma(2.0, torch.pi)),
]


@pytest.fixture(autouse=True)
def _double(double):
    """The same default as in a command."""


@pytest.mark.parametrize(("text", "make"), SAME, ids=[text for text, _ in SAME])
def test_an_expression_is_what_python_makes_of_it(text, make):
    found, right = build(text), make()
    assert type(found) is type(right)
    assert (found.batch_shape, found.event_shape) == (right.batch_shape, right.event_shape)
    try:
        values = pyro_kl.kl(found, right).value
    except NotImplementedError:  # without a density
        return
    torch.testing.assert_close(values, torch.zeros_like(values), atol=1e-12, rtol=0.0)
    assert values.dtype == torch.float64


def test_numbers_do_not_depend_on_the_default_dtype():
    torch.set_default_dtype(torch.float32)
    p = build("Gamma([2, 0.1], 0.3)")
    assert p.rate.dtype == p.concentration.dtype == torch.float64
    assert p.rate[0].item() == 0.3


def test_a_class_of_the_user_is_imported_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_laws").mkdir()
    (tmp_path / "my_laws" / "__init__.py").write_text("")
    (tmp_path / "my_laws" / "waiting.py").write_text(
        "import torch\n"
        "class Waiting(torch.distributions.Exponential):\n    pass\n"
        "class Scaled(torch.distributions.AffineTransform):\n"
        "    def __init__(self, scale):\n        super().__init__(0.0, scale)\n"
        "number = 3\ndef function(): pass\n"
    )
    (tmp_path / "broken_law.py").write_text("1 / 0\n")
    (tmp_path / "quits.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    try:
        p = build("my_laws.waiting.Waiting(2.0)")
        assert type(p).__name__ == "Waiting"
        value = pyro_kl.kl(p, build("Exponential(1.0)")).value
        assert value.item() == pytest.approx(
            pyro_kl.kl(dist.Exponential(2.0), dist.Exponential(1.0)).item()
        )
        assert build("TransformedDistribution(Normal(0, 1), my_laws.waiting.Scaled(2))")
        for text, says in (
            ("my_laws.waiting.Wating(2)", "did you mean Waiting?"),
            ("my_laws.waitin.Waiting(2)", "there is no my_laws.waitin; did you mean waiting?"),
            ("my_laws.waiting.number", "is no class of distributions"),
            ("my_laws.waiting.function()", "is no class of distributions"),
            ("broken_law.Law(1)", "importing broken_law fails: ZeroDivisionError"),
            ("quits.Law(1)", "importing quits fails: SystemExit"),
        ):
            with pytest.raises(Mistake) as refused:
                build(text)
            assert says in str(refused.value)
    finally:
        assert sys.path == path
        for name in [name for name in sys.modules if name.startswith("my_laws")]:
            del sys.modules[name]


#: Expressions with a mistake: what is said, and the column of the caret, from 1.
WRONG = [
    ("", "the expression is empty", None),
    ("Gama(2, 1)", "'Gama' is not known here; did you mean Gamma?", 1),
    ("Gamma(2)", "Gamma(concentration, rate): missing a required argument: 'rate'", 1),
    ("Gamma(2, 1, 3, 4)", "too many positional arguments", 1),
    ("Gamma(2, rat=3)", "Gamma has no argument 'rat'; did you mean rate?", 10),
    ("Gamma(2, rate=-1)", "Gamma: rate must be greater than 0, not -1.0", 15),
    ("Uniform(2, 1)", "Uniform: low must be less than 1, not 2.0", 9),
    ("Bernoulli(2)", "Bernoulli: probs must be between 0 and 1, not 2.0", 11),
    ("MultivariateNormal(zeros(2), [[1, 2], [2, 1]])", "must be a positive definite matrix", 30),
    ("Normal([0, 1], [1, 2, 3])", "Normal: the arguments do not broadcast: loc (2,), scale (3", 1),
    ("Normal([0, [1, 2]], 1)", "the rows of this list differ in length", 8),
    ("Normal([0, True], 1)", "both numbers and True or False", 8),
    ("Normal('a', 1)", "loc is 'a'", 1),
    ("ones(10**12)", "a tensor of shape (1000000000000,) is too large", 1),
    ("Normal(0, 9**9**9)", "the result is too large", 11),
    ("Normal(0, 1 / 0)", "division by zero", 11),
    ("Normal(0, (-1) ** 0.5)", "complex", 11),
    ("Normal(0, 10 // 3)", "only + - * / ** are possible between numbers", 11),
    ("Normal(0, -[1])", "a sign belongs to a number, not to a list", 11),
    ("Normal(0, 1) + 1", "+ - * / ** take numbers and tensors, not a Normal", 1),
    ("Normal(ones(2) + ones(3), 1)", "the shapes (2,) and (3,) do not broadcast", 8),
    ("Normal(0, 1).expand([10**6, 10])", "is too large", 1),
    ("Normal(zeros(3), 1).expand([2])", "expand of a batch of shape (3,)", 1),
    ("Normal(0, 1).expand([-1])", "integers that are not negative, not -1", 1),
    ("Normal(0, 1).to_event(2)", "to_event(2): the batch shape () has 0 dimensions", 1),
    ("Normal(0, 1).mask(3)", "mask takes True, False or a list of these", 1),
    ("Normal(0, 1).exapnd([3])", "no method 'exapnd' here; did you mean expand?", 1),
    ("ExpTransform().expand([3])", "has no method 'expand'", 1),
    ("Normal.expand([3])", "Normal has no 'expand': write its arguments first", 1),
    ("LKJCholesky(10**6, 1)", "dim is too large for this command", 13),
    ("Binomial(10**9, .5)", "total_count is too large for this command", 10),
    ("zeros(3)", "this is a tensor of shape (3,), not a distribution", 1),
    ("Normal", "Normal needs its arguments", 1),
    ("pi(3)", "pi is not called: it is 3.14", 1),
    ("zeros(size=3)", "zeros does not take these arguments", 1),
    ("Normal(0, 1)[0]", "[...] after a value is not possible here", 1),
    ("Normal(*[0, 1])", "*... is not possible here", 8),
    ("Normal(**{})", "**... is not possible here", 8),
    ("Normal(lambda: 0, 1)", "functions cannot be written here", 8),
    ("Normal(0, 1", "this is no expression: '(' was never closed", 7),
    ("Normal(0 1)", "this is no expression", None),
    ("x = 3", "this is no expression", None),
    ("os.system('true')", "os.system is no class of distributions or of transforms", 1),
    ("__import__('os')", "'__import__' is not known here", 1),
    ("().__class__", "a list has no '__class__' here", 1),
    ("Normal(0, 1).__class__(0, 1)", "no method '__class__' here", 1),
    ("no_module_of_this_name.Law(1)", "there is no class or module 'no_module_of_this_name'", 1),
    ("Normal(" * 70 + "0" + ", 1)" * 70, "levels deep", None),
    ("Normal(0, " + "1 + " * 3000 + "1)", "characters", None),
    ("Normal(0, " + "-" * 5000 + "1)", "deep", None),
    ("Normal(" + "0" * 9000, "", None),
    ("Normal(0, 1\0)", "", None),
    ("Normal(0, \ud800)", "characters that cannot be part", None),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("text", "says", "column"), WRONG, ids=[ascii(x[0])[:40] for x in WRONG])
def test_a_mistake_says_what_and_where(text, says, column):
    with pytest.raises(Mistake) as refused, double_precision():
        build(text)
    message, *shown = str(refused.value).splitlines()
    assert says in message
    if column is not None:
        assert shown == [f"  {text}", "  " + " " * (column - 1) + "^"]
    assert len(shown) in (0, 2)


def test_the_caret_counts_characters_and_not_bytes():
    with pytest.raises(Mistake) as refused:
        build("Normal('ünïcode', scale=Gama(2, 1))")
    assert str(refused.value).splitlines()[-1] == "  " + " " * 24 + "^"
