"""What a compiled step costs before it starts: the comparison of what model and guide read.

One process, process CPU time, the least of the repeats; the limits are 5 us for ten values and
30 us for a model of 20 PyroModules.

    python -m benchmarks.comparison_before_a_step
"""

import time
from timeit import repeat

import torch
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule

from pyro_kl.svi.surroundings import Surroundings

A, B, C, D, E, F, G, H, I, J = 1, 2.5, "c", True, None, (1, 2), 3, 4.5, 6, torch.float32  # noqa: E741


def ten_values():
    return A, B, C, D, E, F, G, H, I, J


class Layer(PyroModule):
    def __init__(self):
        super().__init__()
        self.linear = PyroModule[torch.nn.Linear](3, 3)
        self.scale = 1.0

    def forward(self, x):
        return self.linear(x) * self.scale


class Network(PyroModule):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(Layer() for _ in range(10))

    def forward(self, x=None):
        for layer in self.layers:
            x = layer(torch.ones(3) if x is None else x)
        return x


def nothing():
    pass


def microseconds(surroundings, calls=500, repeats=15):
    taken = surroundings.take()
    spent = repeat(
        lambda: surroundings.difference(taken),
        number=calls, repeat=repeats, timer=time.process_time,
    )  # fmt: skip
    return min(spent) / calls * 1e6


def main():
    network = Network()
    for name, model, guide in (
        ("nothing is read", nothing, nothing),
        ("ten values", ten_values, nothing),
        ("20 PyroModules", network, nothing),
        ("20 PyroModules in an AutoNormal", network, AutoNormal(network)),
    ):
        print(f"{name:<32s} {microseconds(Surroundings(model, guide)):5.1f} us")


if __name__ == "__main__":
    main()
