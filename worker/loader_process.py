"""The inside of a loader process: fetches and decodes one image after the other, until its socket closes.

What travels on the socket, which is this process's alone:

    in    the limits and the storage, once       then, for each image, as JSON, its URI, whether exact, and the roots
                                                 where they are others than those of the image before
    out   HELLO, once everything is imported     then a byte whenever frames have been completed

The frames themselves lie in a ring that the parent shares: see worker/frames.py. The parent is not woken for each of
them, which would cost it more than the frame: at once where no other image waits, else every TELL_S.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Callable
from functools import lru_cache
from mmap import mmap
from typing import Any, TypeVar

from PIL import AvifImagePlugin

from schemas.errors import Code, ImageFailure, PermanentFailure
from schemas.roots import Roots
from schemas.storage import StorageOptions
from worker.fetch import Fetcher
from worker.frames import DONE, FACTS, FRAME_BYTES, NOTE, PIXELS_AT, REPLY_AT, REPLY_BYTES, RING_BYTES, frame_at
from worker.images import Limits, decode
from worker.malloc import keep_memory

HELLO = b"loader 4"
TELL_S = 0.01
MESSAGE_LENGTH = 350  # its JSON fits into a reply, whatever the letters are
RECEIVE_BYTES = 1 << 16
MOST_ROOTS = 8  # of jobs that run at once

LENGTH = struct.Struct("!I")
T = TypeVar("T")
OOM_SCORE = b"800"
GRACE_S = 5.0
KEEP_BYTES = 16 << 20  # a picture of 4 megapixels


def run(socket_number: int, ring_number: int) -> None:
    """Serves the parent at the other end of the socket, and returns when that has left."""
    channel = socket.socket(fileno=socket_number)
    protect()
    keep_memory(KEEP_BYTES)
    inbox = Inbox(channel)
    settings = json.loads(inbox.wait() or b"{}")
    limits = Limits(**settings["limits"])
    bound_memory(limits.max_memory_bytes)
    fetcher = Fetcher(limits, StorageOptions(**settings["storage"]), Roots(()))
    gc.freeze()  # what was imported stays: no collection need look at it again
    with mmap(ring_number, RING_BYTES) as ring, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        channel.sendall(HELLO)
        serve(inbox, channel, ring, ring_number, fetcher, limits)


def serve(inbox: Inbox, channel: socket.socket, ring: mmap, ring_number: int, fetcher: Fetcher, limits: Limits) -> None:
    """Answers request after request, and tells the parent of what is complete."""
    lifetime_s = limits.fetch_timeout_s + limits.decode_timeout_s + GRACE_S
    done = told = 0
    told_at = 0.0
    while True:
        request = inbox.take()
        if done > told and (request is None or time.monotonic() - told_at > TELL_S):
            channel.sendall(b".")
            told, told_at = done, time.monotonic()
        if request is None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            request = inbox.wait()
            if request is None:
                return
        signal.setitimer(signal.ITIMER_REAL, lifetime_s)  # ends us also when the parent that would is gone
        at = frame_at(done)
        done += 1
        with memoryview(ring) as view, view[at : at + FRAME_BYTES] as frame:
            answer(frame, done, fetcher, limits, request)
        # by a system call: its locks keep the frame's bytes before it also on processors that reorder what they store
        os.pwrite(ring_number, DONE.pack(done), 0)


def protect() -> None:
    """Keeps signals meant for the worker, and output of the decoders, from doing harm."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with contextlib.suppress(OSError):
        os.dup2(2, 1)  # decoders may print, and what starts us may print JSON
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # there is a process for each core already


def bound_memory(max_memory_bytes: int) -> None:
    """Makes allocations fail that go beyond the limit, counted from what this process has now.

    RLIMIT_DATA counts memory that can be written; RLIMIT_AS would count libraries and reserved arenas too.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):  # Linux alone has both files
        with open("/proc/self/statm", encoding="ascii") as statm:
            baseline = int(statm.read().split()[5]) * resource.getpagesize()
        limit = baseline + max_memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as score:
            score.write(OOM_SCORE)  # where memory runs out, a loader goes before the worker and its GPU


class Inbox:
    """The parent's messages, each a LENGTH and so many bytes."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._received = bytearray()

    def take(self) -> bytes | None:
        """The next message if it is here."""
        if len(self._received) < LENGTH.size:
            return None
        end = LENGTH.size + LENGTH.unpack_from(self._received)[0]
        if len(self._received) < end:
            return None
        message = bytes(self._received[LENGTH.size : end])
        del self._received[:end]
        return message

    def wait(self) -> bytes | None:
        """The next message, None at the end."""
        while (message := self.take()) is None:
            more = self._channel.recv(RECEIVE_BYTES)
            if not more:
                return None
            self._received += more
        return message


def answer(frame: memoryview, number: int, fetcher: Fetcher, limits: Limits, request: bytes) -> None:
    """Fills the frame of an image, whatever happens to it."""
    uri, exact, *changed = json.loads(request)
    if changed:
        fetcher.roots = None if changed[0] is None else known_roots(tuple(changed[0]))
    began = time.monotonic()
    fetched = outcome_of(lambda: fetcher.fetch(uri), limits)
    version = b"" if isinstance(fetched, ImageFailure) else fetched.version.encode()
    fetch_s = time.monotonic() - began
    NOTE.pack_into(frame, 0, number, fetch_s, 0.0, version)
    if isinstance(fetched, ImageFailure):
        frame[REPLY_AT:PIXELS_AT] = described(fetched, "")
        return
    image = outcome_of(lambda: decode(fetched.data, limits, exact=exact), limits)
    NOTE.pack_into(frame, 0, number, fetch_s, time.monotonic() - began - fetch_s, version)
    if isinstance(image, ImageFailure):
        frame[REPLY_AT:PIXELS_AT] = described(image, fetched.version)
        return
    frame[PIXELS_AT:] = image.pixels
    digest = hashlib.sha256(fetched.data).digest()
    FACTS.pack_into(
        frame, REPLY_AT, image.width, image.height, len(fetched.data), image.format.encode(), digest, version
    )


@lru_cache(MOST_ROOTS)
def known_roots(folders: tuple[str, ...]) -> Roots:
    """Those of a job that it had an image of before need not be resolved again."""
    return Roots(folders)


def outcome_of(work: Callable[[], T], limits: Limits) -> T | ImageFailure:
    """What the work returns, or the failure that it raises."""
    try:
        return work()
    except ImageFailure as failure:
        return failure
    except MemoryError:
        text = f"it needs more than {limits.max_memory_bytes} bytes of memory (KOSMOGRAPH_MAX_MEMORY_BYTES)"
        return PermanentFailure(Code.TOO_LARGE, text)
    except Exception as error:  # the boundary: one image must not end the process; its text may hold secrets
        return PermanentFailure(Code.INTERNAL, f"the loader met {type(error).__name__}, which is a bug in Kosmograph")


def described(failure: ImageFailure, version: str) -> bytes:
    """A reply that says why there is no image."""
    message = "".join(letter if letter.isprintable() else "?" for letter in failure.message[:MESSAGE_LENGTH])
    reply = {
        "code": failure.code,
        "message": message,
        "permanent": isinstance(failure, PermanentFailure),
        "version": failure.version or version,
    }
    return bytes(FACTS.size) + packed(reply, REPLY_BYTES - FACTS.size)


def packed(values: dict[str, Any], size: int) -> bytes:
    """JSON, filled up with spaces to `size` bytes."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode(errors="replace").ljust(size)
