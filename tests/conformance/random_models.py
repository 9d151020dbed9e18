"""Random models and guides: `TraceKL_ELBO` against `Trace_ELBO`, loss and gradient.

    python -m tests.conformance.random_models [--count 300] [--seed 0] [--batches 40]

A seed makes a model of one to five latents (real, positive, in the unit interval, on the simplex,
vectors, matrices, discrete) in nested plates that may be subsampled, with masks and scales on one
side or both, priors that are flows, and a guide for it: written by hand, in any order and with
any dependences, or one of Pyro's autoguides. Both ELBOs see the same draws; judged is the mean
difference of the loss and of every gradient component in standard errors, which few batches know
badly: a Student's t, told as the |z| that is as unlikely. Where the model draws a discrete latent
that the guide leaves out, the loss alone is judged: Trace_ELBO leaves its score function out.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import JitTrace_ELBO, Trace_ELBO
from pyro.infer import autoguide as ag
from torch import Tensor

import pyro_kl

from .paired_gradients import Gaps, gradients

ROWS, BATCH, COLUMNS = 4, 2, 3
INDEX = torch.arange(ROWS)

#: kind -> event shapes that it may have.
KINDS = {
    "real": [(), (2,), (3, 1), (2, 2)],
    "positive": [(), (), (2,), (1, 3)],
    "unit": [(), (2,)],
    "simplex": [(3,)],
    "cholesky": [(2, 2)],
    "flow": [(2,)],
    "normal vector": [(2,)],
    "bernoulli": [(), (), (2,)],
    "categorical": [()],
    "poisson": [()],
}
#: What the suite runs.
SUITE = (2, 6, 22, 48, 153, 164)
DISCRETE = ("bernoulli", "categorical", "poisson")
AUTOGUIDES: dict[str, Callable[..., Any]] = {
    "AutoNormal": ag.AutoNormal,
    "AutoDiagonalNormal": ag.AutoDiagonalNormal,
    "AutoMultivariateNormal": ag.AutoMultivariateNormal,
    "AutoLowRankMultivariateNormal": lambda model: ag.AutoLowRankMultivariateNormal(model, rank=2),
    "AutoIAFNormal": lambda model: ag.AutoIAFNormal(model, hidden_dim=[64]),
    "AutoStructured": ag.AutoStructured,
    "AutoDelta": ag.AutoDelta,
    "AutoLaplaceApproximation": ag.AutoLaplaceApproximation,
    "AutoNormalMessenger": ag.AutoNormalMessenger,
    "AutoHierarchicalNormalMessenger": ag.AutoHierarchicalNormalMessenger,
    "AutoGuideList": lambda model: _list_of_guides(model),
}


@dataclass
class Side:
    """What one side does at a site.

    Attributes:
        family: index into the families of the kind.
        parents: sites that move its location.
        strengths: by how much.
        hidden: whether the parents' values go through Python's numbers.
        switched: whether the parents count only when the flag is set.
        mask: mask of the batch, or None.
        inner: mask of the elements of the event, or None.
        scale: factor of the log density.
    """

    family: int
    parents: list[str] = field(default_factory=list)
    strengths: list[float] = field(default_factory=list)
    hidden: bool = False
    switched: bool = False
    mask: Any = None
    inner: Any = None
    scale: float = 1.0


@dataclass
class Latent:
    """A latent: its kind, its shape, its plates, both sides, and the module of its prior."""

    name: str
    kind: str
    event: tuple[int, ...]
    plates: tuple[str, ...]
    model: Side
    guide: Side
    missing: bool = False
    flow: Any = None


class RandomModel:
    """A model and a guide, fixed by a seed.

    Args:
        seed: of all choices.

    Attributes:
        mode: "vectorized", "single" or "jit": how the particles are drawn.
        title: what was chosen, in words.
    """

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.seed = seed
        self.autoguide = rng.choice([None, None, *AUTOGUIDES]) if rng.random() < 0.75 else None
        self.mode = rng.choice(["vectorized"] * 9 + ["single", "single", "jit"])
        if self.autoguide == "AutoIAFNormal":
            self.mode = "single"  # its permutations are of one particle
        self.subsampled = rng.random() < 0.3 and self.autoguide in (None, "AutoNormal")
        self.latents = [self._latent(i) for i in range(rng.choice([1, 1, 2, 3, 3, 4, 5]))]
        self.order = [latent.name for latent in self.latents]
        if rng.random() < 0.6:
            rng.shuffle(self.order)
        self.auxiliary = rng.random() < 0.2 and not self.autoguide
        self.seen = rng.random() < 0.15 and not self.autoguide
        self._connect()

    # --- choices ----------------------------------------------------------------------------

    def _latent(self, i: int) -> Latent:
        rng = self.rng
        kinds = [k for k in KINDS if not (self.autoguide and k in DISCRETE)]
        kind = rng.choice([*kinds, "real", "positive"])
        plates = rng.choice([(), (), ("rows",), ("columns",), ("rows", "columns")])
        if kind in ("cholesky", "flow"):
            plates = rng.choice([(), plates])
        event = rng.choice(KINDS[kind])
        sides = [Side(rng.randrange(12)), Side(rng.randrange(12))]
        latent = Latent(f"z{i}", kind, event, plates, *sides)
        if self.autoguide is None and rng.random() < 0.08 and i:
            latent.missing = True
        self._settings(latent)
        return latent

    def _settings(self, latent: Latent) -> None:
        """Masks and scales: of the model alone, of the guide alone, of both."""
        rng = self.rng
        hit = rng.choice([(True, True), (True, True), (True, False), (False, True)])
        sides = [s for s, h in zip((latent.model, latent.guide), hit, strict=True) if h]
        if self.autoguide or latent.missing:
            sides = [latent.model]
        chance = 0.3 if not self.autoguide else 0.12
        if rng.random() < chance:
            rows = "rows" in latent.plates and not self.subsampled
            mask = [rng.random() < 0.6 for _ in range(ROWS)] if rows else rng.random() < 0.5
            mask = torch.tensor(mask)
            for side in sides:
                side.mask = ~mask if rng.random() < 0.2 else mask
        if rng.random() < chance:
            shape = math.prod(latent.event) if latent.kind in ("real", "positive", "unit") else 1
            inner = torch.tensor([rng.random() < 0.6 for _ in range(shape)])
            inner = inner.reshape(latent.event) if inner.numel() > 1 else inner[0]
            if rng.random() < 0.3:
                inner = bool(inner.reshape(-1)[0])
            for side in sides:
                side.inner = inner
        if rng.random() < chance - 0.05:
            scale = rng.choice([0.3, 2.0])
            for side in sides:
                side.scale = scale

    def _connect(self) -> None:
        """Parents, of earlier sites in no more plates."""
        by_name = {latent.name: latent for latent in self.latents}
        model_order = [latent.name for latent in self.latents]
        for order, which in ((model_order, "model"), (self.order, "guide")):
            for i, name in enumerate(order):
                latent, side = by_name[name], getattr(by_name[name], which)
                for other in order[:i]:
                    fits = set(by_name[other].plates) <= set(latent.plates)
                    if which == "guide" and by_name[other].missing:
                        fits = False
                    if fits and self.rng.random() < 0.5:
                        side.parents.append(other)
                        side.strengths.append(self.rng.choice([0.7, -0.7, 1.2]))
                side.switched = self.rng.random() < 0.3
                bare = not any(by_name[p].plates for p in side.parents)
                if self.mode == "single" and which == "model" and bare:
                    side.hidden = self.rng.random() < 0.2 and not self.autoguide

    @property
    def title(self) -> str:
        """What was chosen."""
        parts = [self.autoguide or "by hand " + ",".join(self.order), self.mode]
        parts += ["subsampled"] * self.subsampled + ["aux"] * self.auxiliary + ["seen"] * self.seen
        for z in self.latents:
            words = [f"{z.name}={z.kind}{z.event or ''}", "x".join(p[0] for p in z.plates)]
            words += ["missing"] * z.missing
            for letter, side in (("p", z.model), ("q", z.guide)):
                word = ",".join(side.parents) + "?" * side.switched + "!" * side.hidden
                word += " mask" * (side.mask is not None) + " inner" * (side.inner is not None)
                word += f" x{side.scale}" * (side.scale != 1)
                words += [f"{letter}({word})"] * bool(word)
            parts.append(" ".join(w for w in words if w))
        return "; ".join(parts)

    # --- running ----------------------------------------------------------------------------

    def model(self, index: Tensor, flag: bool = False) -> None:
        """The model."""
        plates = self._plates(index)
        values: dict[str, Tensor] = {}
        for latent in self.latents:
            distribution = _prior(latent, self._shift(latent, latent.model, values, flag))
            values[latent.name] = self._sample(latent, latent.model, distribution, plates)
        mean: Any = 0.0
        for latent in self.latents:
            if not latent.plates:
                mean = mean + 0.5 * _summary(latent, values[latent.name])
        pyro.sample("y", dist.Normal(mean, 1.0), obs=torch.tensor(0.8))
        for latent in self.latents:
            if latent.plates:
                with _nested(plates, latent.plates):
                    distribution = dist.Normal(_summary(latent, values[latent.name]), 1.5)
                    pyro.sample(f"y_{latent.name}", distribution, obs=torch.tensor(0.4))

    def hand(self, index: Tensor, flag: bool = False) -> None:
        """The guide that is written by hand."""
        plates = self._plates(index)
        values: dict[str, Tensor] = {}
        by_name = {latent.name: latent for latent in self.latents}
        shift: Any = 0.0
        if self.auxiliary:
            loc = pyro.param("aux_loc", torch.tensor(0.2))
            noise = dist.Normal(loc, 0.7)
            shift = torch.tanh(pyro.sample("aux", noise, infer={"is_auxiliary": True}))
        for name in self.order:
            latent = by_name[name]
            if latent.missing:
                continue
            moved = shift + self._shift(latent, latent.guide, values, flag)
            distribution = _posterior(latent, moved, index if self.subsampled else None)
            values[name] = self._sample(latent, latent.guide, distribution, plates)
        if self.seen:
            loc = pyro.param("seen_loc", torch.tensor(0.3)) + shift
            distribution = dist.Normal(loc, 1.0)
            obs = torch.tensor(1.0)
            pyro.sample("seen", distribution, obs=obs, infer={"is_auxiliary": True})

    def _plates(self, index: Tensor) -> dict[str, Any]:
        rows = pyro.plate("rows", ROWS, subsample=index if self.subsampled else None, dim=-1)
        return {"rows": rows, "columns": pyro.plate("columns", COLUMNS, dim=-2)}

    def _shift(self, latent: Latent, side: Side, values: dict[str, Tensor], flag: bool) -> Any:
        by_name = {other.name: other for other in self.latents}
        shift: Any = torch.tensor(0.0)
        if side.switched and not flag:
            return shift
        for name, strength in zip(side.parents, side.strengths, strict=True):
            moved = strength * torch.tanh(_summary(by_name[name], values[name]))
            shift = shift + (float(moved.detach()) if side.hidden else moved)
        return shift

    def _sample(
        self, latent: Latent, side: Side, distribution: Any, plates: dict[str, Any]
    ) -> Tensor:
        with _nested(plates, latent.plates) as stack:
            if side.mask is not None:
                stack.enter_context(poutine.mask(mask=side.mask))
            if side.scale != 1.0:
                stack.enter_context(poutine.scale(scale=side.scale))
            value: Tensor = pyro.sample(latent.name, distribution)
            return value

    def make_guide(self) -> Any:
        """The guide."""
        if self.autoguide is None:
            return self.hand
        create: dict[str, Any] = {}
        if self.subsampled:
            create["create_plates"] = lambda index, **_: pyro.plate(
                "rows", ROWS, subsample=index, dim=-1
            )
        return AUTOGUIDES[self.autoguide](self.model, **create)

    def index(self, batch: int) -> Tensor:
        """The rows of a batch."""
        return INDEX.roll(batch)[:BATCH] if self.subsampled else INDEX


def _nested(plates: dict[str, Any], names: Sequence[str]) -> ExitStack:
    stack = ExitStack()
    for name in sorted(names):  # columns, at dim -2, outside
        stack.enter_context(plates[name])
    return stack


def _list_of_guides(model: Any) -> Any:
    """AutoNormal for the first latent, a joint guide for the others."""
    names = [
        name
        for name, site in poutine.trace(model).get_trace(INDEX).iter_stochastic_nodes()
        if name.startswith("z")
    ]
    guide = ag.AutoGuideList(model)
    guide.append(ag.AutoNormal(poutine.block(model, expose=names[:1])))
    if len(names) > 1:
        guide.append(ag.AutoMultivariateNormal(poutine.block(model, expose=names[1:])))
    return guide


# --- distributions ------------------------------------------------------------------------------


def _summary(latent: Latent, value: Tensor) -> Tensor:
    """One number for each element of a site's batch."""
    value = value.to(torch.get_default_dtype())
    flat = value.reshape((*value.shape[: value.dim() - len(latent.event)], -1))
    weight = torch.linspace(1.0, 1.5, flat.shape[-1])
    return (flat * weight).mean(-1)


