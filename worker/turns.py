"""Chunks run side by side, but for one that a worker has died over: it runs alone.

So only a chunk that is to blame is suspected twice. Those that were merely in flight beside it run alone once, and are
done.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition

LOOK_S = 0.25
"""How often who waits for a turn looks whether it must stop."""


class Turns:
    """Who may work now. While one waits to be alone, nobody else begins."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._working = 0
        self._alone_waiting = 0
        self._alone = False

    @contextmanager
    def turn(self, alone: bool, stopped: Callable[[], bool]) -> Iterator[bool]:
        """Waits for a turn, and keeps it while the block runs. False, and no turn, where a stop came first."""
        with self._changed:
            self._alone_waiting += alone
            while not (got_it := self._may(alone)) and not stopped():
                self._changed.wait(LOOK_S)
            self._alone_waiting -= alone
            self._working += got_it
            self._alone |= alone and got_it
            self._changed.notify_all()
        try:
            yield got_it
        finally:
            if got_it:
                with self._changed:
                    self._working -= 1
                    self._alone &= not alone
                    self._changed.notify_all()

    def wait_until_over(self) -> None:
        """Until nobody works, or waits for that."""
        with self._changed:
            while self._working or self._alone_waiting:
                self._changed.wait(LOOK_S)

    def _may(self, alone: bool) -> bool:
        return not self._working if alone else not self._alone and not self._alone_waiting
