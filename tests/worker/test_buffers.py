"""Memory for frames: used again, and never while somebody looks at it."""

import weakref

import numpy as np
import pytest

from worker import buffers as module
from worker.buffers import Buffers, Frame
from worker.frames import FRAME_BYTES


def address(frame: Frame) -> int:
    return int(frame.__array_interface__["data"][0])


def test_memory_that_nobody_holds_serves_the_next_array() -> None:
    buffers = Buffers()
    first = buffers.take()
    assert (first.shape, first.dtype, first.flags.writeable) == ((FRAME_BYTES,), np.uint8, True)
    place = address(first)
    del first
    assert address(buffers.take()) == place


@pytest.mark.parametrize("view", ["slice", "reshaped", "memory", "tensor"])
def test_memory_that_is_seen_through_a_view_is_left_alone(view: str) -> None:
    buffers = Buffers()
    frame = buffers.take()
    frame[:] = 7
    if view == "tensor":
        torch = pytest.importorskip("torch")
        held = torch.from_numpy(frame[10:310].reshape(10, 10, 3)[1:])
    else:
        pixels = frame[10:310]
        held = {"slice": pixels[5:][5:], "reshaped": pixels.reshape(10, 10, 3)[1:].T, "memory": pixels.data}[view]
        del pixels
    del frame
    for _ in range(3):
        buffers.take()[:] = 9
    assert np.asarray(held).max() == 7


def test_memory_beyond_a_bound_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FREE", 2)
    buffers = Buffers()
    frames = [buffers.take() for _ in range(5)]
    ends = [weakref.ref(frame) for frame in frames]
    frames.clear()
    assert not any(end() is not None for end in ends)
    assert (len(buffers._free), len(buffers._lent)) == (2, 0)
