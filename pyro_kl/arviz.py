"""A fitted model and guide as ArviZ's data: draws, predictions, log likelihood and the KLs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from .elbo.enumeration.plans import has_marks
from .elbo.enumeration.posterior import posterior_of
from .elbo.enumeration.trace_enum_kl_elbo import TraceEnumKL_ELBO
from .elbo.guides.plan import Run
from .elbo.report import KLReport
from .elbo.trace_kl_elbo import TraceKL_ELBO
from .messages import see, without_link
from .registry.warnings import warn
from .results.by_site import shortened

#: The draws of the guide that the KLs are averaged over, where they depend on the draw.
REPORT_DRAWS = 100
#: Dimensions that each variable has.
_OF_ARVIZ = ("chain", "draw")


def to_arviz(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_samples: int = 1000,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Sequence[Any]] | None = None,
    **kwargs: Any,
) -> Any:
    """Draws of a fitted guide and of its model as ArviZ's data, with the KL of each site.

    The groups are `posterior` (draws of the guide), `prior`, `posterior_predictive`,
    `prior_predictive`, `observed_data`, `log_likelihood` (of each observation) and `kl_report`:
    the columns of `KLReport`, one entry for each site, and its sums as attributes. There is one
    chain, since the draws of a guide are independent.

    The dimensions of a variable have the names of its plates, and `NAME_dim_0`, ... elsewhere and
    for plates called "chain" or "draw", which ArviZ has already. The log likelihood of an
    observation that is masked is 0.

    A site that the model sums out (`infer={"enumerate": "parallel"}`, not in the guide) is drawn
    from its exact posterior given each draw of the guide, and the report is that of
    `TraceEnumKL_ELBO`. Where each observation has a sum of its own, as in a mixture, its log
    likelihood is the log of that sum. Where observations share a sum, as in a hidden Markov model,
    it is that given the drawn values, which the attribute `given` of the variable names, and a
    warning says so.

    Args:
        model: the model.
        guide: the guide, fitted.
        *args: positional arguments of both.
        num_samples: draws of each group.
        dims: variable -> the names of its dimensions, where the plates' names will not do.
        coords: name of a dimension -> the labels along it.
        **kwargs: keyword arguments of both, other than those above.

    Returns:
        An `arviz.InferenceData` where ArviZ is older than 1.0, else an `xarray.DataTree`. The
        functions of ArviZ of that version (`summary`, `loo`, `plot_forest`, ...) take it.

    Raises:
        ImportError: neither arviz nor arviz_base is installed.
        ValueError: a plate draws a subsample, so that the draws are of different rows; or
            `num_samples` is below 1.
        NotImplementedError: a site is to be summed out, and the guide is a GuideMessenger.

    Example:
        >>> def model(x):
        ...     mean = pyro.sample("mean", pyro.distributions.Normal(0.0, 10.0))
        ...     with pyro.plate("rows", len(x)):
        ...         pyro.sample("x", pyro.distributions.Normal(mean, 1.0), obs=x)
        >>> guide = pyro.infer.autoguide.AutoNormal(model)
        >>> data = pyro_kl.to_arviz(  # doctest: +SKIP
        ...     model, guide, torch.tensor([1.0, 2.0]), num_samples=500
        ... )
        >>> data["log_likelihood"]["x"].dims  # doctest: +SKIP
        ('chain', 'draw', 'rows')
        >>> data["kl_report"]["method"].sel(site="mean").item()  # doctest: +SKIP
        'closed form'
    """
    make = _maker()  # first of all: without ArviZ nobody waits for the draws
    if num_samples < 1:
        raise ValueError(f"num_samples={num_samples} has to be at least 1." + see("option"))
    run = Run(model, guide, args, kwargs)
    elbo: TraceKL_ELBO = TraceKL_ELBO()
    nesting = None
    with torch.no_grad():
        if has_marks(run):
            elbo = TraceEnumKL_ELBO(strict_enumeration_warning=False)
            elbo._guess_max_plate_nesting(model, guide, args, kwargs)
            nesting = elbo.max_plate_nesting
        found = _Groups(run, nesting)
        for _ in range(num_samples):
            found.draw()
        draws = min(num_samples, REPORT_DRAWS)
        report = elbo.evaluate(model, guide, *args, num_particles=draws, **kwargs)
    groups = {"observed_data": found.observed, **found.stacked()}
    names = {**found.dims, **(dims or {})}
    data = make(groups, names, dict(coords or {}), _dataset(report))
    _say_given(data, found.given)
    return data


class _Groups:
    """The draws of all groups, one after another.

    Args:
        run: model and guide.
        nesting: how many rightmost dims belong to plates, if sites are marked for enumeration.

    Attributes:
        observed: variable -> what was observed.
        dims: variable -> the names of its dimensions.
        given: variable -> the sites that are summed out whose draws its log likelihood depends on.
    """

    def __init__(self, run: Run, nesting: float | None) -> None:
        self._run, self._nesting = run, nesting
        self.observed: dict[str, Any] = {}
        self.dims: dict[str, list[str]] = {}
        self.given: dict[str, list[str]] = {}
        self._has_prior = True
        self._draws: dict[str, dict[str, list[Tensor]]] = {}

    def draw(self) -> None:
        """One draw of each group."""
        model, args, kwargs = self._run.model, self._run.args, self._run.kwargs

        def run(function: Any) -> dict[str, dict[str, Any]]:
            return _variables(poutine.trace(function).get_trace(*args, **kwargs))

        drawn = poutine.trace(self._run.guide).get_trace(*args, **kwargs)
        summed = self._draw_summed_out(drawn)
        scored, free = run(poutine.replay(model, trace=drawn)), poutine.uncondition(model)
        latent = {name: site for name, site in scored.items() if not _is_observed(site)}
        values = {name: site["value"] for name, site in latent.items() if not _is_computed(site)}
        marked = [name for name in values if latent[name]["infer"].get("enumerate")]
        left = [name for name in marked if name not in drawn.nodes]
        if left:  # they would be draws from the prior
            raise NotImplementedError(
                f"{shortened(left)}: marked for enumeration, but not summed out, which needs "
                'infer={"enumerate": "parallel"} and a guide that is no GuideMessenger.'
                + see("enumerated-site")
            )
        predicted = run(poutine.condition(free, data=values))
        before = self._prior(lambda: run(free))
        for name, site in scored.items():
            self._add_names(name, site)
            if name in latent:
                self._add("posterior", name, site["value"])
                self._add("prior", name, before.get(name))
                continue
            self.observed[name] = _array(site["value"])
            log_likelihood = _log_likelihood(site)
            if name in summed:
                log_likelihood = summed[name].expand_as(log_likelihood)
            self._add("log_likelihood", name, log_likelihood)
            self._add("posterior_predictive", name, predicted[name]["value"])
            self._add("prior_predictive", name, before.get(name))

    def _draw_summed_out(self, drawn: Any) -> dict[str, Tensor]:
        """Add the model's sites that are summed out to a draw of the guide.

        Returns:
            Observed variable -> its log likelihood without these sites, where there is one.
        """
        if self._nesting is None:
            return {}
        posterior = posterior_of(self._run, drawn, self._nesting)
        for name, value in posterior.draws.items():
            drawn.add_node(
                name, name=name, type="sample", value=value, is_observed=False, infer={}
            )
        self.given = {
            name: sites
            for name, sites in posterior.behind.items()
            if name not in posterior.log_likelihood
        }
        return posterior.log_likelihood

    def _prior(self, run: Callable[[], dict[str, dict[str, Any]]]) -> dict[str, Any]:
        """The values of a draw from the model; empty, with a warning, if it cannot be drawn."""
        if not self._has_prior:
            return {}
        try:
            return {name: site["value"] for name, site in run().items()}
        except NotImplementedError as error:
            self._has_prior = False
            first = str(error).partition("\n")[0]  # Pyro writes the shapes of all sites under it
            warn(
                f"The groups prior and prior_predictive are left out: {without_link(first)}"
                + see("no-sampler")
            )
            return {}

    def _add(self, group: str, name: str, value: Tensor | None) -> None:
        if value is not None:
            self._draws.setdefault(group, {}).setdefault(name, []).append(value)

    def _add_names(self, name: str, site: Mapping[str, Any]) -> None:
        """Name the dimensions of a variable after its plates."""
        event_dim = site["fn"].event_dim
        names = [f"{name}_dim_{i}" for i in range(site["value"].dim())]
        for plate in site["cond_indep_stack"]:
            if plate.full_size != plate.size:
                raise ValueError(
                    f"the plate {plate.name!r} draws {plate.size} of {plate.full_size} rows, "
                    "other ones for each draw: let model and guide have all rows."
                    + see("subsample")
                )
            if plate.dim is None or plate.name in _OF_ARVIZ:
                continue
            if len(names) - event_dim + plate.dim >= 0:
                names[len(names) - event_dim + plate.dim] = plate.name
        self.dims[name] = names

    def stacked(self) -> dict[str, dict[str, Any]]:
        """Group -> variable -> an array of shape (1, draws, ...): one chain."""
        return {
            group: {name: _array(torch.stack(values))[None] for name, values in variables.items()}
            for group, variables in self._draws.items()
        }


def _variables(trace: Any) -> dict[str, dict[str, Any]]:
    """The sites of a trace that are random variables of the model."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and not site_is_subsample(site)
        and not isinstance(site["fn"], Unit)  # pyro.factor
    }


