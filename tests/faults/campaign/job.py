"""The jobs of a campaign: folders of small pictures, and an eye on what the ledger has settled of them."""

import io
import shutil
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread

from PIL import Image
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from schemas.database import Database
from schemas.errors import Code
from schemas.tables import jobs
from schemas.uris import file_uri

JUNK_EVERY = 200
TWIN_EVERY = 90
LOOK_S = 0.03
JUNK_CODE = Code.NOT_AN_IMAGE


@dataclass
class Pictures:
    """A folder of so many JPEGs, each with bytes of its own, but some twins and some junk among them."""

    folder: Path
    number: int
    count: int
    uris: list[str] = field(default_factory=list)
    junk: set[str] = field(default_factory=set)

    def draw(self) -> None:
        self.folder.mkdir()
        data = io.BytesIO()
        Image.linear_gradient("L").resize((96, 96)).convert("RGB").save(data, "JPEG")
        plain = data.getvalue()
        for at in range(self.count):
            path = self.folder / f"{at:05}.jpg"
            self.uris.append(file_uri(path))
            if at % JUNK_EVERY == JUNK_EVERY - 1:
                self.junk.add(self.uris[-1])
                path.write_bytes(b"this is no picture")
            else:
                whose = at - TWIN_EVERY // 2 if at % TWIN_EVERY == TWIN_EVERY - 1 else at
                path.write_bytes(_with_comment(plain, f"{self.number}/{whose}"))

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _with_comment(jpeg: bytes, comment: str) -> bytes:
    """The same picture with a comment in its head: other bytes at no cost."""
    text = comment.encode()
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


@dataclass(frozen=True)
class Progress:
    """A job as it was seen last."""

    id: int
    queue: str
    state: str
    reason: str | None
    images: int
    settled: int
    listed: bool

    @property
    def at_work(self) -> bool:
        """Some of it is done, and some is not."""
        return self.state == "running" and self.listed and 0 < self.settled < self.images


class Watch:
    """Looks at a job many times a second, from a thread of its own: a database that stands still holds nobody else up.

    `gains` are the moments (of the monotonic clock) at which outcomes had been added since the look before.
    """

    def __init__(self, url: str, job: str) -> None:
        self.now: Progress | None = None
        self.gains: list[float] = []
        self.ended_at = float("inf")
        self._database, self._job = Database(url), job
        self._closed = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._database.close()

    def _run(self) -> None:
        columns = (jobs.c.id, jobs.c.queue, jobs.c.state, jobs.c.reason, jobs.c.images, jobs.c.listed_at)
        settled = (jobs.c.annotated + jobs.c.reused + jobs.c.failed).label("settled")
        question = select(*columns, settled).where(jobs.c.name == self._job)
        while not self._closed.wait(LOOK_S):
            try:
                with self._database.read() as connection:
                    row = connection.execute(question).first()
            except SQLAlchemyError:
                continue  # it is away, or has no tables yet
            if row is not None:
                seen = row.listed_at is not None
                self._note(Progress(row.id, row.queue, row.state, row.reason, row.images, row.settled, seen))

    def _note(self, progress: Progress) -> None:
        moment = time.monotonic()
        if self.now is None or progress.settled > self.now.settled:
            self.gains.append(moment)
        self.ended_at = min(self.ended_at, moment) if progress.state == "finished" else float("inf")
        self.now = progress

    def recovery_s(self, thrown_at: float, until: float) -> float:
        """Seconds from a fault to the end of the longest standstill of those that began before `until`."""
        ends = [*self.gains, self.ended_at]
        pauses = [(end - begin, end) for begin, end in pairwise(ends)]
        after = [(length, end) for length, end in pauses if end > thrown_at and end - length < until]
        return max(after)[1] - thrown_at if after else 0.0
