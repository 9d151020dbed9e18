"""Reference values of KL(T(Normal) || prior) for T = biject_to(prior.support).

`python -m tests.conformance.reference.multiprecision.mapped_normal` writes `mapped_normal.json`:
the trapezoidal rule at 40 digits over the densities as the book writes them, with x = T(u) and its
slope in 60 digits. No formula of pyro_kl is used.
"""

from __future__ import annotations

import json
from pathlib import Path

import mpmath
from mpmath import mp

from .densities import DENSITIES

PATH = Path(__file__).with_name("mapped_normal.json")
LOC, SCALES = 0.3, (0.1, 1.0, 5.0)

#: Prior, its parameters, and the bijection's name.
PRIORS = [
    ("Normal", {"loc": 0.5, "scale": 2.0}, "real"),
    ("Laplace", {"loc": 0.5, "scale": 2.0}, "real"),
    ("Gumbel", {"loc": 0.5, "scale": 2.0}, "real"),
    ("StudentT", {"df": 3.0, "loc": 0.5, "scale": 2.0}, "real"),
    ("Cauchy", {"loc": 0.5, "scale": 2.0}, "real"),
    ("Logistic", {"loc": 0.5, "scale": 2.0}, "real"),
    ("SkewLogistic", {"loc": 0.5, "scale": 2.0, "asymmetry": 0.7}, "real"),
    ("SoftLaplace", {"loc": 0.5, "scale": 2.0}, "real"),
    ("AsymmetricLaplace", {"loc": 0.5, "scale": 2.0, "asymmetry": 1.5}, "real"),
    ("LogNormal", {"loc": 0.5, "scale": 2.0}, "positive"),
    ("Gamma", {"concentration": 2.0, "rate": 1.5}, "positive"),
    ("Chi2", {"df": 3.0}, "positive"),
    ("Exponential", {"rate": 1.5}, "positive"),
    ("InverseGamma", {"concentration": 2.0, "rate": 1.5}, "positive"),
    ("Weibull", {"scale": 1.5, "concentration": 0.8}, "positive"),
    ("HalfNormal", {"scale": 1.5}, "positive"),
    ("HalfCauchy", {"scale": 1.5}, "positive"),
    ("FoldedStudentT", {"df": 3.0, "scale": 1.5}, "positive"),
    ("FoldedNormal", {"loc": 1.0, "scale": 1.5}, "positive"),
    ("FisherSnedecor", {"df1": 3.0, "df2": 5.0}, "positive"),
    ("ImproperUniform", {}, "positive"),
    ("Pareto", {"scale": 1.5, "alpha": 2.0}, "above scale"),
    ("GeneralizedPareto", {"loc": 0.0, "scale": 1.5, "concentration": 0.3}, "positive"),
    ("Beta", {"concentration1": 2.0, "concentration0": 0.7}, "unit"),
    ("Kumaraswamy", {"concentration1": 2.0, "concentration0": 3.0}, "unit"),
    ("ContinuousBernoulli", {"probs": 0.3}, "unit"),
    ("RelaxedBernoulli", {"temperature": 0.7, "logits": 0.4}, "unit"),
    ("Uniform", {"low": -1.0, "high": 2.5}, "low to high"),
    ("AffineBeta", {"concentration1": 2.0, "concentration0": 0.7, "loc": 1.3, "scale": 3.1},
     "loc and scale"),
    ("LogitNormal", {"loc": 0.5, "scale": 2.0}, "unit"),
    ("Mixture", {"loc": [-1.0, 1.5], "scale": [1.0, 0.7], "probs": [0.3, 0.7]}, "real"),
    ("Dirichlet", {"concentration": [1.5, 0.6, 2.5, 4.0]}, "simplex"),
    ("LKJCholesky", {"dim": 3, "concentration": 1.7}, "corr_cholesky"),
    ("MultivariateNormal", {"scale_tril": [[1.5, 0.0], [0.4, 0.8]]}, "real vector"),
    ("LogisticNormal", {"loc": [0.5, -0.5], "scale": [1.0, 2.0]}, "simplex"),
    ("Softplus Gamma", {"concentration": 2.0, "rate": 1.5}, "softplus"),
]  # fmt: skip


