"""A page for each declared family: density, moments, pairs, and numbers computed at build."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyro_kl
from pyro_kl import Family, Moment, Pair
from pyro_kl.registry.register import families

from .citations import cited
from .classes_of_pairs import code_of, family_names, formulas_of, pair_tables, pairs_as
from .formulas import density_in_latex, symbol_of
from .pages import fence, table, toctree, write
from .pictures import integrand_picture
from .run import printed

#: Families that are shown first beside another one.
USUAL = ("Normal", "Gamma", "HalfCauchy", "LogNormal", "StudentT", "Beta", "Poisson", "Binomial")
#: The expectations that declarations name, in LaTeX.
MOMENTS = {
    "mean": r"\mathrm{E}\,x",
    "variance": r"\mathrm{Var}\,x",
    "mean_log": r"\mathrm{E}\log x",
    "mean_log1m": r"\mathrm{E}\log(1 - x)",
    "variance_log": r"\mathrm{Var}\log x",
    "mean_inverse": r"\mathrm{E}\,1/x",
    "mean_excess": r"\mathrm{E}\,(x - m)^+",
    "log_mean_power": r"\log\mathrm{E}\,x^k",
    "log_laplace": r"\log\mathrm{E}\,e^{-t x}",
}


def write_families(root: Path) -> None:
    """docs/reference/families: an index and the pages."""
    folder = root / "docs/reference/families"
    declared = sorted(families(), key=lambda family: family.name)
    pages = {family.name: _page(family, folder) for family in declared}
    pages["index"] = _index(declared)
    write(folder, pages)


def _index(declared: list[Family]) -> str:
    blocks = [
        "# Families",
        "Univariate families, each declared once: what it has as p, what it needs as q, and its "
        "density on the real line, for integration. The pairs follow from the declarations. "
        "Classes of vectors and sequences are [structured classes](../structured/index.md).",
    ]
    for title, discrete in (("Continuous", False), ("Discrete", True)):
        members = [family for family in declared if family.support.discrete == discrete]
        rows = [
            (f"[{x.name}]({x.name}.md)", ", ".join(x.parameters), x.support.name) for x in members
        ]
        blocks += [f"## {title}", table(("family", "parameters", "support"), rows)]
        blocks.append(toctree([x.name for x in members], hidden=True, caption=title))
    return "\n\n".join(blocks) + "\n"


def _page(family: Family, folder: Path) -> str:
    shown = _shown_pairs(family)
    blocks = [
        f"# {family.name}",
        f"`{family.distribution.__module__.split('.')[0]}`'s class "
        f"`{family.name}({', '.join(family.parameters)})`, a {_kind(family)} on: "
        f"{family.support.name}.",
        f"$$\n{density_in_latex(family)}\n$$" if family.density else "",
        table(
            ("parameter", "symbol"),
            [(f"`{name}`", f"${symbol_of(name)}$") for name in family.parameters],
        ),
        _special_case(family),
        f"Source: {cited(family.reference)}.",
        "## Computed with this version",
        _picture(family, shown, folder),
        *_compared(shown),
        formulas_of(family.distribution),
        _as_p(family),
        _as_q(family),
        pair_tables(family.distribution),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _kind(family: Family) -> str:
    return "mass function" if family.support.discrete else "density"


def _special_case(family: Family) -> str:
    if family.special_case_of is None:
        return ""
    name = family.special_case_of[0].__name__
    return f"It is a special case of [{name}]({name}.md)."


def _shown_pairs(family: Family) -> list[Pair]:
    """The family against itself, and as p and as q with a usual family by each exact method."""
    shown: dict[str, Pair] = {}
    for side, other in (("p", "q"), ("q", "p")):
        pairs = pairs_as(side, family.distribution)
        for pair in sorted(pairs, key=lambda x, other=other: _rank(getattr(x, other).__name__)):
            itself = pair.p is pair.q
            among = {pair.p.__name__, pair.q.__name__} <= family_names()
            if among and pair.finite != "never" and pair.method != "infinite":
                shown.setdefault("itself" if itself else f"{side} {pair.method}", pair)
    return list(shown.values())


def _rank(name: str) -> int:
    return USUAL.index(name) if name in USUAL else len(USUAL)


def _examples(pair: Pair) -> tuple[Family, Family, int]:
    """The two families of a pair, and which example of q is compared with p's first one."""
    named = {each.distribution: each for each in families()}
    return named[pair.p], named[pair.q], int(pair.p is pair.q)


