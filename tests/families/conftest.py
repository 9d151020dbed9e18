"""A tolerance for what is compared with itself."""

from __future__ import annotations

import pytest

from pyro_kl.numerics.quadrature.integrate import tolerance


@pytest.fixture
def fine():
    """What is compared with itself must not differ by the tolerance of an integral."""
    with tolerance(1e-11):
        yield
