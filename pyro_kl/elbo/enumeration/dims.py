"""The dims of a trace with enumeration: those of plates, and those of enumerated values.

Pyro gives each plate and each enumerated site a symbol, and calls a tensor packed that has no
dims of size 1 and carries the symbols of its dims as `_pyro_dims`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyro.ops import packed
from torch import Tensor

from ...messages import see
from ..traces import Site, Traces

#: The plates around a site, by their symbols.
Ordinal = frozenset[str]


def symbolise(traces: Traces) -> None:
    """Give each plate and each enumerated site a symbol, as Pyro does."""
    guide: Any = traces.guide
    model: Any = traces.model
    guide.symbolize_dims()
    model.symbolize_dims(guide.plate_to_symbol)


def ordinal_of(trace: Any, site: Site) -> Ordinal:
    """The vectorised plates around a site."""
    symbols = trace.plate_to_symbol
    return frozenset(symbols[frame.name] for frame in site["cond_indep_stack"] if frame.vectorized)


def pack(value: Any, site: Site) -> Any:
    """A tensor of a site, or a number, in packed form.

    Args:
        value: of the site's batch shape.
        site: of model or guide.

    Raises:
        ValueError: a dim belongs to no plate and to no enumerated site.
    """
    if not isinstance(value, Tensor):
        return value
    try:
        return packed.pack(value[...], site["infer"]["_dim_to_symbol"])
    except ValueError as error:
        raise ValueError(
            f"Error while packing tensors at site '{site['name']}':\n  {error}"
            + see("batch-shapes")
        ) from error


def without_enumeration(shape: Sequence[int], site: Site, value: Tensor) -> tuple[int, ...]:
    """The shape of a site's value without the dims to the left of the plates.

    Args:
        shape: batch and event.
        site: of model or guide.
        value: of the plates' shape.
    """
    return (*value.shape, *shape[len(site["fn"].batch_shape) :])


def is_summed_out(name: str, traces: Traces) -> bool:
    """Whether the model enumerates a site, which the guide does not draw."""
    site = traces.model.nodes[name]
    return name not in traces.guide.nodes and site["infer"].get("_enumerate_dim") is not None


def is_enumerated(site: Site) -> bool:
    """Whether a site of the guide takes all values of its support, in parallel or in turn."""
    infer = site["infer"]
    if infer.get("num_samples") is not None:
        return False
    return infer.get("_enumerate_dim") is not None or "_enum_total" in infer


def with_baseline(traces: Traces) -> list[str]:
    """The guide's sites that are drawn and declare a baseline."""
    return [
        name
        for name, node in traces.guide.nodes.items()
        if node["type"] == "sample" and node["infer"].get("baseline") and not is_enumerated(node)
    ]


def summed_symbols(traces: Traces) -> dict[str, str]:
    """Symbol -> site of the model that is summed out."""
    return {
        node["infer"]["_enumerate_symbol"]: name
        for name, node in traces.model.nodes.items()
        if node["type"] == "sample" and is_summed_out(name, traces)
    }
