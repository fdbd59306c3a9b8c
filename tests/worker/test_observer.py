"""How an engine's turns are timed, on a device that is done when a call returns and on one that works on."""

from worker.observer import Observer, TurnClock


class Heard(Observer):
    """Notes what it is told of prefills and decode steps."""

    def __init__(self) -> None:
        self.prefills: list[float] = []
        self.steps: list[tuple[float, int]] = []

    def prefilled(self, seconds: float) -> None:
        self.prefills.append(seconds)

    def stepped(self, seconds: float, steps: int) -> None:
        self.steps.append((seconds, steps))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def turn(clock: TurnClock, now: Clock, *, prefill_s: float, decode_s: float, wait_s: float, steps: int = 4) -> None:
    """A turn whose calls take so long, and at its end the wait for the device."""
    clock.begin()
    if prefill_s:
        now.now += prefill_s
        clock.prefilled()
    now.now += decode_s
    clock.decoded(steps)
    now.now += wait_s
    clock.end()


def test_on_a_cpu_a_call_takes_what_its_work_takes() -> None:
    heard, now = Heard(), Clock()
    clock = TurnClock(heard, at_once=True, now=now)
    turn(clock, now, prefill_s=3.0, decode_s=2.0, wait_s=1.0)
    turn(clock, now, prefill_s=0.0, decode_s=4.0, wait_s=1.0)
    assert heard.prefills == [3.0]
    assert heard.steps == [(0.5, 4), (1.0, 4)]


def test_on_a_gpu_a_prefill_takes_what_is_left_of_its_turn() -> None:
    """Its calls return at once, and the wait at the end is for all that they have set in motion."""
    heard, now = Heard(), Clock()
    clock = TurnClock(heard, at_once=False, now=now)
    turn(clock, now, prefill_s=0.0, decode_s=0.5, wait_s=1.5)
    turn(clock, now, prefill_s=0.5, decode_s=0.5, wait_s=6.0)
    assert heard.steps == [(0.5, 4)]
    assert heard.prefills == [5.0]


def test_turn_without_a_step_tells_of_none() -> None:
    heard, now = Heard(), Clock()
    for at_once in (True, False):
        turn(TurnClock(heard, at_once=at_once, now=now), now, prefill_s=0.0, decode_s=1.0, wait_s=1.0, steps=0)
    assert not heard.steps
    assert not heard.prefills
