"""From steps that are run operation by operation to steps by a package."""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch import Tensor

from .aot import AotRunner
from .break_even import pays
from .fx import FxRunner
from .random_state import random_state_kept

#: Seconds that torch takes to call an operation, which a package does not.
_CALL = 1e-6
#: Seconds between two looks at a build.
_LOOK = 0.1


class Faster:
    """Decides for each call whether a package takes the steps of a recording.

    Args:
        fx: takes them operation by operation.
        aot: takes them by the package, as soon as there is one.
        wait: whether the first step waits for the package; else it is built in the background,
            if that pays.

    Attributes:
        reason: why there is no package and will be none, "" as long as there may be.
    """

    def __init__(self, fx: FxRunner, aot: AotRunner, *, wait: bool) -> None:
        self.fx, self.aot, self.reason = fx, aot, aot.build.reason
        self._wait, self._is_checked = wait, False
        self._steps, self._seconds, self._looked = 0, 0.0, 0.0

    def runner(
        self, remaining: int | None, levels: Sequence[float], fixed: Sequence[Tensor]
    ) -> FxRunner | AotRunner:
        """What takes the next steps.

        Args:
            remaining: steps still to come in this fit, or None.
            levels: the ELBO's weights at the next step.
            fixed: the other inputs of a step.
        """
        if self._is_checked:
            return self.aot
        if self.reason:
            return self.fx
        self._build(remaining)
        self.reason = self.aot.build.reason
        if self.aot.build.package is None or self.reason:
            return self.fx
        self._check(levels, fixed)
        return self.fx if self.reason else self.aot

    def took(self, steps: int, seconds: float) -> None:
        """Note how long the steps of a call have taken."""
        self._steps += steps
        self._seconds += seconds

    def _build(self, remaining: int | None) -> None:
        build = self.aot.build
        if build.package is not None:
            return
        if self._wait:
            build.start()
            build.wait()
        elif build.running:
            if time.monotonic() > self._looked + _LOOK:
                self._looked = time.monotonic()
                build.poll()
        elif self._steps:
            now = self._seconds / self._steps
            compiled = now - min(0.9 * now, _CALL * self.fx.num_operations)
            if pays(remaining, now, compiled, build.seconds, self._seconds):
                build.start()

    def _check(self, levels: Sequence[float], fixed: Sequence[Tensor]) -> None:
        """Compare the first loss of both, with the same draws."""
        self._is_checked = True
        with random_state_kept():
            expected = float(self.fx.evaluate(levels, fixed)[0])
        with random_state_kept():
            loss = self.aot.evaluate(levels, fixed)
        if abs(loss - expected) > self.fx.eps**0.5 * max(1.0, abs(expected)):
            self._is_checked = False
            self.reason = (
                f"with the same draws the compiled step has a loss of {loss:g}, and the step that "
                f"is not compiled of {expected:g}"
            )
