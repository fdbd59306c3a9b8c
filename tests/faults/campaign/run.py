# ruff: noqa: T201
"""Random faults at random moments, thrown into running jobs, with every invariant checked after each job.

    python -m tests.faults.campaign.run [--faults 300] [--seed N] [--db sqlite|postgresql|both]

Real processes, real signals, a real Redis and a real database. Prints a table; exits with 1, the seed and the command
that repeats the run when an invariant breaks. Kinds and delays follow from the seed; what they hit, from the machine.
"""

import argparse
import contextlib
import heapq
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, zip_longest
from pathlib import Path
from random import Random, SystemRandom

from schemas.database import Database, patiently
from tests.faults.campaign.faults import ANNOTATE, KINDS, SUBMIT_KILLED, Kind, Missed, Scene, Undo
from tests.faults.campaign.job import JUNK_CODE, Pictures, Watch
from tests.faults.campaign.places import PLACES
from tests.faults.campaign.table import Seen, Thrown, as_text
from tests.faults.campaign.topology import Topology
from tests.faults.invariants import Violation, violations

IMAGES = 3000
MOST_A_JOB = 20
ANNOTATE_EVERY = 3
PAUSE_S = (0.1, 1.5)
HANG_S = 100.0
"""A job that has settled nothing for so long hangs: longer than our waits, shorter than the visibility timeout."""
LOOK_S = 0.01
IMPACT_S, AFTERMATH_S = 0.5, 3.0
"""A fault lasts so long at least. A standstill that begins so long after its end, or with the next one, is not its."""


@dataclass(order=True)
class _Pending:
    """A fault that lasts."""

    due: float
    number: int
    undo: Undo = field(compare=False)
    needs: frozenset[str] = field(compare=False)


