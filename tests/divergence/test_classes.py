"""Every class of pyro.distributions is accounted for."""

from __future__ import annotations

from pyro_kl.divergence.classes import NO_KL, class_rows, concrete_classes


def test_all_97_classes_and_at_least_85_deterministic():
    rows = class_rows()  # raises for a class without an example and without a reason
    assert len(rows) >= 97
    assert sum(row.deterministic for row in rows) >= 85
    assert all(row.reason for row in rows)


def test_reasons_name_classes():
    assert set(NO_KL) <= {cls.__name__ for cls in concrete_classes()}
