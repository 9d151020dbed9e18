"""`pyro_kl.SVI` takes Pyro's steps, with one optimiser and many kinds of guides and losses."""

import signal
import sys
import warnings
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pyro.infer
import pytest
import torch
from pyro.infer import autoguide

import pyro_kl
from models import eight_schools
from models.problems import PROBLEMS
from pyro_kl.svi import progress
from tests.svi.fits import parameters

ADAM = {"lr": 0.05}


def model(x=None):
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", 4, subsample_size=2):
        pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=torch.ones(2) if x is None else x)


def guide(x=None):
    loc = pyro.param("loc", lambda: torch.randn(2))
    scale = pyro.param("scale", torch.ones(2), constraint=dist.constraints.positive)
    with pyro.plate("data", 4, subsample_size=2):
        pass
    pyro.sample("z", dist.Normal(loc, scale).to_event(1))


def ours(model=model, guide=guide, loss=None, optim=torch.optim.Adam, **options):
    options = {"optim_args": ADAM, **options}
    return pyro_kl.SVI(model, guide, optim, loss or pyro_kl.TraceKL_ELBO(), **options)


def both(make, batch=lambda step: (), steps=8, lr=0.05):
    """Losses and parameters of the same fit by Pyro's SVI and by ours."""
    fits = []
    for kind in (pyro.infer.SVI, pyro_kl.SVI):
        pyro.clear_param_store()
        pyro.set_rng_seed(1)
        model, guide, loss = make()
        svi = kind(model, guide, pyro.optim.Adam({"lr": lr}), loss)
        fits.append(([svi.step(*batch(i)) for i in range(steps)], parameters()))
    return fits


def assert_alike(fits):
    (losses, values), (our_losses, our_values) = fits
    torch.testing.assert_close(our_losses, losses, rtol=1e-5, atol=1e-5)
    assert our_values.keys() == values.keys()
    torch.testing.assert_close(our_values, values, rtol=1e-5, atol=1e-5)


# --- single steps -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROBLEMS)
def test_steps_are_those_of_pyro(name):
    def make():
        problem = PROBLEMS[name]()
        return problem.model, problem.guide, pyro_kl.TraceKL_ELBO()

    assert_alike(both(make, PROBLEMS[name]().batch, 5, PROBLEMS[name]().lr))


@pytest.mark.parametrize(
    "kind",
    [
        "AutoNormal", "AutoMultivariateNormal", "AutoLowRankMultivariateNormal",
        "AutoDiagonalNormal", "AutoDelta", "AutoLaplaceApproximation", "AutoIAFNormal",
        "AutoStructured",
    ],
)  # fmt: skip
def test_every_autoguide(kind):
    def make():
        guide = getattr(autoguide, kind)(eight_schools.model)
        return eight_schools.model, guide, pyro_kl.TraceKL_ELBO()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_alike(both(make))


LOSSES = {
    "Trace_ELBO": pyro.infer.Trace_ELBO,
    "vectorised": lambda: pyro_kl.TraceKL_ELBO(num_particles=3, vectorize_particles=True),
    "TraceMeanField_ELBO": pyro.infer.TraceMeanField_ELBO,
    "TraceGraph_ELBO": pyro.infer.TraceGraph_ELBO,
    "TraceEnum_ELBO": lambda: pyro.infer.TraceEnum_ELBO(max_plate_nesting=1),
    "RenyiELBO": lambda: pyro.infer.RenyiELBO(alpha=0.5, num_particles=3),
    "JitTrace_ELBO": lambda: pyro.infer.JitTrace_ELBO(ignore_jit_warnings=True),
    "ReweightedWakeSleep": lambda: pyro.infer.ReweightedWakeSleep(num_particles=3),
    "EnergyDistance": lambda: pyro.infer.EnergyDistance(num_particles=3),
    "function": lambda: lambda *args: pyro.infer.Trace_ELBO().differentiable_loss(*args),
}


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_alike(both(lambda: (model, guide, LOSSES[name]())))


def test_a_loss_with_its_gradient_as_functions():
    elbo = pyro_kl.TraceKL_ELBO()
    svi = ours(loss=elbo.loss, loss_and_grads=elbo.loss_and_grads)
    assert isinstance(svi.step(), float)
    assert isinstance(svi.evaluate_loss(), float)
    assert elbo.step_count == 1


def test_a_loss_that_is_a_tuple():
    svi = ours(loss=pyro.infer.ReweightedWakeSleep(num_particles=2))
    assert len(svi.step()) == len(svi.evaluate_loss()) == 2
    assert svi.run(3).losses.shape == (3, 2)


def test_a_parameter_without_a_gradient_goes_on_by_its_momentum():
    """As in Pyro, where a parameter that was read has a gradient of zero once it had another."""
    uses = [True, True, False, False, True]

    def changing(use):
        loc = pyro.param("loc", lambda: torch.tensor(3.0))
        pyro.sample("z", dist.Normal(loc if use else loc.detach(), 1.0))

    def prior(use):
        pyro.sample("z", dist.Normal(0.0, 1.0))

    make = lambda: (prior, changing, pyro_kl.TraceKL_ELBO())  # noqa: E731
    assert_alike(both(make, lambda i: (uses[i],), len(uses)))


