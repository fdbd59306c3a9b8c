"""How many decoded images a worker may hold: back-pressure by bytes, across all chunks in work.

No two chunks can wait for each other. Room is asked for without waiting, a chunk that gets none goes on with the images
that it has, and what these need to give their room back is loader, ledger and engine, never more room.
"""

from collections.abc import Callable
from threading import Lock
from typing import Self

from worker.images import PIXEL_BYTES


class PixelBudget:
    """Room for decoded images. Older chunks go first, so that they are done one after the other."""

    def __init__(self, size_bytes: int) -> None:
        self._free = max(1, size_bytes // PIXEL_BYTES)
        self._lock = Lock()
        self._waiting: list[Share] = []
        self._shares = 0

    @property
    def free(self) -> int:
        """Images for which there is room."""
        return self._free

    def share(self, wake: Callable[[], object]) -> "Share":
        """A chunk's part, nothing yet. `wake` is called, in any thread, when there may be room that it asked for."""
        with self._lock:
            self._shares += 1
            return Share(self, self._shares, wake)

    def _take(self, share: "Share", wanted: int) -> int:
        with self._lock:
            older = any(other.age < share.age for other in self._waiting)
            taken = 0 if older else min(self._free, wanted)
            self._free -= taken
            share.held += taken
            self._set_waiting(share, taken < wanted)
            self._wake_oldest()
        return taken

    def _give_back(self, share: "Share", count: int) -> None:
        with self._lock:
            assert 0 <= count <= share.held, "room is given back once"
            share.held -= count
            self._free += count
            self._wake_oldest()

    def _ask_no_more(self, share: "Share") -> None:
        with self._lock:
            self._set_waiting(share, False)
            self._wake_oldest()

    def _close(self, share: "Share") -> None:
        with self._lock:
            self._free += share.held
            share.held = 0
            self._set_waiting(share, False)
            self._wake_oldest()

    def _set_waiting(self, share: "Share", waits: bool) -> None:
        if waits != (share in self._waiting):
            (self._waiting.append if waits else self._waiting.remove)(share)

    def _wake_oldest(self) -> None:
        if self._free and self._waiting:
            min(self._waiting, key=lambda share: share.age).wake()


class Share:
    """A chunk's part of the budget; what is left of it goes back when the block ends."""

    def __init__(self, budget: PixelBudget, age: int, wake: Callable[[], object]) -> None:
        self.age, self.held, self.wake = age, 0, wake
        self._budget = budget

    def take(self, wanted: int) -> int:
        """For how many images of `wanted` there is room now. Where it is for fewer, `wake` will be called."""
        return self._budget._take(self, wanted)

    def ask_no_more(self) -> None:
        """Room that it was short of goes to others."""
        self._budget._ask_no_more(self)

    def give_back(self, count: int = 1) -> None:
        self._budget._give_back(self, count)

    @property
    def is_short(self) -> bool:
        """Whether any chunk waits for room: what is finished should be given back at once."""
        return bool(self._budget._waiting)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._budget._close(self)
