"""`pyro-kl fit FILE`: what a user reads, what is written, and what bad input gets."""

import re

import numpy as np
import pandas as pd
import pytest

from pyro_kl.glm import LogisticRegression, read_table
from pyro_kl.glm.posterior.posterior import Posterior
from pyro_kl.glm.watched import WatchedRows
from pyro_kl_cli.main import main

NUM_ROWS = 300


def frame():
    rng = np.random.default_rng(0)
    a, b = 5.0 + 2.0 * rng.standard_normal(NUM_ROWS), rng.standard_normal(NUM_ROWS)
    colour = rng.choice(["red", "green", "blue"], NUM_ROWS, p=[0.2, 0.5, 0.3])
    slope = (a - 5.0) + 1.5 * (colour == "red")
    y = np.where(slope + rng.logistic(size=NUM_ROWS) > 0.0, "yes", "no")
    return pd.DataFrame({"id": range(NUM_ROWS), "a": a, "colour": colour, "b": b, "y": y})


@pytest.fixture
def table(tmp_path):
    data = frame()
    data.loc[[3, 5], "b"] = np.nan
    data.to_csv(tmp_path / "table.csv", index=False, sep=";")
    return tmp_path / "table.csv"


def printed(capsys, *arguments):
    assert main(["fit", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_the_table_of_kls_fits_80_columns(table, capsys):
    text = printed(capsys, table, "--target", "y")
    for part in (
        "separator ';'",
        "target: 1 is 'y = yes'",
        "id: left out, numbers the rows",
        "colour: 3 levels; the reference is 'green', features 'blue', 'red'",
        "b: 2 of 300 values are missing, the rows are left out",
        "2 of 300 rows are left out",
        "Fitting 4 features, 298 rows",
        "bias ",
        "colour=red ",
        "ELBO ",
        "298 rows",
    ):
        assert part in text
    _, *lines = text.splitlines()  # the first has the path, which may be long
    assert max(map(len, lines)) <= 80


def test_parquet_and_csv_give_the_same_fit(table, tmp_path, capsys):
    pd.read_csv(table, sep=";").to_parquet(tmp_path / "t.parquet")
    tables = [
        printed(capsys, path, "--target", "y").partition("Fitting")[2]
        for path in (table, tmp_path / "t.parquet")
    ]
    assert tables[0] == tables[1]


def test_a_table_that_is_not_kept_in_memory_gives_the_same_fit(table, capsys, monkeypatch):
    kept = printed(capsys, table, "--target", "y", "--impute").partition("Fitting")[2]
    monkeypatch.setattr("pyro_kl_cli.fit.SMALL", 0)
    assert printed(capsys, table, "--target", "y", "--impute").partition("Fitting")[2] == kept


def test_the_diagnosis_is_of_the_rows_of_the_fit(table, capsys):
    arguments = (table, "--target", "y", "--held-out", "0.3", "--diagnose")
    text = printed(capsys, *arguments)
    found = re.search(r"KL\(guide \|\| posterior\) (0\.\d+) \+- (0\.\d+)", text)
    assert 0 < float(found[1]) < 0.1
    assert text == printed(capsys, *arguments)


def test_rows_that_are_held_out_are_scored(table, capsys):
    text = printed(capsys, table, "--target", "y", "--held-out", "0.3", "--seed", "1")
    line = next(line for line in text.splitlines() if line.startswith("Held out: "))
    rows, accuracy = int(line.split()[2]), float(line.split()[5])
    assert 60 < rows < 120
    assert 65.0 < accuracy < 95.0
    assert f"{298 - rows} rows; bernoulli likelihood" in text


def test_the_posterior_and_pictures_are_written(table, tmp_path, capsys):
    out = tmp_path / "fit.safetensors"
    text = printed(capsys, table, "--target", "y", "--drop", "colour", "--out", out)
    for name in ("fit.safetensors", "fit_prior_posterior.png", "fit_coefficients.png"):
        assert name in text
        assert (tmp_path / name).stat().st_size > 1000
    posterior = Posterior.load(out)
    assert posterior.names == ("a", "b")
    data = frame().dropna()
    one = posterior.predict_proba(data[["b", "a"]])[:, 1].numpy()
    assert posterior.classes == ("no", "yes")
    assert np.mean((one > 0.5) == (data["y"] == "yes")) > 0.7


def test_the_table_is_changed_as_asked(table, capsys):
    text = printed(capsys, table, "--target", "y", "--positive", "no", "--keep", "id", "--impute")
    assert "1 is 'y = no'" in text
    assert "Fitting 5 features" in text
    assert "300 rows; bernoulli likelihood" in text
    text = printed(
        capsys, table, "--target", "y", "--prior", "laplace", "--covariance", "diagonal",
        "--prior-scale", "0.5", "--raw", "--drop", "colour", "id",
    )  # fmt: skip
    assert "laplace prior" in text
    assert "diagonal covariance" in text
    assert "one sd" not in text


def test_the_scale_of_the_prior_is_learnt(table, capsys):
    text = printed(capsys, table, "--target", "y", "--prior-scale", "learn")
    scales = {line.split()[1] for line in text.splitlines() if line.startswith(("a ", "b "))}
    assert len(scales) == 1
    assert scales != {"1.000"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("none.csv", "--target", "y"), "error: none.csv: no such file; check the path"),
        (("table.csv", "--target", "z"), "no column 'z'; the columns are id, a, colour, b, y"),
        (("table.csv", "--target", "colour"), "not binary: it has 3 distinct values"),
        (("table.csv", "--target", "y", "--sep", "::"), "a separator is one character"),
        (("table.csv", "--target", "y", "--drop", "q"), "no column 'q'"),
        (("table.csv", "--target", "y", "--out", "none/p.safetensors"), "the folder does not"),
        (("table.csv", "--target", "y", "--prior", "cauchy"), "cauchy"),
        (("table.csv", "--target", "y", "--covariance", "half"), "half"),
        (("table.csv", "--target", "y", "--prior-scale", "-1"), "prior_scale"),
        (("table.csv", "--target", "y", "--held-out", "0.0001"), "no rows are held out"),
    ],
)
def test_bad_input_gets_one_line(table, arguments, says, capsys, monkeypatch):
    monkeypatch.chdir(table.parent)
    assert main(["fit", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_bar_tells_which_pass_it_is(capfd, monkeypatch):
    monkeypatch.setattr("pyro_kl.glm.watched.DELAY", 0.0)
    monkeypatch.setattr("pyro_kl.svi.progress.LINES_INTERVAL", 0.0)
    monkeypatch.setattr("pyro_kl.glm.tables.batches.ROWS", 100)
    rows = read_table(frame(), "y")
    watched = WatchedRows(rows, rows.target, show=True)
    fitted = LogisticRegression().fit(watched)
    watched.close()
    bars = capfd.readouterr().err
    assert "pass 1:" in bars
    assert f"pass {fitted.n_iter_}:" in bars
    assert " 2/3 " in bars
    assert fitted.elbo_ == LogisticRegression().fit(rows).elbo_
    quiet = WatchedRows(rows, rows.target, show=False)
    LogisticRegression().fit(quiet)
    assert capfd.readouterr().err == ""