def test_only_what_model_and_guide_read_moves():
    other = pyro.param("other", torch.ones(2))
    other.sum().backward()
    hidden_guide = pyro.poutine.block(guide, hide=["scale"])
    svi = ours(guide=hidden_guide)
    svi.run(3)
    assert torch.equal(pyro.param("other"), torch.ones(2))
    assert torch.equal(other.unconstrained().grad, torch.ones(2))
    assert torch.equal(pyro.param("scale"), torch.ones(2))


def test_two_fits_share_a_store():
    first, second = ours(), ours()
    first.run(3)
    before = parameters()
    second.step()
    assert not torch.equal(parameters()["loc"], before["loc"])
    assert second.step_count == 1


def test_what_reads_the_fit_sees_it():
    guide, elbo = autoguide.AutoNormal(eight_schools.model), pyro_kl.TraceKL_ELBO()
    svi = ours(eight_schools.model, guide, elbo)
    svi.step()
    before = guide.median()["mu"].clone()
    svi.run(100)
    assert not torch.equal(guide.median()["mu"], before)
    assert {row.site for row in elbo.report} >= {"mu", "tau", "theta"}
    predictive = pyro.infer.Predictive(eight_schools.model, guide=guide, num_samples=400)
    mean, sd = predictive()["mu"].mean(), guide.quantiles([0.1587, 0.8413])["mu"].diff() / 2
    assert abs(mean - guide.median()["mu"]) < 5 * sd / 20


# --- many steps ---------------------------------------------------------------------------------


def test_run_takes_steps():
    svi = ours()
    pyro.set_rng_seed(2)
    by_step = [svi.step() for _ in range(5)]
    pyro.clear_param_store()
    pyro.set_rng_seed(2)
    result = ours().run(5)
    assert result.losses.tolist() == by_step
    assert result.losses.dtype == torch.float64
    assert (result.step_count, result.stopped) == (5, None)
    assert len(ours().run(0).losses) == 0


@pytest.mark.parametrize(
    "options", [{}, {"compile": "fx"}, {"compile": "fx", "steps_per_call": 4}]
)
def test_the_steps_between_two_looks_change_nothing(options, tmp_path):
    """A run takes more and more steps at once, up to the next checkpoint or the end."""
    seen = []

    def telling(step, loss, report):
        assert len(list(report())) >= 3
        seen.append(loss)

    def fit(run):
        pyro.clear_param_store()
        pyro.set_rng_seed(2)
        svi = ours(eight_schools.model, autoguide.AutoNormal(eight_schools.model), **options)
        return run(svi), parameters()

    whole = fit(lambda svi: svi.run(61).losses)
    parts = fit(lambda svi: torch.cat([svi.run(n).losses for n in (1, 40, 20)]))
    steps = fit(lambda svi: torch.tensor([svi.step() for _ in range(61)], dtype=torch.float64))
    told = fit(lambda svi: svi.run(61, callbacks=[telling]).losses)
    saved = fit(lambda svi: svi.run(61, checkpoint=tmp_path / "fit", every=7).losses)
    for other in (parts, steps, told, saved):
        torch.testing.assert_close(other, whole, rtol=0, atol=0)
    assert seen == whole[0].tolist()


DATA = torch.arange(12.0).reshape(6, 2)


@pytest.mark.parametrize(
    "batches",
    [
        lambda step: DATA[step],
        lambda step: (DATA[step],),
        DATA,
        [(row,) for row in DATA],
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(DATA), batch_size=None),
        (row for row in DATA),
    ],
)
def test_batches(batches):
    svi = ours()
    seen = []

    def seeing(svi_model, svi_guide, x):
        seen.append(x)
        return pyro.infer.Trace_ELBO().differentiable_loss(svi_model, svi_guide, x)

    ours(loss=seeing).run(6, batches=batches)
    assert torch.equal(torch.stack(seen), DATA)
    assert svi.step_count == 0


def test_batches_start_again_if_they_can():
    count = []

    def counting(svi_model, svi_guide, x):
        count.append(float(x[0]))
        return pyro.infer.Trace_ELBO().differentiable_loss(svi_model, svi_guide, x)

    ours(loss=counting).run(5, batches=list(DATA[:2]))
    assert count == [0.0, 2.0, 0.0, 2.0, 0.0]
    svi = ours()
    with pytest.raises(ValueError, match="batches ended after 2"):
        svi.run(5, batches=(row for row in DATA[:2]))
    assert (len(svi.result.losses), svi.result.stopped) == (2, "error")


