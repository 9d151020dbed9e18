"""Posterior: its KLs, its Pyro guide and model, its file and its printed form."""

import json
import math
from importlib.metadata import version

import numpy as np
import pandas
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.sparse import csr_matrix

import pyro_kl
from pyro_kl.glm import LogisticRegression, read_table
from pyro_kl.glm.covariances.covariance import (
    DiagonalCovariance,
    FullCovariance,
    LowRankCovariance,
)
from pyro_kl.glm.posterior.posterior import Posterior
from pyro_kl.glm.priors.prior import GaussianPrior, NormalPrior
from pyro_kl.glm.priors.shrinkage import HorseshoePrior, LaplacePrior, StudentTPrior
from pyro_kl.likelihoods import BERNOULLI_LOGIT, BERNOULLI_PROBIT, POISSON

NAMES = ("age", "blood pressure", "body mass index of the patient, kg / m^2")
D = len(NAMES) + 1


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def covariance(kind):
    if kind == "diagonal":
        return DiagonalCovariance(0.3 + normal(D, seed=1).abs())
    if kind == "low rank":
        return LowRankCovariance(0.5 * normal(D, 2, seed=2), 0.2 + 0.5 * normal(D, seed=3).abs())
    lower = torch.tril(0.4 * normal(D, D, seed=4), -1)
    return FullCovariance(lower + torch.diag(0.3 + normal(D, seed=5).abs()))


PRIORS = {
    "normal": NormalPrior(torch.tensor([5.0, 1.0, 1.0, 1.0]).double()),
    "yesterday": GaussianPrior(normal(D, seed=6), covariance("full")),
    "yesterday, low rank": GaussianPrior(normal(D, seed=6), covariance("low rank")),
    "laplace": LaplacePrior(torch.tensor([5.0, 1.0, 1.0, 1.0]).double()),
    "studentt": StudentTPrior(torch.tensor([5.0, 1.0, 1.0, 1.0]).double(), df=3.0),
    "horseshoe": HorseshoePrior(torch.tensor([5.0, 1.0, 1.0, 1.0]).double()),
}
GAUSSIAN = list(PRIORS)[:3]
KINDS = ("full", "diagonal", "low rank")


def posterior(kind="full", prior="normal", **change):
    values = {
        "loc": normal(D, seed=7),
        "covariance": covariance(kind),
        "names": NAMES,
        "prior": PRIORS[prior] if isinstance(prior, str) else prior,
        "likelihood": "bernoulli",
        "elbo": -12.3,
        "expected_log_likelihood": -10.1,
        "num_rows": 20,
        "classes": ("no", "yes"),
    }
    return Posterior(**(values | change))


def data(n=20):
    return normal(n, D - 1, seed=8), (normal(n, seed=9) > 0).double()


# --- KLs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prior", GAUSSIAN)
def test_the_joint_kl_is_that_of_two_gaussians(kind, prior):
    p = posterior(kind, prior)
    joint, other = p.joint(), p.prior.distribution()
    expected = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(joint.mean, _matrix(joint)),
        torch.distributions.MultivariateNormal(other.mean, _matrix(other)),
    )
    assert float(p.kl) == pytest.approx(float(expected), rel=1e-10)
    assert p.kl.method == "closed form"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prior", ["laplace", "studentt", "horseshoe"])
def test_the_joint_kl_agrees_with_what_the_prior_tells_a_fit(kind, prior):
    p = posterior(kind, prior)
    terms = p.prior.expected(p.loc, p.covariance)
    assert float(p.kl) == pytest.approx(-float(p.joint().entropy()) - terms.value, rel=1e-8)
    assert p.kl.method == ("closed form" if prior == "laplace" else "quadrature")


def _matrix(gaussian):
    if isinstance(gaussian, torch.distributions.Independent):
        return torch.diag(gaussian.variance)
    return gaussian.covariance_matrix


