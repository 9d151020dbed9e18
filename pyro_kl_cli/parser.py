"""The options of `pyro-kl`, as argparse declares them; importable without torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

from . import fit
from .package import version
from .refused import did_you_mean

PROGRAM = "pyro-kl"
_DESCRIPTION = """\
KL divergences of torch's and Pyro's distributions: which there are, how they
are computed, how large they are. Values are in nats, and P comes first, as in
KL(P || Q).
"""
_EPILOG = """\
examples:
  pyro-kl pairs Gamma --method quadrature
  pyro-kl explain Gamma LogNormal
  pyro-kl compare 'Gamma(2, 1)' 'LogNormal(0, 1)' --samples 100000
  pyro-kl compare 'Gamma(2, 1)' 'LogNormal(0, 1)' --divergence renyi --alpha 2
  pyro-kl entropy 'Poisson(3)'
  pyro-kl fit data.csv --target label

exit codes:
  0    done
  1    `check` found a failure; or the output could not be written
  2    the request is wrong, and one line on stderr says why
  130  stopped by Ctrl-C
"""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the command's similar words."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())} (`{self.prog} --help`)\n")

    def check_words(self, words: list[str]) -> None:
        """End with an error for options that this parser does not know."""
        if words:
            word = words[0].partition("=")[0]
            hint = (
                f"write it after `{self.prog}`"
                if word in self._option_string_actions
                else did_you_mean(word, self._option_string_actions, "")
            )
            self.error(f"unknown argument {words[0]!r}{hint and '; '}{hint}")


def parser() -> Parser:
    """The parser of all commands."""
    made = Parser(
        prog=PROGRAM,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="store_true", help="versions of pyro_kl, torch, pyro")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, each in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=each.purpose,
            description=_sentence(each.purpose),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        each.add_arguments(command)
        command.set_defaults(parser=command)
    return made


def _sentence(purpose: str) -> str:
    return purpose[0].upper() + purpose[1:] + ("" if purpose.endswith("?") else ".")


def parsed(argv: list[str]) -> argparse.Namespace:
    """The arguments of one command.

    Raises:
        SystemExit: help was asked for (code 0), or the arguments are wrong (code 2).
    """
    whole = parser()
    command = next((word for word in argv if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS, f"there are {', '.join(COMMANDS)}")
        whole.error(f"no command {command!r}; {hint}")
    arguments, unknown = whole.parse_known_args(argv)
    getattr(arguments, "parser", whole).check_words(unknown)
    if arguments.command is None and not arguments.version:
        whole.print_help(sys.stdout)
        whole.exit(0)
    return arguments


def versions() -> str:
    """The versions of the package and of what it stands on, read from what is installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    words = [f"pyro_kl {version()}"]
    for name, distribution in (("torch", "torch"), ("pyro", "pyro-ppl")):
        try:
            words.append(f"{name} {installed(distribution)}")
        except PackageNotFoundError:
            words.append(f"{name} is not installed")
    return ", ".join(words)


# --- the arguments of each command --------------------------------------------------------------


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON instead")


def _pairs(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "family",
        nargs="*",
        metavar="FAMILY",
        help="only pairs that have this class on a side; two: only pairs of the two",
    )
    command.add_argument("--method", help="only pairs of this method, e.g. quadrature")
    _json(command)


#: Those of `pyro_kl.compare`.
DIVERGENCES = ("kl", "renyi", "jensen-shannon", "jeffreys", "cross-entropy")
_EXPRESSIONS = """\
P and Q are names of classes, which stand for their examples, or expressions:
  'Gamma(2, 1)'    'Normal([0, 1], 2).to_event(1)'    'Normal(0, 1).mask(False)'
  'MixtureSameFamily(Categorical(probs=[.3, .7]), Normal([0, 1], 1))'
  'TransformedDistribution(Normal(0, 1), [ExpTransform()])'
  'MultivariateNormal(zeros(2), covariance_matrix=[[1, .2], [.2, 2]])'
  'my_package.my_module.MyDistribution(1.0)'
An expression has classes of pyro.distributions and its transforms,
constraints.NAME, zeros, ones, eye, full, arange, linspace, tensor, lists,
numbers with + - * / **, pi, inf, and the methods expand, to_event, mask.
Numbers are in double precision. An expression is parsed and never evaluated;
but a class of your own is imported, and importing a module runs its code.
"""
_JSON = """
JSON has no infinity and no nan: they are the string "inf" and null.
"""


def _two(command: argparse.ArgumentParser) -> None:
    command.add_argument("p", metavar="P", help="the first argument, which the mean is over")
    command.add_argument("q", metavar="Q", help="the second argument, on the same space")
    _json(command)
    command.epilog = _EXPRESSIONS + _JSON


def _entropy(command: argparse.ArgumentParser) -> None:
    command.add_argument("p", metavar="P", help="the distribution")
    _json(command)
    command.epilog = (
        _EXPRESSIONS.replace("P and Q are names", "P is the name", 1).replace(
            "of classes, which stand for their examples, or expressions:",
            "of a class, which stands for its examples, or an expression:",
            1,
        )
        + _JSON
    )


def _compare(command: argparse.ArgumentParser) -> None:
    _two(command)
    command.add_argument(
        "--divergence",
        choices=DIVERGENCES,
        default="kl",
        metavar="NAME",
        help=f"{', '.join(DIVERGENCES)} (kl)",
    )
    command.add_argument("--alpha", type=float, metavar="A", help="order of renyi, 0 to inf")
    command.add_argument(
        "--samples", type=int, default=10_000, metavar="N", help="samples of P (10000)"
    )
    command.add_argument("--seed", type=int, default=0, metavar="S", help="of the samples (0)")
    command.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the KL, e.g. out.png (needs matplotlib)"
    )


_CHECK = """\
Worked cases of all pairs, one stored reference value of each family's pairs
against its tabulated error, samples beside exact values, and the conformance
checks of pyro_kl.check: values against an integral of the densities, gradients
against differences, shapes, dtypes, nan, infinity, KL(P || P) = 0.
"""


def _check(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--full", action="store_true", help="conformance checks of every pair (minutes)"
    )
    command.epilog = _CHECK


def _help(command: argparse.ArgumentParser) -> None:
    command.add_argument("kind", nargs="?", metavar="KIND", help="the word that the message has")


def _fit(command: argparse.ArgumentParser) -> None:
    command.usage = "pyro-kl fit FILE --target COLUMN [options]"
    fit.add_arguments(command)


class Command(NamedTuple):
    """One command.

    Attributes:
        purpose: what it is for, in the list of commands.
        add_arguments: declares its arguments.
        module: the module that runs it, imported when it is run: some import torch.
        function: the function there, from the arguments to the text that is printed.
    """

    purpose: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    module: str
    function: str = "run"


COMMANDS = {
    "pairs": Command("the registered pairs of classes", _pairs, "pairs"),
    "classes": Command(
        "every class of pyro.distributions, with the method of its KL",
        _json,
        "pairs",
        "run_classes",
    ),
    "explain": Command("formula, condition, error and reference of a pair", _two, "explain"),
    "compare": Command(
        "the exact KL, or another divergence, beside a sampled one",
        _compare,
        "answers",
        "run_compare",
    ),
    "entropy": Command("the entropy of a distribution", _entropy, "answers", "run_entropy"),
    "fit": Command("a Bayesian logistic regression of a table", _fit, "fit"),
    "check": Command("is this machine's arithmetic as promised?", _check, "check"),
    "help": Command("what an error or a warning means, and what to do", _help, "help_pages"),
}
