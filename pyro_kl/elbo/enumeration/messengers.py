"""Pyro's enumeration of the values of discrete sites, with errors that name the site."""

from __future__ import annotations

from typing import Any

from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.runtime import _ENUM_ALLOCATOR

from ...messages import see

#: What `infer["enumerate"]` may be; "flat" is a strategy of `pyro.infer.config_enumerate`.
_MARKS = ("parallel", "sequential", "flat", None, False)


class Enumeration(EnumMessenger):
    """Enumerates the guide's sites.

    Args:
        first_available_dim: the first dim from the right that belongs to no plate.
    """

    def _pyro_sample(self, msg: Any) -> None:
        mark = msg["infer"].get("enumerate")
        if mark not in _MARKS:
            raise ValueError(
                f"{msg['name']} is marked by infer={{'enumerate': {mark!r}}}; the mark has to be "
                "'parallel' or 'sequential'." + see("enumerated-site")
            )
        try:
            super()._pyro_sample(msg)
        except NotImplementedError as error:
            raise NotImplementedError(
                f"{msg['name']} cannot be enumerated, its distribution is {msg['fn']}"
                f"{f': {error}' if str(error) else ''}. Take a distribution of finitely many "
                "values, put a plate in the place of to_event, or take the mark away and let the "
                "guide draw the site." + see("enumerated-site")
            ) from error


class ModelEnumeration(Enumeration):
    """Enumerates the model's sites along dims that no site of the guide has.

    Inside of `pyro.markov` the guide's dims are used again and again. In Pyro, such a dim is free
    in the model until the guide's site is reached: a site of the model may take it, and then two
    sites that depend on each other share a dim.

    Args:
        guide: enumerates the guide's sites, which run first.
    """

    def __init__(self, guide: EnumMessenger) -> None:
        super().__init__()
        self._guide = guide

    def __enter__(self) -> Any:
        taken = [dim for dims in self._guide._value_dims.values() for dim in dims]
        left = min(taken, default=0) - 1
        _ENUM_ALLOCATOR.next_available_dim = min(_ENUM_ALLOCATOR.next_available_dim, left)
        return super().__enter__()
