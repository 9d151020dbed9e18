"""The estimator of a table, and how far its posterior is from that of NUTS."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pyro_kl.glm import LogisticRegression, PoissonRegression
from tests.glm.reference.data_sets import TABLES
from tests.glm.reference.nuts import BIAS_SCALE, WEIGHT_SCALE, stored

ESTIMATORS = {"bernoulli": LogisticRegression, "poisson": PoissonRegression}


def fitted(name, **settings):
    """The table of that name, and the estimator fitted to it."""
    table = TABLES[name]()
    settings = {"bias_scale": BIAS_SCALE, "tol": 1e-8, "max_iter": 500, **settings}
    model = ESTIMATORS[table.likelihood](WEIGHT_SCALE, **settings)
    frame = pd.DataFrame(table.features, columns=list(table.names))
    return table, model.fit(frame, table.target)


def prior_scale(table, of_weights=WEIGHT_SCALE):
    """The scale of each coefficient's prior."""
    return np.array([BIAS_SCALE, *([of_weights] * len(table.names))])


def off(name, loc, scale):
    """How far means are from those of NUTS, in sds, and sds, relative: the worst coefficient's."""
    mean, sd = (np.array(stored()[name][key]) for key in ("mean", "sd"))
    return np.abs((loc - mean) / sd).max(), np.abs(scale / sd - 1.0).max()
