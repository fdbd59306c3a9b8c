"""Connections for several threads: each has a reader of its own, which is replaced when its database was away."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

from catalog.reader import Reader
from schemas.errors import DatabaseAway, SetupError

P = ParamSpec("P")
T = TypeVar("T")
CONNECTIONS = 4


class Readers:
    """Answers questions to the database, some at a time."""

    def __init__(self, open_one: Callable[[], Reader]) -> None:
        self._open = open_one
        self._own = threading.local()
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="reader")

    async def ask(self, question: Callable[Concatenate[Reader, P], T], *values: P.args, **named: P.kwargs) -> T:
        """What `question(reader, …)` returns. Raises DatabaseAway where the database does not do its part."""
        call = partial(self._answer, lambda reader: question(reader, *values, **named))
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _answer(self, question: Callable[[Reader], T]) -> T:
        if getattr(self._own, "reader", None) is not None:
            with suppress(DatabaseAway):  # a connection that was idle may be lost, and a new one do
                return self._ask(question)
        return self._ask(question)

    def _ask(self, question: Callable[[Reader], T]) -> T:
        try:
            if getattr(self._own, "reader", None) is None:
                self._own.reader = self._open()
            try:
                return question(self._own.reader)
            finally:
                self._own.reader.rest()
        except (SetupError, sqlite3.Error) as error:
            self._drop()
            raise DatabaseAway(str(error)) from None

    def _drop(self) -> None:
        reader, self._own.reader = getattr(self._own, "reader", None), None
        if reader is not None:
            with suppress(Exception):  # the connection is broken, in whatever way its driver says so
                reader.close()

    def close(self) -> None:
        """Close all connections, each in its thread: SQLite's may not be touched by another."""
        together = threading.Barrier(CONNECTIONS)

        def leave() -> None:
            together.wait()
            self._drop()

        for _ in range(CONNECTIONS):
            self._threads.submit(leave)
        self._threads.shutdown()
