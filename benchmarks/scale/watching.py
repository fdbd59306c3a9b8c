"""The processes of a run by their kind, looked at from outside: CPU, size, what Redis holds, what is settled."""

import os
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

import psutil
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import func, select

from benchmarks.scale.databases import log_bytes
from schemas.database import Database
from schemas.tables import jobs

LOOK_S = 0.5
SIGNS = {
    "kosmograph.keeper": "keepers",
    "worker.loader": "loaders",
    "-server": "Redis",
    "kosmograph worker ": "worker",
    "bare_worker": "worker",
    "kosmograph dispatch ": "dispatcher",
    "kosmograph annotate ": "annotate",
}
"""What in a command line tells the kind of a process; the first that fits."""


@dataclass(frozen=True)
class Look:
    """What was seen at a moment. CPU seconds are those since the watch began, of processes that have ended as well."""

    at_s: float
    settled: int
    cpu_s: dict[str, float]
    resident: dict[str, int]
    """Bytes, summed over a kind. Of PostgreSQL, what is not shared: else its buffers would count many times."""
    redis_bytes: int
    log_bytes: int
    """SQLite's write-ahead log."""
    busy_s: float
    """CPU seconds that the machine has spent, on whatever, since its start."""


@dataclass
class Watch:
    """Looks at this process's descendants, and at PostgreSQL's, while a block runs."""

    db: str
    server_pid: int | None = None
    looks: list[Look] = field(default_factory=list)
    _cpu_s: dict[tuple[int, float], tuple[str, float]] = field(default_factory=dict)
    _redis: "Redis | None" = None

    def __enter__(self) -> Self:
        self._database = Database(self.db)
        self._began = time.monotonic()
        self._server_before_s = server_cpu_s(self.server_pid)
        self._end = Event()
        self._thread = Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        self._look()
        self._database.close()

    def _watch(self) -> None:
        while not self._end.wait(LOOK_S):
            self._look()

    def _look(self) -> None:
        resident: dict[str, int] = defaultdict(int)
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                key = (process.pid, process.create_time())
                command = " ".join(process.cmdline())
                kind = self._cpu_s[key][0] if key in self._cpu_s else kind_of(command)
                times = process.cpu_times()
                self._cpu_s[key] = (kind, times.user + times.system)
                resident[kind] += process.memory_info().rss
                if self._redis is None and (path := re.search(r"--unixsocket (\S+)", command)):
                    self._redis = Redis(unix_socket_path=path[1])
        cpu_s: dict[str, float] = defaultdict(float)
        for kind, seconds in self._cpu_s.values():
            cpu_s[kind] += seconds
        if self.server_pid:
            cpu_s["PostgreSQL"] = server_cpu_s(self.server_pid) - self._server_before_s
            resident["PostgreSQL"] = _private_bytes(self.server_pid)
        wal = log_bytes(self.db) if self._database.is_sqlite else 0
        at_s = time.monotonic() - self._began
        seen = (dict(cpu_s), dict(resident), self._redis_bytes(), wal, busy_s())
        self.looks.append(Look(at_s, self._settled(), *seen))

    def _settled(self) -> int:
        counted = func.coalesce(func.sum(jobs.c.annotated + jobs.c.reused + jobs.c.failed), 0)
        with self._database.read() as connection:
            return int(connection.execute(select(counted)).scalar_one())

    def _redis_bytes(self) -> int:
        with suppress(RedisError):
            if self._redis is not None:
                return int(self._redis.info("memory")["used_memory_peak"])
        return 0


def kind_of(command: str) -> str:
    """What a process is, from its command line."""
    return next((kind for sign, kind in SIGNS.items() if sign in command + " "), "other")


def server_cpu_s(pid: int | None) -> float:
    """CPU seconds of PostgreSQL's processes since its start, those that have ended included; 0 where it is not ours."""
    if pid is None:
        return 0.0
    first = psutil.Process(pid)
    seconds = float(sum(first.cpu_times()[:4]))  # its own, and those of children that have ended
    for process in first.children():
        with suppress(psutil.Error):
            seconds += sum(process.cpu_times()[:2])
    return seconds


def _private_bytes(pid: int) -> int:
    size = 0
    for process in psutil.Process(pid).children():
        with suppress(psutil.Error):
            memory = process.memory_info()
            size += memory.rss - memory.shared
    return size


def busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)  # guests count in user too


@dataclass(frozen=True)
class Span:
    """The looks of a run between a tenth and nine tenths of its images: what it costs once everything has started."""

    looks: Sequence[Look]

    @classmethod
    def of(cls, looks: Sequence[Look], images: int) -> "Span":
        return cls([look for look in looks if images / 10 <= look.settled <= images * 9 / 10])

    @property
    def is_long_enough(self) -> bool:
        return len(self.looks) >= 4 and self.looks[-1].settled > self.looks[0].settled

    @property
    def seconds(self) -> float:
        return self.looks[-1].at_s - self.looks[0].at_s

    @property
    def images(self) -> int:
        return self.looks[-1].settled - self.looks[0].settled

    def cpu_us(self) -> dict[str, float]:
        """µs of CPU an image, by kind of process."""
        first, last = self.looks[0].cpu_s, self.looks[-1].cpu_s
        return {kind: (seconds - first.get(kind, 0.0)) / self.images * 1e6 for kind, seconds in last.items()}

    def busy(self) -> float:
        """The share of the machine's cores that was at work, for whomever."""
        return (self.looks[-1].busy_s - self.looks[0].busy_s) / self.seconds / (os.cpu_count() or 1)


def sizes_mb(looks: Sequence[Look], images: int) -> dict[str, dict[str, float]]:
    """Resident MB by kind: the mean over the first tenth of the images (once some are settled), and over the last."""
    first = [look for look in looks if 0 < look.settled <= images / 10] or looks
    last = [look for look in looks if images * 9 / 10 <= look.settled < images] or looks
    kinds = sorted({kind for look in looks for kind in look.resident})

    def mean(some: Sequence[Look], kind: str) -> float:
        sizes = [look.resident[kind] for look in some if kind in look.resident]
        return sum(sizes) / len(sizes) / 1e6 if sizes else 0.0

    def most(kind: str) -> float:
        return max(look.resident.get(kind, 0) for look in looks) / 1e6

    return {kind: {"first": mean(first, kind), "last": mean(last, kind), "most": most(kind)} for kind in kinds}


def summary(looks: Sequence[Look], images: int) -> dict[str, Any]:
    """The figures of a run, whole and between its first and its last tenth."""
    span = Span.of(looks, images)
    steady = span.is_long_enough
    return {
        "cpu_us": {kind: seconds / images * 1e6 for kind, seconds in looks[-1].cpu_s.items()},
        "steady_cpu_us": span.cpu_us() if steady else None,
        "steady_images_per_s": span.images / span.seconds if steady else None,
        "steady_busy": span.busy() if steady else None,
        "resident_mb": sizes_mb(looks, images),
        "redis_peak_mb": max(look.redis_bytes for look in looks) / 1e6,
        "sqlite_log_peak_mb": max(look.log_bytes for look in looks) / 1e6,
    }
