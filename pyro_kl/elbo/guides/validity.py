"""When an exact KL may replace the sampled one.

E_q[log q(z | ...) - log p(z | parents)] is E[KL(q(z | ...) || p(z | parents))] exactly if no
parent of z in the model descends from z in the guide. Two tests:

1. by order: all latents before z in the model come before z in the guide too. What is drawn
   later cannot influence what is drawn earlier, so that the test holds for every run with the
   same order of sites; it costs nothing.
2. by watching: a site that fails 1 is watched in every run, since what depends on what may change
   with an argument, a batch or a branch. While guide and model run, each tensor is followed by
   the set of the guide's sites that it was computed from. Where a number leaves the tensors (by
   `.item()`, `float`, NumPy, a branch), everything after it counts as computed from it. The test
   may find a dependence where there is none, but never misses one.

The first test is `late_sites` of `dependence`, the second is `Watch` here. A site that fails both
is sampled. After the first run, a guide and a model whose sites are in order are not watched,
unless a block of a joint guide may have parents.

What a run has shown also says which costs a draw without reparametrisation can change, so that
its score function is multiplied by no others (`elbo.score_functions`).

Reference: Denning & Denning (1977), Certification of Programs for Secure Information Flow
(explicit and implicit flows).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ...registry.tensors import every_tensor_in, is_foreign
from ...registry.user_classes import tensors_of, written_by


class Watch:
    """Test 2: from which of the guide's sites each tensor of one run was computed.

    A set of sites is a number with one bit for each. Sources belong to a storage and not to a
    tensor, since writing to a view changes the tensor that it is a view of.
    """

    def __init__(self) -> None:
        self._bit: dict[str, int] = {}
        self._sources: dict[int, tuple[int, StorageWeakRef]] = {}
        self._leaked = 0
        self._leaked_at: dict[str, int] = {}

    # --- running ----------------------------------------------------------------------------

    def guide(self) -> ExitStack:
        """While the guide runs: what it draws is followed."""
        return self._entered(_Drawn(self))

    def model(self) -> ExitStack:
        """While the model runs on the guide's values."""
        return self._entered(_Stated(self))

    def _entered(self, *managers: Any) -> ExitStack:
        stack = ExitStack()
        for manager in (*managers, _Readers(self), _Operations(self)):
            stack.enter_context(manager)
        return stack

    # --- results ----------------------------------------------------------------------------

    def reached_by(self, site: Mapping[str, Any], names: Iterable[str]) -> set[str]:
        """Those of the guide's sites `names` that a site's distribution, scale or mask depends on.

        Args:
            site: of the model.
            names: sites of the guide.
        """
        sources = self.of_distribution(site)
        return {name for name in names if self._bit.get(name, 0) & sources}

    def of_distribution(self, site: Mapping[str, Any]) -> int:
        """The draws that a site's distribution, scale or mask was computed from, as bits.

        A distribution of torch's or Pyro's own depends on its tensors. What a user has written
        may depend on anything else, which its density shows.
        """
        sources = self._leaked_at.get(site["name"], 0)
        sources |= self._sources_of([site["scale"], site["mask"]])
        if not is_foreign([site["fn"]]):
            return sources | self._sources_of(every_tensor_in(site["fn"]))
        before, self._leaked = self._leaked, 0
        try:
            value = site["value"].detach().clone()  # a tensor without sources
            with torch.no_grad(), self._entered():
                density = site["fn"].log_prob(value)
            return sources | self._sources_of([density]) | self._leaked
        except Exception:  # any failure means: it may depend on every draw
            return self._every_draw
        finally:
            self._leaked = before

    def of_density(self, site: Mapping[str, Any]) -> int:
        """The draws that a site's density at its value was computed from, as bits."""
        return self.of_distribution(site) | self._sources_of([site["value"]])

    def bits_of(self, names: Iterable[str]) -> int:
        """The draws of these sites; a site that was not drawn has none."""
        bits = 0
        for name in names:
            bits |= self._bit.get(name, 0)
        return bits

    @property
    def _every_draw(self) -> int:
        return (1 << len(self._bit)) - 1

    def computed_from(self, value: Any, names: Iterable[str]) -> list[str]:
        """Those of the guide's sites `names` that a value was computed from."""
        sources = self._sources_of([value])
        return [name for name in names if self._bit.get(name, 0) & sources]

    # --- called by the handlers -------------------------------------------------------------

    def drawn(self, name: str, value: Any) -> None:
        """A site was drawn, by the guide or, where the guide has none, by the model."""
        bit = self._bit.setdefault(name, 1 << len(self._bit))
        self._add([value], bit | self._leaked)

    def enumerated(self, distribution: Any, value: Any) -> None:
        """The guide takes all values of a site, which its distribution weighs.

        The values are constants, but their probabilities are not: the site descends from what
        its distribution was computed from, as a draw would.
        """
        try:
            with torch.no_grad():
                sources = self._sources_of([distribution.log_prob(value)])
        except Exception:  # any failure means: not proved valid
            sources = self._every_draw
        self._add([value], sources)

    def stated(self, name: str) -> None:
        """A run has reached a sample statement, whose distribution has been made.

        The model comes after the guide, and what Python knew in the guide it knows there too.
        """
        self._leaked_at[name] = self._leaked

    def computed(self, operation: Any, inputs: Any, result: Any) -> None:
        """An operation was computed."""
        sources = self._sources_of(inputs) | self._leaked
        if not sources:
            return
        self._add(result, sources)
        self._add(written_by(operation, *inputs), sources)
        is_number = isinstance(result, bool | int | float | complex)
        if is_number or torch.Tag.dynamic_output_shape in operation.tags:
            self.leak(sources)

    def read(self, inputs: Any, result: Any) -> None:
        """Values of tensors were copied without an operation."""
        sources = self._sources_of(inputs)
        if sources and isinstance(result, Tensor):
            self._add([result], sources)
        elif sources:
            self.leak(sources)

    def leak(self, sources: int) -> None:
        """From now on everything may depend on `sources`, through Python."""
        if not _is_validation():
            self._leaked |= sources

    # --- sets -------------------------------------------------------------------------------

    def _sources_of(self, values: Iterable[Any]) -> int:
        sources = 0
        if not self._sources:  # nothing has been drawn yet
            return sources
        for value in values:
            if isinstance(value, Tensor):
                key = _memory(value)
                if key is not None and key[0] in self._sources:
                    sources |= self._sources[key[0]][0]
            elif isinstance(value, list | tuple | dict):
                sources |= self._sources_of(value.values() if isinstance(value, dict) else value)
        return sources

    def _add(self, values: Any, sources: int) -> None:
        for tensor in tensors_of(values):
            key = _memory(tensor)
            if key is None:  # a sparse tensor, or another kind without a storage
                self._leaked |= sources
                continue
            place, storage = key
            known = self._sources.get(place)
            if known is None:
                self._sources[place] = sources, StorageWeakRef(storage)  # the address stays in use
            elif known[0] | sources != known[0]:
                self._sources[place] = known[0] | sources, known[1]