class Campaign:
    """One database, and so many faults."""

    def __init__(self, topology: Topology, faults: int, random: Random, images: int) -> None:
        self._topology, self._faults, self._random, self._images = topology, faults, random, images
        self._kinds = [kind for kind in KINDS if topology.database_kind in kind.databases]
        self._deck: list[Kind] = []
        self._pending: list[_Pending] = []
        self._numbers = count()
        self._moved_at = 0.0
        self.seen: list[Seen] = []
        self.uris: dict[str, Pictures] = {}

    def run(self) -> None:
        """Job after job until enough faults have hit one, or an invariant is broken."""
        self._topology.start()
        while self.thrown < self._faults and not self.broken:
            self._do_job(len(self.seen) + 1)
            if not self.seen[-1].thrown:
                self._images *= 2  # it was over before anything could hit it, as on a busy machine
        self._undo_all()

    @property
    def thrown(self) -> int:
        return sum(len(job.thrown) for job in self.seen)

    @property
    def broken(self) -> list[Seen]:
        return [job for job in self.seen if job.violations]

    def _do_job(self, number: int) -> None:
        pictures = Pictures(self._topology.folder / f"images-{number:04}", number, self._images)
        pictures.draw()
        seen = Seen(f"faults-{number:04}", self._topology.database_kind, self._images)
        self.seen.append(seen)
        watch = Watch(self._topology.place.url, seen.job)
        try:
            if number % ANNOTATE_EVERY:
                self._submit(seen, watch, pictures)
            else:
                self._annotate(seen, watch, pictures)
            self._throw_until_finished(seen, watch)
        finally:
            watch.close()
        seen.thrown = [fault for fault in seen.thrown if fault.at < watch.ended_at]
        seen.recoveries_s = [watch.recovery_s(one.at, until) for one, until in _with_ends(seen.thrown)]
        self._undo_all()
        self._end_annotate(seen)
        self._check(seen, pictures)
        pictures.remove()
        slowest = max(seen.recoveries_s, default=0.0)
        names = ", ".join(fault.kind for fault in seen.thrown)
        print(f"{seen.database} {seen.job}: {len(seen.thrown)} faults, {slowest:.1f} s at most: {names}", flush=True)

    def _submit(self, seen: Seen, watch: Watch, pictures: Pictures) -> None:
        """List the job, and where the deck says so, kill that half-way and do it again."""
        command = ("submit", *_options(seen, pictures))
        self._shuffle_if_empty()
        if SUBMIT_KILLED in self._deck:
            first = self._topology.begin(*command)
            while first.poll() is None and not (watch.now and watch.now.images):
                self._tick()
            if first.poll() is None:
                first.send_signal(signal.SIGKILL)
                if not (watch.now and watch.now.listed):
                    seen.thrown.append(Thrown(SUBMIT_KILLED.name, time.monotonic(), 0.0))
                    self._deck.remove(SUBMIT_KILLED)
            first.communicate()
        done = self._topology.run(*command)
        if done.returncode != 0:
            seen.violations.append(Violation("other", f"submit failed: {done.stderr}"))

    def _annotate(self, seen: Seen, watch: Watch, pictures: Pictures) -> None:
        """Begin the job with the command that stays until it is done, and leaves the work to our workers."""
        annotate = self._topology.service("annotate", "annotate", *_options(seen, pictures), "--workers", "0")
        self._topology.annotate = annotate
        annotate.start()
        while annotate.pid and not (watch.now and watch.now.listed):
            self._tick()

    def _annotate_again(self, watch: Watch) -> None:
        """The same command again where it has left a job that goes on, as at a pause: its listing may be cut."""
        annotate = self._topology.annotate
        left = annotate and not annotate.pid and ANNOTATE not in self._taken
        if annotate and left and watch.now and watch.now.state == "running":
            annotate.start()

    @property
    def _taken(self) -> frozenset[str]:
        """What the faults that last have to themselves."""
        return frozenset[str]().union(*(one.needs for one in self._pending))

    def _end_annotate(self, seen: Seen) -> None:
        """It has seen that the job is done, or was paused and is nobody's any more."""
        annotate, self._topology.annotate = self._topology.annotate, None
        if annotate and annotate.wait(HANG_S) is None:
            seen.violations.append(Violation("other", f"annotate did not end within {HANG_S:g} s of its job"))
            annotate.end()

    def _throw_until_finished(self, seen: Seen, watch: Watch) -> None:
        """Fault after fault, until the job has finished, or hangs."""
        self._moved_at = time.monotonic()
        again_at = time.monotonic() + self._random.uniform(*PAUSE_S)
        while watch.ended_at == float("inf") and not seen.violations:
            self._tick()
            self._annotate_again(watch)
            now = time.monotonic()
            self._moved_at = max(self._moved_at, watch.gains[-1] if watch.gains else 0.0)
            if now - self._moved_at > HANG_S:
                seen.violations.append(Violation("other", f"nothing settled for {HANG_S:g} s: {watch.now}"))
            wanted = len(seen.thrown) < MOST_A_JOB and self.thrown < self._faults
            if wanted and now >= again_at and watch.now and watch.now.at_work:
                scene = Scene(self._topology, self._random, seen.job, watch.now)
                if (fault := self._throw(scene)) is not None:
                    seen.thrown.append(fault)
                    again_at = time.monotonic() + self._random.uniform(*PAUSE_S)

    def _throw(self, scene: Scene) -> Thrown | None:
        """The first fault of the deck that has something to hit, and what it needs to itself; None where none has."""
        self._shuffle_if_empty()
        for kind in reversed([kind for kind in self._deck if not kind.needs & self._taken]):
            began = time.monotonic()
            with contextlib.suppress(Missed):
                undo = kind.throw(scene)
                self._deck.remove(kind)
                self._moved_at = time.monotonic()
                if undo is not None:
                    due = self._moved_at + undo.after_s
                    heapq.heappush(self._pending, _Pending(due, next(self._numbers), undo, kind.needs))
                return Thrown(kind.name, began, undo.after_s if undo else 0.0)
        if len(self._deck) < len(self._kinds):  # what is left waits for another job
            self._deck = [*self._shuffled(), *self._deck]
        return None

    def _shuffle_if_empty(self) -> None:
        self._deck = self._deck or self._shuffled()

    def _shuffled(self) -> list[Kind]:
        """Every kind once, the last to be thrown first."""
        return self._random.sample(self._kinds, len(self._kinds))

    def _tick(self) -> None:
        """A moment: what is due is undone, what has ended is started."""
        self._topology.keep()
        while self._pending and self._pending[0].due <= time.monotonic():
            heapq.heappop(self._pending).undo.action()
            self._moved_at = time.monotonic()
        time.sleep(LOOK_S)

    def _undo_all(self) -> None:
        """The job is over: what stands still may come back, and find that."""
        while self._pending:
            heapq.heappop(self._pending).undo.action()

    def _check(self, seen: Seen, pictures: Pictures) -> None:
        """This job, and the one before it again: what came back late has had its chance to do harm."""
        self.uris[seen.job] = pictures
        for job in self.seen[-2:]:
            job.violations += self._violations(job.job)
        for late in [job for job in self.seen[:-2] if job.job in self.uris]:
            del self.uris[late.job]

    def _violations(self, job: str) -> list[Violation]:
        pictures = self.uris[job]
        with contextlib.closing(Database(self._topology.place.url)) as database:
            check = partial(
                violations, database, pictures.uris, job=job, failing=dict.fromkeys(pictures.junk, JUNK_CODE)
            )
            return patiently(check)


