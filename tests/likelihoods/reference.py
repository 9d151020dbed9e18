"""Expected log likelihoods and their derivatives at 40 digits, from the log likelihoods alone.

The trapezoidal rule on the line, with Hermite polynomials as weights for the derivatives:

    d^k/da^k E f(a + s z) = s^-k E f(a + s z) He_k(z).

At a scale of 0 the derivatives are those of f. Writes reference.json:

    python -m tests.likelihoods.reference
"""

import json
from pathlib import Path

import mpmath as mp

from pyro_kl.likelihoods import LIKELIHOODS

STORED = Path(__file__).with_name("reference.json")
LOCS = (-50.0, -8.0, -1.3, 0.0, 0.7, 3.0, 50.0)
SCALES = (0.0, 1e-3, 0.1, 0.25, 0.3, 1.0, 3.0, 10.0, 100.0)
# E exp(eta) = exp(loc + scale^2 / 2) is not a float at the last scale.
LARGEST_SCALE = {"poisson": 10.0}
HERMITE = (
    lambda z: mp.mpf(1),
    lambda z: z,
    lambda z: z * z - 1,
    lambda z: z**3 - 3 * z,
    lambda z: z**4 - 6 * z * z + 3,
)


def derivatives(function, loc, scale):
    """The expectation of a function of the predictor, and four derivatives in loc."""
    loc, scale = mp.mpf(loc), mp.mpf(scale)
    if scale == 0:
        return [mp.diff(function, loc, k) for k in range(5)]
    # The functions are analytic within 2.8 of the line: the error is exp(-2 pi 2.8 / 0.19).
    step = min(mp.mpf("0.4"), mp.mpf("0.19") / scale)
    # A LogNormal's mean has its mass around z = scale.
    first, last = int(-15 / step), int((15 + min(scale, 10)) / step)
    sums = [mp.mpf(0)] * 5
    for i in range(first, last + 1):
        z = i * step
        term = mp.npdf(z) * step * function(loc + scale * z)
        sums = [
            total + term * polynomial(z) for total, polynomial in zip(sums, HERMITE, strict=True)
        ]
    return [total / scale**k for k, total in enumerate(sums)]


def rows():
    for likelihood in LIKELIHOODS:
        if likelihood.event_dim:
            continue
        for example in likelihood.examples:
            y, own = example["y"], {k: mp.mpf(example[k]) for k in likelihood.parameters}

            def function(eta, y=y, own=own, log_likelihood=likelihood.log_likelihood):
                return log_likelihood(mp, y, eta, **own)

            for loc in LOCS:
                for scale in SCALES:
                    if scale <= LARGEST_SCALE.get(likelihood.name, mp.inf):
                        values = [float(x) for x in derivatives(function, loc, scale)]
                        yield [likelihood.name, example, loc, scale, values]


def main():
    mp.mp.dps = 60  # the weights of the fourth derivative divide by scale^4
    lines = ",\n".join(json.dumps(row) for row in rows())
    STORED.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
