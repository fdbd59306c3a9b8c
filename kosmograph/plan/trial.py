"""The sample on the way that `annotate` goes: its queue, dispatcher, worker and ledger, with a scratch database."""

import socket
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from threading import Event

from sqlalchemy import func, select

from kosmograph.annotate import JobRun
from kosmograph.folders import run_folder
from kosmograph.plan.meter import Mark, Meter
from kosmograph.plan.scratch import scratch_database, size_of
from kosmograph.plan.telling import Tell
from kosmograph.requests import OpenedJob, Request
from kosmograph.workers import devices_for
from producer.registration import Totals
from schemas.database import Database
from schemas.items import Item
from schemas.ledger import jobs, listing
from schemas.ledger.jobs import Job
from schemas.recipes import Recipe
from schemas.settings import Settings
from schemas.tables import canaries, outcomes

LEAST_IMAGES, LEAST_STEADY_S = 256, 10.0
"""So many images, and so long with full slots: the rate is taken from repeated seconds of these."""
MOST_S = 180.0
"""A slow model may take no longer, unless told how many images it shall be."""
PATIENCE_S = 30.0
"""What is in hand when there is enough may take so long to end; else it is given up as by Ctrl-C."""
IN_HAND = 3
"""Images for each slot that a worker takes (TARGET_SLOTS of worker/prefetch.py)."""
AHEAD_S = 3.0
"""And so many seconds' images wait in the queue, which a dispatcher fills twice a second."""
LOOK_S = 0.1


@dataclass
class Trial:
    """What came of it."""

    marks: Sequence[Mark]
    settled: int
    """Images."""
    wall_s: float
    failures: dict[str, int]
    messages: dict[str, str]
    """Of each code one of its failures."""
    sizes: Sequence[tuple[int, int]]
    """Bytes of the database when so many images were settled: (images, bytes), empty first."""
    runtime: str
    loaders: int
    kind: str
    """Of the database."""
    canaries: int
    """Generations that were no image's."""
    interrupted: bool = False


@dataclass
class Pace:
    """How far a trial is, and whether it has seen enough."""

    meter: Meter
    recipes: Sequence[Recipe]
    wanted: int | None
    """Images that the user wants to be taken, at least."""
    settled: int = 0
    """Images, in the ledger."""
    gave_up: bool = False

    @property
    def done(self) -> int:
        """Images, by what the model has answered, which runs ahead of the ledger.

        By the ledger where many fail, or where it takes a number of answers that only the image knows.
        """
        if any(recipe.verify for recipe in self.recipes) or not self.meter.marks:
            return self.settled
        return max(self.settled, int(self.meter.marks[-1].generations / len(self.recipes)))

    @property
    def rate(self) -> float:
        """Images a second since the slots were full for the first time; before, since the first chunk."""
        if len(full := self._full) > 1:
            return (full[-1].generations - full[0].generations) / len(self.recipes) / self._full_s
        return self.done / self._work_s if self._work_s else 0.0

    @property
    def is_enough(self) -> bool:
        """A steady rate is known, or it takes too long to know one; but never fewer images than are wanted."""
        if self._work_s > MOST_S:
            return self.done >= (self.wanted or 0)
        return self.done >= (self.wanted or LEAST_IMAGES) and self._full_s >= LEAST_STEADY_S

    def is_soon_done(self, images: int) -> bool:
        """Whether so many that are in hand are worth waiting for."""
        return images <= 0 or images < self.rate * PATIENCE_S

    @property
    def ahead(self) -> int:
        """How many images should be registered beyond those that are done."""
        slots = self.meter.marks[-1].slots if self.meter.marks else 0
        return max(LEAST_IMAGES, int(IN_HAND * slots + AHEAD_S * self.rate))

    @property
    def _work_s(self) -> float:
        return self.meter.marks[-1].work_s if self.meter.marks else 0.0

    @property
    def _full(self) -> list[Mark]:
        return [mark for mark in self.meter.marks if mark.generations >= mark.slots]

    @property
    def _full_s(self) -> float:
        return full[-1].at - full[0].at if (full := self._full) else 0.0


@dataclass(frozen=True)
class SampleJob(OpenedJob):
    """A job whose listing is the sample: as much of it as is needed, as it is needed."""

    items: Sequence[Item]
    pace: Pace
    give_up: Event

    def register(self, database: Database, **watch: object) -> Totals:
        """Chunks for the worker until there is enough; then the listing is at its end, and so is the job soon."""
        given, size = 0, self.settings.chunk_size
        while given < len(self.items) and not (given and self.pace.is_enough) and not self.give_up.is_set():
            if given - self.pace.done < self.pace.ahead:
                some = self.items[given : given + size]
                listing.register(database, self.job, some, cursor=None, chunk_size=size)
                given += len(some)
            else:
                time.sleep(LOOK_S)
        listing.finish_listing(database, self.job)
        if self.pace.is_enough and not self.pace.is_soon_done(given - self.pace.done):
            self.pace.gave_up = True
            self.give_up.set()
        return Totals(new=given)


