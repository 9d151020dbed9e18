"""`expected_log_likelihood`: the question that users ask of the table of likelihoods."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..divergence.estimate import Estimate
from ..messages import see
from ..numerics.dtypes import promoted
from ..registry.subclasses import keeps_density
from . import LIKELIHOODS
from .likelihood import Likelihood


def expected_log_likelihood(
    likelihood: str | type[Distribution] | Likelihood,
    y: Tensor | float,
    loc: Tensor | float,
    scale: Tensor | float,
    *,
    link: str | None = None,
    **parameters: Tensor | float,
) -> Estimate:
    """E log p(y | η) of each row, where the linear predictor η is Normal(loc, scale²).

    It is deterministic, and autograd differentiates it twice in loc and scale.

    Args:
        likelihood: a name ("bernoulli", "bernoulli probit", "binomial", "poisson",
            "gaussian", "negative binomial", "categorical") or a class of torch or Pyro.
        y: the responses; for a Categorical the numbers of the classes.
        loc: the means of η. A Categorical has a dimension of logits more, the last, which are
            independent.
        scale: the standard deviations of η; 0 is allowed.
        link: "probit" for a Bernoulli with that link; by default the first one of the table.
        **parameters: `total_count` of a Binomial or a NegativeBinomial (torch's), `noise`, the
            standard deviation of a Gaussian response.

    Returns:
        An `Estimate`: `value` in nats, of the broadcast shape; `method` is "closed form",
        "quadrature" (then `error` bounds the absolute error of each row in float64, rounding
        aside) or "bound" (the value is a lower bound).

    Raises:
        ValueError: an unknown likelihood or link, a y that the likelihood cannot have, a negative
            scale, a missing parameter or one that the likelihood does not have.

    Reference:
        Bonnet (1964), Price (1958): the derivatives. The sources of the methods are in
        `pyro_kl.likelihoods`.

    Example:
        >>> y, loc = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
        >>> scale = torch.tensor([0.0, 3.0])
        >>> print(pyro_kl.expected_log_likelihood("bernoulli", y, loc, scale))
        [-0.6931, -2.618] of shape (2,) nats  [quadrature]
    """
    found = _find(likelihood, link)
    _check_parameters(found, parameters)
    rows, own = _rows(found, y, loc, scale, parameters)
    _check_rows(found, *rows, own)
    value = found.expected(*rows, **own).value
    error = None
    if found.method == "quadrature" and found.error is not None:
        with torch.no_grad():
            error = found.error(*rows, **own)
    return Estimate(value, torch.zeros_like(value), found.method, error=error)


def _find(asked: str | type[Distribution] | Likelihood, link: str | None) -> Likelihood:
    """The likelihood of that name or class, and of that link if one is asked for."""
    if isinstance(asked, Likelihood):
        return asked
    for each in LIKELIHOODS:
        if _is_asked(each, asked) and link in (None, each.link):
            return each
    table = ", ".join(f'"{each.name}" (link "{each.link}")' for each in LIKELIHOODS)
    name = asked if isinstance(asked, str) else getattr(asked, "__name__", repr(asked))
    with_link = f' with link "{link}"' if link else ""
    raise ValueError(
        f"no expected log likelihood is declared for {name}{with_link}. There are {table}; pass a "
        "name or the class of torch or Pyro." + see("expected-log-likelihood")
    )


def _is_asked(likelihood: Likelihood, asked: object) -> bool:
    if isinstance(asked, str):
        return asked.lower() in (likelihood.name, likelihood.distribution.__name__.lower())
    declared = likelihood.distribution
    return (
        isinstance(asked, type) and issubclass(asked, declared) and keeps_density(asked, declared)
    )


def _check_parameters(likelihood: Likelihood, given: dict[str, Tensor | float]) -> None:
    if set(given) != set(likelihood.parameters):
        needs = " and ".join(likelihood.parameters) or "no parameters"
        raise ValueError(
            f'the likelihood "{likelihood.name}" has {needs} by keyword; '
            f"given: {', '.join(given) or 'none'}." + see("expected-log-likelihood")
        )


def _rows(
    likelihood: Likelihood,
    y: Tensor | float,
    loc: Tensor | float,
    scale: Tensor | float,
    parameters: dict[str, Tensor | float],
) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Tensor]]:
    """All of a row in one dtype and shape; a vector of logits belongs to one y."""
    a, s = torch.as_tensor(loc), torch.as_tensor(scale)
    dtype = promoted((a, s))
    a, s = torch.broadcast_tensors(a.to(dtype), s.to(dtype))
    others = [torch.as_tensor(x).to(a.device, dtype) for x in (y, *parameters.values())]
    last = a.dim() - likelihood.event_dim
    batch, event = a.shape[:last], a.shape[last:]
    shape = torch.broadcast_shapes(batch, *(x.shape for x in others))
    target, *own = (x.expand(shape) for x in others)
    a, s = a.expand(shape + event), s.expand(shape + event)
    return (target, a, s), dict(zip(parameters, own, strict=True))


def _check_rows(
    likelihood: Likelihood, y: Tensor, loc: Tensor, scale: Tensor, own: dict[str, Tensor]
) -> None:
    if (scale < 0).any():
        raise ValueError(
            f"scale is {scale.min().item():g} in some rows: it is 0 or more."
            + see("expected-log-likelihood")
        )
    impossible = ~likelihood.is_possible(y, loc, **own)
    if impossible.any():
        raise ValueError(
            f'the likelihood "{likelihood.name}" has y in {likelihood.possible}; '
            f"{int(impossible.sum())} of {y.numel()} rows have another, the first of them "
            f"{y[impossible][0].item():g}." + see("expected-log-likelihood")
        )
