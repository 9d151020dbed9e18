"""Print how far each table's posteriors are from those of NUTS: python -m tests.glm.reference."""

import numpy as np
import torch

from tests.glm.reference.by_gradient import laplace
from tests.glm.reference.data_sets import TABLES
from tests.glm.reference.estimators import fitted, off, prior_scale
from tests.glm.reference.nuts import stored

COLUMNS = ("full", "diagonal", "linear response", "Laplace")


def posteriors(name):
    """Means and sds of the posteriors that are compared."""
    table, full = fitted(name)
    _, diagonal = fitted(name, covariance="diagonal")
    response = diagonal.linear_response_covariance(table.features, table.target)
    mode, root = laplace(table, torch.tensor(table.design), torch.tensor(prior_scale(table)))
    return [
        (full.loc_, full.scale_),
        (diagonal.loc_, diagonal.scale_),
        (diagonal.loc_, np.sqrt(response.diagonal())),
        (mode.numpy(), np.linalg.norm(root.numpy(), axis=-1)),
    ]


def main():
    """Print a line for each table."""
    print("How far means are off, in posterior sds, and sds, in percent: the worst coefficient's")
    print(f"{'':20}{'rows':>7}{'D':>4}", *(f"{column:>16}" for column in COLUMNS))
    for name in sorted(stored(), key=list(TABLES).index):
        table = TABLES[name]()
        distances = [off(name, *posterior) for posterior in posteriors(name)]
        cells = [f"{of_mean:.3f}  {of_sd:6.1%}" for of_mean, of_sd in distances]
        sizes = f"{len(table.target):7,}{len(table.names):4}"
        print(f"{name:20}{sizes}", *(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    main()
