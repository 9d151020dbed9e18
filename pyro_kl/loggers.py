"""Loggers: callbacks of `pyro_kl.SVI.run` that keep loss, ELBO and the KL of each site."""

from .svi.loggers.csv_logger import CSVLogger
from .svi.loggers.history import History
from .svi.loggers.logger import Logger, Row
from .svi.loggers.tensorboard_logger import TensorBoardLogger

__all__ = ["CSVLogger", "History", "Logger", "Row", "TensorBoardLogger"]