@pytest.mark.parametrize("prior", GAUSSIAN)
def test_the_kls_of_the_marginals_are_those_of_univariate_normals(prior):
    p = posterior("full", prior)
    sd, other = p.joint().stddev, p.prior.distribution()
    scale, away = other.variance.sqrt(), p.loc - other.mean
    expected = scale.log() - sd.log() + (sd**2 + away**2) / (2 * scale**2) - 0.5
    torch.testing.assert_close(p.coefficient_kls.value, expected)


# --- guide and model ----------------------------------------------------------------------------


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_sites_of_a_guide_have_the_density_of_the_posterior(kind, trainable):
    p = posterior(kind)
    guide = p.guide(trainable=trainable)
    nodes = poutine.trace(guide).get_trace().nodes
    bias, weights = nodes["bias"]["value"], nodes["weights"]["value"]
    assert (bias.shape, weights.shape) == ((), (D - 1,))
    both = torch.cat([bias.reshape(1), weights])
    got = nodes["bias"]["fn"].log_prob(bias) + nodes["weights"]["fn"].log_prob(weights)
    torch.testing.assert_close(got, p.joint().log_prob(both))
    torch.testing.assert_close(guide.joint().log_prob(both).detach(), p.joint().log_prob(both))
    torch.testing.assert_close(guide.sd(), p.covariance.marginal_scale)
    assert len(list(guide.parameters())) == (len(guide.state_dict()) if trainable else 0)