class _Drawn(Messenger):
    """Reports the guide's draws to a `Watch`."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def _pyro_sample(self, msg: Any) -> None:
        self.watch.stated(msg["name"])

    def _pyro_post_sample(self, msg: Any) -> None:
        if not msg["is_observed"]:
            self.watch.drawn(msg["name"], msg["value"])
            if "_enumerate_dim" in msg["infer"] or "_enum_total" in msg["infer"]:
                self.watch.enumerated(msg["fn"], msg["value"])


class _Stated(Messenger):
    """Reports the model's sample statements, and its own draws, to a `Watch`."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def _pyro_sample(self, msg: Any) -> None:
        self.watch.stated(msg["name"])

    def _pyro_post_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and not self.watch.bits_of([msg["name"]]):
            self.watch.drawn(msg["name"], msg["value"])


class _Operations(TorchDispatchMode):
    """Reports all operations to a `Watch`, those inside compiled and vectorised functions too."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.watch.computed(func, (args, kwargs), result)
        return result


class _Readers(TorchFunctionMode):
    """Reports functions to a `Watch` that read the memory of tensors without an operation."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _READERS:
            self.watch.read((args, kwargs), result)
        return result


_READERS = {
    torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor,
    Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__,
    Tensor.__float__, Tensor.__int__, Tensor.__index__,
    Tensor.data_ptr, Tensor.untyped_storage, Tensor.storage,
}  # fmt: skip


def _memory(tensor: Tensor) -> tuple[int, Any] | None:
    """The address of a tensor's storage, and the storage; None if it has none."""
    try:
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None
    return storage._cdata, storage


def _is_validation() -> bool:
    """Whether a check of torch's reads the number, which raises an error or does nothing."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(_PASSED_THROUGH):
            is_check = frame.f_code.co_name in ("__init__", "_validate_sample")
            return is_check and module == "torch.distributions.distribution"
        frame = frame.f_back
    return False


_PASSED_THROUGH = (__name__, "torch._ops", "torch._tensor", "torch._compile", "torch._dynamo.")
