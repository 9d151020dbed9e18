"""One run of a guide, or of a model on a guide's values, recorded as Pyro's `trace` records it.

`poutine.trace(poutine.replay(model, trace))` sends every message of a run through two handlers and
keeps three objects for each site; one handler and one object are enough.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.trace_struct import Trace

from ..messages import see
from ..numerics.concrete import is_recorded


class Record(Trace):
    """A trace without edges: the sets of neighbours are made when they are asked for."""

    def __init__(self) -> None:
        self.graph_type = "flat"
        self.nodes = OrderedDict()

    def __getattr__(self, name: str) -> Any:
        if name not in ("_pred", "_succ"):
            raise AttributeError(name)
        self._pred = OrderedDict((site, set()) for site in self.nodes)
        self._succ = OrderedDict((site, set()) for site in self.nodes)
        return vars(self)[name]

    def remove_node(self, site_name: str) -> None:
        """Remove a site."""
        if "_pred" in vars(self):
            super().remove_node(site_name)
        else:
            del self.nodes[site_name]


class Recorder(Messenger):
    """Records the statements of a guide."""

    def __init__(self) -> None:
        super().__init__()
        self.trace = Record()

    def run(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Record:
        """Run a function once.

        Args:
            function: with Pyro's statements.
            args: of the function.
            kwargs: of the function.

        Returns:
            Its trace.
        """
        nodes: Any = self.trace.nodes
        nodes["_INPUT"] = {"name": "_INPUT", "type": "args", "args": args, "kwargs": kwargs}
        with self:
            try:
                value = function(*args, **kwargs)
            except (ValueError, RuntimeError) as error:  # as in Pyro, the shapes of all sites
                shapes = self.trace.format_shapes()
                raise type(error)(f"{error}\n{shapes}").with_traceback(
                    error.__traceback__
                ) from error
        nodes["_RETURN"] = {"name": "_RETURN", "type": "return", "value": value}
        return self.trace

    def _reset(self) -> None:
        """Forget the run: `poutine.queue` starts it again with the next value of a site."""
        for name in [name for name in self.trace.nodes if name != "_INPUT"]:
            self.trace.remove_node(name)

    def _process_message(self, msg: Any) -> None:
        """Let every statement pass."""

    def _postprocess_message(self, msg: Any) -> None:
        """Record parameters and sample statements."""
        kind, name, nodes = msg["type"], msg["name"], self.trace.nodes
        if kind == "sample":
            if msg["infer"].get("_do_not_trace"):
                return
        elif kind != "param":
            return
        if name in nodes and not kind == nodes[name]["type"] == "param":
            self.trace.add_node(name, **msg)  # raises Pyro's error
        nodes[name] = msg.copy()


class ReplayRecorder(Recorder):
    """Records the statements of a model, whose latents have the guide's values.

    Args:
        guide_trace: has these values.
    """

    def __init__(self, guide_trace: Any) -> None:
        super().__init__()
        self._replay = ReplayMessenger(trace=guide_trace)
        self._given: dict[str, Any] = {}

    def _process_message(self, msg: Any) -> None:
        if msg["type"] != "sample":
            return
        if msg["value"] is not None and type(msg["fn"]).__name__ == "_Subsample":
            self._given[msg["name"]] = msg["value"]
        self._replay._pyro_sample(msg)

    def check_rows(self) -> None:
        """Raise ValueError if the model has run on other rows than its plates were given."""
        if not self._given or is_recorded():  # the run before a recorded one was checked
            return
        for name, given in self._given.items():
            got: Any = self.trace.nodes[name]["value"]
            if got is given:
                continue
            given = torch.as_tensor(given).to(got.device)
            if given.shape != got.shape or not torch.equal(given, got):
                raise ValueError(
                    f"The model's plate {name!r} was given subsample={_few(given)}, but Pyro runs "
                    f"it on the guide's rows {_few(got)}, which the guide has drawn itself: data "
                    "and latents would not belong together. Give the guide the same rows: an "
                    "autoguide by AutoNormal(model, create_plates=lambda *args: pyro.plate("
                    f"{name!r}, size, subsample=...)), a guide by hand in its own plate."
                    + see("subsample")
                )


def _few(rows: torch.Tensor) -> str:
    """The first rows of a subsample."""
    first = ", ".join(str(row) for row in rows.reshape(-1)[:5].tolist())
    return f"[{first}{', ...' if rows.numel() > 5 else ''}]"
