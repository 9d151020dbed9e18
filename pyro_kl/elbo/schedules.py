"""Weights of the KL by training step; a schedule that does not end at 1 is warned about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..messages import see
from ..registry.warnings import warn

#: A number, or a function of the step.
Level = float | Callable[[int], float]


@dataclass(frozen=True)
class Constant:
    """The same value at every step.

    Args:
        value: at least 0.

    Example:
        >>> pyro_kl.Constant(1.0)(7)
        1.0
    """

    value: float = 1.0

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        return self.value

    @property
    def final(self) -> float:
        """The value at the end of training."""
        return self.value


@dataclass(frozen=True)
class LinearWarmup:
    """From `start` at step 0 to `end` at step `steps`, and `end` from there on.

    Args:
        steps: the length of the ramp, at least 1.
        start: value at step 0.
        end: value from step `steps` on.
        total: how many steps the training takes, if known: a ramp that outlasts it never
            reaches `end`, which is warned about.

    Reference: Bowman and others (2016), Generating Sentences from a Continuous Space, sec. 3.1.

    Example:
        >>> [pyro_kl.LinearWarmup(4)(step) for step in (0, 1, 3, 4, 9)]
        [0.0, 0.25, 0.75, 1.0, 1.0]
    """

    steps: int
    start: float = 0.0
    end: float = 1.0
    total: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(
                f"LinearWarmup: steps must be at least 1, got {self.steps}" + see("option")
            )

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)

    @property
    def final(self) -> float:
        """The value at the end of training: at step `total - 1`, if that is known."""
        return self.end if self.total is None else self(self.total - 1)


@dataclass(frozen=True)
class Cyclical:
    """`cycles` ramps from `start` to `end`, each followed by a plateau; `end` after the last one.

    Args:
        period: steps of one cycle, at least 1.
        cycles: number of cycles.
        ramp: fraction of a cycle that climbs, in (0, 1].
        start: value at the beginning of a cycle.
        end: value of the plateau.
        total: how many steps the training takes, if known; see `LinearWarmup`.

    Reference: Fu and others (2019), Cyclical Annealing Schedule: A Simple Approach to Mitigating
    KL Vanishing, eq. 6 and 7.

    Example:
        >>> [pyro_kl.Cyclical(4, cycles=2)(step) for step in range(10)]
        [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0]
    """

    period: int
    cycles: int = 4
    ramp: float = 0.5
    start: float = 0.0
    end: float = 1.0
    total: int | None = None

    def __post_init__(self) -> None:
        if self.period < 1 or self.cycles < 1 or not 0 < self.ramp <= 1:
            raise ValueError(
                "Cyclical: period and cycles must be at least 1 and ramp in (0, 1], got "
                f"{self.period}, {self.cycles} and {self.ramp}" + see("option")
            )

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        if step >= self.period * self.cycles:
            return self.end
        climbed = min((step % self.period) / (self.ramp * self.period), 1.0)
        return self.start + (self.end - self.start) * climbed

    @property
    def final(self) -> float:
        """The value at the end of training: at step `total - 1`, if that is known."""
        return self.end if self.total is None else self(self.total - 1)


def warn_unless_reaches_one(level: Level, of: str) -> None:
    """Warn if a schedule of the KL's weight does not end at 1."""
    if not callable(level):  # a number other than 1 is a choice
        return
    final = level.final if hasattr(level, "final") else level(2**31)
    if final != 1.0:
        warn(
            f"The schedule of {of} ends at {final:g}, not at 1: what is maximised at the end is "
            "not the ELBO. Lengthen the training, shorten the warm-up, or give a number instead "
            "of a schedule if that is what you want." + see("schedule-end"),
        )
