"""Notices: somebody is told how a job ended or why it pauses, beside the dispatching, which never waits for it."""

from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from threading import Event, Thread
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError

from producer.targets import Target, Untold
from schemas.database import Database, patiently
from schemas.ledger.announcements import Announcement, claim_announcement, is_ours, note_told, owe_again
from schemas.uris import printable

log = structlog.get_logger()
PAUSES_S = (2.0, 10.0, 30.0)
"""Between one try and the next."""
DATABASE_S = 60.0
"""How long a database that is away is waited for, to write down that a notice was told."""


class Notifier:
    """Tells a target, one notice after the other, in a thread of its own. With `job_id` those of that job alone."""

    def __init__(self, database: Database, target: Target, job_id: int | None = None) -> None:
        self._database, self._target, self._job_id = database, target, job_id
        self._closing = Event()
        self._announcement: Announcement | None = None
        self._thread: Thread | None = None
        self._why = ""

    @property
    def in_hand(self) -> str:
        """Whom something is being told now; "" where nothing is."""
        return self._target.name if self._thread is not None and self._thread.is_alive() else ""

    def look(self) -> None:
        """Begin to tell what is owed, unless something is being told: then that comes first."""
        if self.in_hand:
            return
        self._announcement = claim_announcement(self._database, self._job_id)
        if self._announcement is not None:
            self._why = "no answer yet"
            self._thread = Thread(target=self._tell, args=(self._announcement,), name="notices", daemon=True)
            self._thread.start()

    def finish(self, limit_s: float) -> None:
        """Wait so long for what is being told. What is not by then, another dispatcher may tell."""
        if self._thread is not None:
            self._thread.join(limit_s)
        untold = self.in_hand  # before it is told to end: it does so at once while it waits to try again
        self._closing.set()
        if untold and self._announcement is not None:
            log.warning("not told in time", target=untold, job=self._announcement.job, why=self._why)
            with suppress(DBAPIError):
                owe_again(self._database, self._announcement)

    def _tell(self, announcement: Announcement) -> None:
        """Until it is told, or there is no hope."""
        document = document_of(announcement)
        told = {"target": self._target.name, "job": announcement.job, "state": announcement.state}
        for pause_s in (*PAUSES_S, None):
            try:
                self._target.tell(document)
                log.info("told", **told)
                break
            except Untold as error:
                self._why = str(error)
                if pause_s is None or not error.passing:
                    log.error("nobody could be told", why=self._why, **told)
                    break
            if self._closing.wait(pause_s) or self._is_overtaken(announcement):
                return
        with suppress(DBAPIError):  # else it is told again
            patiently(partial(note_told, self._database, announcement), limit_s=DATABASE_S, stop=self._closing.is_set)

    def _is_overtaken(self, announcement: Announcement) -> bool:
        """Whether the job has ended or paused anew since: another may have told that already, and it is what counts."""
        with suppress(DBAPIError):
            return not is_ours(self._database, announcement)
        return False


def document_of(it: Announcement) -> dict[str, Any]:
    """What a target is told, as JSON: `text` is a line for people."""
    return {
        "text": _text(it),
        "job": it.job,
        "state": it.state,
        "reason": it.reason,
        "images": it.images,
        "annotated": it.annotated,
        "reused": it.reused,
        "failed": it.failed,
        "pending": it.pending,
        "failures": dict(it.failures),
        "new": it.news.settled,
        "new_failed": it.news.failed,
        "started_at": _time(it.started_at),
        "finished_at": _time(it.finished_at),
        "images_per_s": round(it.images_per_s, 3),
    }


def _text(it: Announcement) -> str:
    """Without angle brackets, in which chats look for commands: file names may stand in it."""
    reason = f": {it.reason}" if it.reason else ""
    codes = ", ".join(f"{count} {code}" for code, count in it.failures.items())
    counts = [f"{it.images} images", f"{it.annotated} annotated", f"{it.reused} reused"]
    counts += [f"{it.failed} failed ({codes})" if codes else f"{it.failed} failed"]
    counts += [f"{it.pending} pending"] if it.pending else []
    if it.news.settled != it.annotated + it.reused + it.failed:
        counts += [f"new: {it.news.settled}" if it.news.settled else "nothing was new"]
    counts += [f"{it.images_per_s:.1f} images/s"] if it.state == "finished" and it.news.settled else []
    line = f"Kosmograph: the job {it.job} is {it.state}{reason}; {', '.join(counts)}"
    return printable(line).replace("<", "‹").replace(">", "›")


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
