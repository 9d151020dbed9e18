"""The sites of a model that is calibrated, and why some models cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ..elbo.traces import is_deterministic, is_factor
from ..messages import see


@dataclass(frozen=True)
class Sites:
    """What a model samples and observes.

    Attributes:
        shapes: latent -> the shape of its value.
        observed: observed site -> the user's data.
        left_out: latents without ranks: the model marks them for enumeration, or masks them.
    """

    shapes: dict[str, tuple[int, ...]]
    observed: dict[str, Tensor]
    left_out: tuple[str, ...]

    @classmethod
    def of(cls, model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sites:
        """The sites of a model, from one run of it.

        Raises:
            ValueError: from this model no data can be simulated, or it has no posterior.
        """
        with torch.no_grad(), pyro.get_param_store().scope():
            trace: Any = poutine.trace(model).get_trace(*args, **kwargs)
        nodes = {
            name: node
            for name, node in trace.nodes.items()
            if node["type"] == "sample" and not site_is_subsample(node)
        }
        for name, node in nodes.items():
            _check_site(name, node)
        nodes = {name: node for name, node in nodes.items() if not is_deterministic(node)}
        _check_scales(nodes)
        observed = {name: node["value"] for name, node in nodes.items() if node["is_observed"]}
        latents = {name: node for name, node in nodes.items() if not node["is_observed"]}
        left_out = tuple(name for name, node in latents.items() if _has_no_rank(node))
        shapes = {
            name: tuple(node["value"].shape)
            for name, node in latents.items()
            if name not in left_out and node["value"].numel()
        }
        if not observed:
            raise ValueError("The model observes nothing." + see("calibration"))
        if not shapes:
            raise ValueError("The model has no latent that a guide draws." + see("calibration"))
        return cls(shapes, observed, left_out)


def _check_site(name: str, node: Any) -> None:
    if is_factor(node):
        raise ValueError(
            f"The model has the factor {name}, from which no data can be simulated."
            + see("calibration")
        )
    for plate in node["cond_indep_stack"]:
        if plate.full_size is not None and plate.full_size != plate.size:
            raise ValueError(
                f"the plate {plate.name!r} draws {plate.size} of {plate.full_size} rows: data are "
                "simulated for all rows. Give calibrate() the model without subsamples; fit() may "
                "use batches of the data." + see("subsample")
            )


def _has_no_rank(node: Any) -> bool:
    """Whether a latent is summed out, or masked in parts, which then have no posterior."""
    masks = [node["mask"], getattr(node["fn"], "_mask", None)]
    masked = any(mask is not None and not torch.as_tensor(mask).all() for mask in masks)
    return masked or bool(node["infer"].get("enumerate"))


def _check_scales(nodes: dict[str, Any]) -> None:
    """One scale for all sites changes the size of the loss alone; unequal ones the posterior."""
    scales = [torch.as_tensor(node["scale"], dtype=torch.float64) for node in nodes.values()]
    if any(not torch.allclose(x, scales[0].reshape(-1)[0], rtol=1e-6) for x in scales):
        raise ValueError(
            "The sites of the model have different scales (poutine.scale): data are simulated "
            "without them, so that the fits are not to the posterior." + see("scale-and-mask")
        )
