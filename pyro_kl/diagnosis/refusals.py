"""Why a guide has no KL to the posterior, or none that draws can tell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyro import poutine
from torch import Tensor

from ..elbo.guides.plan import Plan, Run
from ..elbo.guides.recognise import is_delta
from ..elbo.traces import Traces
from ..messages import see


def check(plan: Plan, traces: Traces) -> None:
    """Raise a `ValueError` if importance weights of the guide's draws are not defined.

    Args:
        plan: how each latent is drawn.
        traces: of one run of model and guide.
    """
    for trace in traces:
        for name, node in trace.nodes.items():
            if node["type"] == "sample":
                _check_site(name, node)
    decisions = plan.decisions
    missing = [name for name, how in decisions.items() if how.method == "prior"]
    if missing:
        raise ValueError(
            f"The guide does not draw {_names(missing)}: without log q there is no weight. Sample "
            "them in the guide, observe them in the model, or mark discrete ones with "
            'infer={"enumerate": "parallel"}, so that they are summed out.'
            + see("site-only-in-model")
        )
    points = [name for name, how in decisions.items() if how.method == "point density"]
    if points:
        raise ValueError(
            f"The guide is a point at {_names(points)}: its KL to the posterior is infinite. For "
            "the uncertainty around it use AutoLaplaceApproximation's laplace_approximation(), or "
            "another guide." + see("guide-without-density")
        )
    nodes = traces.guide.nodes
    drawn = [
        n for n in plan.auxiliary if not nodes[n]["is_observed"] and not is_delta(nodes[n]["fn"])
    ]
    alone = [name for name in drawn if plan.groups[name] == name]
    if alone:
        raise ValueError(
            f"The guide draws {_names(alone)}, of which no latent is an image: the density of the "
            "latents is an integral over them that is not known." + see("guide-without-density")
        )
    if plan.disagreeing:
        raise ValueError(
            f"Scale or mask of {_names(plan.disagreeing)} differ between model and guide: "
            "log p - log q is no log weight." + see("scale-and-mask")
        )


@contextmanager
def outside_of_supports(run: Run) -> Iterator[None]:
    """Pyro's error at a draw outside of the model's support, in the words of guide and posterior.

    Raises:
        ValueError: the guide draws where the model has no density, and Pyro validates.
    """
    try:
        yield
    except ValueError as error:
        site = re.search("log_prob at site '(.*)':\n.*to be within the support", str(error))
        if site is None:
            raise
        trace: Any = poutine.trace(run.guide).get_trace(*run.args, **run.kwargs)
        if site[1] not in trace.nodes:
            raise
        raise ValueError(
            f"The guide draws values of {site[1]} that are outside of its support in the model: "
            "KL(guide || posterior) is infinite. Give the site of the guide the support of the "
            "model's site; an autoguide does." + see("infinite-kl")
        ) from error


def _check_site(name: str, node: Any) -> None:
    for plate in node["cond_indep_stack"]:
        if plate.full_size is not None and plate.full_size != plate.size:
            raise ValueError(
                f"the plate {plate.name!r} draws {plate.size} of {plate.full_size} rows: the "
                "posterior is that of all rows. Let model and guide have all of them."
                + see("subsample")
            )
    scale = node["scale"]
    same = bool((scale == 1).all()) if isinstance(scale, Tensor) else scale == 1
    if not same:
        raise ValueError(
            f"{name} has a scale other than 1: its model is no joint density of data and latents. "
            "Call diagnose() without poutine.scale." + see("scale-and-mask")
        )


def _names(names: list[str]) -> str:
    return ", ".join(names)
