"""Connections for several threads: each has a reader of its own, which is replaced when its database was away."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, Concatenate, ParamSpec, TypeVar

from catalog.gallery.threads import Threads
from catalog.reader import Interrupted, Reader
from schemas.errors import DatabaseAway, SetupError

P = ParamSpec("P")
T = TypeVar("T")
CONNECTIONS = 4
PATIENCE_S = 20.0
"""What a question may take, with the time it waits for a reader that is free."""
AGAIN_S = 1.0
"""How often a reader is told to give a question up: what reaches the database between two statements is lost."""
LEAVE_S = 0.5
"""How long the end waits for the connections to be closed."""


class Readers:
    """Answers questions to the database, some at a time."""

    def __init__(self, open_one: Callable[[], Reader], count: int = CONNECTIONS) -> None:
        self._open = open_one
        self._own = threading.local()
        self._threads = Threads(count, "reader", self._drop)
        self._turns: set[_Turn] = set()

    async def ask(self, question: Callable[Concatenate[Reader, P], T], *values: P.args, **named: P.kwargs) -> T:
        """What `question(reader, …)` returns.

        Raises DatabaseAway where the database does not do its part, and Interrupted after PATIENCE_S.
        """
        turn = _Turn()
        self._turns.add(turn)
        answer = self._threads.submit(lambda: self._answer(turn, lambda reader: question(reader, *values, **named)))
        answer.add_done_callback(lambda _: self._turns.discard(turn))
        waiting = asyncio.wrap_future(answer)
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody else may ask by then
        try:
            if not (await asyncio.wait([waiting], timeout=PATIENCE_S))[0]:
                raise Interrupted
            return answer.result()
        finally:
            _give_up(asyncio.get_running_loop(), turn, answer)

    def _answer(self, turn: "_Turn", question: Callable[[Reader], T]) -> T:
        if getattr(self._own, "reader", None) is not None:
            with suppress(DatabaseAway):  # a connection that was idle may be lost, and a new one do
                return self._ask(turn, question)
        return self._ask(turn, question)

    def _ask(self, turn: "_Turn", question: Callable[[Reader], T]) -> T:
        turn.require()
        try:
            if getattr(self._own, "reader", None) is None:
                self._own.reader = self._open()
            try:
                with turn.of(self._own.reader):
                    return question(self._own.reader)
            finally:
                self._own.reader.rest()
        except (SetupError, sqlite3.Error) as error:
            self._drop()
            turn.require()
            raise DatabaseAway(str(error)) from None

    def _drop(self) -> None:
        reader, self._own.reader = getattr(self._own, "reader", None), None
        if reader is not None:
            with suppress(Exception):  # the connection is broken, in whatever way its driver says so
                reader.close()

    def close(self) -> None:
        """Give up all questions, and close each connection in its thread: SQLite's may not be touched by another."""
        for turn in list(self._turns):
            threading.Thread(target=turn.give_up, daemon=True).start()
        self._threads.close(LEAVE_S)


class _Turn:
    """One question's time with a reader: within it, and never in that of another one, the reader is interrupted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reader: Reader | None = None
        self._over = False

    @contextmanager
    def of(self, reader: Reader) -> Iterator[None]:
        """The reader is this question's within the block. Raises Interrupted for one that was given up before."""
        with self._lock:
            self._reader = reader
        try:
            self.require()
            yield
        finally:
            with self._lock:
                self._reader = None

    def require(self) -> None:
        """Raises Interrupted where the question has been given up."""
        if self._over:
            raise Interrupted

    def give_up(self) -> None:
        """Interrupt the reader that has this question, if one has it now."""
        self._over = True
        with self._lock, suppress(Exception):  # a connection that is lost cannot be told, and need not be
            if self._reader is not None:
                self._reader.interrupt()


def _give_up(loop: asyncio.AbstractEventLoop, turn: _Turn, answer: "Future[Any]") -> None:
    """Now and again each second until it is done, in a thread: PostgreSQL is told so over the network."""
    if not answer.done():
        threading.Thread(target=turn.give_up, daemon=True).start()
        loop.call_later(AGAIN_S, _give_up, loop, turn, answer)