def _is_computed(site: Mapping[str, Any]) -> bool:
    """Whether a site is pyro.deterministic's."""
    return bool(site["infer"].get("_deterministic"))


def _is_observed(site: Mapping[str, Any]) -> bool:
    return site["is_observed"] and not _is_computed(site)


def _log_likelihood(site: Mapping[str, Any]) -> Tensor:
    """Of each observation; 0 where `poutine.mask` masks it, as where `fn.mask(...)` does."""
    return scale_and_mask(site["fn"].log_prob(site["value"]), mask=site["mask"])


def _array(value: Tensor) -> Any:
    return value.detach().cpu().numpy()


def _say_given(data: Any, given: Mapping[str, Sequence[str]]) -> None:
    """Say which log likelihoods depend on draws of sites that are summed out."""
    if not given:
        return
    for name, sites in given.items():
        data["log_likelihood"][name].attrs["given"] = ", ".join(sites)
    sites = list(dict.fromkeys(site for names in given.values() for site in names))
    warn(
        f"The log likelihood of {shortened(list(given))} is that given the drawn values of "
        f"{shortened(sites)}: several observations share one sum over these, so that no "
        "observation has one of its own." + see("enumerated-site")
    )


# --- ArviZ's containers -------------------------------------------------------------------------


def _dataset(report: KLReport) -> Any:
    """The report as an `xarray.Dataset`: its columns by site, and its sums as attributes."""
    import xarray

    rows = report.to_dicts()
    names = [name for name in rows[0] if name not in ("site", "shape", "per_dimension")]
    columns = {name: ("site", [row[name] for row in rows]) for name in names}
    sums = {
        name: value for name, value in asdict(report).items() if name not in ("sites", "together")
    }
    return xarray.Dataset(columns, {"site": [row["site"] for row in rows]}, sums)


def _maker() -> Callable[..., Any]:
    """What makes the data of the ArviZ that is installed.

    Raises:
        ImportError: there is none.
    """
    if find_spec("arviz") is not None:
        import arviz

        if arviz.__version__.startswith("0."):
            return _inference_data
    if find_spec("arviz_base") is None:
        raise ImportError(
            "to_arviz() needs ArviZ: pip install 'pyro-kl[arviz]'." + see("missing-library")
        )
    return _data_tree


def _inference_data(groups: Any, dims: Any, coords: Any, report: Any) -> Any:
    """Of ArviZ before 1.0."""
    import arviz

    data = arviz.from_dict(**groups, dims=dims, coords=coords)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the group is not in ArviZ's scheme
        data.add_groups({"kl_report": report})
    return data


def _data_tree(groups: Any, dims: Any, coords: Any, report: Any) -> Any:
    """Of ArviZ from 1.0 on."""
    import arviz_base
    import xarray

    data = arviz_base.from_dict(groups, dims=dims, coords=coords)
    data["kl_report"] = xarray.DataTree(report)
    return data
