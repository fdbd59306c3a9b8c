"""What the parts of a worker tell of how long things take. Imports nothing: who listens is not their business."""

import time
from collections.abc import Callable, Mapping


class Observer:
    """Told each time that something was done, by the thread that did it; this one listens to nothing. All in seconds.

    An image is fetched and decoded in a loader process. A request waits from `Engine.submit` to its prefill, which is
    told once for the batch; a decode step is one of all slots. A chunk is committed with so many outcomes of each kind,
    which is `annotated`, `reused` or `failed`, and code, which is "" but for failures.
    """

    def fetched(self, seconds: float) -> None: ...

    def decoded(self, seconds: float) -> None: ...

    def waited(self, seconds: float) -> None: ...

    def prefilled(self, seconds: float) -> None: ...

    def stepped(self, seconds: float, steps: int) -> None:
        """So many decode steps took so long each."""

    def committed(self, seconds: float, outcomes: Mapping[tuple[str, str], int]) -> None: ...


class TurnClock:
    """Times an engine's turns for an observer: `begin`, `prefilled` and `decoded` where there was that, and `end`.

    With `at_once`, as on a CPU, the work of a call is done when the call returns, and all of it is exact. A GPU works
    on while the host goes on, and there the clock is the host's between two moments at which it waits for the GPU
    anyway: from the beginning to the end of a turn, since none is waited for in its midst. So the steps are those of
    turns without a prefill, and a prefill is what is left of its turn when the steps of that take as long as the last.
    """

    def __init__(self, observer: Observer, *, at_once: bool, now: Callable[[], float] = time.monotonic) -> None:
        self._observer, self._at_once, self._now = observer, at_once, now
        self._since = 0.0
        self._prefills, self._steps, self._step_s = False, 0, 0.0

    def begin(self) -> None:
        self._since, self._prefills, self._steps = self._now(), False, 0

    def prefilled(self) -> None:
        """A prefill has been given to the device."""
        if self._at_once:
            self._observer.prefilled(self._lap_s())
        else:
            self._prefills = True

    def decoded(self, steps: int) -> None:
        """So many decode steps have been given to the device."""
        self._steps = steps
        if self._at_once:
            self._tell_steps()

    def end(self) -> None:
        """The device has done what the turn gave it."""
        if self._at_once:
            return
        if self._prefills:
            self._observer.prefilled(max(0.0, self._lap_s() - self._steps * self._step_s))
        else:
            self._tell_steps()

    def _tell_steps(self) -> None:
        if self._steps:
            self._step_s = self._lap_s() / self._steps
            self._observer.stepped(self._step_s, self._steps)

    def _lap_s(self) -> float:
        """The seconds since the last call, or `begin`."""
        before, self._since = self._since, self._now()
        return self._since - before