def test_names_of_sites():
    nodes = poutine.trace(posterior().guide(("b", "w"))).get_trace().nodes
    assert {"b", "w"} <= nodes.keys()
    nodes = poutine.trace(posterior().guide("beta")).get_trace().nodes
    assert nodes["beta"]["value"].shape == (D,)
    with pytest.raises(ValueError, match="two names"):
        posterior().guide(("a", "b", "c"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("sites", [("bias", "weights"), "beta"])
def test_the_elbo_of_model_and_guide_has_the_exact_kl(kind, prior, sites):
    p = posterior(kind, prior)
    pyro.set_rng_seed(0)
    elbo = pyro_kl.TraceKL_ELBO(vectorize_particles=True, max_plate_nesting=1)
    report = elbo.evaluate(p.model(sites), p.guide(sites), *data(), num_particles=2000)
    error = sum(row.standard_error for row in report if row.kind != "likelihood")
    assert abs(report.kl - float(p.kl)) < 4.5 * error + 1e-9
    assert all(row.exact for row in report if row.kind != "likelihood")
    if sites == "beta" or (kind == "diagonal" and prior == "normal"):
        assert report.kl == pytest.approx(float(p.kl), rel=1e-10)


@pytest.mark.parametrize("likelihood", [BERNOULLI_LOGIT, BERNOULLI_PROBIT, POISSON])
def test_the_likelihood_of_the_model_is_that_of_the_fit(likelihood):
    p, (x, y) = posterior(likelihood=likelihood.name), data()
    trace = poutine.trace(poutine.condition(p.model(), {"obs": y})).get_trace(x)
    trace.compute_log_prob()
    predictor = trace.nodes["_RETURN"]["value"]
    expected = likelihood.expected(y, predictor, torch.zeros_like(predictor)).value
    torch.testing.assert_close(trace.nodes["obs"]["log_prob"], expected, rtol=1e-6, atol=3e-8)


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_in_one_line(parallel):
    p, (x, _) = posterior(), data()
    pyro.set_rng_seed(1)
    draws = Predictive(
        p.model(), guide=p.guide(), num_samples=4000 if parallel else 40, parallel=parallel
    )(x)
    assert draws["obs"].shape == (len(draws["obs"]), 20)
    sampled, exact = draws["obs"].mean(0), p.predict(x)
    error = (exact * (1 - exact) / len(draws["obs"])).sqrt()
    assert ((sampled - exact) / error).abs().max() < 4.5


def test_compare_sites_agrees():
    p = posterior()
    pyro.set_rng_seed(2)
    rows = pyro_kl.compare_sites(
        p.model(), p.guide(), *data(), vectorize_particles=True, max_plate_nesting=1
    )
    assert len(rows) == 2
    assert rows.largest_z < 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ours", [True, False])
def test_a_warm_start_moves_from_the_posterior(kind, ours):
    p, batch = posterior(kind), data()
    guide = p.guide(trainable=True)
    pyro.set_rng_seed(3)
    with pyro.get_param_store().scope():
        if ours:
            svi = pyro_kl.SVI(
                p.model(),
                guide,
                torch.optim.Adam,
                pyro_kl.TraceKL_ELBO(),
                optim_args={"lr": 1e-3},
                compile="fx",
            )
        else:
            svi = SVI(p.model(), guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
        losses = [svi.step(*batch) for _ in range(3)]
        assert all(map(math.isfinite, losses))
        names = list(pyro.get_param_store())
    assert {name.partition(".")[0] for name in names} == {type(guide).__name__}
    moved = (guide.mean() - p.loc).abs()
    assert 0 < moved.max() < 4e-3
    assert not torch.equal(guide.sd(), p.covariance.marginal_scale)


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prior", PRIORS)
def test_a_posterior_comes_back_from_its_file_to_the_last_bit(kind, prior, tmp_path):
    p = posterior(kind, prior, shift=normal(D - 1) / 3, scale=normal(D - 1).abs(), beta=0.1)
    p.save(tmp_path / "p.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]
    q = Posterior.load(tmp_path / "p.safetensors")
    for name in ("loc", "shift", "scale"):
        assert torch.equal(getattr(p, name), getattr(q, name))
    for name in ("names", "likelihood", "elbo", "expected_log_likelihood", "num_rows", "beta"):
        assert getattr(p, name) == getattr(q, name)
    assert q.classes == p.classes
    assert q.versions["torch"] == version("torch")
    assert type(q.prior) is type(p.prior)
    x, _ = data()
    assert torch.equal(q.predict(x), p.predict(x))
    assert float(q.kl) == float(p.kl)
    assert str(q) == str(p)


@pytest.mark.parametrize(
    "classes", [(0, 1), (np.int64(2), np.int64(5)), (False, True), (0.5, 1.5)]
)
def test_labels_keep_their_type(classes, tmp_path):
    posterior(classes=classes).save(tmp_path / "p")
    got = Posterior.load(tmp_path / "p").classes
    assert got == classes
    assert not any(hasattr(value, "item") for value in got)


def test_a_label_that_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(TypeError, match="classes of the posterior cannot be saved"):
        posterior(classes=({1}, {2})).save(tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_by_a_whole_one_only(tmp_path, monkeypatch):
    def full_disk(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    posterior().save(tmp_path / "p")
    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        posterior(loc=torch.zeros(D).double()).save(tmp_path / "p")
    assert torch.equal(Posterior.load(tmp_path / "p").loc, posterior().loc)


def foreign(path):
    save_file({"loc": torch.zeros(2)}, path)


def another_format(path):
    save_file({}, path, metadata={"kind": "pyro_kl.glm.Posterior", "format": "99"})


def damaged(**changes):
    """A file whose header lacks a name, or has another text under it."""

    def write(path):
        posterior().save(path)
        with safe_open(path, "pt") as file:
            header = {**file.metadata(), **changes}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        save_file(tensors, path, {name: text for name, text in header.items() if text is not None})

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (damaged(loc=None), "a damaged posterior"),
        (damaged(format=None), "has format None"),
        (damaged(loc='{"tensor": "lo"}'), "a damaged posterior of pyro_kl: KeyError 'lo'"),
        (damaged(prior='{"part": "Cauchy"}'), "a damaged posterior of pyro_kl: KeyError 'Cauchy'"),
        (damaged(prior='{"part": "NormalPrior", "a": 1}'), "a damaged posterior"),
        (damaged(names="[1, "), "a damaged posterior"),
        (lambda path: path.write_bytes(b"PK\x03\x04 no tensors"), "is no posterior of pyro_kl"),
        (lambda path: path.write_bytes(b""), "is no posterior of pyro_kl"),
        (foreign, "another safetensors file"),
        (another_format, "has format 99"),
    ],
)
def test_files_of_others_are_refused_in_one_line(write, message, tmp_path):
    path = tmp_path / "other"
    write(path)
    with pytest.raises(ValueError, match=message) as raised:
        Posterior.load(path)
    assert "\n" not in str(raised.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        Posterior.load(tmp_path / "none")


# --- predictions --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_against_draws(kind):
    p, (x, _) = posterior(kind), data()
    pyro.set_rng_seed(4)
    beta = p.joint().sample((50_000,))
    sampled = torch.sigmoid(beta[:, 1:] @ x.T + beta[:, :1])
    error = sampled.std(0) / math.sqrt(len(sampled))
    assert ((p.predict(x) - sampled.mean(0)) / error).abs().max() < 4.5
    both = p.predict_proba(x)
    assert both.shape == (20, 2)
    torch.testing.assert_close(both.sum(-1), torch.ones(20).double())
    assert torch.equal(both[:, 1], p.predict(x))


def test_predictions_in_the_units_of_the_data():
    x, _ = data()
    shift, scale = (
        torch.tensor([10.0, 120.0, 25.0]).double(),
        torch.tensor([5.0, 9.0, 3.0]).double(),
    )
    p = posterior(shift=shift, scale=scale)
    torch.testing.assert_close(p.predict(x * scale + shift), posterior().predict(x))
    fixed = {
        "bias": torch.tensor(0.5).double(),
        "weights": torch.tensor([1.0, -2.0, 0.1]).double(),
    }
    predictor = poutine.condition(p.model(), fixed)(x * scale + shift)
    torch.testing.assert_close(predictor, x @ fixed["weights"] + 0.5)


def test_a_data_frame_is_read_by_its_names():
    x, _ = data()
    frame = pandas.DataFrame(x.numpy(), columns=NAMES)[list(reversed(NAMES))]
    torch.testing.assert_close(posterior().predict(frame), posterior().predict(x))
    assert torch.equal(posterior().predict(x.numpy()), posterior().predict(x))


def test_predictions_that_are_refused():
    with pytest.raises(ValueError, match=r"shape \(20, 2\).*3 features"):
        posterior().predict(data()[0][:, :2])
    frame = pandas.DataFrame({"weight": [1.0]})
    with pytest.raises(ValueError, match="no column 'age'"):
        posterior().predict(frame)
    with pytest.raises(TypeError, match="has no classes"):
        posterior(classes=None).predict_proba(data()[0])


# --- printed ------------------------------------------------------------------------------------


def test_the_printed_form():
    p = posterior()
    lines = str(p).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == [
        "coefficient",
        "prior",
        "sd",
        "mean",
        "sd",
        "2.5",
        "%",
        "97.5",
        "%",
        "KL",
    ]
    assert [line[:3] for line in lines[1:5]] == ["bia", "age", "blo", "bod"]
    numbers = [float(x) for x in lines[1].split()[1:]]
    sd = float(p.covariance.marginal_scale[0])
    mean = float(p.loc[0])
    expected = [
        5.0,
        mean,
        sd,
        mean - 1.96 * sd,
        mean + 1.96 * sd,
        float(p.coefficient_kls.value[0]),
    ]
    assert numbers == pytest.approx(expected, abs=2e-3)
    assert f"KL {float(p.kl):.4f}" in str(p)
    assert "20 rows; bernoulli likelihood; normal prior; full covariance" in lines
    assert "1 stands for 'yes', 0 for 'no'" in lines


def test_the_horseshoe_has_no_sd():
    first = str(posterior(prior="horseshoe")).splitlines()[1]
    assert first.split()[1] == "inf"


def test_long_tables_show_the_largest_kls_in_order():
    n = 300
    loc = torch.zeros(n + 1).double()
    loc[[50, 200]] = 1e5
    wide = posterior(
        loc=loc,
        names=tuple(f"x{i}" for i in range(n)),
        prior=NormalPrior(torch.ones(n + 1).double()),
        covariance=DiagonalCovariance(torch.full((n + 1,), 1e-8).double()),
    )
    lines = str(wide).splitlines()
    assert len(lines) < 50
    assert max(map(len, lines)) <= 80
    shown = [line.split()[0] for line in lines]
    assert shown[1] == "bias"
    assert shown.index("x49") < shown.index("x199")
    assert "261 coefficients" in str(wide)


def test_tables_for_notebooks_and_data_frames():
    p = posterior()
    assert p._repr_html_().count("<tr>") == 1 + D
    frame = p.to_dataframe()
    assert list(frame.index) == ["bias", *NAMES]
    assert frame["kl"].sum() == pytest.approx(float(p.coefficient_kls.value.sum()))
    assert json.dumps(p.to_dicts())


# --- of estimators ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "diagonal"])
@pytest.mark.parametrize("prior", ["normal", "laplace", "horseshoe"])
def test_what_an_estimator_leaves(kind, prior, tmp_path):
    x, y = data(60)
    frame = pandas.DataFrame(x.numpy(), columns=NAMES)
    fit = LogisticRegression(covariance=kind, prior=prior).fit(frame, np.where(y > 0, "yes", "no"))
    p = fit.posterior_
    assert p.names == NAMES
    assert p.classes == ("no", "yes")
    assert p.num_rows == 60
    assert float(p.kl) == pytest.approx(fit.kl_, rel=1e-9)
    assert p.elbo == fit.elbo_ == pytest.approx(fit.expected_log_likelihood_ - fit.kl_)
    np.testing.assert_array_equal(fit.coefficient_kls_, p.coefficient_kls.value)
    p.save(tmp_path / "p")
    loaded = Posterior.load(tmp_path / "p")
    np.testing.assert_array_equal(loaded.predict_proba(frame), fit.predict_proba(frame))
    pyro.set_rng_seed(5)
    elbo = pyro_kl.TraceKL_ELBO(vectorize_particles=True, max_plate_nesting=1)
    report = elbo.evaluate(p.model(), p.guide(), x, y, num_particles=4000)
    assert abs(report.elbo - fit.elbo_) < 4.5 * report.elbo_standard_error


def test_a_posterior_of_float32_and_of_sparse_rows():
    x, y = data(60)
    dense = LogisticRegression(covariance="diagonal", tol=1e-9).fit(x, y)
    sparse = LogisticRegression(covariance="diagonal", tol=1e-9).fit(csr_matrix(x.numpy()), y)
    predicted = sparse.posterior_.predict(csr_matrix(x.numpy()))
    torch.testing.assert_close(predicted, dense.posterior_.predict(x), rtol=0, atol=1e-4)
    single = LogisticRegression().fit(x.float(), y)
    assert single.posterior_.loc.dtype == torch.float64
    trace = poutine.trace(single.posterior_.model()).get_trace(x.float(), y)
    assert trace.nodes["_RETURN"]["value"].dtype == torch.float64


def test_a_posterior_of_a_table_predicts_from_rows_and_from_its_units(tmp_path):
    x, y = data(60)
    frame = pandas.DataFrame(x.numpy() * [5.0, 9.0, 3.0] + [10.0, 120.0, 25.0], columns=NAMES)
    frame.assign(ill=y.numpy()).to_csv(tmp_path / "t.csv", index=False)
    rows = read_table(tmp_path / "t.csv", "ill", standardise=True)
    p = LogisticRegression().fit(rows).posterior_
    assert p.predict(rows).shape == (60,)
    torch.testing.assert_close(p.predict(rows).double(), p.predict(frame), rtol=0, atol=1e-5)
    later = frame.iloc[:40] * 2.0 + 1.0  # is standardised by its own means and sds
    later.assign(ill=y.numpy()[:40]).to_csv(tmp_path / "later.csv", index=False)
    rows = read_table(tmp_path / "later.csv", "ill", standardise=True)
    torch.testing.assert_close(p.predict(rows).double(), p.predict(later), rtol=0, atol=1e-5)
    other = read_table(tmp_path / "later.csv", "ill", drop=["age"])
    with pytest.raises(ValueError, match="those of the posterior are age"):
        p.predict(other)
