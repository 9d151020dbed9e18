"""Numbered tasks, in this process or in several forked ones."""

from __future__ import annotations

import pickle
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, TypeVar

import torch

Result = TypeVar("Result")
Task = Callable[[int], Result]


class TaskError(Exception):
    """A task raised an error, or its process ended.

    Attributes:
        number: of the task.
        error: what was raised, or an error that says how the process ended.
    """

    def __init__(self, number: int, error: BaseException) -> None:
        super().__init__(number, error)
        self.number = number
        self.error = error


def one_by_one(task: Task[Result], numbers: Sequence[int]) -> Iterator[tuple[int, Result]]:
    """Do a task for each number, in this process.

    Raises:
        TaskError: a task raised an error.
    """
    for number in numbers:
        try:
            result = task(number)
        except Exception as error:
            raise TaskError(number, error) from error
        yield number, result


def forked(
    task: Task[Result], numbers: Sequence[int], processes: int
) -> Iterator[tuple[int, Result]]:
    """Do a task for each number in forked processes; results come as they are ready.

    A task of a notebook, or a closure, can be forked and not pickled. Each process has one thread:
    a pool of OpenMP's threads does not survive a fork. When the iterator is closed, or raises, the
    processes are ended.

    Raises:
        TaskError: a task raised an error, or its process ended.
    """
    context, left = get_context("fork"), iter(numbers)
    workers: dict[Connection, _Worker] = {}
    try:
        for number in islice(left, processes):
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(task, there, [*workers, here]))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12's, of threads
                process.start()
            there.close()
            _send(here, number)
            workers[here] = _Worker(process, number)
        while workers:
            ready: list[Any] = wait(list(workers))
            for pipe in ready:
                worker = workers[pipe]
                result = _received(pipe, worker)
                following = next(left, None)
                if following is None:
                    del workers[pipe]
                    pipe.close()
                    worker.process.join()
                else:
                    _send(pipe, following)
                    workers[pipe] = _Worker(worker.process, following)
                yield worker.number, result
    finally:
        for pipe, worker in workers.items():
            worker.process.terminate()
            worker.process.join()
            pipe.close()


class _Worker(NamedTuple):
    process: BaseProcess
    number: int


class _InProcess(Exception):
    """The traceback of an error in another process."""


def _send(pipe: Any, number: int) -> None:
    """Give a process a task. If it has ended, its pipe says so when it is read."""
    with suppress(OSError):
        pipe.send(number)


def _received(pipe: Any, worker: _Worker) -> Any:
    """The result of a task, from the process that does it."""
    try:
        result, error, where = pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode
        ended = RuntimeError(f"its process ended with exit code {code}")
        raise TaskError(worker.number, ended) from None
    if error is not None:
        error.__cause__ = _InProcess(f"\n{where}")
        raise TaskError(worker.number, error) from error
    return result


def _work(task: Task[Any], pipe: Connection, ends_of_parent: list[Connection]) -> None:
    """Do tasks until the parent closes its end of the pipe, or is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for end in ends_of_parent:
        end.close()
    torch.set_num_threads(1)
    while True:
        try:
            number = pipe.recv()
        except EOFError:
            return
        answer: tuple[Any, Exception | None, str]
        try:
            answer = task(number), None, ""
        except Exception as error:
            answer = None, _sendable(error), traceback.format_exc()
        pipe.send(answer)


def _sendable(error: Exception) -> Exception:
    """The error, or one that says the same if it cannot be pickled and read again."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