class TrialView:
    """Tells how far the trial is, and keeps what it wants to know of the ledger."""

    def __init__(self, pace: Pace, database: Database, tell: Tell) -> None:
        self._pace, self._database, self._tell = pace, database, tell
        self.sizes = [(0, size_of(database))]

    def showing(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()

    def update(self, job: Job, *, listed: bool) -> None:
        settled = job.settled // job.recipes
        if settled > self._pace.settled:
            self._pace.meter.look()
            self._pace.settled = settled
            self.sizes.append((settled, size_of(self._database)))
        self._tell(self._words())

    def _words(self) -> str:
        if not self._pace.meter.marks:
            return "a sample: loading the model"
        rate = f", {self._pace.rate:.1f}/s" if self._pace.rate else ""
        return f"a sample: {self._pace.done} images{rate}"

    def say(self, text: str) -> None:
        """Nothing: what a run says of its end is not so of a trial's."""


def try_out(
    items: Sequence[Item],
    request: Request,
    recipes: Sequence[Recipe],
    roots: Sequence[str],
    settings: Settings,
    wanted: int | None,
    interrupted: Event,
    tell: Tell,
) -> Trial:
    """Annotate as many of the items as it takes to know the rate. Of all that is written, nothing stays."""
    began, here = time.monotonic(), of_one_worker(settings)
    with run_folder() as folder, scratch_database(settings.db, folder) as database:
        port = _free_port()
        with closing(Meter(port)) as meter:
            pace = Pace(meter, recipes, wanted)
            job = jobs.open_job(database, "plan", recipes, listing="{}", roots=roots)
            mine = here.model_copy(update=_apart(database, port))
            opened = SampleJob(job, [], recipes, request, mine, items, pace, interrupted)
            view = TrialView(pace, database, tell)
            JobRun(database, opened, mine, view, interrupted, lambda: None).until_done()
        ended = time.monotonic()
        failures, messages = _failures(database)
        return Trial(
            marks=meter.marks,
            settled=pace.settled,
            wall_s=ended - began,
            failures=failures,
            messages=messages,
            sizes=view.sizes,
            runtime=meter.runtime,
            loaders=loaders_of(here, meter.runtime),
            kind="SQLite" if database.is_sqlite else "PostgreSQL",
            canaries=_canaries(database),
            interrupted=interrupted.is_set() and not pace.gave_up,
        )


def of_one_worker(settings: Settings) -> Settings:
    """Those of one worker that has its part of this machine, as where `annotate` starts one on each of its devices."""
    devices = devices_for(settings)
    if len(devices) == 1:
        return settings.model_copy(update={"workers": 1})
    from worker.cores import loader_processes, torch_threads

    gpu, all_ = devices[0].startswith("cuda"), settings.model_copy(update={"workers": len(devices)})
    parts = {"loader_processes": loader_processes(all_, gpu=gpu), "torch_threads": torch_threads(all_, gpu=gpu)}
    return settings.model_copy(update={"workers": 1, **parts})


def loaders_of(settings: Settings, runtime: str) -> int:
    """How many processes load for such a worker."""
    from worker.cores import loader_processes

    return loader_processes(settings, gpu=runtime.startswith("cuda"))


def _apart(database: Database, port: int) -> dict[str, object]:
    """What a trial has for itself. Each failure counts at once, and none of them ends it."""
    url = database.url.render_as_string(hide_password=False)
    own = {"db": url, "broker": "", "metrics_port": port, "metrics_host": "127.0.0.1"}
    return own | {"max_tries": 1, "breaker_images": 2**31 - 1}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _failures(database: Database) -> tuple[dict[str, int], dict[str, str]]:
    """How many images failed with each code, and one of the messages."""
    query = (
        select(outcomes.c.code, func.count(outcomes.c.image_id.distinct()), func.min(outcomes.c.message))
        .where(outcomes.c.code.is_not(None))
        .group_by(outcomes.c.code)
    )
    with database.read() as connection:
        rows = connection.execute(query).all()
    return {code: count for code, count, _ in rows}, {code: message for code, _, message in rows}


def _canaries(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(canaries)).scalar_one()