book = DENSITIES.__getitem__


def log_sum(*terms):
    top = max(terms)
    return top + mp.log(sum(mp.exp(t - top) for t in terms))


def log_density(name, x, q):
    """The book's, of a univariate prior."""
    if name == "FoldedStudentT":
        return mp.log(2) + book("StudentT")(mp, x, df=q["df"], loc=mp.mpf(0), scale=q["scale"])
    if name == "FoldedNormal":
        normal = book("Normal")
        return log_sum(normal(mp, x, **q), normal(mp, -x, **q))
    if name == "ImproperUniform":
        return mp.mpf(0)
    if name == "Chi2":
        return book("Gamma")(mp, x, concentration=q["df"] / 2, rate=mp.mpf(1) / 2)
    if name == "Pareto":  # Johnson, Kotz & Balakrishnan (1994), ch. 20
        return mp.log(q["alpha"] / q["scale"]) - (q["alpha"] + 1) * mp.log(x / q["scale"])
    if name == "GeneralizedPareto":
        xi, z = q["concentration"], (x - q["loc"]) / q["scale"]
        return -mp.log(q["scale"]) - (1 + 1 / xi) * mp.log1p(xi * z)
    if name == "RelaxedBernoulli":  # Maddison, Mnih & Teh (2017), eq. 24
        t, logit = q["temperature"], mp.log(x) - mp.log1p(-x)
        s = q["logits"] - t * logit
        return mp.log(t) + s - 2 * mp.log1p(mp.exp(s)) - mp.log(x) - mp.log1p(-x)
    if name == "AffineBeta":
        rest = {k: q[k] for k in ("concentration1", "concentration0")}
        z = (x - q["loc"]) / q["scale"]
        return book("Beta")(mp, z, **rest) - mp.log(q["scale"])
    if name == "LogitNormal":
        logit = mp.log(x) - mp.log1p(-x)
        return book("Normal")(mp, logit, **q) - mp.log(x) - mp.log1p(-x)
    if name == "Mixture":
        parts = zip(q["loc"], q["scale"], q["probs"], strict=True)
        return log_sum(*(mp.log(w) + book("Normal")(mp, x, loc=m, scale=s) for m, s, w in parts))
    if name == "Softplus Gamma":
        return book("Gamma")(mp, x, **q)
    return book(name)(mp, x, **q)


def image(kind, u, q):
    """x = T(u) and log dx/du."""
    if kind == "real":
        return u, mp.mpf(0)
    if kind == "positive":
        return mp.exp(u), u
    if kind == "above scale":
        return q["scale"] + mp.exp(u), u
    if kind == "softplus":
        return mp.log1p(mp.exp(u)), -mp.log1p(mp.exp(-u))
    x, slope = 1 / (1 + mp.exp(-u)), -mp.log1p(mp.exp(-u)) - mp.log1p(mp.exp(u))
    low, width = {
        "unit": lambda: (mp.mpf(0), mp.mpf(1)),
        "low to high": lambda: (q["low"], q["high"] - q["low"]),
        "loc and scale": lambda: (q["loc"], q["scale"]),
    }[kind]()
    return low + width * x, slope + mp.log(width)


