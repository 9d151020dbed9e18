"""TensorBoardLogger: the log of a fit as curves that TensorBoard shows."""

from __future__ import annotations

import importlib.util
import os
import weakref
from pathlib import Path
from typing import Any

from ...messages import see
from ..ranks import this_rank
from .logger import COLUMNS, Logger, Row


class TensorBoardLogger(Logger):
    """Writes loss, ELBO, log likelihood, KL and the KL of each site for TensorBoard.

    The curves are called `loss`, `elbo`, `log_likelihood`, `kl` and `kl/site`; `tensorboard
    --logdir FOLDER` shows them. A fit that goes on from a checkpoint goes on in the same folder:
    TensorBoard then shows the new values of steps that are taken again.

    Args:
        folder: where to write; it is made if it is not there.
        every: how many steps lie between two values.

    Raises:
        ImportError: the package `tensorboard` is missing.

    Example:
        >>> logger = pyro_kl.loggers.TensorBoardLogger("runs/eight_schools")  # doctest: +SKIP
        >>> result = svi.run(1_000, callbacks=[logger])  # doctest: +SKIP
    """

    def __init__(self, folder: str | os.PathLike[str], every: int = 1) -> None:
        super().__init__(every)
        if importlib.util.find_spec("tensorboard") is None:
            raise ImportError(
                "TensorBoardLogger needs tensorboard: pip install tensorboard; "
                "pyro_kl.loggers.CSVLogger does without." + see("missing-library")
            )
        self.folder = Path(folder)
        self._writer: Any = None
        self._last = 0

    def log(self, row: Row) -> None:
        """Write the values of a step."""
        if this_rank() > 0:
            return
        if row.step <= self._last:
            self.close()
        if self._writer is None:
            self._open(row.step)
        for name in COLUMNS[1:]:
            self._writer.add_scalar(name, getattr(row, name), row.step)
        for site, kl in row.kls.items():
            self._writer.add_scalar(f"kl/{site}", kl, row.step)
        self._writer.flush()
        self._last = row.step

    def _open(self, step: int) -> None:
        """Begin a file, whose values replace those that the folder has from `step` on."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.folder), purge_step=step)
        weakref.finalize(self, self._writer.close)

    def close(self) -> None:
        """Close the file; the next row begins another one in the same folder."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_writer": None}
