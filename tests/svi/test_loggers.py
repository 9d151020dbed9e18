"""The loggers of `SVI.run`: which rows they have, also of compiled and of resumed fits."""

import csv
import math
import pickle

import pyro
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import pyro_kl
from models import eight_schools
from pyro_kl.loggers import CSVLogger, History, Logger, Row, TensorBoardLogger


def schools(**options):
    guide = AutoNormal(eight_schools.model)
    adam = {"optim_args": {"lr": 0.05}}
    return pyro_kl.SVI(
        eight_schools.model, guide, torch.optim.Adam, pyro_kl.TraceKL_ELBO(), **adam, **options
    )


def row(step, **kls):
    return Row(step, 1.5, -1.5, -1.0, 0.5, kls)


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [*csv.DictReader(file)]


# --- which steps --------------------------------------------------------------------------------


def test_history_has_the_losses_and_the_terms_that_make_them():
    history = History()
    result = schools().run(7, callbacks=[history])
    assert history.steps == [1, 2, 3, 4, 5, 6, 7]
    assert history.losses == result.losses.tolist()
    assert list(history.kls) == ["mu", "tau", "theta"]
    for one in history:
        assert one.elbo == pytest.approx(-one.loss, rel=1e-5)
        assert one.elbo == pytest.approx(one.log_likelihood - sum(one.kls.values()), rel=1e-5)
        assert one.kl == pytest.approx(sum(one.kls.values()))


def test_every_counts_the_steps_of_the_whole_fit():
    svi, history = schools(), History(every=4)
    for steps in (3, 3, 7):
        svi.run(steps, callbacks=[history])
    assert history.steps == [4, 8, 12]


@pytest.mark.parametrize(("every", "error"), [(0, ValueError), (-3, ValueError), (1.5, TypeError)])
def test_every_is_a_number_of_steps(every, error):
    with pytest.raises(error):
        History(every)


def test_steps_that_are_taken_again_replace_their_rows():
    history = History()
    for step in (1, 2, 3, 2, 3, 4):
        history.log(row(step, z=float(step)))
    assert history.steps == [1, 2, 3, 4]


def test_a_site_that_comes_late_is_nan_before():
    history = History()
    history.log(row(1, a=0.1))
    history.log(row(2, a=0.2, b=0.3))
    assert history.kls["a"] == [0.1, 0.2]
    assert math.isnan(history.kls["b"][0])
    assert history.kls["b"][1] == 0.3


def test_a_recorded_fit_has_a_row_for_each_step():
    history = History()
    result = schools(compile="fx").run(9, callbacks=[history])
    assert history.steps == list(range(1, 10))
    assert history.losses == result.losses.tolist()
    assert len(set(history.elbo)) == 9


def test_of_several_steps_in_one_call_the_last_one_has_a_row(monkeypatch):
    """What a package does: the steps of a call share the report of the last one."""
    svi, history, often, seldom = schools(), History(), [], History(every=3)
    take = svi._take
    monkeypatch.setattr(
        svi, "_take", lambda count, *rest: [take(1, *rest)[0] for _ in range(count)]
    )
    svi._steps_per_call = 4
    result = svi.run(10, callbacks=[history, seldom, lambda step, *_: often.append(step)])
    assert often == list(range(1, 11))
    assert history.steps == [4, 8, 10]
    assert seldom.steps == [4, 8, 10]  # 3, 6 and 9 are in these calls
    assert history.losses == result.losses[[3, 7, 9]].tolist()


def test_a_loss_without_a_report_is_refused():
    svi = schools()
    svi.elbo = pyro.infer.Trace_ELBO()
    with pytest.raises(TypeError, match="Trace_ELBO has no report"):
        svi.run(1, callbacks=[History()])


def test_a_logger_of_ones_own_defines_log():
    with pytest.raises(NotImplementedError, match="Logger has to define log"):
        schools().run(1, callbacks=[Logger()])


def test_history_pickles():
    history = History(every=2)
    schools().run(4, callbacks=[history])
    assert pickle.loads(pickle.dumps(history)).to_dicts() == history.to_dicts()


# --- CSV ----------------------------------------------------------------------------------------


