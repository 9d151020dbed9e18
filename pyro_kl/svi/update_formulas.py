"""The steps of torch's and Pyro's optimisers as functions of tensors.

Each takes the parameters, the gradient, the learning rate and the state, and returns the new
parameters and the new state; its keywords are the settings of the optimiser's parameter groups.
The step count and the rate are tensors in float64, without a dimension or with the shape of the
parameters, so that factors made of them are as exact as the Python numbers of the optimiser.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from pyro.optim.adagrad_rmsprop import AdagradRMSProp
from pyro.optim.clipped_adam import ClippedAdam
from torch import Tensor

State = tuple[Tensor, ...]
Update = tuple[Tensor, State]


def _moments(
    grad: Tensor, mean: Tensor, square: Tensor, betas: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """The decayed averages of the gradient and of its square."""
    beta1, beta2 = betas
    return (
        torch.lerp(mean, grad, 1 - beta1),
        (square * beta2).addcmul(grad, grad, value=1 - beta2),
    )


def _decay(
    x: Tensor, grad: Tensor, lr: Tensor, weight_decay: float, decoupled: bool
) -> tuple[Tensor, Tensor]:
    """Parameters and gradient after weight decay."""
    if weight_decay == 0:
        return x, grad
    if decoupled:
        return x * (1 - lr * weight_decay).to(x.dtype), grad
    return x, grad.add(x, alpha=weight_decay)


def adam(
    x: Tensor,
    grad: Tensor,
    lr: Tensor,
    state: State,
    *,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    amsgrad: bool,
    decoupled_weight_decay: bool,
) -> Update:
    """Kingma and Ba (2015); AdamW of Loshchilov and Hutter (2019) if the decay is decoupled."""
    step, mean, square, *largest = state
    step = step + 1
    x, grad = _decay(x, grad, lr, weight_decay, decoupled_weight_decay)
    mean, square = _moments(grad, mean, square, betas)
    if amsgrad:
        largest = [torch.maximum(largest[0], square)]
    step_size = (lr / (1 - betas[0] ** step)).to(x.dtype)
    correction = torch.sqrt(1 - betas[1] ** step).to(x.dtype)
    denominator = torch.sqrt(largest[0] if amsgrad else square) / correction + eps
    return x - step_size * mean / denominator, (step, mean, square, *largest)


def clipped_adam(
    x: Tensor,
    grad: Tensor,
    lr: Tensor,
    state: State,
    *,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    clip_norm: float,
    centered_variance: bool,
) -> Update:
    """Pyro's Adam with a bound on each element of the gradient; the decay lrd is in the rate."""
    step, mean, square = state
    step = step + 1
    grad = grad.clamp(-clip_norm, clip_norm)
    x, grad = _decay(x, grad, lr, weight_decay, decoupled=False)
    mean = torch.lerp(mean, grad, 1 - betas[0])
    deviation = grad - mean if centered_variance else grad
    square = (square * betas[1]).addcmul(deviation, deviation, value=1 - betas[1])
    step_size = lr * torch.sqrt(1 - betas[1] ** step) / (1 - betas[0] ** step)
    return x - step_size.to(x.dtype) * mean / (torch.sqrt(square) + eps), (step, mean, square)


def sgd(
    x: Tensor,
    grad: Tensor,
    lr: Tensor,
    state: State,
    *,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
) -> Update:
    """Gradient descent; the first step sets the momentum to the gradient itself."""
    x, grad = _decay(x, grad, lr, weight_decay, decoupled=False)
    if momentum != 0:
        started, buffer = state
        moved = (buffer * momentum).add(grad, alpha=1 - dampening)
        buffer = torch.where(started > 0, moved, grad)
        grad = grad.add(buffer, alpha=momentum) if nesterov else buffer
        state = (torch.ones_like(started), buffer)
    return x - lr.to(x.dtype) * grad, state


def rmsprop(
    x: Tensor,
    grad: Tensor,
    lr: Tensor,
    state: State,
    *,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    centered: bool,
) -> Update:
    """Hinton (2012), Neural Networks for Machine Learning, lecture 6."""
    step, square, *rest = state
    x, grad = _decay(x, grad, lr, weight_decay, decoupled=False)
    square = (square * alpha).addcmul(grad, grad, value=1 - alpha)
    variance = square
    if centered:
        rest[-1] = torch.lerp(rest[-1], grad, 1 - alpha)
        variance = square.addcmul(rest[-1], rest[-1], value=-1)
    move = grad / (torch.sqrt(variance) + eps)
    if momentum > 0:
        move = rest[0] = rest[0] * momentum + move
    return x - lr.to(x.dtype) * move, (step + 1, square, *rest)


def adagrad(
    x: Tensor,
    grad: Tensor,
    lr: Tensor,
    state: State,
    *,
    lr_decay: float,
    eps: float,
    weight_decay: float,
) -> Update:
    """Duchi, Hazan and Singer (2011)."""
    step, total = state
    x, grad = _decay(x, grad, lr, weight_decay, decoupled=False)
    total = total.addcmul(grad, grad)
    step_size = (lr / (1 + step * lr_decay)).to(x.dtype)
    return x - step_size * grad / (torch.sqrt(total) + eps), (step + 1, total)


