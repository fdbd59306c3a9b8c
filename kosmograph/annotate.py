"""`annotate`: the whole job in the foreground, with whatever it is not given: Redis, a dispatcher, workers."""

import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from threading import Event, Thread

import structlog
from sqlalchemy.exc import DBAPIError

from kosmograph.display import Display, View
from kosmograph.exposure import warn_of_open_broker
from kosmograph.folders import run_folder
from kosmograph.redis_server import RedisServer
from kosmograph.requests import OpenedJob, Request, find_sources, job_name, open_job, recipes_for
from kosmograph.workers import WorkerPool, devices_for
from producer.dispatcher import Dispatcher
from producer.notices import Notifier
from producer.queue import Queue
from producer.registration import Totals
from producer.targets import target_of
from schemas.broker import EMBEDDED, broker_name
from schemas.database import Database, patiently
from schemas.errors import UsageError
from schemas.ledger import jobs
from schemas.ledger.dispatch import reclaim_broker, requeue_stale
from schemas.ledger.jobs import Job, News
from schemas.locks import job_lock
from schemas.logs import configure_logs
from schemas.migrations import upgrade
from schemas.settings import Settings
from schemas.signals import interruptible

LOOK_S = 0.2
TOLD_S = 20.0
"""How long the end waits until somebody has been told of it."""
LISTING_S = 2.0
"""How long a stop waits for a listing, which may itself wait for a server."""


@dataclass
class Ending:
    """How a run ended: the job as it stands, what is new, what was listed, and whether somebody pressed Ctrl-C."""

    job: Job
    news: News
    totals: Totals
    interrupted: bool


def annotate(request: Request, settings: Settings, display: Display) -> Ending:
    """Run the job until every image is settled, the job is paused or cancelled, or the user interrupts."""
    if not settings.workers and not settings.broker:
        raise UsageError("--workers 0 waits for workers that run already: say with --broker where they listen")
    target = target_of(settings.notify, settings.db) if settings.notify else None
    configure_logs(settings.model_copy(update={"log_level": "warning"}))  # the display tells the rest
    if settings.broker:
        warn_of_open_broker(settings.broker)
    recipes = recipes_for(request, settings.device if settings.workers else None)  # None: the workers are elsewhere
    sources = find_sources(request, settings)
    name = job_name(request, sources, recipes)
    database = Database(settings.db)
    upgrade(database)
    with job_lock(database, name) as require_lock, interruptible() as interrupted:
        opened = open_job(database, name, request, sources, recipes, settings)
        # what a run left that is dead, since its lock is ours; and what waits in a Redis that we may not be reading
        reclaim_broker(database, opened.job.id, EMBEDDED)
        requeue_stale(database, 0.0, opened.job.id)
        notifier = Notifier(database, target, opened.job.id) if target else None
        run = JobRun(database, opened, settings, display, interrupted, require_lock, notifier)
        run.until_done()
        job, news = jobs.get_job(database, opened.job.id), jobs.news_of(database, opened.job.id)
        if notifier:
            _tell_the_end(notifier, display)
    database.close()
    return Ending(job, news, run.totals, interrupted.is_set())


def _tell_the_end(notifier: Notifier, display: Display) -> None:
    """The job has an end without it as well: a database that is away now, or a target, changes nothing of that."""
    try:
        notifier.look()
    except DBAPIError as error:
        structlog.get_logger().warning("nobody was told", why=str(error.orig))
    if told := notifier.in_hand:
        display.say(f"telling {told}")
    notifier.finish(TOLD_S)


@dataclass
class JobRun:
    """One run: a listing and, once there is something to do, a queue, a dispatcher and workers."""

    database: Database
    opened: OpenedJob
    settings: Settings
    display: View
    interrupted: Event
    require_lock: Callable[[], None]
    notifier: Notifier | None = None
    totals: Totals = field(default_factory=Totals)
    faults: list[BaseException] = field(default_factory=list)
    _check: Callable[[], object] = lambda: None

    def until_done(self) -> None:
        stop = Event()
        with ExitStack() as stack:
            stack.callback(stop.set)
            listing = self._thread("listing", lambda: self._list(stop))
            started = False
            with self.display.showing(self.opened.job.name):
                while not self._is_over():
                    job = self._job()
                    self.display.update(job, listed=not listing.is_alive())
                    if not started and job.pending:
                        self._start(stack, stop)
                        started = True
                    self.require_lock()
                    self._check()
                    if not started and not listing.is_alive():  # nothing to do, and no dispatcher to say so
                        jobs.finish_jobs(self.database, self.opened.job.id)
                    self.interrupted.wait(LOOK_S)
                self.display.update(self._job(), listed=True)
                if self.interrupted.is_set():
                    self.display.say("stopping: what is finished is committed, the rest goes back")
            stop.set()
            listing.join(LISTING_S)
        if self.faults:
            raise self.faults[0]

    def _is_over(self) -> bool:
        return self.interrupted.is_set() or bool(self.faults) or self._job().state != "running"

    def _job(self) -> Job:
        return patiently(lambda: jobs.get_job(self.database, self.opened.job.id), stop=self.interrupted.is_set)

    def _list(self, stop: Event) -> None:
        def listed(totals: Totals) -> None:
            self.totals = totals

        self.totals = self.opened.register(self.database, stopped=stop.is_set, progress=listed)

    def _start(self, stack: ExitStack, stop: Event) -> None:
        """Redis, unless one was given; the dispatcher; the workers. Ended in the opposite order."""
        folder = stack.enter_context(run_folder())
        url, name = self.settings.broker, broker_name(self.settings.broker) if self.settings.broker else ""
        redis: RedisServer | None = None
        if not url:
            redis = RedisServer(folder)
            stack.callback(redis.stop)
            url, name = redis.url, EMBEDDED + uuid.uuid4().hex
            stack.callback(reclaim_broker, self.database, self.opened.job.id, name)  # last of all: nothing stays queued
        settings = self.settings.model_copy(update={"broker": url, "model": self.opened.request.model})
        recipe = self.opened.recipes[0]  # its revision: the hub may have a newer one by the time that a worker asks
        pool = WorkerPool(settings, devices_for(settings), folder, revision=recipe.revision, dtype=recipe.dtype)
        stack.callback(pool.stop)
        queue = Queue(url, name)
        stack.callback(queue.close)
        dispatcher = Dispatcher(self.database, queue, settings, self.opened.job.id, notifier=self.notifier)
        thread = self._thread("dispatcher", lambda: dispatcher.run(stop))
        stack.callback(thread.join)
        stack.callback(stop.set)
        self._check = lambda: (redis and redis.ensure(), pool.check())

    def _thread(self, name: str, work: Callable[[], object]) -> Thread:
        """A thread whose failure ends the run, with its error told."""

        def guarded() -> None:
            try:
                work()
            except Exception as error:
                self.faults.append(error)

        thread = Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread
