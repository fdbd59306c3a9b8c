"""The inside of a loader process: fetches and decodes one image after the other, until its socket closes.

What travels on the socket, which is this process's alone:

    in    the limits and the storage, once       then, for each image, as JSON, its URI, whether exact, and the roots
    out   HELLO, once everything is imported     then, for each image, one frame:

    frame = NOTE_BYTES    JSON, sent once the bytes are here: their version, and how long that took
          + REPLY_BYTES   FACTS of the image, or zeros and, as JSON, why there is none
          + PIXEL_BYTES   224×224×3 uint8 (zeros after a failure)

No pickle: what decodes hostile files must not be able to make its parent run code. A frame has one size, so that the
parent gets it with one call that holds no lock while it waits.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, TypeVar

from PIL import AvifImagePlugin

from schemas.errors import Code, ImageFailure, PermanentFailure
from schemas.storage import StorageOptions
from worker.fetch import Fetcher
from worker.images import PIXEL_BYTES, Limits, decode

HELLO = b"loader 1"
NOTE_BYTES = 512
REPLY_BYTES = 2304
FRAME_BYTES = NOTE_BYTES + REPLY_BYTES + PIXEL_BYTES
NO_PIXELS = bytes(PIXEL_BYTES)
MESSAGE_LENGTH = 350  # its JSON fits into a reply, whatever the letters are

LENGTH = struct.Struct("!I")
FACTS = struct.Struct("!IIQ12s32s200s")  # upright width, height, bytes, format, sha256, version
T = TypeVar("T")
OOM_SCORE = b"800"
GRACE_S = 5.0


def run(descriptor: int) -> None:
    """Serves the parent at the other end of the socket, and returns when that has left."""
    channel = socket.socket(fileno=descriptor)
    protect()
    stream = channel.makefile("rb")
    settings = json.loads(receive(stream) or b"{}")
    limits = Limits(**settings["limits"])
    bound_memory(limits.max_memory_bytes)
    fetcher = Fetcher(limits, StorageOptions(**settings["storage"]))
    lifetime_s = limits.fetch_timeout_s + limits.decode_timeout_s + GRACE_S
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        channel.sendall(HELLO)
        while request := receive(stream):
            signal.setitimer(signal.ITIMER_REAL, lifetime_s)  # ends us also when the parent that would is gone
            answer(channel, fetcher, limits, request)
            signal.setitimer(signal.ITIMER_REAL, 0)


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


def request_of(uri: str, exact: bool, roots: Sequence[str] | None = None) -> bytes:
    """What asks for an image."""
    return json.dumps([uri, exact, roots]).encode()


def receive(stream: BinaryIO) -> bytes:
    """The next message from the parent, empty at the end."""
    head = stream.read(LENGTH.size)
    return stream.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else b""


def answer(channel: socket.socket, fetcher: Fetcher, limits: Limits, request: bytes) -> None:
    """Sends one frame, whatever happens to the image."""
    uri, exact, roots = json.loads(request)
    started = time.monotonic()
    fetched = outcome_of(lambda: fetcher.fetch(uri, roots), limits)
    if isinstance(fetched, ImageFailure):
        channel.sendall(packed({}, NOTE_BYTES) + described(fetched, "") + NO_PIXELS)
        return
    channel.sendall(packed({"version": fetched.version, "fetch_s": time.monotonic() - started}, NOTE_BYTES))
    image = outcome_of(lambda: decode(fetched.data, limits, exact=exact), limits)
    if isinstance(image, ImageFailure):
        channel.sendall(described(image, fetched.version) + NO_PIXELS)
        return
    facts = FACTS.pack(
        image.width,
        image.height,
        len(fetched.data),
        image.format.encode(),
        hashlib.sha256(fetched.data).digest(),
        fetched.version.encode(),
    )
    channel.sendall(facts.ljust(REPLY_BYTES) + image.pixels)


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
