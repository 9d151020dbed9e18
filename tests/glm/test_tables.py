"""Tables in chunks: every reader gives the same rows, in any order of access."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import torch

from pyro_kl.glm import LogisticRegression, PoissonRegression
from pyro_kl.glm.passes.rows import in_memory
from pyro_kl.glm.tables import TableError, batches, csv_batches, parquet, read_table

NUM_ROWS = 1000


def frame(num_rows=NUM_ROWS, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "a": rng.standard_normal(num_rows).round(6),
            "colour": rng.choice(["red", "green", "blue"], num_rows, p=[0.2, 0.5, 0.3]),
            "b": rng.integers(-9, 9, num_rows),
            "y": rng.choice(["no", "yes"], num_rows),
        }
    )


NAMES = ("a", "colour=blue", "colour=red", "b")


def expected(table):
    columns = [table["a"], table["colour"] == "blue", table["colour"] == "red", table["b"]]
    return np.stack([np.asarray(column, dtype=float) for column in columns], axis=1)


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of 64 rows, so that small tables have many."""
    for module in (batches, parquet, csv_batches):
        monkeypatch.setattr(module, "ROWS", 64)
    monkeypatch.setattr(csv_batches, "LEAST_BYTES", 256)


def parquet_file(table, folder):
    pq.write_table(pa.Table.from_pandas(table), folder / "t.parquet", row_group_size=150)
    return folder / "t.parquet"


def small_groups(table, folder):
    pq.write_table(pa.Table.from_pandas(table), folder / "t.parquet", row_group_size=10)
    return folder / "t.parquet"


def shards(table, folder):
    """Files whose columns are in other orders and of other types."""
    for i, part in enumerate(np.array_split(np.arange(len(table)), 3)):
        columns = [["a", "colour", "b", "y"], ["y", "b", "a", "colour"], ["b", "y", "colour", "a"]]
        piece = table.iloc[part][columns[i]]
        piece = piece.astype({"b": ["int64", "int8", "float32"][i]})
        pq.write_table(pa.Table.from_pandas(piece, preserve_index=False), folder / f"{i}.parquet")
    return folder


def comma(table, folder):
    table.to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def arrow_file(table, folder):
    table = pa.Table.from_pandas(table)
    with pa.OSFile(str(folder / "t.arrow"), "wb") as file:
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=90)
    return folder / "t.arrow"


def arrow_stream(table, folder):
    table = pa.Table.from_pandas(table)
    with pa.OSFile(str(folder / "t.arrow"), "wb") as file:
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=90)
    return folder / "t.arrow"


def in_pieces(table, folder):
    """A table of Arrow in pieces, with a dictionary for each."""
    pieces = [
        pa.Table.from_pandas(table.iloc[part].astype({"colour": "category"}), preserve_index=False)
        for part in np.array_split(np.arange(len(table)), 7)
    ]
    return pa.concat_tables(pieces)


def dataset(table, folder):
    return pa.dataset.dataset(shards(table, folder))


class HuggingFace:
    """What a data set of Hugging Face looks like from outside."""

    def __init__(self, table):
        self.data = type("Table", (), {"table": pa.Table.from_pandas(table)})()
        self._indices = None


READERS = {
    "parquet": parquet_file,
    "parquet of small row groups": small_groups,
    "shards": shards,
    "csv": comma,
    "arrow file": arrow_file,
    "arrow stream": arrow_stream,
    "arrow table in pieces": in_pieces,
    "dataset": dataset,
    "pandas": lambda table, folder: table,
    "hugging face": lambda table, folder: HuggingFace(table),
}


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_gives_the_same_rows_in_any_order(reader, tmp_path):
    table = frame()
    rows = read_table(READERS[reader](table, tmp_path), "y")
    assert rows.names == NAMES
    assert rows.num_chunks > 9
    assert rows.num_rows == NUM_ROWS
    chunks = [rows.chunk(i) for i in range(rows.num_chunks)]
    assert all(len(chunk.target) <= 80 for chunk in chunks)
    got = torch.cat([chunk.features for chunk in chunks])
    np.testing.assert_array_equal(got, expected(table))
    target = torch.cat([chunk.target for chunk in chunks])
    np.testing.assert_array_equal(target, table["y"] == "yes")
    assert rows.num_left_out == 0
    for index in np.random.default_rng(1).integers(0, rows.num_chunks, 30).tolist():
        assert torch.equal(rows.chunk(index).features, chunks[index].features)
        assert torch.equal(rows.chunk(index).target, chunks[index].target)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("reader", ["parquet", "csv", "pandas"])
def test_a_sample_is_spread_and_weighs_as_much_as_all_rows(reader, tmp_path):
    table = frame()
    table["place"] = np.arange(NUM_ROWS) // 2 * 2.0
    rows = read_table(READERS[reader](table, tmp_path), "y")
    sample = rows.sample(200)
    assert 150 <= sample.num_rows <= 300
    assert float(sample.weight.sum()) == pytest.approx(NUM_ROWS)
    place = sample.features[:, rows.names.index("place")]
    tenths = torch.histc(place, 10, 0, NUM_ROWS) / sample.num_rows
    assert float(tenths.max()) < 0.35
    assert int((tenths > 0).sum()) >= 6


