"""The services of a campaign as real processes: dispatcher, workers, a Redis of their own, and a database.

What ends is started again after a moment, as systemd would.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from redis import Redis

from kosmograph.redis_server import RedisServer
from tests.faults.campaign.places import PLACES

WORKERS = 2
RESTART_S = 0.5
STOP_S = 30.0
LEASE_S = 4.0
SETTINGS = {
    # short where a wait would be most of a run; the rest is as people have it
    "LEASE_S": f"{LEASE_S:g}",
    "REQUEUE_GRACE_S": "3",
    "RETRY_BASE_S": "0.5",
    # many chunks in flight and in the queue, and a dispatcher that is needed all the time
    "CHUNK_SIZE": "16",
    "QUEUE_LOW": "16",
    "QUEUE_HIGH": "48",
    "LOADER_PROCESSES": "1",
    "LOG_FORMAT": "json",
}


@dataclass
class Service:
    """One command that is to run for ever."""

    name: str
    command: Sequence[str]
    log: Path
    environment: dict[str, str]
    stopped: bool = False
    """SIGSTOP: it is there, and does nothing."""
    signalled: bool = False
    """It has been told to end, or was killed: that it ends is no news."""
    _process: "subprocess.Popen[bytes] | None" = None
    _again_at: float | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.log.parent,
                start_new_session=True,
            )
        self.stopped = self.signalled = False
        self._again_at = None

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def keep(self) -> int | None:
        """Start it again a moment after its end; the exit code of an end that nobody asked for, once."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        if self._again_at is None:
            self._again_at = time.monotonic() + RESTART_S
            return None if self.signalled else code
        if time.monotonic() >= self._again_at:
            self.start()
        return None

    def signal(self, number: signal.Signals) -> None:
        if self._process and self._process.poll() is None:
            self.stopped = number == signal.SIGSTOP
            self.signalled |= number not in (signal.SIGSTOP, signal.SIGCONT)
            self._process.send_signal(number)

    def descendants(self) -> list[psutil.Process]:
        """Its children, and theirs."""
        try:
            return psutil.Process(self.pid).children(recursive=True) if self.pid else []
        except psutil.NoSuchProcess:
            return []

    def wait(self, limit_s: float = STOP_S) -> int | None:
        """Its exit code; None where it still runs after so long."""
        assert self._process
        try:
            return self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """SIGTERM, and after a while SIGKILL."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        if self._process and self.wait() is None:
            self.signal(signal.SIGKILL)
            self.wait()


@dataclass
class Topology:
    """Everything that runs, below one folder."""

    folder: Path
    database_kind: str
    ended_alone: list[str] = field(default_factory=list)
    """Services that came to an end that nobody asked for."""
    annotate: "Service | None" = None
    """The command that does the present job, where none has submitted it; not started again, since it ends."""

    def __post_init__(self) -> None:
        self.place = PLACES[self.database_kind](self.folder)
        self._redis_folder = self.folder / "redis"
        self._redis_folder.mkdir()
        self._server = RedisServer(self._redis_folder)
        ours = {f"KOSMOGRAPH_{name}": value for name, value in SETTINGS.items()}
        ours |= {"KOSMOGRAPH_DB": self.place.url, "KOSMOGRAPH_BROKER": self.broker_url}
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("KOSMOGRAPH_", "AWS_"))}
        self.environment = clean | ours
        self.dispatcher = self.service("dispatcher", "dispatch")
        self.workers = [self.service(f"worker-{number}", "worker", "--model", "null") for number in range(WORKERS)]

    def service(self, name: str, *arguments: str) -> Service:
        """A command of ours, as a service that does not run yet."""
        return Service(name, self.kosmograph(*arguments), self.folder / f"{name}.log", self.environment)

    @staticmethod
    def kosmograph(*arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "kosmograph", *arguments]

    def start(self) -> None:
        for service in self.services:
            service.start()

    @property
    def services(self) -> list[Service]:
        return [self.dispatcher, *self.workers]

    def keep(self) -> None:
        """Start again what has ended."""
        for service in self.services:
            if (code := service.keep()) is not None:
                self.ended_alone.append(f"{service.name} with {code}: {last_words(service.log)}")

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command, to its end; the services are kept meanwhile."""
        running = self.begin(*arguments)
        while running.poll() is None:
            self.keep()
            time.sleep(0.02)
        out, err = running.communicate()
        return subprocess.CompletedProcess(running.args, running.returncode, out, err)

    def begin(self, *arguments: str) -> "subprocess.Popen[str]":
        """A command that has begun."""
        return subprocess.Popen(
            self.kosmograph(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=self.folder,
            start_new_session=True,
        )

    @property
    def broker_url(self) -> str:
        return self._server.url

    @property
    def redis(self) -> Redis:
        return Redis(unix_socket_path=self.broker_url.removeprefix("redis+socket://").partition("?")[0])

    def kill_redis(self) -> None:
        """SIGKILL, and its end awaited."""
        server = psutil.Process(self.redis_pid)
        server.kill()
        server.wait(STOP_S)

    def start_redis(self, *, emptied: bool = False) -> None:
        """Start it again after `kill_redis`, with what its log holds or with nothing."""
        if emptied:
            shutil.rmtree(self._redis_folder / "appendonlydir", ignore_errors=True)
        while not self._server.ensure():
            time.sleep(0.01)

    @property
    def redis_pid(self) -> int:
        with self.redis as client:
            return int(client.info("server")["process_id"])

    def close(self) -> None:
        """End everything."""
        everything = [*self.services, *([self.annotate] if self.annotate else [])]
        for service in everything:
            service.signal(signal.SIGCONT)
            service.signal(signal.SIGTERM)
        for service in everything:
            service.end()
        self._server.stop()
        self.place.close()


def last_words(log: Path) -> str:
    """The last line of a log, and the last error before it that ended something."""
    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    critical = next((line for line in reversed(lines) if '"level": "critical"' in line), "{}")
    cause = str(json.loads(critical).get("exception", "")).strip().rpartition("\n")[2]
    return f"{lines[-1][:300]} {cause[:300]}"
