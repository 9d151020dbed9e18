"""Awkward tables fit, or get one clear line."""

import pytest
import torch

from pyro_kl.glm.passes.rows import in_memory
from pyro_kl.glm.tables import TableError, read_table

from .files import NUM_ROWS, TABLES


def read(case, folder):
    options = {"target": "y", **case.options}
    return read_table(case.make(folder), **options)


@pytest.mark.parametrize("name", [name for name, case in TABLES.items() if case.names is None])
def test_a_table_that_cannot_be_used_gets_one_line(name, tmp_path):
    case = TABLES[name]
    with pytest.raises(TableError) as raised:
        in_memory(read(case, tmp_path))
    assert case.says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [name for name, case in TABLES.items() if case.names])
def test_an_awkward_table_is_read(name, tmp_path):
    case = TABLES[name]
    rows = read(case, tmp_path)
    table = in_memory(rows)
    assert rows.names == case.names
    assert any(case.says in line for line in ("", *rows.report))
    assert rows.num_left_out == case.left_out
    assert table.features.shape == (NUM_ROWS - case.left_out, len(case.names))
    assert bool(torch.isfinite(table.features).all())
    assert set(table.target.tolist()) == {0.0, 1.0}
