"""A prior scale that is learnt costs one more pass where rows are many, and a few where not.

    python -m benchmarks.glm_learnt_scales_cost_few_passes

Both fit the same data with one thread, in turns. Columns:

given, learnt   CPU time of `fit`, median, and the passes over all rows
ratio           of the times, median
scale           the learnt one; the given one is 1
gain            of the ELBO by the learnt scale, nats
"""

from __future__ import annotations

from functools import partial
from statistics import median

import torch

from pyro_kl.glm import LogisticRegression

from .glm_costs_a_point_estimate import breast_cancer, synthetic
from .timing import interleaved, seconds

SETTINGS = [
    {},
    {"covariance": "diagonal"},
    {"covariance": "low_rank"},
    {"prior": "laplace"},
    {"prior": "studentt"},
    {"prior": "horseshoe"},
]


def main() -> None:
    torch.set_num_threads(1)
    shapes = {
        "569 x 30": (breast_cancer(), SETTINGS, 9),
        "100,000 x 100": (synthetic(100_000, 100, "float32"), SETTINGS, 3),
        "1,000,000 x 50": (synthetic(1_000_000, 50, "float32"), SETTINGS[:2], 3),
    }
    print(f"{'':<42}{'given':>18}{'learnt':>18}{'ratio':>7}{'scale':>8}{'gain':>10}")
    for shape, (data, settings, rounds) in shapes.items():
        for setting in settings:
            models = {
                "given": LogisticRegression(**setting),
                "learnt": LogisticRegression("learn", **setting),
            }
            fits = {
                name: partial(seconds, partial(model.fit, *data)) for name, model in models.items()
            }
            times = interleaved(fits, rounds)
            ratio = median(b / a for a, b in zip(times["given"], times["learnt"], strict=True))
            cells = "".join(
                f"{1e3 * median(times[name]):9.1f} ms ({model.n_iter_:3d})"
                for name, model in models.items()
            )
            given, learnt = models.values()
            name = f"{shape:<16}" + " ".join(setting.values())
            gain = learnt.elbo_ - given.elbo_
            print(f"{name:<42}{cells}{ratio:7.2f}{learnt.prior_scale_:8.3f}{gain:10.3f}")


if __name__ == "__main__":
    main()
