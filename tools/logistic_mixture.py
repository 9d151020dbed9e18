"""The mixture of Normals in pyro_kl/likelihoods/softplus.py, and its errors.

A mixture of Normals with mean 0 takes the place of the logistic distribution: the function whose
second derivative it is takes the place of softplus. Weights and scales minimise the largest error
over all means, of the function and of its first two derivatives times 0.3 (Lawson's method: least
squares, with weights that grow where the error is large). The number of components decides the
error: about 1.2e-7 with six, 1.9e-8 with seven, 3.4e-9 with eight.

    python -m tools.logistic_mixture [components]
"""

import sys

import numpy as np
from scipy.optimize import least_squares
from scipy.special import erfc, expit

MEANS = np.concatenate([np.linspace(0, 6, 400), np.linspace(6, 45, 400)[1:]])
# The error of a derivative counts as this much of an error of the function.
DERIVATIVE = 0.3
ROUNDS = 400


def of_logistic(a):
    """softplus(a) - a, and the first two derivatives of softplus less those of max(a, 0)."""
    return np.log1p(np.exp(-a)), -expit(-a), expit(a) * expit(-a)


def of_normals(a, scales):
    """The same three of each Normal in the place of the logistic distribution."""
    z = a[:, None] / scales
    density = np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    tail = erfc(z / np.sqrt(2)) / 2
    return scales * density - a[:, None] * tail, -tail, density / scales


def stacked(value, first, second):
    return np.concatenate([value, DERIVATIVE * first, DERIVATIVE * second])


def best_weights(scales, importance):
    """The weights of least squares that sum to 1, and the residuals."""
    columns, target = stacked(*of_normals(MEANS, scales)), stacked(*of_logistic(MEANS))
    middle = len(scales) // 2
    others = np.delete(columns, middle, 1) - columns[:, [middle]]
    rest = target - columns[:, middle]
    size = np.linalg.norm(others * importance[:, None], axis=0)
    solution, *_ = np.linalg.lstsq(
        others * importance[:, None] / size, rest * importance, rcond=1e-15
    )
    weights = np.insert(solution / size, middle, 0.0)
    weights[middle] = 1 - weights.sum()
    return weights, columns @ weights - target


def fit(components):
    log_scales = np.log(np.geomspace(0.8, 3.3, components))
    importance = np.ones(3 * len(MEANS))
    best = (np.inf, None, None)
    for _ in range(ROUNDS):

        def residuals(x, importance=importance):
            return best_weights(np.exp(x), importance)[1] * importance

        log_scales = least_squares(
            residuals, log_scales, method="lm", xtol=1e-14, ftol=1e-14, gtol=1e-15, diff_step=1e-6
        ).x
        weights, error = best_weights(np.exp(log_scales), importance)
        largest = np.abs(error).max()
        if largest < best[0]:
            best = (largest, weights, np.exp(log_scales))
        importance *= np.sqrt(np.abs(error) / largest + 1e-3)
        importance /= np.sqrt((importance**2).mean())
    return best[1:]


def main():
    weights, scales = fit(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
    for weight, scale in zip(weights, scales, strict=True):
        print(f"    ({weight.item()!r}, {scale.item()!r}),")
    a = np.linspace(0, 60, 60001)
    pairs = zip(of_normals(a, scales), of_logistic(a), strict=True)
    errors = [np.abs(normals @ weights - logistic).max() for normals, logistic in pairs]
    print("largest errors of softplus and its two derivatives:", *(f"{x:.3g}" for x in errors))


if __name__ == "__main__":
    main()