def adagrad_rmsprop(
    x: Tensor, grad: Tensor, lr: Tensor, state: State, *, delta: float, t: float
) -> Update:
    """Pyro's step of Kucukelbir and others (2017), equations 10 and 11; the rate is eta."""
    step, square = state
    step = step + 1
    square = torch.where(step == 1, grad * grad, square * (1.0 - t) + t * grad * grad)
    step_size = (lr * step ** (-0.5 + delta)).to(x.dtype)
    return x - step_size * grad / (1.0 + torch.sqrt(square)), (step, square)


def adamax(
    x: Tensor,
    grad: Tensor,
    lr: Tensor,
    state: State,
    *,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> Update:
    """Kingma and Ba (2015), section 7.1."""
    step, mean, largest = state
    step = step + 1
    x, grad = _decay(x, grad, lr, weight_decay, decoupled=False)
    mean = torch.lerp(mean, grad, 1 - betas[0])
    largest = torch.maximum(largest * betas[1], grad.abs() + eps)
    step_size = (lr / (1 - betas[0] ** step)).to(x.dtype)
    return x - step_size * mean / largest, (step, mean, largest)


def nadam(
    x: Tensor,
    grad: Tensor,
    lr: Tensor,
    state: State,
    *,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    momentum_decay: float,
    decoupled_weight_decay: bool,
) -> Update:
    """Dozat (2016), Incorporating Nesterov Momentum into Adam."""
    step, product, mean, square = state
    step = step + 1
    x, grad = _decay(x, grad, lr, weight_decay, decoupled_weight_decay)
    momentum = betas[0] * (1.0 - 0.5 * 0.96 ** (step * momentum_decay))
    next_momentum = betas[0] * (1.0 - 0.5 * 0.96 ** ((step + 1) * momentum_decay))
    product = product * momentum.to(product.dtype)  # torch keeps it in float32
    exact = product.to(step.dtype)
    mean, square = _moments(grad, mean, square, betas)
    of_grad = (lr * (1.0 - momentum) / (1.0 - exact)).to(x.dtype)
    of_mean = (lr * next_momentum / (1.0 - exact * next_momentum)).to(x.dtype)
    denominator = torch.sqrt(square / (1 - betas[1] ** step).to(x.dtype)) + eps
    return x - (of_grad * grad + of_mean * mean) / denominator, (step, product, mean, square)


def radam(
    x: Tensor,
    grad: Tensor,
    lr: Tensor,
    state: State,
    *,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled_weight_decay: bool,
) -> Update:
    """Liu and others (2020), On the Variance of the Adaptive Learning Rate and Beyond."""
    step, mean, square = state
    step = step + 1
    x, grad = _decay(x, grad, lr, weight_decay, decoupled_weight_decay)
    mean, square = _moments(grad, mean, square, betas)
    decayed = betas[1] ** step
    longest = 2 / (1 - betas[1]) - 1
    length = longest - 2 * step * decayed / (1 - decayed)
    rectification = torch.sqrt(
        (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    )
    factor = (rectification * torch.sqrt(1 - decayed)).to(x.dtype)
    adapted = torch.where(length > 5.0, factor / (torch.sqrt(square) + eps), 1.0)
    step_size = (lr / (1 - betas[0] ** step)).to(x.dtype)
    return x - step_size * mean * adapted, (step, mean, square)


class Formula(NamedTuple):
    """How an optimiser steps: its class, its function and the state it keeps."""

    #: The exact class: a subclass may step differently.
    optimizer: type
    update: Callable[..., Update]
    #: torch's names of the state, in the order of `update`.
    state: tuple[str, ...]
    #: What comes after them under a setting: (name, setting).
    optional: tuple[tuple[str, str], ...] = ()

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings that the step depends on."""
        parameters = inspect.signature(self.update).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)

    def state_names(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of the state tensors under these settings."""
        return self.state + tuple(name for name, under in self.optional if settings[under])


_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_LARGEST = (("max_exp_avg_sq", "amsgrad"),)
_BUFFER = ("momentum_buffer", "momentum")

#: By the name of the class.
FORMULAS: dict[str, Formula] = {
    formula.optimizer.__name__: formula
    for formula in (
        Formula(torch.optim.Adam, adam, _MOMENTS, _LARGEST),
        Formula(torch.optim.AdamW, adam, _MOMENTS, _LARGEST),
        Formula(torch.optim.SGD, sgd, (), (("started", "momentum"), _BUFFER)),
        Formula(
            torch.optim.RMSprop,
            rmsprop,
            ("step", "square_avg"),
            (_BUFFER, ("grad_avg", "centered")),
        ),
        Formula(torch.optim.Adagrad, adagrad, ("step", "sum")),
        Formula(torch.optim.Adamax, adamax, ("step", "exp_avg", "exp_inf")),
        Formula(torch.optim.NAdam, nadam, ("step", "mu_product", "exp_avg", "exp_avg_sq")),
        Formula(torch.optim.RAdam, radam, _MOMENTS),
        Formula(ClippedAdam, clipped_adam, _MOMENTS),
        Formula(AdagradRMSProp, adagrad_rmsprop, ("step", "sum")),
    )
}