def test_numbers_are_standardised_and_levels_are_not(tmp_path):
    table = frame()
    rows = read_table(comma(table, tmp_path), "y", standardise=True)
    got = in_memory(rows).features.numpy()
    wanted = expected(table)
    for place in (0, 3):
        wanted[:, place] -= wanted[:, place].mean()
        wanted[:, place] /= wanted[:, place].std()
    np.testing.assert_allclose(got, wanted, atol=1e-12)
    np.testing.assert_allclose(
        got * rows.scale.numpy() + rows.shift.numpy(), expected(table), atol=1e-12
    )


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_posterior_predicts_in_the_units_of_the_table(tmp_path, checkpoint):
    table = frame()
    table.loc[:9, "a"] = np.nan
    rows = read_table(table, "y", standardise=True)
    folder = tmp_path / "sums" if checkpoint else None
    posterior = LogisticRegression().fit(rows, checkpoint=folder).posterior_
    assert posterior.num_rows == NUM_ROWS - 10
    assert posterior.classes == ("no", "yes")
    wanted = np.asarray(posterior.predictor(expected(table)[10:])[0])
    got = in_memory(rows).features.numpy() @ posterior.loc[1:].numpy() + float(posterior.loc[0])
    np.testing.assert_allclose(got, wanted, rtol=1e-10)


def test_a_long_table_is_standardised_by_a_part_of_it(tmp_path, monkeypatch, small_chunks):
    monkeypatch.setattr("pyro_kl.glm.tables.survey.WHOLE_ROWS", 500)
    rows = read_table(parquet_file(frame(), tmp_path), "y", standardise=True)
    assert "means and standard deviations are those of a part of the rows" in rows.report
    features = in_memory(rows).features[:, 0]
    assert abs(float(features.mean())) < 0.1
    assert float(features.std()) == pytest.approx(1.0, abs=0.1)


def test_float32_stays_float32(tmp_path):
    table = frame().astype({"a": "float32", "b": "int16"})
    assert read_table(table, "y").dtype is torch.float32
    assert read_table(table.astype({"b": "int64"}), "y").dtype is torch.float64
    assert (
        read_table(table.astype({"b": "int64"}), "y", dtype=torch.float32).dtype is torch.float32
    )
    assert read_table(table.drop(columns=["a"]), "y").dtype is torch.float64


@pytest.mark.usefixtures("small_chunks")
def test_a_csv_whose_types_change_late(tmp_path):
    """Text, or a fraction, in the last rows holds for the whole column."""
    table = frame().astype({"b": "object"})
    table.loc[NUM_ROWS - 1, "b"] = 0.5
    rows = read_table(comma(table, tmp_path), "y")
    assert in_memory(rows).features[-1, 3] == 0.5
    table["b"] = np.arange(NUM_ROWS) % 3
    table = table.astype({"b": "object"})
    table.loc[NUM_ROWS - 1, "b"] = "many"
    rows = read_table(comma(table, tmp_path), "y")
    assert rows.names[3:] == ("b=1", "b=2", "b=many")


@pytest.mark.usefixtures("small_chunks")
def test_a_csv_with_line_ends_in_its_cells(tmp_path):
    table = frame()
    table["colour"] = table["colour"].map(lambda word: f'{word}\n"{word},"\r\n')
    rows = read_table(comma(table, tmp_path), "y")
    assert rows.num_rows == NUM_ROWS
    np.testing.assert_array_equal(
        in_memory(rows).features[:, [0, 3]], expected(frame())[:, [0, 3]]
    )


