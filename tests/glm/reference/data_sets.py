"""Real tables that scikit-learn and statsmodels ship, standardised, with a target each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn import datasets
from statsmodels.datasets import anes96, cpunish, fair, randhie
from statsmodels.datasets import spector as grades


@dataclass(frozen=True)
class Table:
    """Standardised features (N, D) and a target (N,): 0 and 1, or counts."""

    features: np.ndarray
    target: np.ndarray
    names: tuple[str, ...]
    likelihood: str = "bernoulli"

    @property
    def design(self) -> np.ndarray:
        """The features after the column of ones that the bias multiplies."""
        return np.column_stack([np.ones(len(self.target)), self.features])


def _table(frame, target, likelihood="bernoulli") -> Table:
    features = frame.to_numpy(float)
    features = (features - features.mean(0)) / features.std(0)
    names = tuple(str(name) for name in frame.columns)
    return Table(features, np.asarray(target, float), names, likelihood)


def breast_cancer() -> Table:
    """569 tumours by 30 measurements: which are benign."""
    data = datasets.load_breast_cancer(as_frame=True)
    return _table(data.data, data.target)


def breast_cancer_means() -> Table:
    """569 tumours by the ten measurements' means: which are benign."""
    data = datasets.load_breast_cancer(as_frame=True)
    return _table(data.data.iloc[:, :10], data.target)


def diabetes() -> Table:
    """442 patients by ten measurements: whose disease progressed more than the median."""
    data = datasets.load_diabetes(as_frame=True)
    return _table(data.data, data.target > data.target.median())


def iris() -> Table:
    """A hundred flowers by four measurements: Iris virginica against Iris versicolor."""
    data = datasets.load_iris(as_frame=True)
    keep = data.target > 0
    return _table(data.data[keep], data.target[keep] == 2)


def setosa() -> Table:
    """A hundred flowers, Iris versicolor against Iris setosa: a line separates them."""
    data = datasets.load_iris(as_frame=True)
    keep = data.target < 2
    return _table(data.data[keep], data.target[keep] == 1)


def digits() -> Table:
    """357 handwritten digits by the pixels that vary: which are a 3, not an 8; separable."""
    data = datasets.load_digits(as_frame=True)
    keep = data.target.isin([3, 8])
    pixels = data.data[keep]
    return _table(pixels.loc[:, pixels.std() > 0], data.target[keep] == 3)


def wine() -> Table:
    """178 wines by 13 measurements: those of the second grower against the others."""
    data = datasets.load_wine(as_frame=True)
    return _table(data.data, data.target == 1)


def vote() -> Table:
    """944 voters of 1996 by five answers: who voted for Dole (statsmodels' anes96)."""
    data = anes96.load_pandas()
    return _table(data.exog, data.data["vote"])


def affairs() -> Table:
    """6,366 women by eight answers: who had an affair (statsmodels' fair)."""
    data = fair.load_pandas()
    return _table(data.exog, data.endog > 0)


def spector() -> Table:
    """32 students by three measurements: whose grade was an A (statsmodels' spector)."""
    data = grades.load_pandas()
    return _table(data.exog, data.endog)


def doctor() -> Table:
    """20,190 people by nine answers: who saw a doctor (statsmodels' randhie)."""
    data = randhie.load_pandas()
    return _table(data.exog, data.endog > 0)


def visits() -> Table:
    """20,190 people by nine answers: how often each saw a doctor (statsmodels' randhie)."""
    data = randhie.load_pandas()
    return _table(data.exog, data.endog, "poisson")


def executions() -> Table:
    """17 states by six numbers: how many people each executed (statsmodels' cpunish)."""
    data = cpunish.load_pandas()
    return _table(data.exog, data.endog, "poisson")


TABLES = {
    load.__name__: load
    for load in (
        breast_cancer,
        breast_cancer_means,
        diabetes,
        iris,
        setosa,
        digits,
        wine,
        vote,
        affairs,
        spector,
        doctor,
        visits,
        executions,
    )
}
