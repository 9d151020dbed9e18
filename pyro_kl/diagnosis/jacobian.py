"""Whether the log densities of a guide's Deltas and transforms are those of their derivatives."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Independent, TransformedDistribution

from ..elbo.guides.plan import Plan, Run
from ..elbo.guides.recognise import is_delta

#: The elements of all Deltas, or of a transform, whose derivatives are taken.
_MOST = 200
#: So many draws: at a single one log |det| may be close to zero.
_DRAWS = 3


def wrong_jacobian(run: Run, plan: Plan) -> str:
    """Why the log density of latents that are functions of others is wrong; empty if it is not.

    The transforms of a TransformedDistribution are compared with derivatives by autograd at draws
    of its base. A latent z = f(u) of a variable u of the guide has the density of u divided by
    |det df/du|, so that its Delta has to have the log density -log |det df/du|. That is compared
    too. Both are done for up to 200 elements, where there are as many of them as of u.

    Args:
        run: the guide, with its arguments.
        plan: which sites are latents.
    """
    for find in (_of_transforms, _of_deltas):
        try:
            if wrong := find(run, plan):
                return wrong
        except (RuntimeError, NotImplementedError):  # autograd does not allow what the guide does
            continue
    return ""


@torch.enable_grad()
def _of_transforms(run: Run, plan: Plan) -> str:
    trace: Any = poutine.trace(run.guide).get_trace(*run.args, **run.kwargs)
    for name, node in trace.nodes.items():
        if node["type"] != "sample" or node["is_observed"] or node["value"].numel() > _MOST:
            continue
        distribution = node["fn"]
        while isinstance(distribution, Independent):
            distribution = distribution.base_dist
        if not isinstance(distribution, TransformedDistribution):
            continue
        for _ in range(_DRAWS):
            x = distribution.base_dist.sample()
            for transform in distribution.transforms:
                x = x.detach().requires_grad_()
                y = transform(x)
                if y.shape != x.shape:
                    break
                own = float(transform.log_abs_det_jacobian(x, y).sum().detach())
                log_det = float(torch.linalg.slogdet(_derivatives(y, [x]).detach()).logabsdet)
                if _differ(own, log_det):
                    return (
                        f"the transform {type(transform).__name__} of {name} gives log |det| as "
                        f"{own:.3g} at a draw, where its derivatives have {log_det:.3g}: the "
                        "guide's log density is not that of its draws"
                    )
                x = y
    return ""


def _differ(a: float, log_det: float) -> bool:
    """Whether a number is not log |det|, as far as that is a number."""
    return math.isfinite(log_det) and abs(a - log_det) > 1e-2 * (1 + abs(log_det))


@torch.enable_grad()
def _of_deltas(run: Run, plan: Plan) -> str:
    for _ in range(_DRAWS):
        with _Leaves(set(plan.decisions)) as leaves:
            trace: Any = poutine.trace(run.guide).get_trace(*run.args, **run.kwargs)
        images: list[Any] = [
            node
            for name, node in trace.nodes.items()
            if name in plan.decisions and is_delta(node["fn"]) and node["value"].requires_grad
        ]
        if (
            not images
            or not leaves.values
            or sum(node["value"].numel() for node in images) > _MOST
        ):
            return ""
        for nodes, log_det in _log_dets(images, leaves.values):
            density = sum(
                float(node["fn"].log_prob(node["value"]).sum().detach()) for node in nodes
            )
            if _differ(-density, log_det):
                names = ", ".join(node["name"] for node in nodes)
                return (
                    f"log |det| of the change of variables to {names} is {log_det:.3g} at a draw, "
                    f"so that its log density there is {-log_det:.3g}, and the guide has "
                    f"{density:.3g}: the guide's log density is not that of its draws"
                )
    return ""


class _Leaves(Messenger):
    """The guide's own variables become leaves of autograd's graph.

    Args:
        latents: the model's variables.
    """

    def __init__(self, latents: set[str]) -> None:
        super().__init__()
        self._latents = latents
        self.values: list[Tensor] = []

    def _pyro_post_sample(self, msg: Any) -> None:
        own = msg["name"] not in self._latents and not is_delta(msg["fn"])
        if own and not msg["is_observed"] and msg["value"].is_floating_point():
            msg["value"] = msg["value"].detach().requires_grad_()
            self.values.append(msg["value"])


def _log_dets(images: list[Any], leaves: list[Tensor]) -> list[tuple[list[Any], float]]:
    """log |det| of all images together, or else of each that has as many variables as elements."""
    rows = [_derivatives(node["value"], leaves).detach() for node in images]
    whole = torch.cat(rows)
    if whole.shape[0] == whole.shape[1]:
        return [(images, float(torch.linalg.slogdet(whole).logabsdet))]
    found = []
    for node, derivatives in zip(images, rows, strict=True):
        own = derivatives[:, (derivatives != 0).any(0)]
        if own.shape[0] == own.shape[1]:
            found.append(([node], float(torch.linalg.slogdet(own).logabsdet)))
    return found


def _derivatives(value: Tensor, leaves: list[Tensor]) -> Tensor:
    """Of each element by each element of the leaves; float64, of shape (elements, variables)."""
    rows = []
    for element in value.reshape(-1):
        parts = torch.autograd.grad(
            element, leaves, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.cat([part.reshape(-1) for part in parts]).double())
    return torch.stack(rows)