def _picture(family: Family, pairs: list[Pair], folder: Path) -> str:
    """The integrand of one pair: p and q can both be seen where the KL is about a third."""
    drawn = []
    for pair in pairs:
        p, q, index = _examples(pair)
        members = p.make(p.examples[0]), q.make(q.examples[index])
        names = _name(p, 0), _name(q, index)
        distance = abs(math.log(float(pyro_kl.kl(*members).value) / 0.3))
        drawn.append((distance, members, names))
    _, members, names = min(drawn, key=lambda each: each[0])
    return integrand_picture(*members, names, folder, family.name)


def _compared(pairs: list[Pair]) -> list[str]:
    """A block of code for each pair, with what it prints."""
    codes = []
    for pair in pairs:
        p, q, index = _examples(pair)
        made = f"p = {_made(p, 0)}\nq = {_made(q, index)}"
        codes.append(f"{made}\nprint(pyro_kl.compare(p, q, num_samples=10_000))")
    imports = ["import pyro.distributions as dist", "import pyro_kl"]
    if any("torch." in code for code in codes):
        imports.insert(1, "import torch")
    names: dict[str, Any] = {}
    printed("\n".join(imports), names)
    blocks = [fence("\n".join(imports), "python")]
    for code in codes:
        blocks += [fence(code, "python"), fence(printed(code, names))]
    return blocks


def _made(family: Family, index: int) -> str:
    """The expression that makes an example."""
    example = family.examples[index]
    short = ", ".join(f"{name}={_number(x)}" for name, x in example.items())
    return f"dist.{family.name}({short})"


def _name(family: Family, index: int) -> str:
    """An example as a picture names it."""
    values = family.examples[index].values()
    return (
        f"{family.name}({', '.join(f'{x:g}' if isinstance(x, float) else str(x) for x in values)})"
    )


def _number(value: Any) -> str:
    return f"torch.tensor({value})" if isinstance(value, (list, tuple)) else f"{value:g}"


def _as_p(family: Family) -> str:
    if family.entropy is None and not family.moments:
        return ""
    rows = [("entropy", "$H(p)$", "always")] if family.entropy else []
    for name, moment in family.moments.items():
        rows.append((name, f"${MOMENTS.get(name, name)}$", _finite(moment)))
    functions = [family.entropy, *(m.value for m in family.moments.values() if not m.never)]
    return "\n\n".join(
        [
            "## As p: entropy and moments",
            table(("declared", "meaning", "finite if"), rows),
            _dropdown("Code of the entropy and the moments", code_of(filter(None, functions))),
        ]
    )


def _finite(moment: Moment) -> str:
    if moment.never:
        return "never"
    conditions = [str(condition) for condition in moment.finite]
    if moment.below:
        conditions.append(f"the argument is below {moment.below}")
    return " and ".join(conditions) or "always"


def _as_q(family: Family) -> str:
    if family.needs is None:
        return ""
    needs = ", ".join(f"{name} (${MOMENTS.get(name, name)}$)" for name in family.needs)
    return "\n\n".join(
        [
            "## As q: the cross-entropy",
            f"$-\\mathrm{{E}}_p \\log q$ needs of p: {needs or 'its support alone'}. Each p that "
            "has these moments and an entropy has a closed form.",
            _dropdown("Code of the cross-entropy", code_of([family.cross_entropy])),
        ]
    )


def _dropdown(title: str, code: str) -> str:
    return f":::{{dropdown}} {title}\n{fence(code, 'python')}\n:::" if code else ""