def _wide(shift: Any, event: tuple[int, ...]) -> Tensor:
    return torch.as_tensor(shift).reshape(torch.as_tensor(shift).shape + (1,) * len(event))


def _param(latent: Latent, what: str, low: float, high: float, where: str) -> Tensor:
    """A parameter of the event's shape."""
    numel = math.prod(latent.event)
    start = torch.linspace(low, high, numel) if numel > 1 else torch.tensor([0.4 * (low + high)])
    return pyro.param(f"{latent.name}_{where}_{what}", start.reshape(latent.event).clone())


def _finish(distribution: Any, latent: Latent, side: Side) -> Any:
    """The inner mask, the event."""
    shape = distribution.batch_shape
    if len(shape) < len(latent.event) or shape[len(shape) - len(latent.event) :] != latent.event:
        distribution = distribution.expand(torch.broadcast_shapes(shape, latent.event))
    if side.inner is not None and side.family % 2:
        return distribution.to_event(len(latent.event)).mask(_outer(side.inner))
    if side.inner is not None:
        distribution = distribution.mask(side.inner)
    return distribution.to_event(len(latent.event)) if latent.event else distribution


def _outer(inner: Any) -> Any:
    return inner if isinstance(inner, bool) else inner.reshape(-1)[0]


def _masked(distribution: Any, side: Side) -> Any:
    return distribution if side.inner is None else distribution.mask(_outer(side.inner))


