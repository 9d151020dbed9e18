"""The examples: their numbers, their pictures, bad input and Ctrl-C."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from examples import hierarchical, kl_by_hand
from examples import logistic_regression as example
from pyro_kl.messages import see

ROOT = Path(__file__).resolve().parents[2]
GOOD = "a,b,y\n" + "".join(
    f"{i % 7},{(i * i) % 11},{'yes' if i % 3 else 'no'}\n" for i in range(40)
)
#: A column of many numbers.
MANY = "a,b,y\n" + "".join(f"{i % 7},{i * i},{'yes' if i % 3 else 'no'}\n" for i in range(40))
#: Text, a missing number, a missing target.
AWKWARD = GOOD.replace("a,b,y\n", "a,b,y\n,1,yes\n2,2,\n").replace(",3,", ",three,")


def command(*arguments):
    return [sys.executable, "-m", "examples.logistic_regression", *map(str, arguments)]


def code_of(argv):
    """The exit code of main, whether it returns it or exits with it."""
    try:
        return example.main([str(a) for a in argv])
    except SystemExit as stop:
        return stop.code


# --- logistic regression ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    out = tmp_path_factory.mktemp("smoke")
    assert code_of(["--smoke", "--out", out]) == 0
    return out


def test_smoke_writes_the_report_and_three_pictures(smoke):
    assert sorted(p.name for p in smoke.iterdir()) == sorted([example.REPORT, *example.PICTURES])
    for name in example.PICTURES:
        data = (smoke / name).read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert len(data) > 20_000


def test_the_report_fits_80_columns_and_adds_up(smoke):
    text = (smoke / example.REPORT).read_text()
    assert max(map(len, text.splitlines())) <= 80

    def number(label):
        return float(re.search(rf"{re.escape(label)}\s+(-?[\d.]+)", text).group(1))

    likelihood, kl = number("E_q[log likelihood] "), number("KL(q || prior) ")
    assert number("  ELBO ") == pytest.approx(likelihood - number("beta ") * kl, abs=2e-4)
    assert number("\nbias") + number("weights | bias") == pytest.approx(kl, abs=2e-3)
    assert number("= KL of the joint") == pytest.approx(kl, abs=2e-3)
    assert number("sum of the marginals' KLs") < kl
    assert text.count("closed form") > 31


def test_every_sampled_kl_of_the_report_agrees_with_the_exact_one(smoke):
    text = (smoke / example.REPORT).read_text()
    scores = re.findall(r"\+- ?0\.\d+ +(-?\d+\.\d+) +(?:closed form|chain rule)", text)
    assert len(scores) == 3 + 31
    assert max(abs(float(z)) for z in scores) < 4


def test_the_report_has_the_kl_to_the_posterior(smoke):
    text = (smoke / example.REPORT).read_text()
    found = re.search(r"KL\(guide \|\| posterior\) (0\.\d+) \+- (0\.\d+)", text)
    kl, error = map(float, found.groups())
    assert abs(kl - 0.228) < 5 * error < 0.1  # by 400,000 draws


def test_svi_stands_beside_the_exact_fit(smoke):
    text = (smoke / example.REPORT).read_text()
    below = float(re.search(r"SVI is ([\d.]+) nats below the optimum", text).group(1))
    both = re.search(r"  ELBO +(-[\d.]+) +(-[\d.]+)\n", text)
    exact, svi = map(float, both.groups())
    assert exact - svi == pytest.approx(below, abs=2e-3)
    assert below > 0.01  # so few steps do not arrive
    assert len(re.findall(r"[+-]\d+\.\d\d\n", text)) == 31


def test_a_beta_of_zero_is_refused(tmp_path, capsys):
    assert code_of(["--smoke", "--beta", "0", "--out", tmp_path]) == 2
    assert "single point" in capsys.readouterr().err


def test_threads_are_given_back(tmp_path):
    threads = torch.get_num_threads()
    code_of(["--csv", tmp_path / "none.csv", "--target", "y"])
    assert torch.get_num_threads() == threads


@pytest.mark.filterwarnings("ignore:.*makes up more than a quarter of the variance")
def test_studentt_is_exact_by_quadrature(tmp_path, capsys):
    argv = ["--smoke", "--steps", "3", "--prior", "studentt", "--beta", "0.5", "--out", tmp_path]
    assert code_of(argv) == 0
    text = capsys.readouterr().out
    assert "there is no formula" not in text
    row = next(line for line in text.splitlines() if line.startswith("mean radius"))
    assert row.endswith("quadrature")
    assert "With a beta other than 1 the target is not the posterior." in text
    assert max(map(len, (tmp_path / example.REPORT).read_text().splitlines())) <= 80


def test_a_csv_of_ones_own(tmp_path, capsys):
    path = tmp_path / "table.csv"
    path.write_text(GOOD)
    argv = [
        "--smoke",
        "--csv",
        path,
        "--target",
        "y",
        "--guide",
        "mean-field",
        "--prior",
        "laplace",
    ]
    assert code_of([*argv, "--out", tmp_path / "deep" / "out"]) == 0
    text = capsys.readouterr().out
    assert "Label 1 is 'y = yes'" in text
    assert "Laplace(0, s)" in text
    assert (tmp_path / "deep" / "out" / "convergence.png").exists()


def test_a_csv_with_text_and_missing_values(tmp_path, capsys):
    path = tmp_path / "table.csv"
    path.write_text(AWKWARD.replace(",", ";"))
    argv = ["--smoke", "--steps", "3", "--guide", "mean-field", "--csv", path, "--target", "y"]
    assert code_of([*argv, "--out", tmp_path]) == 0
    text = capsys.readouterr().out
    assert "30 training rows, 10 held out" in text
    for note in (
        "separator ';'",
        "b: 7 levels;",
        "a: 1 of 42 values are",
        "2 of 42 rows are left",
    ):
        assert note in text
    assert max(map(len, text.splitlines()[:20])) <= 80


BAD_TABLES = {
    "no target column": ("a,b\n1,2\n", "no column 'y'; the columns are a, b"),
    "not a number": (MANY + "1,red,yes\n", "column 'b' has numbers and text ('red')"),
    "not finite": (GOOD + "1,inf,yes\n", "row 42, column 'b': not finite"),
    "short row": (GOOD + "1,3\n", "line 42 has 2 cells where the header has 3"),
    "not binary": (GOOD + "1,3,maybe\n", "not binary: it has 3 distinct values"),
    "one class": ("a,y\n1,0\n2,0\n", "has one class only ('0')"),
    "too few of a class": ("a,y\n1,0\n2,0\n3,1\n", "only 1 rows have label 1"),
    "no features": ("y\n1\n0\n", "no feature columns"),
    "twice the same column": ("a,a,y\n1,2,0\n", "column 'a' appears more than once"),
    "empty": ("", "the file is empty"),
    "header only": ("a,y\n", "a header line but no rows"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables_get_one_line_and_code_2(case, tmp_path, capsys):
    content, message = BAD_TABLES[case]
    path = tmp_path / "bad.csv"
    path.write_text(content)
    assert code_of(["--csv", path, "--target", "y", "--out", tmp_path / "out"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


def test_files_that_cannot_be_read(tmp_path, capsys):
    assert code_of(["--csv", tmp_path / "none.csv", "--target", "y"]) == 2
    assert "no such file" in capsys.readouterr().err
    assert code_of(["--csv", tmp_path, "--target", "y"]) == 2
    assert "a folder without Parquet files" in capsys.readouterr().err
    (tmp_path / "zeros.csv").write_bytes(b"a,y\n\0,1\n")
    assert code_of(["--csv", tmp_path / "zeros.csv", "--target", "y"]) == 2
    assert "not a text file" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert code_of(["--smoke", "--out", tmp_path / "file"]) == 2
    assert re.fullmatch(r"error: --out .*: cannot be made .*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--beta", "-1"], "--beta: must be at least 0, got -1"),
        (["--beta", "nan"], "--beta: must be at least 0, got nan"),
        (["--beta", "inf"], "--beta: must be at least 0 and below inf, got inf"),
        (["--beta", "much"], "'much' is not a number"),
        (["--steps", "0"], "--steps: must be at least 1, got 0"),
        (["--steps", "1.5"], "'1.5' is not a whole number"),
        (["--seed", "-1"], "--seed: must be at least 0, got -1"),
        (["--seed", str(2**32)], "--seed: must be at least 0 and below"),
        (["--prior", "cauchy"], "invalid choice: 'cauchy'"),
        (["--csv", "t.csv"], "--csv FILE and --target COLUMN go together"),
        (["--target", "y"], "--csv FILE and --target COLUMN go together"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_options_get_one_line_and_code_2(argv, message, capsys):
    assert code_of(argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_command_line_itself_shows_no_traceback(tmp_path):
    done = subprocess.run(
        command("--csv", tmp_path / "none.csv", "--target", "y"),
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    said = f"error: {tmp_path / 'none.csv'}: no such file; check the path"
    assert done.stderr == f"{said}{see('table-file')}\n"


@pytest.mark.skipif(os.name == "nt", reason="SIGINT to another process needs POSIX")
def test_ctrl_c_reports_what_there_is(tmp_path):
    log = tmp_path / "stderr"
    # a suite that runs in the background of a shell has its SIGINT ignored, and so would the child
    with log.open("w") as stderr, subprocess.Popen(
        command("--steps", 1_000_000, "--smoke", "--out", tmp_path / "out"),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process, contextlib.ExitStack() as stack:  # fmt: skip
        stack.callback(process.kill)  # whatever fails below, nothing is waited for
        deadline = time.monotonic() + 90
        # The bar shows the KL once the first steps are done.
        while not re.search(r"[1-9]\d*/1000000", log.read_text()):
            assert time.monotonic() < deadline, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=90)
    assert process.returncode == example.INTERRUPTED
    assert "INTERRUPTED: the fit was stopped early" in out
    assert "Traceback" not in log.read_text()
    assert (tmp_path / "out" / example.REPORT).read_text() in out
    assert all((tmp_path / "out" / name).exists() for name in example.PICTURES)


# --- by hand ------------------------------------------------------------------------------------


def test_kl_by_hand_numbers():
    assert kl_by_hand.kl_by_sum([0.5, 0.5], [0.3, 0.7]) == pytest.approx(0.0872, abs=5e-5)
    assert kl_by_hand.kl_by_sum([0.3, 0.7], [0.5, 0.5]) == pytest.approx(0.0823, abs=5e-5)
    assert kl_by_hand.kl_by_integral(1.0, 1.0, 0.0, 1.0) == pytest.approx(0.5, abs=1e-10)
    assert kl_by_hand.cross_entropy(2.0, 1, 1.0, 0.0) == pytest.approx(0.1269, abs=5e-5)
    assert kl_by_hand.cross_entropy(2.0, 0, 1.0, 0.0) == pytest.approx(2.1269, abs=5e-5)


@pytest.mark.parametrize("smoke", [True, False])
def test_kl_by_hand_page(smoke, capsys):
    assert kl_by_hand.main(["--smoke"] if smoke else []) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    scores = [float(z) for z in re.findall(r"z = ([+-][\d.]+)", text)]
    assert len(scores) == 3
    assert all(abs(z) < 4 for z in scores)
    for number in ("0.0872", "0.087177", "0.082283", "0.500000", "0.0769", "0.1769", "-0.1769"):
        assert number in text


def test_kl_by_hand_refuses_a_bad_seed(capsys):
    with pytest.raises(SystemExit) as stop:
        kl_by_hand.main(["--seed", "-1"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


# --- eight schools ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schools(tmp_path_factory):
    out = tmp_path_factory.mktemp("schools")
    assert hierarchical.main(["--smoke", "--out", str(out)]) == 0
    return out


def test_eight_schools_shows_three_kinds_of_sites(schools):
    text = (schools / hierarchical.REPORT).read_text()
    assert "exact marginal of the joint guide" in text
    assert "Rao-Blackwellised" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "theta: its prior depends on mu, tau" in text
    assert (schools / hierarchical.PICTURE).read_bytes()[:4] == b"\x89PNG"
    rows = [json.loads(line) for line in (schools / hierarchical.DATA).read_text().splitlines()]
    assert len(rows) == 3 * (4 + 1)
    assert {row["method"] for row in rows if row.get("site") == "mu"} == {"closed form"}


def test_eight_schools_ends_with_the_diagnosis(schools):
    text = (schools / hierarchical.REPORT).read_text()
    assert len(re.findall(r"^centred, .*(?:unknown, at least|\+-) \d", text, re.MULTILINE)) == 3
    last = text[text.index("non-centred, AutoNormal:") :]
    assert "KL(guide || posterior)" in last
    assert "k-hat" in last


def test_eight_schools_exact_and_sampled_agree(schools):
    text = (schools / hierarchical.REPORT).read_text()
    scores = [float(z) for z in re.findall(r"\d +([+-]\d+\.\d\d)  (?:closed|quadrature)", text)]
    assert len(scores) >= 5
    assert max(map(abs, scores)) < 4


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--steps", "0"], "--steps: must be at least 1, got 0"),
        (["--seed", "-1"], "--seed: must lie in"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_eight_schools_refuses_bad_options(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        hierarchical.main(argv)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
