"""Threads for what takes its time, which keep nobody from the end."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from catalog.reader import Interrupted

T = TypeVar("T")


class Threads:
    """Some threads that take calls in order. They are daemons: the process ends whatever they wait for."""

    def __init__(self, count: int, name: str, leave: Callable[[], None] = lambda: None) -> None:
        """`leave` is the last that each thread calls."""
        self._leave = leave
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._open: set[Future[Any]] = set()
        self._closed = False
        self._threads = [Thread(target=self._work, name=f"{name}-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    async def run(self, call: Callable[[], T]) -> T:
        """What a call returns. Raises Interrupted when the threads are closed before."""
        return await asyncio.wrap_future(self.submit(call))

    def submit(self, call: Callable[[], T]) -> "Future[T]":
        """The same, to come."""
        future: Future[T] = Future()
        if self._closed:
            future.set_exception(Interrupted())
            return future
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        self._calls.put(lambda: _answer(future, call))
        return future

    def _work(self) -> None:
        while (answer := self._calls.get()) is not None:
            answer()
        self._leave()

    def close(self, wait_s: float = 0) -> None:
        """Whoever waits for a call is told that it is given up, and each thread ends with its present one."""
        self._closed = True
        for future in list(self._open):
            with suppress(InvalidStateError):  # it has just been answered
                future.set_exception(Interrupted())
        for _ in self._threads:
            self._calls.put(None)
        deadline = time.monotonic() + wait_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _answer(future: "Future[T]", call: Callable[[], T]) -> None:
    """Call, and tell what came of it, unless nobody waits any more."""
    if future.done():
        return
    with suppress(InvalidStateError):  # it was given up meanwhile
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)