def _prior(latent: Latent, shift: Any) -> Any:
    """The distribution of a latent in the model; some of its parameters are learnt."""
    side, kind = latent.model, latent.kind
    wide = _wide(shift, latent.event)
    loc = _param(latent, "loc", -0.3, 0.4, "p")
    pick = side.family // 2
    if kind == "real":
        make = [
            lambda at: dist.Normal(at, 1.3),
            lambda at: dist.Laplace(at, 1.2),
            lambda at: dist.StudentT(5.0, at, 1.1),
            lambda at: dist.SoftLaplace(at, 1.0),
            lambda at: dist.Logistic(at, 0.9),
            lambda at: dist.Normal(at, (0.3 * at).exp()),
        ][pick]
        return _finish(make(loc + wide), latent, side)
    if kind == "positive":
        make = [
            lambda at: dist.Gamma(2.0, at),
            lambda at: dist.LogNormal(at.log(), 0.9),
            lambda at: dist.Exponential(at),
            lambda at: dist.InverseGamma(3.0, at),
            lambda at: dist.HalfNormal(2.0 * at),
            lambda at: dist.Weibull(1.5 * at, 1.4),
        ][pick]
        return _finish(make((loc + 0.5 * wide).exp()), latent, side)
    if kind == "unit":
        make = [
            lambda at: dist.Beta(at, 2.0),
            lambda at: dist.Uniform(-0.5 * at, 1.0 + at),
            lambda at: dist.Beta(1.5, 1.0 + at),
        ][pick % 3]
        return _finish(make((loc + 0.5 * wide).exp()), latent, side)
    if kind == "simplex":
        return _masked(dist.Dirichlet(1.5 * (loc + 0.5 * wide).exp()), side)
    if kind == "cholesky":
        eta = 1.5 * (loc.mean() + 0.5 * torch.as_tensor(shift)).exp()
        return _masked(dist.LKJCholesky(2, eta), side)
    if kind == "flow":
        return _masked(_flow(latent, loc, wide, pick), side)
    if kind == "normal vector":
        tril = torch.tensor([[1.2, 0.0], [0.5, 0.8]])
        return _masked(dist.MultivariateNormal(loc + wide, scale_tril=tril), side)
    return _discrete(latent, loc, wide, shift, side)


