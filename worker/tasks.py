"""The Celery task: claim a chunk, annotate it, complete it. Everything else stands in the modules it calls."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from threading import Event, Lock
from typing import Any, TypeVar

import structlog
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from structlog.contextvars import bound_contextvars

from schemas.database import Database, patiently
from schemas.errors import Drift, SetupError
from schemas.ledger.canaries import pause_for_drift
from schemas.ledger.dispatch import put_back
from schemas.ledger.settlement import Settlement, complete
from schemas.ledger.work import Claim, abandon_chunk, claim_chunk, release_chunk
from schemas.messages import ChunkMessage
from schemas.results import Completion
from schemas.settings import Settings
from schemas.uris import printable
from worker.annotator import Annotator
from worker.busy import WorkClock
from worker.leases import Held, Leases
from worker.observer import Observer
from worker.turns import Turns

T = TypeVar("T")
log = structlog.get_logger()
MOST_WHY = 200
"""Characters of what is said of a message that was refused: its own words are in it."""
DATABASE_IS_AWAY = (OperationalError, InterfaceError, NoConnectionFree)


@dataclass
class ChunkTask:
    """What a message sets in motion, with all that it needs."""

    name: str
    database: Database
    annotator: Annotator
    leases: Leases
    settings: Settings
    broken: Callable[[BaseException], None]
    observer: Observer = field(default_factory=Observer)
    stopping: Event = field(default_factory=Event)
    clock: WorkClock = field(default_factory=WorkClock)
    turns: Turns = field(default_factory=Turns)
    refused: int = 0
    """Messages that were dropped."""
    _refusing: Lock = field(default_factory=Lock)

    def __call__(self, /, **message: Any) -> None:
        """Never raises: a message is acknowledged whatever comes of it, since the ledger knows what is left to do."""
        try:
            chunk = ChunkMessage.model_validate(message)
        except ValidationError as error:
            self.refuse(str(error.errors(include_input=False, include_url=False)[0]["msg"]))
            return
        with bound_contextvars(chunk=chunk.chunk_id):
            try:
                self._take(chunk)
            except (DBAPIError, NoConnectionFree) as error:
                log.critical("the database gave out; this worker ends")
                self.broken(error)
            except Exception:
                log.exception("task failed; the chunk is left to its lease")

    def refuse(self, why: str) -> None:
        """Say in one short line that a message is dropped, and the how many-th it is."""
        with self._refusing:
            self.refused += 1
            refused = self.refused
        log.error("message refused", why=printable(why[:MOST_WHY]), refused=refused)

    def _take(self, chunk: ChunkMessage) -> None:
        with self.turns.turn(chunk.alone, self.stopping.is_set) as got_it:
            if got_it and not self.stopping.is_set():
                self._claim(chunk)
            else:
                self._patiently(partial(put_back, self.database, chunk.chunk_id, chunk.fence))

    def _claim(self, chunk: ChunkMessage) -> None:
        place, lease_s, tries = (self.database, chunk.chunk_id, chunk.fence), self.settings.lease_s, count()
        claim = self._patiently(lambda: claim_chunk(*place, worker=self.name, lease_s=lease_s, again=next(tries) > 0))
        if claim is not None:
            with (
                bound_contextvars(job=claim.job, attempt=claim.attempt),
                self.leases.hold(claim) as held,
                self.clock.running(),
            ):
                self._work(held)

    def _work(self, held: Held) -> None:
        claim = held.claim
        try:
            leaving = self.stopping.is_set
            completion = self.annotator.annotate(claim, lambda: held.stop.is_set() or leaving(), leaving)
            if held.lost:
                log.warning("chunk lost to another worker")
            elif _nothing_done(completion):
                self._patiently(partial(release_chunk, self.database, claim))
            else:
                self._complete(claim, completion)
        except Drift as drift:
            log.error("the model is not what it was; the job pauses", why=str(drift))
            self._patiently(partial(release_chunk, self.database, claim))
            self._patiently(partial(pause_for_drift, self.database, claim.job_id, f"on worker {self.name} {drift}"))
        except SetupError as error:  # the worker's fault and not the chunk's: nobody is blamed
            self.broken(error)
            self._patiently(partial(release_chunk, self.database, claim))
        except DATABASE_IS_AWAY:  # its own fault, where other errors of it are the chunk's
            if not self.stopping.is_set():
                with suppress(*DATABASE_IS_AWAY):  # a disk that is full for the rows may have room for this
                    release_chunk(self.database, claim)
            raise
        except Exception:  # should it be the chunk's doing, the ledger takes it apart: it counts as a crash
            log.exception("chunk failed")
            self._patiently(partial(abandon_chunk, self.database, claim))

    def _complete(self, claim: Claim, completion: Completion) -> None:
        def timed() -> tuple[Settlement | None, float]:
            began = time.monotonic()
            done = complete(self.database, claim, completion, breaker_images=self.settings.breaker_images)
            return done, time.monotonic() - began

        done, took_s = self._patiently(timed)
        if done:
            self.observer.committed(took_s, done.outcomes)
            log.debug("chunk done", settled=len(completion.settled))
        else:
            log.warning("chunk is not ours any more, or the answer to an earlier try was lost")

    def _patiently(self, work: Callable[[], T]) -> T:
        return patiently(work, stop=self.stopping.is_set)


def _nothing_done(completion: Completion) -> bool:
    """A stop came before anything was finished: the chunk can go back as it is."""
    return not completion.settled and all(later.code is None for later in completion.later)
