"""The parent's end of one loader process: starts it, sends it URIs, reads its frames, kills it when it is late."""

from __future__ import annotations

import contextlib
import json
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
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import Code, ImageFailure, PermanentFailure
from schemas.storage import StorageOptions
from worker.fetch import late
from worker.images import Limits
from worker.loader_process import FRAME_BYTES, HELLO, LENGTH, NOTE_BYTES

PACKAGES = str(Path(__file__).resolve().parent.parent)
BOOT = (
    "import sys; sys.path.insert(0, sys.argv[2]); import schemas, worker; del sys.path[0];"
    " from worker.loader_process import run; run(int(sys.argv[1]))"
)
"""Runs the loader_process.py beside this file, whatever lies in the user's folder and wherever we are installed."""

TICK_S = 0.2
START_TIMEOUT_S = 60.0
FETCH_GRACE_S = 1.0  # a fetch that is late ends by itself; only one that hangs is killed
BURIAL_S = 2.0
SOCKET_BYTES = 2 * FRAME_BYTES
TIMEVAL = struct.Struct("@ll")

Frame = npt.NDArray[np.uint8]


class ProcessDied(Exception):
    """The process ended over its image, or was killed because of `failure`."""

    def __init__(self, reason: str, version: str = "", failure: ImageFailure | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.version = version
        self.failure = failure


class Closing(Exception):
    """The loader is being closed."""


class LoaderProcess:
    """One process. Only the thread that made it may use it."""

    def __init__(self, limits: Limits, storage: StorageOptions, closing: threading.Event) -> None:
        """Returns when the process is ready. Raises ProcessDied or OSError where it does not come up."""
        self._limits = limits
        self._closing = closing
        self._given = 0
        self._since = time.monotonic()  # when it began with the image that it has
        self._begun, self._filled = blank(), 0
        self._socket, theirs = socket.socketpair()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, TIMEVAL.pack(0, round(TICK_S * 1e6)))
        with theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", BOOT, str(theirs.fileno()), PACKAGES],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,  # a signal to the worker's whole group is for the worker to obey
            )
        try:
            self._greet(json.dumps({"limits": asdict(limits), "storage": asdict(storage)}))
        except BaseException:
            self.kill()
            raise

    def send(self, requests: Sequence[bytes]) -> None:
        """Hands over images. If the process is dead, `receive` will tell."""
        if not self._given:
            self._since = time.monotonic()
        self._given += len(requests)
        self._write(b"".join(map(packet, requests)))

    def receive(self, count: int) -> list[Frame]:
        """The frames of the oldest images: `count` of them, or fewer where these take long, but at least one.

        Raises ProcessDied when it ended or must end over the oldest, and Closing.
        """
        frames = [self._begun, *(blank() for _ in range(count - 1))]
        while self._filled < FRAME_BYTES:
            self._filled += self._read([self._begun.data[self._filled :], *(frame.data for frame in frames[1:])])
            if self._filled < FRAME_BYTES:
                self._check_time()
        complete, self._filled = divmod(self._filled, FRAME_BYTES)
        self._begun = frames[complete] if complete < count else blank()
        self._given -= complete
        self._since = time.monotonic()
        return frames[:complete]

    def kill(self) -> None:
        self._process.kill()
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # asleep in the kernel, on a dead file server
            self._process.wait(BURIAL_S)

    def _greet(self, settings: str) -> None:
        self._write(packet(settings.encode()))
        hello, filled = bytearray(len(HELLO)), 0
        while filled < len(HELLO):
            filled += self._read([memoryview(hello)[filled:]])
            self._check_closing()
            if time.monotonic() - self._since > START_TIMEOUT_S:
                raise ProcessDied(f"it was not ready after {START_TIMEOUT_S:g} s")
        if hello != HELLO:
            raise ProcessDied("it speaks another protocol")

    def _write(self, message: bytes) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(message)

    def _read(self, buffers: list[memoryview]) -> int:
        """How much was read, with one call that holds no lock while it waits: less than asked for after a tick."""
        try:
            count: int = self._socket.recvmsg_into(buffers, 0, socket.MSG_WAITALL)[0]
        except BlockingIOError:
            return 0
        except ConnectionError:  # it died with an unread request
            count = 0
        if count == 0:
            raise ProcessDied(self._cause(), self._note().get("version", ""))
        return count

    def _note(self) -> dict[str, Any]:
        """The note at the head of the frame that has begun, empty while it is not here."""
        return unpacked(self._begun.data[:NOTE_BYTES]) if self._filled >= NOTE_BYTES else {}

    def _check_time(self) -> None:
        """Raises ProcessDied when the oldest image takes too long: its note shows that it is fetched."""
        self._check_closing()
        took_s = time.monotonic() - self._since
        note = self._note()
        if note and took_s > note["fetch_s"] + self._limits.decode_timeout_s:
            text = f"decoding took longer than {self._limits.decode_timeout_s:g} s (KOSMOGRAPH_DECODE_TIMEOUT_S)"
            raise ProcessDied("late", failure=PermanentFailure(Code.TIMEOUT, text, note["version"]))
        if not note and took_s > self._limits.fetch_timeout_s + FETCH_GRACE_S:
            raise ProcessDied("late", failure=late(self._limits.fetch_timeout_s))

    def _check_closing(self) -> None:
        if self._closing.is_set():
            raise Closing

    def _cause(self) -> str:
        """How the process ended, in a word."""
        try:
            code = self._process.wait(BURIAL_S)
        except subprocess.TimeoutExpired:
            return "it closed its socket"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def blank() -> Frame:
    return np.empty(FRAME_BYTES, np.uint8)


def packet(message: bytes) -> bytes:
    return LENGTH.pack(len(message)) + message


def unpacked(part: memoryview) -> dict[str, Any]:
    """The JSON in a part of a frame, empty where there is none."""
    try:
        values = json.loads(str(part, "utf-8").rstrip())
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