def _flow(latent: Latent, loc: Tensor, wide: Tensor, pick: int) -> Any:
    """A prior that is a flow: parameters in tensors, or in modules."""
    T = dist.transforms
    if pick % 3 == 0:
        base = dist.Normal(wide.expand((*wide.shape[:-1], 2)), 1.0).to_event(1)
        return dist.TransformedDistribution(base, [T.AffineTransform(loc, loc.exp())])
    base = dist.Normal(torch.zeros(2), 1.2).to_event(1)
    if latent.flow is None:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            latent.flow = [
                lambda: T.affine_autoregressive(2, [8]),
                lambda: T.spline(2, count_bins=4, bound=4.0),
            ][pick % 3 - 1]()
    flow = pyro.module(f"{latent.name}_flow", latent.flow)
    parts = [flow, T.AffineTransform(loc + wide, 1.0)]
    return dist.TransformedDistribution(base, parts)


def _discrete(latent: Latent, loc: Tensor, wide: Tensor, shift: Any, side: Side) -> Any:
    if latent.kind == "bernoulli":
        return _finish(dist.Bernoulli(logits=loc + wide), latent, side)
    at = loc + torch.as_tensor(shift)
    if latent.kind == "categorical":
        logits = torch.stack([torch.zeros_like(at), at, -0.5 * at], -1)
        return _masked(dist.Categorical(logits=logits), side)
    return _masked(dist.Poisson((0.5 * at).exp()), side)


