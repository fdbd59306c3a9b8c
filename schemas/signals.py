"""Signals, as something that a thread takes out of a queue.

Python calls a handler in the main thread between any two of its steps: in the midst of an earlier call of the handler,
or while that thread itself holds the lock inside an `Event`. A handler that sets an event may so wait for ever for the
thread it interrupts. `SimpleQueue.put` is what the standard library promises to be safe there, and all that ours do.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event, Thread
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def hear(*numbers: int) -> "SimpleQueue[int]":
    """From now on these signals do nothing but come out of the queue."""
    heard: SimpleQueue[int] = SimpleQueue()
    for number in numbers:
        signal.signal(number, lambda number, _: heard.put(number))
    return heard


@contextmanager
def interruptible() -> Iterator[Event]:
    """An event that Ctrl-C and SIGTERM set while the block runs. The second Ctrl-C is the usual one."""
    asked = Event()
    heard: SimpleQueue[int | None] = SimpleQueue()
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:
        heard.put(number)
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    def pass_on() -> None:
        if heard.get() is not None:
            asked.set()

    Thread(target=pass_on, name="signals", daemon=True).start()
    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        heard.put(None)
