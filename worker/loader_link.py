"""The parent's end of one loader process: starts it, sends it URIs, reads its frames, kills it when it is late."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from schemas.errors import Code, ImageFailure, PermanentFailure
from schemas.storage import StorageOptions
from worker.buffers import Buffers, Frame
from worker.fetch import late
from worker.frames import DONE, FRAME_BYTES, FRAMES, NOTE, frame_at, new_ring, text_in
from worker.images import Limits
from worker.loader_process import HELLO, LENGTH

PACKAGES = str(Path(__file__).resolve().parent.parent)
BOOT = (
    "import sys; sys.path.insert(0, sys.argv[2]); import schemas, worker; del sys.path[0];"
    " from worker.loader_process import run; run(int(sys.argv[1]), int(sys.argv[3]))"
)
"""Runs the loader_process.py beside this file, whatever lies in the user's folder and wherever we are installed."""

TICK_S = 0.2
START_TIMEOUT_S = 60.0
FETCH_GRACE_S = 1.0  # a fetch that is late ends by itself; only one that hangs is killed
BURIAL_S = 2.0
WAKE_BYTES = 4096
TIMEVAL = struct.Struct("@ll")


class ProcessDied(Exception):
    """The process ended over its image, or was killed because of `failure`."""

    def __init__(self, reason: str, version: str = "", failure: ImageFailure | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.version = version
        self.failure = failure


class Closing(Exception):
    """The loader is being closed."""


class Wanted(NamedTuple):
    """An image that a process is asked for. `roots` are the folders whose local files it may read; None: any."""

    uri: str
    exact: bool
    roots: Sequence[str] | None


class LoaderProcess:
    """One process. Only the thread that made it may use it."""

    def __init__(self, limits: Limits, storage: StorageOptions, closing: threading.Event, buffers: Buffers) -> None:
        """Returns when the process is ready. Raises ProcessDied or OSError where it does not come up."""
        self._limits = limits
        self._closing = closing
        self._buffers = buffers
        self._given = self._taken = 0
        self._since = time.monotonic()  # when it began with the image that it has
        self._roots: Sequence[str] | None = ()  # that it knows of
        self._outbox = bytearray(packet(json.dumps({"limits": asdict(limits), "storage": asdict(storage)}).encode()))
        self._socket, theirs = socket.socketpair()
        with contextlib.ExitStack() as undo, theirs:
            undo.callback(self._socket.close)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, TIMEVAL.pack(0, round(TICK_S * 1e6)))
            self._ring = new_ring()
            undo.callback(os.close, self._ring)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", BOOT, str(theirs.fileno()), PACKAGES, str(self._ring)],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), self._ring],
                process_group=0,  # a signal to the worker's whole group is for the worker to obey
            )
            undo.callback(self._end)
            theirs.close()
            self._greet()
            undo.pop_all()

    def send(self, images: Sequence[Wanted]) -> None:
        """Asks for images, so that it has at most FRAMES. If the process is dead, `receive` will tell."""
        if self._given == self._taken:
            self._since = time.monotonic()
        self._given += len(images)
        assert self._given - self._taken <= FRAMES, "a frame is used again when it has been taken"
        for image in images:
            self._outbox += packet(self._request(image))
        self._flush()

    def receive(self) -> list[Frame]:
        """The frames of the oldest images, as many as are complete, but at least one.

        Raises ProcessDied when it ended or must end over the oldest, and Closing.
        """
        while True:
            ended = self._read(WAKE_BYTES) == b""
            if frames := self._complete():
                self._since = time.monotonic()
                return frames
            if ended:
                raise ProcessDied(self._cause(), self._note()[1])
            self._check_time()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        self._end()
        self._socket.close()
        os.close(self._ring)

    def _end(self) -> None:
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # asleep in the kernel, on a dead file server
            self._process.wait(BURIAL_S)

    def _greet(self) -> None:
        self._flush()
        hello = b""
        while len(hello) < len(HELLO):
            more = self._read(len(HELLO) - len(hello))
            if more == b"":
                raise ProcessDied(self._cause())
            hello += more or b""
            self._check_closing()
            if time.monotonic() - self._since > START_TIMEOUT_S:
                raise ProcessDied(f"it was not ready after {START_TIMEOUT_S:g} s")
        if hello != HELLO:
            raise ProcessDied("it speaks another protocol")

    def _request(self, image: Wanted) -> bytes:
        """What asks for an image. There may be thousands of roots: they are named when they change."""
        same = image.roots is self._roots or image.roots == self._roots
        self._roots = image.roots
        return json.dumps([image.uri, image.exact] if same else image).encode()

    def _flush(self) -> None:
        """Sends what the socket takes. The process reads nothing while it works: we have to look at the clock."""
        with contextlib.suppress(OSError):  # it is full; or the process is dead, as `_read` finds
            del self._outbox[: self._socket.send(self._outbox, socket.MSG_DONTWAIT)]

    def _read(self, most: int) -> bytes | None:
        """What it has sent, None if that is nothing for a tick; empty when it has ended."""
        try:
            if not self._outbox:
                return self._socket.recv(most)
            either = select.poll()
            either.register(self._socket, select.POLLIN | select.POLLOUT)
            either.poll(TICK_S * 1000)
            self._flush()
            return self._socket.recv(most, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except ConnectionError:  # it died with an unread request
            return b""

    def _complete(self) -> list[Frame]:
        """Copies of the frames that are complete and have not been taken."""
        (done,) = DONE.unpack(os.pread(self._ring, DONE.size, 0).ljust(DONE.size, b"\0"))
        if done > self._given:
            raise ProcessDied("it counts images that it was not given")
        frames: list[Frame] = []
        while (left := done - self._taken) > 0:
            some = [self._buffers.take() for _ in range(min(left, FRAMES - self._taken % FRAMES))]
            if os.preadv(self._ring, [frame.data for frame in some], frame_at(self._taken)) < len(some) * FRAME_BYTES:
                raise ProcessDied("it cut its frames off")
            for frame in some:
                self._taken += 1
                if NOTE.unpack_from(frame.data)[0] != self._taken:
                    raise ProcessDied("it handed over the frame of another image")
            frames += some
        return frames

    def _note(self) -> tuple[float | None, str]:
        """How long the oldest image took to be fetched, None while it is not, and its version."""
        head = os.pread(self._ring, NOTE.size, frame_at(self._taken)).ljust(NOTE.size, b"\0")
        number, fetch_s, _, version = NOTE.unpack(head)
        if number != self._taken + 1:
            return None, ""
        return sensible_s(fetch_s, self._limits.fetch_timeout_s), text_in(version)

    def _check_time(self) -> None:
        """Raises ProcessDied when the oldest image takes too long: its note shows that it is fetched."""
        self._check_closing()
        took_s = time.monotonic() - self._since
        fetch_s, version = self._note()
        if fetch_s is None and took_s > self._limits.fetch_timeout_s + FETCH_GRACE_S:
            raise ProcessDied("late", failure=late(self._limits.fetch_timeout_s))
        if fetch_s is not None and took_s > fetch_s + self._limits.decode_timeout_s:
            text = f"decoding took longer than {self._limits.decode_timeout_s:g} s (KOSMOGRAPH_DECODE_TIMEOUT_S)"
            raise ProcessDied("late", failure=PermanentFailure(Code.TIMEOUT, text, version))

    def _check_closing(self) -> None:
        if self._closing.is_set():
            raise Closing

    def _cause(self) -> str:
        """How the process ended, in a word."""
        try:
            code = self._process.wait(BURIAL_S)
        except subprocess.TimeoutExpired:
            return "it closed its socket"
        if code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:  # most real-time signals have no name
            return f"signal {-code}"


def sensible_s(seconds: float, limit_s: float) -> float:
    """What a process says it took, if it can be true; else 0."""
    return seconds if 0.0 <= seconds <= limit_s + FETCH_GRACE_S else 0.0


def packet(message: bytes) -> bytes:
    return LENGTH.pack(len(message)) + message
