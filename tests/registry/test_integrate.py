"""An integrand that runs as a program agrees with its operations one by one."""

from __future__ import annotations

import pytest
import torch

from pyro_kl.numerics.quadrature.integrate import tolerance

from ..conformance.cases import (
    QUADRATURE,
    SAMPLE,
    counts_of,
    draw_finite,
    function_of,
    kl_of,
    over,
    tensors,
    without_validation,
)

#: Rows of a batch, and the most numbers of each row that autograd sees where nodes do not pass
#: through it: there are at least 49 nodes, and an integrand takes a dozen operations.
ROWS, OF_A_ROW = 512, 100


@pytest.mark.filterwarnings("ignore:KL")  # that a tolerance is not reached
@over(SAMPLE)
def test_program_is_autograd(duo):
    """`torch.func` sees the operations themselves, whose derivatives are autograd's."""
    torch.manual_seed(0)
    p, q, _ = draw_finite(duo, 5, 0.3)
    function, values = function_of(duo, p, q), [*p.values(), *q.values()]
    counts = [name in counts_of(f) for f, x in ((duo.p, p), (duo.q, q)) for name in x]
    free = [i for i, is_count in enumerate(counts) if not is_count]

    def of_the_free(*given):
        moved = dict(zip(free, given, strict=True))
        return function(*(moved.get(i, x) for i, x in enumerate(values)))

    inputs = [values[i].clone().requires_grad_() for i in free]
    with tolerance(1e-11):
        value = of_the_free(*inputs)
        slopes = torch.autograd.grad(
            value.sum(), inputs, allow_unused=True, materialize_grads=True
        )
        with without_validation():
            plain, vjp = torch.func.vjp(of_the_free, *(x.detach() for x in inputs))
            expected = torch.stack(vjp(torch.ones_like(plain)))
    assert value.detach().numpy() == pytest.approx(plain.numpy(), rel=1e-9, abs=1e-13)
    scale = expected.abs().max().item()
    assert torch.stack(slopes).numpy() == pytest.approx(
        expected.numpy(), rel=1e-7, abs=1e-7 * scale
    )


def seen_by_autograd(duo):
    """Numbers that autograd packs for each row, while a KL of many equal rows is computed."""
    row = duo.finite_rows()[0]
    sides = [
        {
            name: x.expand(ROWS, *x.shape).clone().requires_grad_(name not in counts_of(family))
            for name, x in tensors(given).items()
        }
        for family, given in ((duo.p, row.p), (duo.q, row.q))
    ]
    packed: dict[int, int] = {}

    def pack(x):
        packed[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        kl_of(duo, *sides)
    return sum(packed.values()) / 8 / ROWS


@pytest.mark.filterwarnings("ignore:KL")
def test_most_integrands_run_as_a_program():
    """What does not still integrates, several times slower and with its nodes in autograd."""
    found = {
        duo.id: seen_by_autograd(duo)
        for duo in QUADRATURE[::3]
        if duo.p.line is not None and duo.q.line is not None
    }
    slow = {name for name, size in found.items() if size > OF_A_ROW}
    assert len(slow) <= 0.22 * len(found), slow
