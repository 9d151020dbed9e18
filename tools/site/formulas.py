"""Formulas in LaTeX: the density of a family, from its declaration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import sympy

from pyro_kl import Family

#: The symbols of parameters; others are written with their names.
SYMBOLS = {
    "loc": r"\mu",
    "scale": r"\sigma",
    "rate": r"\lambda",
    "concentration": r"\alpha",
    "concentration1": r"\alpha",
    "concentration0": r"\beta",
    "alpha": r"\alpha",
    "df": r"\nu",
    "df1": "d_1",
    "df2": "d_2",
    "total_count": "n",
    "probs": r"\theta",
    "logits": r"\eta",
    "odds": r"\omega",
    "temperature": r"\tau",
    "asymmetry": r"\kappa",
    "softness": "s",
    "gate": r"\pi_0",
    "gate_logits": r"\gamma_0",
    "low": "a",
    "high": "b",
    "predictor": r"\eta",
    "cutpoints": "c",
}
NAMES: Mapping[str, str] = MappingProxyType({})
#: SymPy's functions that a density may use, by their names in it.
FUNCTIONS = (
    "Abs", "KroneckerDelta", "atanh", "besseli", "beta", "binomial", "cos", "cosh", "erfc", "exp",
    "factorial", "gamma", "log", "pi", "sign", "sqrt",
)  # fmt: skip


def expression(family: Family, symbols: Mapping[str, str] = NAMES) -> sympy.Expr:
    """The declared density.

    Args:
        family: the declaration.
        symbols: what stands for x, k, z, odds and the parameters; by default their names.
    """
    names: dict[str, Any] = {name: getattr(sympy, name) for name in FUNCTIONS}
    for name in ("x", "k", "z", "odds", *family.parameters):
        kind = sympy.IndexedBase if name in family.vectors else sympy.Symbol
        names[name] = kind(symbols.get(name, name))
    return sympy.parse_expr(family.density, local_dict=names, evaluate=False)


def density_in_latex(family: Family) -> str:
    """An equation for the density or the mass, and what its abbreviations mean."""
    letter = "k" if family.support.discrete else "x"
    formula = sympy.latex(expression(family, SYMBOLS), order="none")
    text = f"p({letter}) = {formula}".replace(r"1 \frac{1}", r"\frac{1}")
    if re.search(r"\bz\b", family.density):
        text += r",\qquad z = \frac{x - \mu}{\sigma}"
    if re.search(r"\bodds\b", family.density):
        text += r",\qquad \omega = \frac{\theta}{1 - \theta}"
    return text


def symbol_of(parameter: str) -> str:
    """The symbol of a parameter in LaTeX."""
    return SYMBOLS.get(parameter, rf"\mathrm{{{parameter}}}")