def test_csv_has_the_rows_of_history(tmp_path):
    path, history = tmp_path / "fit.csv", History(every=2)
    schools().run(9, callbacks=[CSVLogger(path, every=2), history])
    rows = read(path)
    assert list(rows[0]) == [
        "step", "loss", "elbo", "log_likelihood", "kl", "kl[mu]", "kl[tau]", "kl[theta]",
    ]  # fmt: skip
    numbers = [{name: float(cell) for name, cell in each.items()} for each in rows]
    assert numbers == history.to_dicts()


def test_csv_of_a_resumed_fit_is_that_of_the_whole(tmp_path):
    whole, parts, file = tmp_path / "whole.csv", tmp_path / "parts.csv", tmp_path / "fit"
    schools().run(8, callbacks=[CSVLogger(whole)])

    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    svi = schools()
    svi.run(4, checkpoint=file, callbacks=[CSVLogger(parts)])
    svi.run(2, callbacks=[CSVLogger(parts)])  # and then the process is killed while it writes
    with parts.open("a") as log:
        log.write("7,0.123")

    pyro.clear_param_store()
    pyro.set_rng_seed(5)
    svi = schools()
    svi.load(file)
    svi.run(4, callbacks=[CSVLogger(parts)])
    assert parts.read_text() == whole.read_text()


def test_csv_of_another_fit_is_kept(tmp_path):
    path = tmp_path / "fit.csv"
    schools().run(3, callbacks=[CSVLogger(path)])
    before = path.read_text()
    with pytest.warns(UserWarning, match=r"begun anew at step 1; the log of another fit is .*old"):
        schools().run(2, callbacks=[CSVLogger(path)])
    second = path.read_text()
    with pytest.warns(UserWarning, match=r"begun anew at step 1; .*fit\.csv\.old\.old"):
        schools().run(1, callbacks=[CSVLogger(path)])
    assert (tmp_path / "fit.csv.old").read_text() == before
    assert (tmp_path / "fit.csv.old.old").read_text() == second
    assert [each["step"] for each in read(path)] == ["1"]


def test_csv_gives_a_late_site_a_column(tmp_path):
    logger = CSVLogger(tmp_path / "fit.csv")
    logger.log(row(1, a=0.1))
    logger.log(row(2, **{"a": 0.2, 'b, "the second"': 0.3}))
    logger.log(row(3, a=math.inf))
    rows = read(logger.path)
    assert [each["kl[a]"] for each in rows] == ["0.1", "0.2", "inf"]
    assert [each['kl[b, "the second"]'] for each in rows] == ["", "0.3", ""]


@pytest.mark.parametrize(
    "text", [b"x,y\n1,2\n", b"\xff\xfe1\n", b"step,loss,elbo,log_likelihood,kl\nno,1,1,1,1\n"]
)
def test_csv_refuses_a_file_of_something_else(tmp_path, text):
    path = tmp_path / "data.csv"
    path.write_bytes(text)
    with pytest.raises(ValueError, match="is no log of CSVLogger"):
        schools().run(1, callbacks=[CSVLogger(path)])
    assert path.read_bytes() == text
    with pytest.raises(FileNotFoundError, match="no folder"):
        CSVLogger(tmp_path / "nowhere" / "fit.csv")


# --- TensorBoard --------------------------------------------------------------------------------


def test_tensorboard_has_the_curves(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history, logger = History(), TensorBoardLogger(tmp_path / "runs")
    svi = schools()
    svi.run(3, callbacks=[logger, history])
    logger.close()
    again = TensorBoardLogger(tmp_path / "runs")  # of a new process, from step 3 on
    svi.step_count = 2
    svi.optimiser.steps = 2
    svi.run(2, callbacks=[again, history])
    again.close()

    events = EventAccumulator(str(tmp_path / "runs")).Reload()
    assert {"loss", "elbo", "log_likelihood", "kl", "kl/mu", "kl/theta"} <= {
        *events.Tags()["scalars"]
    }
    found = {event.step: event.value for event in events.Scalars("kl/mu")}
    assert found == pytest.approx(dict(zip(history.steps, history.kls["mu"], strict=True)))
    assert pickle.loads(pickle.dumps(again)).folder == again.folder


def test_tensorboard_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        TensorBoardLogger(tmp_path)
