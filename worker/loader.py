"""Images from URIs, fetched and decoded by a pool of processes: `Loader.load(uri) -> Future[LoadedImage]`.

Each process has a socket and a thread here that feeds it, all from one queue. So a process that dies takes exactly its
image with it: that image is tried once more in a fresh process, and one that waited behind it is sent again without
blame. A process that is past its time is killed by its thread, and replaced.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

import structlog

from schemas.errors import Code, ImageFailure, PermanentFailure, SetupError, TransientFailure
from schemas.storage import StorageOptions
from worker.buffers import Buffers, Frame
from worker.frames import FACTS, FRAMES, NOTE, PIXELS_AT, REPLY_AT, text_in
from worker.images import FORMATS, Limits, LoadedImage
from worker.loader_link import Closing, LoaderProcess, ProcessDied, Wanted, sensible_s
from worker.observer import Observer
from worker.resample import SIDE

log = structlog.get_logger()
START_TRIES = 3
MOST_URI = 3 * 4096 + 16  # the longest path there is, percent-encoded
NO_SENSE = "the process that decoded it gave no sensible answer"
BATCH_S, BATCH_IMAGES = 0.03, FRAMES // 2
"""A process has two batches, each of as many images as take so long: one that it works on, one that waits."""


@dataclass(frozen=True)
class Figures:
    """How the pool is at this moment."""

    processes: int  # alive
    replaced: int  # that died or were killed, since the start
    queued: int  # images that no process has been given


@dataclass
class Load:
    """One call of `Loader.load`."""

    wanted: Wanted
    future: Future[LoadedImage]
    crashes: int = 0


class Loader:
    """A pool of processes that turn URIs into pixels."""

    def __init__(
        self, limits: Limits, processes: int, storage: StorageOptions, observer: Observer | None = None
    ) -> None:
        self._queue: SimpleQueue[Load | None] = SimpleQueue()
        self._closing = threading.Event()
        buffers = Buffers()
        told = observer or Observer()
        shared = (limits, storage, buffers, self._queue, self._closing, processes, told)
        self._lanes = [Lane(*shared) for _ in range(processes)]
        for lane in self._lanes:
            lane.start()

    def load(self, uri: str, *, exact: bool = False, roots: Sequence[str] | None = None) -> Future[LoadedImage]:
        """The image, soon. With `roots`, a local file is read only if it lies, links resolved, in one of these folders.

        The future fails with PermanentFailure or TransientFailure, with SetupError where no process can be started or
        the loader broke, and with CancelledError when the loader is closed before.
        """
        if self._closing.is_set():
            raise RuntimeError("the loader is closed")
        load = Load(Wanted(uri, exact, roots), Future())
        if len(uri) > MOST_URI:
            text = f"no file and no object has so long a name: {len(uri)} characters"
            load.future.set_exception(PermanentFailure(Code.NOT_FOUND, text))
        else:
            self._queue.put(load)
        return load.future

    def figures(self) -> Figures:
        return Figures(
            processes=sum(lane.process is not None for lane in self._lanes),
            replaced=sum(lane.replaced for lane in self._lanes),
            queued=self._queue.qsize(),
        )

    def close(self) -> None:
        """Ends the processes now. Loads that have not ended are cancelled."""
        self._closing.set()
        for _ in self._lanes:
            self._queue.put(None)  # wakes those that wait for a load
        for lane in self._lanes:
            lane.join()
        with contextlib.suppress(Empty):
            while True:
                load = self._queue.get_nowait()
                if load is not None:
                    load.future.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class Lane(threading.Thread):
    """One process at a time, and the loads that it has been given."""

    def __init__(
        self,
        limits: Limits,
        storage: StorageOptions,
        buffers: Buffers,
        queue: SimpleQueue[Load | None],
        closing: threading.Event,
        lanes: int,
        observer: Observer,
    ) -> None:
        super().__init__(name="loader", daemon=True)
        self.process: LoaderProcess | None = None
        self.replaced = 0
        self._limits = limits
        self._storage = storage
        self._buffers = buffers
        self._queue = queue
        self._closing = closing
        self._lanes = lanes
        self._observer = observer
        self._batch = 1
        self._sent: deque[Load] = deque()
        self._again: deque[Load] = deque()  # taken from the queue, and not given to this process

    def run(self) -> None:
        try:
            with contextlib.suppress(Closing):
                while not self._closing.is_set():
                    self._settle_some()
        except Exception as error:  # the boundary of the thread
            log.exception("loader broke")
            self._end_process()
            self._refuse(SetupError(f"the loader broke, which is a bug in Kosmograph: {type(error).__name__}: {error}"))
        finally:
            self._end_process()
            self._fail_all(CancelledError())

    def _refuse(self, error: SetupError) -> None:
        """Fails what it has and whatever comes, until the loader closes: nobody must wait for a thread that broke."""
        self._fail_all(error)
        with contextlib.suppress(Closing):
            while True:
                self._take().future.set_exception(error)

    def _fail_all(self, error: BaseException) -> None:
        for loads in (self._sent, self._again):
            while loads:
                loads.popleft().future.set_exception(error)

    def _settle_some(self) -> None:
        """Brings the oldest loads to their end, or one a crash nearer to it."""
        try:
            process = self.process or self._start()
            if not self._sent:
                self._again.appendleft(self._take())  # waits, for hours perhaps
                if process.has_ended():  # meanwhile, over no image
                    self._replace()
                    return
            self._fill(process)
            began = time.monotonic()
            frames = process.receive()
        except SetupError as error:
            self._take().future.set_exception(error)
        except ProcessDied as death:
            self._bury(death)
        else:
            for frame in frames:
                settle(self._sent[0], frame, self._limits, self._observer)
                self._sent.popleft()
            image_s = max(time.monotonic() - began, 1e-6) / len(frames)
            self._batch = max(1, min(BATCH_IMAGES, int(BATCH_S / image_s)))

    def _start(self) -> LoaderProcess:
        """A process that is ready. Raises SetupError when none comes up: that is no image's fault."""
        for _ in range(START_TRIES):
            with contextlib.suppress(ProcessDied, OSError):
                self.process = LoaderProcess(self._limits, self._storage, self._closing, self._buffers)
                return self.process
        raise SetupError(f"no loader process comes up: see the log above, and try `{sys.executable} -m PIL`")

    def _fill(self, process: LoaderProcess) -> None:
        """Sends loads until the process has a batch in work and one behind it."""
        new = []
        while len(self._sent) < 2 * self._batch and (load := self._take_another()) is not None:
            self._sent.append(load)
            new.append(load.wanted)
        process.send(new)

    def _take(self) -> Load:
        """The next load that nobody has cancelled. Raises Closing."""
        if self._again:
            return self._again.popleft()
        while True:
            load = self._queue.get()
            if load is None:
                raise Closing
            if load.future.set_running_or_notify_cancel():
                return load

    def _take_another(self) -> Load | None:
        """A load that was taken before, or one to wait behind one that the process has."""
        if self._again:
            return self._again.popleft()
        if self._queue.qsize() < self._lanes:
            return None  # it is better off with a process that will be idle, as this one's image may be a slow one
        with contextlib.suppress(Empty):
            load = self._queue.get_nowait()
            if load is None:
                raise Closing
            if load.future.set_running_or_notify_cancel():
                return load
        return None

    def _bury(self, death: ProcessDied) -> None:
        """Fails the load that the process had, or keeps it for the next one; those behind it go there anyway."""
        victim = self._sent.popleft()
        self._replace()
        if death.failure is not None:
            victim.future.set_exception(death.failure)
        elif victim.crashes:
            text = f"the process that decoded it died, twice: {death.reason}"
            victim.future.set_exception(PermanentFailure(Code.DECODER_CRASHED, text, death.version))
        else:
            victim.crashes += 1
            self._again.appendleft(victim)

    def _replace(self) -> None:
        """Ends the process. What it was given goes to the next one."""
        self._end_process()
        self.replaced += 1
        self._again.extendleft(reversed(self._sent))
        self._sent.clear()

    def _end_process(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process = None


def settle(load: Load, frame: Frame, limits: Limits, observer: Observer) -> None:
    """Gives the future what the frame says, if it can be true: a decoder that was taken over may say anything."""
    fetch_s, decode_s = times_in(frame, limits)
    observer.fetched(fetch_s)
    if decode_s:
        observer.decoded(decode_s)
    width, height, size, kind, digest, version = FACTS.unpack_from(frame.data, REPLY_AT)
    name = text_in(kind)
    if width == 0:
        load.future.set_exception(failure_in(frame))
        return
    if not (0 < width * height <= limits.max_pixels and size <= limits.max_bytes and name in FORMATS):
        load.future.set_exception(PermanentFailure(Code.DECODER_CRASHED, NO_SENSE))
        return
    image = LoadedImage(
        pixels=frame[PIXELS_AT:].reshape(SIDE, SIDE, 3),
        width=width,
        height=height,
        format=name,
        size=size,
        sha256=digest.hex(),
        version=text_in(version),
        fetch_s=fetch_s,
        decode_s=decode_s,
    )
    load.future.set_result(image)


def times_in(frame: Frame, limits: Limits) -> tuple[float, float]:
    """How many seconds the fetch took, and the decoding: 0 where there was none, or what is said cannot be true."""
    _, fetch_s, decode_s, _ = NOTE.unpack_from(frame.data)
    return sensible_s(fetch_s, limits.fetch_timeout_s), sensible_s(decode_s, limits.decode_timeout_s)


def failure_in(frame: Frame) -> ImageFailure:
    """The failure that a frame without an image tells of."""
    try:
        reply = json.loads(frame[REPLY_AT + FACTS.size : PIXELS_AT].tobytes())
        kind = PermanentFailure if reply["permanent"] else TransientFailure
        return kind(Code(reply["code"]), str(reply["message"]), str(reply["version"]))
    except (KeyError, TypeError, ValueError, RecursionError):
        return PermanentFailure(Code.DECODER_CRASHED, NO_SENSE)
