"""From what a user gives to one optimiser of torch over many parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from pyro.optim import PyroLRScheduler, PyroOptim
from pyro.optim.optim import _load_state_dict, is_scheduler
from torch import Tensor
from torch.optim import Optimizer

from ..messages import see
from .clipping import Clip
from .cohort import IMPLEMENTATIONS, Cohort
from .learning_rates import never_warn_about_order

#: The classes and devices with a fused kernel in all versions of torch that we run on. SGD's
#: refuses sparse gradients.
FUSED = (torch.optim.Adam, torch.optim.AdamW)
FUSED_DEVICES = ("cpu", "cuda")


class FromPyro:
    """One optimiser in place of the many that a Pyro optimiser makes.

    Args:
        pyro_optim: its constructor, arguments, clipping, state and schedulers are used.
    """

    def __init__(self, pyro_optim: Any) -> None:  # Pyro's own annotations of it are not right
        if type(pyro_optim).__call__ not in (PyroOptim.__call__, PyroLRScheduler.__call__):
            raise TypeError(
                f"{type(pyro_optim).__name__} steps parameters in its own way, which one "
                "optimiser over all of them cannot replace: use it with pyro.infer.SVI."
                + see("optimiser")
            )
        self.pyro_optim = pyro_optim

    @property
    def has_schedule(self) -> bool:
        """Whether the user schedules the learning rate through Pyro."""
        return isinstance(self.pyro_optim, PyroLRScheduler)

    def join(self, params: Mapping[str, Tensor], saved: Mapping[str, dict[str, Any]]) -> Cohort:
        """The optimiser of `params`; `saved` has the state of some of them by name."""
        optim = self.pyro_optim
        singles, schedulers = {}, {}
        for name, param in params.items():
            single = self._single(name, param)
            if is_scheduler(single):
                schedulers[name], single = single, single.optimizer
                never_warn_about_order(single)
            if name in saved:
                load_by_name(single, {name: param}, saved)
                if name in schedulers:
                    schedulers[name].load_state_dict(saved[name]["scheduler"])
            singles[name] = single
        arguments = optim._get_optim_args(next(iter(params.values())))
        groups = _merged(singles, params)
        optimizer = optim.pt_optim_constructor(groups, **arguments)
        for name, param in params.items():
            optimizer.state[param] = singles[name].state[param]
        _place_steps(optimizer)
        _share_decaying_groups(optimizer, singles, params)
        clips = {name: Clip(**optim._get_grad_clip_args(param)) for name, param in params.items()}
        return Cohort(
            dict(params),
            optimizer,
            singles,
            schedulers,
            {name: clip for name, clip in clips.items() if clip},
        )

    def _single(self, name: str, param: Tensor) -> Any:
        """Pyro's optimiser (or scheduler) of one parameter, made as Pyro makes it."""
        optim = self.pyro_optim
        if param not in optim.optim_objs:
            single = optim.optim_objs[param] = optim._get_optim(param)
            optim.grad_clip[param] = optim._get_grad_clip(param)
            waiting = optim._state_waiting_to_be_consumed.pop(name, None)
            if waiting is not None:
                _load_state_dict(single, waiting)
        return optim.optim_objs[param]


class FromFactory:
    """One optimiser from a function of a list of parameters."""

    has_schedule = False

    def __init__(self, factory: Callable[[list[Tensor]], Optimizer]) -> None:
        self.factory = factory

    def join(self, params: Mapping[str, Tensor], saved: Mapping[str, dict[str, Any]]) -> Cohort:
        """The optimiser of `params`; `saved` has the state of some of them by name."""
        optimizer = self.factory(list(params.values()))
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"optim returned {type(optimizer).__name__} for a list of parameters, not a "
                "torch.optim.Optimizer." + see("optimiser")
            )
        owned = {id(param) for group in optimizer.param_groups for param in group["params"]}
        left_out = [name for name, param in params.items() if id(param) not in owned]
        if left_out:
            raise ValueError(
                f"The optimiser that optim returned leaves out {left_out}." + see("optimiser")
            )
        if saved:
            load_by_name(optimizer, params, saved)
        return Cohort(dict(params), optimizer)


