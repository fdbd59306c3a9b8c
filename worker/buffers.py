"""Memory for frames, used again and again: what was in use last is still in the processor's cache.

From the allocator each would be large enough to come from the kernel page by page, or to leave holes in the heap.
"""

from __future__ import annotations

import weakref

import numpy as np
import numpy.typing as npt

from worker.frames import FRAME_BYTES

Frame = npt.NDArray[np.uint8]

MOST_FREE = 256
"""Frames that are kept for later: 39 MB."""


class Buffers:
    """Arrays of FRAME_BYTES. When nobody holds an array, nor any view of it, its memory serves the next one."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []
        self._lent: dict[int, tuple[weakref.ref[Frame], bytearray]] = {}

    def take(self) -> Frame:
        """An array with anything in it."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = bytearray(FRAME_BYTES)
        frame = np.frombuffer(memory, np.uint8)  # numpy's views keep this array, as it is the last before the memory
        reference = weakref.ref(frame, self._take_back)
        self._lent[id(reference)] = reference, memory
        return frame

    def _take_back(self, reference: weakref.ref[Frame]) -> None:
        """Called by whichever thread lets the array go."""
        _, memory = self._lent.pop(id(reference))
        if len(self._free) < MOST_FREE:
            self._free.append(memory)
