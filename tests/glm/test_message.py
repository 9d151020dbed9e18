"""What ranks send one another is what they had."""

import dataclasses

import pytest
import torch

from pyro_kl.glm.passes.message import Layout, vector_of
from pyro_kl.glm.passes.statistics import Statistics


def statistics(*shape):
    """Statistics with other numbers in each field, whichever fields there are."""
    tensors = {"gradient": torch.randn(3, dtype=torch.float64)}
    tensors["precision"] = torch.randn(*shape, dtype=torch.float64)
    names = [field.name for field in dataclasses.fields(Statistics)]
    return Statistics(**{name: tensors.get(name, 0.1 * k) for k, name in enumerate(names)})


@pytest.mark.parametrize("shape", [(3,), (3, 3)])
def test_statistics_are_received_as_they_were_sent(shape):
    sent = statistics(*shape)
    layout, vector = Layout.of(sent), vector_of(sent)
    assert len(vector) == layout.length
    received = layout.value(vector)
    for name, field in vars(sent).items():
        assert type(getattr(received, name)) is type(field)
        assert torch.equal(torch.as_tensor(getattr(received, name)), torch.as_tensor(field))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_are_received_as_they_were_sent(dtype):
    sent = torch.randn(2, 3, dtype=dtype).mT
    layout = Layout.of(sent)
    received = layout.value(vector_of(sent))
    assert received.dtype == dtype
    assert torch.equal(received, sent)