def _options(seen: Seen, pictures: Pictures) -> tuple[str, ...]:
    return str(pictures.folder), "--job", seen.job, "--model", "null"


def _with_ends(thrown: Sequence[Thrown]) -> Iterator[tuple[Thrown, float]]:
    """Each fault with the moment after which a standstill that begins is not its doing."""
    for one, following in zip_longest(thrown, thrown[1:]):
        next_at = following.at if following else float("inf")
        over_at = one.at + max(one.lasts_s, IMPACT_S)
        yield one, max(over_at, min(over_at + AFTERMATH_S, next_at))


@contextlib.contextmanager
def stage(database: str) -> Iterator[Topology]:
    """A topology in a temporary folder, which stays when something goes wrong: its logs say what."""
    folder = Path(tempfile.mkdtemp(prefix=f"kosmograph-faults-{database}-"))
    topology = Topology(folder, database)
    try:
        yield topology
    except BaseException:
        print(f"logs are in {folder}", file=sys.stderr)
        raise
    finally:
        topology.close()
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--faults", type=int, default=300, help="on each database [300]")
    options.add_argument("--seed", type=int, help="[a new one]")
    options.add_argument("--db", choices=(*PLACES, "both"), default="both")
    options.add_argument(
        "--images", type=int, default=IMAGES, help=f"of each job, more where that is soon done [{IMAGES}]"
    )
    given = options.parse_args()
    seed = given.seed if given.seed is not None else SystemRandom().randrange(10**6)
    databases = list(PLACES) if given.db == "both" else [given.db]
    print(f"seed {seed}", flush=True)
    seen: list[Seen] = []
    ended_alone: list[str] = []
    began = time.monotonic()
    for database in databases:
        with stage(database) as topology:
            campaign = Campaign(topology, given.faults, Random(f"{seed} {database}"), given.images)
            try:
                campaign.run()
            finally:
                seen += campaign.seen
                ended_alone += [f"{database}: {text}" for text in topology.ended_alone]
            if campaign.broken:
                keep_logs(topology.folder)
    report(seen, ended_alone, time.monotonic() - began)
    if broken := [job for job in seen if job.violations]:
        for job in broken:
            print(f"\n{job.database} {job.job}, after {', '.join(fault.kind for fault in job.thrown)}:")
            for violation in job.violations:
                print(f"  {violation.kind}: {violation.text}")
        sys.exit(f"\nseed {seed}; again: make faults FAULTS={given.faults} SEED={seed} DB={given.db}")


def keep_logs(folder: Path) -> None:
    """What the services said, for whoever looks for the cause."""
    kept = tempfile.mkdtemp(prefix="kosmograph-faults-logs-")
    for log in [*folder.glob("*.log"), *folder.glob("*.db*")]:
        shutil.copy(log, kept)
    print(f"logs are in {kept}", flush=True)


def report(seen: list[Seen], ended_alone: list[str], took_s: float) -> None:
    print(f"\n{as_text(seen)}\n\n{took_s:.0f} s in all")
    for text in ended_alone:
        print(f"ended though nobody had asked for it: {text}")


if __name__ == "__main__":
    main()
