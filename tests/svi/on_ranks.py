"""`torchrun -m tests.svi.on_ranks FOLDER SCENARIO ...`: fits of several ranks.

Each rank writes FOLDER/<scenario>.<number of ranks>.<rank>: what the scenario returns, or the text
of its error. `run_alone` takes the same scenarios in one process.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from torch import nn

import pyro_kl
from pyro_kl.svi.ranks import num_ranks, this_rank

#: Divisible by 2 and 3; the parts of `uneven` are not.
ROWS = 102


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 3, generator=generator, dtype=torch.float64)
    return x, (x.sum(-1) > 0).to(x.dtype)


def part(tensor, is_even=True):
    """The rows of this rank."""
    if num_ranks() == 1:
        return tensor
    ends = [len(tensor) * rank // num_ranks() for rank in range(num_ranks() + 1)]
    if not is_even:
        ends[1] += 5
    return tensor[ends[this_rank()] : ends[this_rank() + 1]]


def regression(x, y, size=None):
    """A logistic regression; the data are a part of `size` rows."""
    coefficients = pyro.sample("b", dist.Normal(x.new_zeros(x.shape[-1]), 1.0).to_event(1))
    with pyro.plate("data", size or len(x), subsample_size=len(x)):
        pyro.sample("y", dist.Bernoulli(logits=x @ coefficients), obs=y)


def fit(model, guide, batches, steps=50, seed=0, lr=0.01, **options):
    """Losses and parameters."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    options = {"optim": torch.optim.Adam, "loss": pyro_kl.TraceKL_ELBO(), **options}
    svi = pyro_kl.SVI(model, guide, optim_args={"lr": lr}, **options)
    result = svi.run(steps, batches=batches)
    return {"losses": result.losses, **parameters()}


def parameters():
    return {k: v.detach().clone() for k, v in pyro.get_param_store().named_parameters()}


def fit_with_common_draws(model, guide, arguments, **options):
    """A fit in which all ranks have the same seed before each step.

    The first step gives each rank draws of its own: its rate is zero, and its loss is left out.
    """

    def batches(step):
        pyro.set_rng_seed(step)
        return arguments

    rate = {"lr": 1e-3, "schedule": lambda step: float(step > 0)}
    fitted = fit(model, guide, batches, optim=torch.optim.SGD, **rate, **options)
    return {**fitted, "losses": fitted["losses"][1:]}


def global_size(folder):
    """The plate has the size of all data, as in Pyro."""
    x, y = (part(tensor) for tensor in data())
    return fit_with_common_draws(regression, AutoNormal(regression), (x, y, ROWS))


def uneven(folder):
    """Each rank holds a part of another size, and the model knows that part alone."""
    x, y = (part(tensor, is_even=False) for tensor in data())
    guide = AutoNormal(regression)
    return fit_with_common_draws(regression, guide, (x, y), sharded=["data"], clip_norm=3.0)


def pyros_elbo(folder):
    """The same by an ELBO of Pyro's, which samples the KL."""
    x, y = (part(tensor, is_even=False) for tensor in data())
    guide, loss = AutoNormal(regression), pyro.infer.Trace_ELBO()
    return fit_with_common_draws(regression, guide, (x, y), sharded=["data"], loss=loss)


class Amortised(nn.Module):
    """A global latent, and a latent of each row whose guide is a network."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(3, 2).double()

    def model(self, x, y):
        w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(w * x[:, 0], 1.0))
            pyro.sample("y", dist.Normal(w * x[:, 1], 1.0), obs=y)

    def guide(self, x, y):
        pyro.module("encoder", self.encoder)
        loc = pyro.param("w_loc", lambda: torch.randn((), dtype=x.dtype))
        pyro.sample("w", dist.Normal(loc, 0.3))
        with pyro.plate("data", len(x)):
            mean, log_scale = self.encoder(x).unbind(-1)
            pyro.sample("z", dist.Normal(mean, log_scale.exp()))


def amortised(folder):
    """The KLs of rows add up over ranks; the one of the global latent is counted once."""
    x, y = (part(tensor, is_even=False) for tensor in data())
    pyro.set_rng_seed(0)
    net = Amortised()
    return fit_with_common_draws(net.model, net.guide, (x, y), sharded=["data"])


def own_draws(folder):
    """Minibatches and draws of each rank's own, from seeds and networks that differ."""
    pyro.set_rng_seed(this_rank())
    x, y = data()
    net = Amortised()

    def batches(step):
        rows = torch.randint(ROWS, (20,))
        seen.append(rows)
        return x[rows], y[rows]

    seen = []
    first = [parameter.detach().clone() for parameter in net.parameters()]
    fitted = fit(
        net.model, net.guide, batches, sharded=["data"], seed=this_rank(), average="polyak"
    )
    return {**fitted, "own": {"rows": torch.stack(seen), "first": first}}


