"""Worker processes of this machine: started, watched, and replaced when they die."""

import os
import re
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from sqlalchemy.exc import DBAPIError

from kosmograph.children import Child, python
from schemas.database import Database, is_passing
from schemas.environment import visible_gpus
from schemas.errors import SetupError, UsageError
from schemas.ledger.dispatch import expire_worker
from schemas.settings import Settings, environment

logger = structlog.get_logger()
MOST_EMPTY_DEATHS = 3
"""In a row, of workers that had no chunk in work and had not lived for long."""
LONG_S = 600.0
GAVE_UP = (1, 2)
"""Exit codes of a worker that knows why it cannot work, and says so. One that is killed has others."""


@dataclass
class _Place:
    """One device, and the worker that has it now. Its metrics are at a port of the place."""

    device: str
    metrics_port: int
    name: str
    child: Child
    empty_deaths: int = 0
    since: float = field(default_factory=time.monotonic)


class WorkerPool:
    """One worker for each device. `check` replaces what has died. Logs go into `folder`, or to our standard error."""

    def __init__(
        self,
        settings: Settings,
        devices: Sequence[str],
        folder: Path | None,
        *,
        revision: str | None,
        dtype: str | None,
    ) -> None:
        # each is told how many share this machine: it takes its part of the cores
        self._settings, self._folder = settings.model_copy(update={"workers": len(devices)}), folder
        self._options = [*(["--revision", revision] if revision else []), *(["--dtype", dtype] if dtype else [])]
        self._database = Database(settings.db)
        first = settings.metrics_port
        self._places = [self._start(device, first and first + index) for index, device in enumerate(devices)]

    def check(self) -> int:
        """Replace dead workers; how many had died.

        A device whose worker says that it cannot work, or dies again and again without having had a chunk, is given
        up. Raises SetupError when it was the last.
        """
        dead = [place for place in self._places if place.child.code is not None]
        try:
            for place in dead:
                self._replace(place)
        except DBAPIError as error:
            if not is_passing(error):
                raise
            return 0  # the database is away: the next check comes soon
        return len(dead)

    def stop(self) -> None:
        """End them all: each commits what is finished, and puts the rest back."""
        for place in self._places:
            place.child.terminate()
        for place in self._places:
            place.child.stop()
        self._database.close()

    def _replace(self, place: _Place) -> None:
        """Its chunks back at once, and a fresh worker in its place."""
        had_work = expire_worker(self._database, place.name) > 0
        lived = had_work or time.monotonic() - place.since > LONG_S
        place.empty_deaths = 0 if lived else place.empty_deaths + 1
        if place.child.code in GAVE_UP or place.empty_deaths >= MOST_EMPTY_DEATHS:
            self._give_up(place)
            return
        fresh = self._start(place.device, place.metrics_port)
        place.name, place.child, place.since = fresh.name, fresh.child, fresh.since

    def _give_up(self, place: _Place) -> None:
        self._places.remove(place)
        log = f" (its log: {place.child.log})" if place.child.log else ""
        said = f"the worker on {place.device} gave up: {place.child.last_words()}{log}"
        if not self._places:
            raise SetupError(said)
        logger.error(said, left=len(self._places))

    def _start(self, device: str, metrics_port: int) -> _Place:
        name = f"{os.uname().nodename}:{device}:{uuid.uuid4().hex[:6]}"
        command = [*python("kosmograph"), "worker", "--name", name, "--device", device, *self._options]
        log = self._folder / f"worker-{name.replace(':', '-')}.log" if self._folder else None
        settings = self._settings.model_copy(update={"metrics_port": metrics_port})
        return _Place(device, metrics_port, name, Child(command, log, os.environ | environment(settings)))


def devices_for(settings: Settings, gpus: str | None = None, found: Callable[[], list[str]] | None = None) -> list[str]:
    """The device of each worker process: every GPU that is here once, or as many CPU workers as wanted.

    Finds GPUs by their device files, since asking torch takes seconds.
    """
    if gpus not in (None, "all"):
        if not re.fullmatch(r"\d+(,\d+)*", str(gpus)):
            raise UsageError(f"--gpus takes all, or numbers as in 0,1, not {gpus!r}")
        return [f"cuda:{int(number)}" for number in dict.fromkeys(str(gpus).split(","))]
    if settings.device not in ("auto", "cuda") and gpus is None:
        return [settings.device] * settings.workers
    here = (found or gpus_here)()
    if not here and (settings.device == "cuda" or gpus == "all"):
        raise SetupError("no NVIDIA GPU is visible here; use --device cpu, or check nvidia-smi")
    if gpus == "all" or (here and "workers" not in settings.model_fields_set):
        return here
    if not here and settings.workers == 1:
        return [settings.device]  # `auto`: torch may know a device that has no such file
    return here[: settings.workers] if here else ["cpu"] * settings.workers


def gpus_here() -> list[str]:
    """`cuda:0`, `cuda:1`… as CUDA_VISIBLE_DEVICES leaves them."""
    visible = visible_gpus()
    if visible is None:
        visible = [path.name for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    return [f"cuda:{number}" for number in range(len(visible))]