@pytest.mark.usefixtures("small_chunks")
def test_a_wrong_row_of_a_csv_is_found_by_its_line(tmp_path):
    path = comma(frame(), tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    lines[700] = "1,2\n"
    path.write_text("".join(lines))
    with pytest.raises(
        TableError, match=r"t.csv: line 701 has 2 cells where the header has 4 \(more"
    ):
        read_table(path, "y")


def test_a_shard_that_lacks_a_column_is_named(tmp_path):
    shards(frame(), tmp_path)
    pq.write_table(pa.table({"a": [1.0], "b": [1], "y": ["yes"]}), tmp_path / "9.parquet")
    with pytest.raises(
        TableError, match=r"9.parquet: no column 'colour', which .*0.parquet has \(more"
    ):
        read_table(tmp_path, "y")


def test_a_shard_with_other_types_is_named(tmp_path):
    shards(frame(), tmp_path)
    piece = frame().astype({"b": str})
    pq.write_table(pa.Table.from_pandas(piece), tmp_path / "9.parquet")
    with pytest.raises(
        TableError, match=r"9.parquet: column 'b' is (large_)?string; in .*int64 \(more"
    ):
        read_table(tmp_path, "y")


@pytest.mark.usefixtures("small_chunks")
def test_a_chunk_whose_rows_are_all_left_out_counts_nothing():
    table = frame()
    model = LogisticRegression(tol=1e-8)
    whole = model.fit(read_table(table[100:], "y")).elbo_
    table.loc[:99, "a"] = np.nan
    rows = read_table(table, "y")
    assert float(rows.chunk(0).weight.sum()) == 0.0
    assert model.fit(rows).elbo_ == pytest.approx(whole, abs=1e-7)


def test_weights_are_read_and_checked():
    table = frame()
    table["w"] = np.arange(NUM_ROWS) % 3
    rows = read_table(table, "y", weight="w")
    assert rows.names == NAMES
    np.testing.assert_array_equal(rows.chunk(0).weight, table["w"])
    table.loc[5, "w"] = -1
    with pytest.raises(TableError, match="row 6: the weight 'w' is negative"):
        read_table(table, "y", weight="w").chunk(0)


def test_a_target_of_counts(tmp_path):
    table = frame().assign(y=np.random.default_rng(3).poisson(2.0, NUM_ROWS))
    table.loc[3, "y"] = -1
    path = comma(table, tmp_path)
    with pytest.raises(TableError, match="the target 'y' has the value -1, which is no count"):
        in_memory(read_table(path, "y", counts=True))
    path = comma(table.drop(index=3), tmp_path)
    rows = read_table(path, "y", counts=True)
    fit = PoissonRegression(tol=1e-8).fit(rows)
    features = expected(table.drop(index=3))
    same = PoissonRegression(tol=1e-8).fit(features, table["y"].drop(index=3).to_numpy())
    assert fit.elbo_ == pytest.approx(same.elbo_, abs=1e-6)
    assert fit.posterior_.classes is None
    with pytest.raises(ValueError, match="without counts=True"):
        LogisticRegression().fit(rows)
    with pytest.raises(ValueError, match="with counts=True"):
        PoissonRegression().fit(read_table(frame(), "y"))
    with pytest.raises(TableError, match="the target 'y' is no count"):
        read_table(frame(), "y", counts=True)


def test_a_late_weight_that_is_no_number_is_found(tmp_path, small_chunks):
    table = frame()
    table["w"] = 1
    path = comma(table.astype({"w": "object"}), tmp_path)
    path.write_text(path.read_text() + "1,red,2,yes,0.5\n")
    assert float(in_memory(read_table(path, "y", weight="w")).weight[-1]) == 0.5
    path.write_text(path.read_text() + "1,red,2,yes,heavy\n")
    with pytest.raises(TableError, match="the weight 'w' has values that are no numbers"):
        read_table(path, "y", weight="w")


def test_an_infinite_number_of_a_long_table_is_found_when_it_is_read(
    tmp_path, monkeypatch, small_chunks
):
    monkeypatch.setattr("pyro_kl.glm.tables.survey.WHOLE_ROWS", 500)
    table = frame()
    table.loc[700, "a"] = np.inf
    rows = read_table(parquet_file(table, tmp_path), "y")
    with pytest.raises(TableError, match=r"row 701, column 'a': not finite"):
        in_memory(rows)


def test_a_level_that_comes_later_is_an_error(tmp_path):
    rows = read_table(comma(frame(), tmp_path), "y")
    comma(frame().replace("red", "rot"), tmp_path)
    with pytest.raises(TableError, match="'colour' has the level 'rot', which it did not have"):
        rows.chunk(0)


def test_a_table_of_another_library_comes_by_the_stream_of_arrow():
    class Polars:
        def __arrow_c_stream__(self, requested_schema=None):
            return pa.Table.from_pandas(frame()).__arrow_c_stream__(requested_schema)

    np.testing.assert_array_equal(in_memory(read_table(Polars(), "y")).features, expected(frame()))


def test_an_order_of_a_data_set_is_not_lost():
    data = HuggingFace(frame())
    data._indices = object()
    with pytest.raises(TableError, match="flatten_indices"):
        read_table(data, "y")


def test_text_that_only_looks_missing_can_be_said(tmp_path):
    table = frame().astype({"a": "object"})
    table.loc[::10, "a"] = "not measured"
    with pytest.raises(TableError, match=r"column 'a' has numbers and text \('not measured'\)"):
        read_table(table, "y")
    rows = read_table(comma(table, tmp_path), "y", missing=["Not measured"])
    assert in_memory(rows).num_rows == NUM_ROWS * 9 // 10
    assert rows.num_left_out == NUM_ROWS // 10
    assert "a: 100 of 1,000 values are missing, the rows are left out" in rows.report


def test_where_most_rows_are_left_out_the_report_says_what_to_do():
    table = frame()
    table.loc[400:, "a"] = np.nan
    rows = read_table(table, "y")
    assert in_memory(rows).num_rows == 400
    line = "600 of 1,000 rows are left out; impute fills gaps in, drop leaves out a column"
    assert rows.report[-1] == line


def test_a_column_that_looks_like_an_identifier_can_be_kept():
    table = frame()
    table["day"] = np.arange(NUM_ROWS)
    rows = read_table(table, "y")
    assert rows.names == NAMES
    assert "day: left out, numbers the rows" in rows.report
    assert read_table(table, "y", keep=["day"]).names == (*NAMES, "day")


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'pyro-kl\[glm\]'"):
        read_table(frame(), "y")
