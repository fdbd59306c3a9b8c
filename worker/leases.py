"""The leases of a worker: renewed while it lives, so that the ledger can tell a slow worker from a dead one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock, Thread

import structlog
from sqlalchemy.exc import SQLAlchemyError

from schemas.database import Database
from schemas.ledger.work import Claim, renew_leases

log = structlog.get_logger()
MOST_INTERVAL_S = 4.0
"""Pause and cancel reach a running chunk with the renewal: at least this often."""


@dataclass(eq=False)
class Held:
    """A claimed chunk. `stop` is set when its job does not run any more; `lost` when the chunk is not ours any more."""

    claim: Claim
    stop: Event = field(default_factory=Event)
    lost: bool = False


class Leases:
    """Renews what this worker holds, from a thread of its own."""

    def __init__(self, database: Database, worker: str, lease_s: float) -> None:
        self._database, self._worker, self._lease_s = database, worker, lease_s
        self._held: dict[int, Held] = {}
        self._lock = Lock()
        self._closed = Event()
        self._thread = Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    @contextmanager
    def hold(self, claim: Claim) -> Iterator[Held]:
        """The chunk's lease is renewed while the block runs."""
        held = Held(claim)
        with self._lock:
            self._held[claim.chunk_id] = held
        try:
            yield held
        finally:
            with self._lock:
                if self._held.get(claim.chunk_id) is held:
                    del self._held[claim.chunk_id]

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(min(self._lease_s / 4, MOST_INTERVAL_S)):
            try:
                self.renew()
            except SQLAlchemyError as error:  # the next round may reach it; until then the fence protects the ledger
                log.warning("leases could not be renewed", error=str(getattr(error, "orig", error)).split("\n")[0])

    def renew(self) -> None:
        """Renew every lease once, and pass on what has become of the jobs."""
        with self._lock:
            held = dict(self._held)
        states = renew_leases(self._database, self._worker, held, self._lease_s)
        for chunk_id, one in held.items():
            if states.get(chunk_id) != "running":
                one.lost = chunk_id not in states
                one.stop.set()