def source_of(optim: Any, optim_args: Any = None) -> FromPyro | FromFactory:
    """What makes optimisers, from the argument `optim` of a user.

    Raises:
        TypeError: it is none of the accepted forms, or evaluates the loss more than once a step.
    """
    made_of: Any = optim.func if isinstance(optim, functools.partial) else optim
    is_class = isinstance(made_of, type) and issubclass(made_of, Optimizer)
    if is_class and issubclass(made_of, torch.optim.LBFGS):
        raise TypeError(
            "LBFGS evaluates the loss several times in a step and needs the same value each "
            "time; the loss of SVI is random. Use a method of stochastic gradients such as Adam."
            + see("optimiser")
        )
    if is_class:
        return FromPyro(PyroOptim(optim, optim_args or {}))
    if optim_args is not None:
        raise TypeError(
            f"optim_args are for a class of torch.optim; {type(optim).__name__} has its own."
            + see("optimiser")
        )
    if isinstance(optim, PyroOptim):
        return FromPyro(optim)
    if callable(optim) and not isinstance(optim, (Optimizer, type)):
        return FromFactory(optim)
    raise TypeError(
        f"optim must be a Pyro optimiser, a class of torch.optim (with optim_args) or a function "
        f"from a list of parameters to a torch.optim.Optimizer, got {optim!r}. An optimiser over "
        "given tensors is no use: the parameters are those that the model and the guide declare."
        + see("optimiser")
    )


def load_by_name(
    optimizer: Optimizer, params: Mapping[str, Tensor], saved: Mapping[str, dict[str, Any]]
) -> None:
    """Load settings and state that are saved by the names of parameters."""
    names = {id(param): name for name, param in params.items()}
    packed: dict[str, Any] = {"state": {}, "param_groups": []}
    position = 0
    for group in optimizer.param_groups:
        settings = {**group, "params": []}
        for param in group["params"]:
            name = names.get(id(param), "")
            known = saved.get(name, {"settings": {}, "state": optimizer.state.get(param)})
            settings.update(known["settings"])
            settings["params"].append(position)
            if known["state"]:
                packed["state"][position] = known["state"]
            position += 1
        packed["param_groups"].append(settings)
    optimizer.load_state_dict(packed)


def _merged(
    singles: Mapping[str, Optimizer], params: Mapping[str, Tensor]
) -> list[dict[str, Any]]:
    """Parameter groups: parameters with the same settings are one group."""
    groups: dict[Hashable, dict[str, Any]] = {}
    for name, single in singles.items():
        (group,) = single.param_groups
        settings = {**group, **_fastest(single, params[name])}
        del settings["params"]
        key: Hashable = tuple(
            (setting, value if isinstance(value, Hashable) else repr(value))
            for setting, value in sorted(settings.items())
        )
        if _decays_its_rate(group):
            key = name  # it decays in the steps of this parameter, and only in these
        groups.setdefault(key, {**settings, "params": []})["params"].append(params[name])
    return list(groups.values())


def _fastest(single: Optimizer, param: Tensor) -> dict[str, bool]:
    """The fused kernel, or one call for many tensors, unless the user chose."""
    group = single.param_groups[0]
    chosen = any(group.get(name) is not None for name in IMPLEMENTATIONS)
    if chosen or group.get("differentiable") or isinstance(group.get("lr"), Tensor):
        return {}
    if type(single) in FUSED and param.is_floating_point() and param.device.type in FUSED_DEVICES:
        return {"fused": True}
    own = type(single).__module__.startswith("torch.optim.")
    if own and "foreach" in group and type(single) is not torch.optim.ASGD:
        return {"foreach": True}
    return {}  # ASGD for many tensors rounds its rate to float32


def _place_steps(optimizer: Optimizer) -> None:
    """Put the step counts of trained parameters where a fused kernel reads them, as torch does."""
    for group in optimizer.param_groups:
        for param in group["params"]:
            step = optimizer.state[param].get("step")
            if group.get("fused") and isinstance(step, Tensor):
                moved = step.to(device=param.device, dtype=torch.float32)
                optimizer.state[param]["step"] = moved


def _decays_its_rate(group: Mapping[str, Any]) -> bool:
    """Whether each step of the optimiser changes the rate of its group, as Pyro's lrd does."""
    return bool(group.get("lrd", 1.0) != 1.0)


def _share_decaying_groups(
    optimizer: Optimizer, singles: Mapping[str, Optimizer], params: Mapping[str, Tensor]
) -> None:
    """Let a rate that decays be one number for the joint and the single optimiser."""
    names = {id(param): name for name, param in params.items()}
    optimizer.param_groups = [
        singles[names[id(group["params"][0])]].param_groups[0]
        if _decays_its_rate(group)
        else group
        for group in optimizer.param_groups
    ]
