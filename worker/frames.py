"""What a loader process hands over: frames in memory that it shares with its parent. Imported by both.

    ring  = DONE        how many frames have been completed since the start
          + FRAMES × a frame; that of the nth image, counted from 0, is the frame n modulo FRAMES

    frame = NOTE        once the bytes are here or cannot be had: which image it is, counted from 1, how long it took,
                        and the version; at the end also how long it was decoded, 0 where it was not
          + REPLY_BYTES FACTS of the image, or zeros and, as JSON, why there is none
          + PIXEL_BYTES 224×224×3 uint8 (anything after a failure)

The parent never maps the ring but copies frames out of it with `os.preadv`: a file that was cut short under a mapping
would kill it, and what it has checked could change. No pickle: what decodes hostile files must not be able to make its
parent run code.
"""

from __future__ import annotations

import os
import struct
import tempfile

from worker.images import PIXEL_BYTES

DONE = struct.Struct("@Q")
NOTE = struct.Struct("@Qdd200s")  # number, seconds of the fetch, and of the decoding, version
FACTS = struct.Struct("!IIQ12s32s200s")  # upright width, height, bytes, format, sha256, version

REPLY_BYTES = 2304
REPLY_AT = NOTE.size
PIXELS_AT = REPLY_AT + REPLY_BYTES
FRAME_BYTES = PIXELS_AT + PIXEL_BYTES
FRAMES = 32
FIRST_AT = 64  # the counter has a cache line of its own
RING_BYTES = FIRST_AT + FRAMES * FRAME_BYTES


def frame_at(number: int) -> int:
    """Where in the ring the frame of an image begins."""
    return FIRST_AT + number % FRAMES * FRAME_BYTES


def new_ring() -> int:
    """The descriptor of a file without a name, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("kosmograph-frames")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, RING_BYTES)
    return descriptor


def text_in(field: bytes) -> str:
    """A field of NOTE or FACTS as text, whatever is in it."""
    return field.rstrip(b"\0").decode("ascii", "replace")