def _posterior(latent: Latent, shift: Any, index: Tensor | None) -> Any:
    """The distribution of a latent in the guide."""
    side, kind = latent.guide, latent.kind
    wide = _wide(shift, latent.event)
    loc = _param(latent, "loc", -0.2, 0.6, "q")
    width = _param(latent, "width", -0.8, -0.4, "q").exp()
    if "rows" in latent.plates:
        rows = pyro.param(f"{latent.name}_rows", torch.linspace(-0.2, 0.3, ROWS))
        wide = wide + _wide(rows if index is None else rows[index], latent.event)
        shift = shift + (rows if index is None else rows[index])
    pick = side.family // 2
    if kind == "real":
        return _finish(dist.Normal(loc + wide, width), latent, side)
    if kind == "positive":
        make = [
            lambda at: dist.LogNormal(at, width),
            lambda at: dist.Gamma(3.0 + at.exp(), 2.0),
            lambda at: dist.Gamma(4.0, 2.0 * at.exp()),
        ][pick % 3]
        return _finish(make(loc + 0.5 * wide), latent, side)
    if kind == "unit":
        at = loc + 0.5 * wide
        if pick % 2:
            return _finish(dist.Beta(2.0 + at.exp(), 2.5), latent, side)
        base = dist.Normal(at, width)
        sigmoid = [dist.transforms.SigmoidTransform()]
        return _finish(dist.TransformedDistribution(base, sigmoid), latent, side)
    if kind == "simplex":
        return _masked(dist.Dirichlet(3.0 * (loc + 0.5 * wide).exp()), side)
    if kind == "cholesky":
        eta = 2.5 * (loc.mean() + 0.5 * torch.as_tensor(shift)).exp()
        return _masked(dist.LKJCholesky(2, eta), side)
    if kind in ("flow", "normal vector"):
        if pick % 2:
            distribution = dist.Normal(loc + wide, width).to_event(1)
        else:
            distribution = dist.MultivariateNormal(loc + wide, scale_tril=torch.diag(width))
        return _masked(distribution, side)
    return _discrete(latent, loc, wide, shift, side)