def same_seed(folder):
    """Each rank has the data whole; the plate draws a minibatch."""
    x, y = data()
    seen = []

    def model():
        coefficients = pyro.sample("b", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        with pyro.plate("data", ROWS, subsample_size=20) as rows:
            seen.append(rows)
            pyro.sample("y", dist.Bernoulli(logits=x[rows] @ coefficients), obs=y[rows])

    fitted = fit(model, AutoDiagonalNormal(model), lambda step: (), clip_value=1.0)
    return {**fitted, "own": {"rows": torch.stack(seen)}}


def checkpoint(folder):
    """A fit that goes on from a checkpoint, in one run and in two."""
    x, y = data()

    def start():
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        elbo, adam = pyro_kl.TraceKL_ELBO(), torch.optim.Adam
        guide = AutoNormal(regression)
        return pyro_kl.SVI(regression, guide, adam, elbo, optim_args={"lr": 0.05})

    path = folder / f"checkpoint.{num_ranks()}.fit"
    start().run(20, x, y, checkpoint=path, every=10)
    whole = parameters()
    svi = start()
    svi.run(10, x, y, checkpoint=path, every=10)
    if num_ranks() > 1:
        torch.distributed.barrier()
    svi = start()
    svi.load(path)
    svi.run(10, x, y)
    resumed = parameters()
    other = folder / f"checkpoint.{1 if num_ranks() > 1 else 2}.fit"
    if other.exists():
        svi = start()
        svi.load(other)
        assert svi.step_count == 10
        svi.run(10, x, y)
    return {"whole": whole, "resumed": resumed, "other": parameters()}


def refused(folder):
    """Errors and warnings, by name."""
    x, y = (part(tensor, is_even=False) for tensor in data())
    even = [part(tensor) for tensor in data()]
    net = Amortised()

    def late(x, y):
        regression(x, y)
        if len(steps) > 2:
            pyro.param("late", torch.zeros(()))
        steps.append(0)

    def other_shape(x, y):
        pyro.param("shape", torch.zeros(this_rank() + 1))
        regression(x, y)

    def stop(step, loss, report):
        return this_rank() == 1 and step == 3

    steps = []
    cases = {
        "sizes": (regression, AutoNormal(regression), (x, y), {}),
        "unknown": (regression, AutoNormal(regression), (x, y), {"sharded": ["rows"]}),
        "local": (net.model, AutoNormal(net.model), (x, y), {"sharded": ["data"]}),
        "local vector": (net.model, AutoDiagonalNormal(net.model), (x, y), {"sharded": ["data"]}),
        "late": (late, AutoNormal(regression), even, {"sharded": ["data"]}),
        "shape": (other_shape, AutoNormal(regression), even, {"sharded": ["data"]}),
        "not sharded": (regression, AutoNormal(regression), even, {}),
        "all the same": (regression, AutoNormal(regression), data(), {"sharded": ["data"]}),
        "compiled": (regression, AutoNormal(regression), data(), {"compile": "fx"}),
    }
    said = {}
    for name, (model, guide, batch, options) in cases.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                fit(model, guide, [batch], steps=5, **options)
                said[name] = [str(of.message) for of in caught]
            except ValueError as error:
                said[name] = str(error)
    pyro.clear_param_store()
    svi = pyro_kl.SVI(
        regression, AutoNormal(regression), torch.optim.Adam, pyro_kl.TraceKL_ELBO(),
        sharded=["data"],
    )  # fmt: skip
    said["stopped"] = len(svi.run(10, *even, callbacks=[stop]).losses)
    return said


def main(folder, names):
    """Take scenarios, and write what they return."""
    torch.set_num_threads(1)
    for name in names:
        value = globals()[name](folder)
        torch.save(value, folder / f"{name}.{num_ranks()}.{this_rank()}")


if __name__ == "__main__":
    if "TORCHELASTIC_RUN_ID" in os.environ:
        torch.distributed.init_process_group("gloo")
    main(Path(sys.argv[1]), sys.argv[2:])
    if num_ranks() > 1:
        torch.distributed.destroy_process_group()
        time.sleep(0.5)  # a thread of gloo needs the interpreter for a moment after a message