def test_callbacks_see_each_step_and_one_ends_the_run():
    seen = []

    def callback(step, loss, report):
        seen.append((step, loss, report()["z"].nats))
        return step == 4

    svi = ours()
    result = svi.run(10, callbacks=[callback, lambda *_: None])
    assert [step for step, _, _ in seen] == [1, 2, 3, 4]
    assert [loss for _, loss, _ in seen] == result.losses.tolist()
    assert len({value for _, _, value in seen}) == 4
    assert (result.step_count, result.stopped) == (4, "callback")
    svi.run(1, callbacks=[callback])
    assert seen[-1][0] == 5


def test_a_loss_without_a_report():
    with pytest.raises(TypeError, match="Trace_ELBO has no report: give"):
        ours(loss=pyro.infer.Trace_ELBO()).run(1, callbacks=[lambda step, loss, report: report()])


def test_an_interrupt_waits_for_the_step(tmp_path):
    steps = []

    def interrupted():
        steps.append(1)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGINT)
        model()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        svi = ours(interrupted)
        with pytest.raises(KeyboardInterrupt):
            svi.run(10, checkpoint=tmp_path / "fit")
        assert len(steps) == svi.step_count == len(svi.result.losses) == 3
        assert svi.result.stopped == "interrupt"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        after = parameters()
        svi.step()
        svi.load(tmp_path / "fit")
        torch.testing.assert_close(parameters(), after, rtol=0, atol=0)
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_error_in_a_step():
    steps = []

    def failing():
        steps.append(1)
        if len(steps) == 4:
            raise RuntimeError("no data")
        model()

    svi = ours(failing)
    with pytest.raises(RuntimeError, match="no data"):
        svi.run(10)
    assert svi.step_count == len(svi.result.losses) == 3
    assert svi.result.stopped == "error"
    assert svi.run(2).step_count == 5


def test_a_second_interrupt_does_not_wait():
    def stuck():
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        svi = ours(stuck)
        with pytest.raises(KeyboardInterrupt):
            svi.run(10)
        assert svi.result.stopped == "error"
    finally:
        signal.signal(signal.SIGINT, before)


def test_averages_are_shown_after_a_run_and_left_by_the_next_step():
    seen = []

    def callback(step, loss, report):
        seen.append(parameters())

    svi = ours(average="polyak")
    svi.run(6, callbacks=[callback])
    mean = {name: torch.stack([s[name] for s in seen]).mean(0) for name in seen[0]}
    torch.testing.assert_close(parameters(), mean)
    svi.use_average()
    torch.testing.assert_close(parameters(), mean)
    pyro.set_rng_seed(5)
    svi.step()
    averaged = parameters()
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    plain = ours()
    plain.run(6)
    pyro.set_rng_seed(5)
    plain.step()
    torch.testing.assert_close(averaged, parameters(), rtol=0, atol=0)
    with pytest.raises(ValueError, match="no averages"):
        plain.use_average()
    svi.use_average()
    pyro.clear_param_store()
    svi.step()


# --- the progress bar ---------------------------------------------------------------------------


def test_the_bar_is_shown_when_it_is_asked_for_and_worth_it(capfd, monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(progress, "DELAY", 60.0)
    ours().run(20, progress=True)
    assert capfd.readouterr().err == ""  # too short
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    monkeypatch.setattr(progress, "LINES_INTERVAL", 0.0)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    ours().run(20, progress=True)
    shown = capfd.readouterr().err
    assert "20/20" in shown
    assert "loss=" in shown
    assert "\r" not in shown  # standard error is no terminal: each state is a line
    assert max(map(len, shown.splitlines())) <= 80
    ours().run(20)  # standard error is no terminal
    ours().run(20, progress=False)
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    ours().run(20)
    assert "\r" in capfd.readouterr().err
    for name, value in (("CI", "true"), ("TERM", "dumb")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            ours().run(20)
    assert capfd.readouterr().err == ""


def test_a_notebook_has_a_bar_also_without_widgets(capfd, monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(progress, "DELAY", 0.0)
    kernel = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: kernel))
    find = progress.importlib.util.find_spec
    monkeypatch.setattr(
        progress.importlib.util, "find_spec", lambda name: find(name) if name == "tqdm" else None
    )
    ours().run(20)
    assert "20/20" in capfd.readouterr().err


@pytest.mark.usefixtures("nothing_warned")
def test_without_tqdm(monkeypatch):
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: None)
    ours().run(2)
    with pytest.warns(UserWarning, match="shows nothing without tqdm"):
        ours().run(2, progress=True)


# --- errors -------------------------------------------------------------------------------------


def test_checkpoints_need_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"every=5 .* needs checkpoint="):
        ours().run(1, every=5)
    svi = ours()
    with pytest.raises(FileNotFoundError, match="no folder for the checkpoint"):
        svi.run(1, checkpoint=tmp_path / "none" / "fit")
    assert svi.step_count == 0


@pytest.mark.parametrize("loss", [pyro.infer.Trace_ELBO, 1.0])
def test_a_loss_that_is_none(loss):
    with pytest.raises(TypeError, match="loss must be an ELBO, such as"):
        ours(loss=loss)


def test_half_a_step():
    with pytest.raises(TypeError, match="'float' object cannot be interpreted as an integer"):
        ours().run(2.0)
