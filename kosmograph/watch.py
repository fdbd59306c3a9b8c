"""`status --watch`: a live screen on a terminal, a line for each job now and then elsewhere, or JSON look by look."""

import sqlite3
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from rich.console import Console, Group

from catalog.activity import Activity, activity
from catalog.queries import progress_of
from catalog.reader import Reader, open_reader
from kosmograph.exits import DONE, INTERRUPTED
from kosmograph.output import say, say_json
from kosmograph.screen import Seen, frame, words_of
from schemas.environment import database_url
from schemas.errors import SetupError
from schemas.signals import interruptible

T = TypeVar("T")
EVERY_S = 2.0
LINE_EVERY_S = 10.0
"""How often a log hears of a job whose state stays what it is."""
RATE_OVER_S = 30.0


def watch(job: str | None, *, as_json: bool, db: str | None) -> int:
    """Show what goes on until no job runs any more, or until Ctrl-C; the exit code.

    A database that goes away is waited for. Raises SetupError where it is not there to begin with.
    """
    place = Place(database_url(db))
    looking = _documents(place, job) if as_json else _screen(place, job) if _has_screen() else _lines(place, job)
    with interruptible() as stopped, looking as look:
        while look():
            if stopped.wait(EVERY_S):
                return INTERRUPTED
        return DONE


class Place:
    """A database that is asked again and again, and may be away for a while."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._reader: Reader | None = open_reader(url)
        self._away_since = 0.0
        self.name = str(self._reader)
        self.away = ""
        """Why the last question had no answer."""

    @property
    def away_s(self) -> float:
        """Since when there has been none."""
        return time.monotonic() - self._away_since

    def ask(self, question: Callable[[Reader], T]) -> T | None:
        """The answer; None, and `away` says why, where the database does not do its part."""
        try:
            self._reader = self._reader or open_reader(self._url)
            answer = question(self._reader)
            self._reader.rest()
        except (SetupError, sqlite3.Error) as error:
            self._away_since = self._away_since if self.away else time.monotonic()
            self.away = str(error).strip().split("\n")[0] or type(error).__name__
            self.close()
            return None
        self.away = ""
        return answer

    def close(self) -> None:
        reader, self._reader = self._reader, None
        with suppress(Exception):  # the connection may be broken, in whatever way its driver says so
            if reader is not None:
                reader.close()


class Looks:
    """What was seen of the jobs look by look: from that the rate of now, and which have ended since."""

    def __init__(self, place: Place, job: str | None) -> None:
        self.seen = Seen(place.name)
        self._place, self._job = place, job
        self._ids: list[int] = []
        self._settled: dict[str, deque[tuple[float, int]]] = defaultdict(deque)

    def look(self) -> bool:
        """Look now; False once no job runs any more."""
        found = self._place.ask(lambda reader: activity(reader, self._job, self._ids))
        self.seen.away, self.seen.away_s = self._place.away, self._place.away_s
        if found is None:
            return True
        self.seen.now, self.seen.at = found, time.strftime("%H:%M:%S")
        self._ids = [row["id"] for row in found.jobs]
        for row in found.jobs:
            self.seen.rates[row["job"]] = self._rate(row)
        return any(row["state"] == "running" for row in found.jobs)

    def _rate(self, row: dict[str, Any]) -> float:
        """Images a second over the last half minute, whatever became of them."""
        now, points = time.monotonic(), self._settled[row["job"]]
        points.append((now, row["annotated"] + row["reused"] + row["failed"]))
        while now - points[0][0] > RATE_OVER_S:
            points.popleft()
        (then, before), (_, settled) = points[0], points[-1]
        return max(0.0, (settled - before) / row["recipes"] / (now - then)) if now > then else 0.0


def _has_screen() -> bool:
    console = Console()
    return console.is_terminal and not console.is_dumb_terminal


@contextmanager
def _screen(place: Place, job: str | None) -> Iterator[Callable[[], bool]]:
    """A screen of its own, as pagers have it; the last picture of it stays behind."""
    from rich.live import Live

    console, looks = Console(highlight=False), Looks(place, job)

    def picture() -> Group:
        return frame(looks.seen, *console.size)

    try:
        with Live(console=console, screen=True, auto_refresh=False, get_renderable=picture) as live:

            def look() -> bool:
                goes_on = looks.look()
                live.refresh()
                return goes_on

            yield look
    finally:
        place.close()
        if looks.seen.now is not None:
            console.print(picture())


@contextmanager
def _lines(place: Place, job: str | None) -> Iterator[Callable[[], bool]]:
    """A line for each job, at once where its state changes, else now and then."""
    looks = Looks(place, job)
    told: dict[str, tuple[object, str, float]] = {}

    def look() -> bool:
        goes_on = looks.look()
        now = time.monotonic()
        for name, state, line in _words(looks.seen):
            before = told.get(name, (None, "", 0.0))
            if state != before[0] or (line != before[1] and now - before[2] >= LINE_EVERY_S):
                told[name] = (state, line, now)
                say(line)
        sys.stdout.flush()
        return goes_on

    yield look
    place.close()


def _words(seen: Seen) -> Iterator[tuple[str, object, str]]:
    """What there is to say: of whom, in which state, in which words."""
    yield "", bool(seen.away), f"waiting for the database: {seen.away}" if seen.away else f"looking at {seen.place}"
    now: Activity | None = seen.now
    for row in now.jobs if now and not seen.away else ():
        yield row["job"], (row["state"], row["reason"]), words_of(row, seen.rates[row["job"]])


@contextmanager
def _documents(place: Place, job: str | None) -> Iterator[Callable[[], bool]]:
    """What `status --json` prints, look by look; nothing where the database is away."""

    def look() -> bool:
        found = place.ask(lambda reader: progress_of(reader, job).records)
        if found is not None:
            say_json(found)
            sys.stdout.flush()
        return found is None or any(row["state"] == "running" for row in found)

    yield look
    place.close()