# --- judging ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """The largest |z| of a random model.

    Attributes:
        worst: |z| of the worst component; inf if a number is not finite.
        component: its name.
        exact: how many latents were exact at the last step.
        latents: of how many.
    """

    worst: float
    component: str
    exact: int
    latents: int


class PyroFails(Exception):
    """Pyro has no guide for the model."""


def judge(seed: int, batches: int = 40) -> Verdict:
    """Loss and gradient of a random model by both ELBOs over the same draws.

    Args:
        seed: of the model.
        batches: of 100 particles if vectorized; of 1 particle, and twelve times as many, if not.

    Raises:
        PyroFails: the autoguide cannot be made for this model, or Trace_ELBO cannot use it or has
            an infinite loss.
    """
    random_model = RandomModel(seed)
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    guide = random_model.make_guide()
    if random_model.autoguide:
        with torch.no_grad():
            try:
                guide(random_model.index(0))
            except Exception as problem:
                raise PyroFails(str(problem)) from problem
            for _, parameter in pyro.get_param_store().named_parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    vectorized = random_model.mode == "vectorized"
    kwargs: dict[str, Any] = dict(max_plate_nesting=2, num_particles=100 if vectorized else 1)
    kwargs["vectorize_particles"] = vectorized
    if random_model.mode == "jit":
        kwargs["ignore_jit_warnings"] = True
    make = pyro_kl.JitTraceKL_ELBO if random_model.mode == "jit" else pyro_kl.TraceKL_ELBO
    if random_model.mode == "jit":
        try:
            JitTrace_ELBO(**kwargs).loss_and_grads(
                random_model.model, guide, random_model.index(0)
            )
        except Exception as problem:
            raise PyroFails(str(problem)) from problem
        gradients()
    ours, theirs = make(**kwargs), Trace_ELBO(**kwargs)
    gaps = Gaps(kwargs["num_particles"])
    no_score = any(z.missing and z.kind in DISCRETE for z in random_model.latents)
    for i in range(batches if vectorized else 12 * batches):
        results = []
        for one in (theirs, ours):
            pyro.set_rng_seed(10_000 + i)
            args, flag = (random_model.index(i),), bool(i // 2 % 2)
            try:
                value = one.loss_and_grads(random_model.model, guide, *args, flag=flag)
            except Exception as problem:
                if one is theirs:
                    raise PyroFails(str(problem)) from problem
                raise
            if one is theirs and not math.isfinite(value):  # a guide beyond a prior's moving ends
                raise PyroFails(f"the loss is {value}")
            found = gradients()
            loss = {"loss": torch.tensor([float(value)])}
            results.append(loss if no_score else {**loss, **found})
        gaps.add(results[1], results[0])
    worst, component = gaps.worst()
    rows = [row for row in ours.report if row.kind == "latent"]
    return Verdict(worst, component, sum(row.exact for row in rows), len(rows))


def run(seed: int, batches: int = 40) -> Verdict:
    """`judge` in float64, without warnings."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings(), pyro.validation_enabled(False):
            warnings.simplefilter("ignore")
            return judge(seed, batches)
    finally:
        torch.set_default_dtype(before)
        pyro.clear_param_store()


def main(argv: Sequence[str] | None = None) -> int:
    """Run many, print each, and the worst."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--quiet", action="store_true", help="print only what is beyond 4")
    args = parser.parse_args(argv)
    worst, failed, skipped = 0.0, 0, 0
    for seed in range(args.seed, args.seed + args.count):
        try:
            verdict = run(seed, args.batches)
            text = f"|z| {verdict.worst:5.2f} {verdict.component:14s}"
            text += f" exact {verdict.exact}/{verdict.latents}"
            worst = max(worst, verdict.worst)
            bad = verdict.worst > 4
        except PyroFails as problem:
            skipped, bad = skipped + 1, False
            text = f"Pyro fails: {str(problem)[:60]!r}"
        except Exception as problem:
            failed, bad = failed + 1, True
            text = f"{type(problem).__name__}: {str(problem)[:160]}"
        if bad or not args.quiet:
            print(f"{seed:4d} {text}  [{RandomModel(seed).title}]", flush=True)
    counts = f"{args.count} models, {skipped} that Pyro cannot run, {failed} errors"
    print(f"{counts}, largest |z| = {worst:.2f}")
    return int(failed > 0 or worst > 5)


if __name__ == "__main__":
    sys.exit(main())