def expectation(function, loc, scale, reach=20.0, steps=1600):
    """E f(u) of u ~ Normal(loc, scale), by the trapezoidal rule."""
    h = mp.mpf(2 * reach) / steps
    nodes = (h * (i - steps // 2) for i in range(steps + 1))
    return h * sum(mp.npdf(z) * function(loc + scale * z) for z in nodes)


def entropy(scale):
    return mp.log(scale) + (1 + mp.log(2 * mp.pi)) / 2


def univariate(name, q, kind, loc, scale):
    def pulled_back(u):
        x, slope = image(kind, u, q)
        return log_density(name, x, q) + slope

    if "Laplace" in name and name != "SoftLaplace":  # has a kink at its location

        def at(z):
            return mp.npdf(z) * pulled_back(loc + scale * z)

        kink = (q["loc"] - loc) / scale
        return -mp.quad(at, sorted([-20, -5, 0, kink, 5, 20])) - entropy(scale)
    return -expectation(pulled_back, loc, scale) - entropy(scale)


def dirichlet(q, loc, scale):
    """From the joint density: log|J| and the powers of x are sums over the sticks."""
    a = q["concentration"]
    total = mp.loggamma(sum(a)) - sum(mp.loggamma(x) for x in a)
    for k in range(len(a) - 1):
        shift = mp.log(len(a) - 1 - k)
        # x_k = v_k prod_{j<k} (1 - v_j), dx_k/du_k = x_k (1 - v_k)
        up = expectation(lambda u, s=shift: -mp.log1p(mp.exp(s - u)), loc, scale)
        down = expectation(lambda u, s=shift: -mp.log1p(mp.exp(u - s)), loc, scale)
        after = a[k + 1 :]
        total += a[k] * up + down * (sum(after) - len(after)) + down * (len(after))
    return -total - (len(a) - 1) * entropy(scale)


def lkj_cholesky(q, loc, scale):
    """From the density of L: prod L_ii^(d - i + 2 eta - 2), i from 2, and L from tanh(u)."""
    d, eta = int(q["dim"]), q["concentration"]
    alpha = eta + mp.mpf(d - 1) / 2
    log_norm = (d - 1) * mp.log(mp.pi) / 2 - (d - 1) * mp.loggamma(alpha)
    # the multivariate gamma function, with its power of pi
    k = d - 1
    log_norm += mp.mpf(k * (k - 1)) / 4 * mp.log(mp.pi)
    log_norm += sum(mp.loggamma(alpha - mp.mpf(1) / 2 - mp.mpf(j) / 2) for j in range(k))
    half = expectation(lambda u: mp.log(mp.sech(u)), loc, scale)  # log sqrt(1 - tanh^2)
    total = -log_norm
    for i in range(2, d + 1):
        total += (d - i + 2 * eta - 2) * (i - 1) * half  # log L_ii, i - 1 factors
        for j in range(1, i):  # dL_ij/du_ij = (1 - tanh^2) prod of those before
            total += (2 + (j - 1)) * half
    return -total - mp.mpf(d * (d - 1)) / 2 * entropy(scale)


def value(name, q, kind, loc, scale):
    if name == "Dirichlet":
        return dirichlet(q, loc, scale)
    if name == "LKJCholesky":
        return lkj_cholesky(q, loc, scale)
    if name == "MultivariateNormal":
        tril = mpmath.matrix(q["scale_tril"])
        inverse = (tril * tril.T) ** -1
        shift = mpmath.matrix([loc, loc])
        trace = scale**2 * (inverse[0, 0] + inverse[1, 1])
        far = (shift.T * inverse * shift)[0]
        return (trace + far - 2 - 4 * mp.log(scale) + 2 * mp.log(mp.det(tril))) / 2
    if name == "LogisticNormal":
        return sum(
            univariate("Normal", {"loc": m, "scale": s}, "real", loc, scale)
            for m, s in zip(q["loc"], q["scale"], strict=True)
        )
    return univariate(name, q, kind, loc, scale)


def exact(x):
    return [exact(v) for v in x] if isinstance(x, list) else mp.mpf(x)


def main():
    rows = {}
    with mp.workdps(60):
        for name, parameters, kind in PRIORS:
            q = {k: exact(v) for k, v in parameters.items()}
            rows[name] = [
                mp.nstr(value(name, q, kind, mp.mpf(LOC), mp.mpf(s)), 20) for s in SCALES
            ]
            print(name, *rows[name])
    PATH.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
