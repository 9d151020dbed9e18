"""A short form of `python -m tests.command.fuzz`, and what the long one has found."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st

from .fuzz import GOOD, check_request, expressions, likely


@pytest.mark.parametrize("text", GOOD)
def test_what_is_changed_is_good_itself(text):
    assert check_request(text, text) == 0


@seed(0)
@settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(expressions(), st.one_of(st.sampled_from(GOOD), likely()))
@example("Normal([], scale=True)", "Gamma(2, 1)")
def test_no_request_ends_in_a_traceback(p, q):
    check_request(p, q)
