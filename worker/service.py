"""A worker process: one device, one model, loaded once; chunks from one queue until it is told to stop."""

import os
import signal
import socket
import uuid
from collections.abc import Sequence
from contextlib import closing
from importlib.metadata import version
from types import FrameType
from typing import Any

import structlog

from schemas.broker import broker_name
from schemas.database import Database
from schemas.errors import TRY_AGAIN, DatabaseAway, DeviceLost
from schemas.metrics import serving
from schemas.migrations import upgrade
from schemas.recipes import queue_name
from schemas.settings import Settings
from schemas.signals import STOP_SIGNALS
from schemas.storage import StorageOptions
from worker.annotator import Annotator
from worker.busy import Reporter
from worker.consumer import consume
from worker.cores import loader_processes, torch_threads
from worker.health import Health, Working
from worker.images import Limits
from worker.leases import Leases
from worker.loader import Loader
from worker.metrics import WorkerMetrics
from worker.null_engine import NullEngine
from worker.observer import Observer
from worker.revision import NULL, ModelRef, resolve
from worker.tasks import ChunkTask

log = structlog.get_logger()

COMPILE_AFTER = 500
"""Batches of images: whoever has had 32,000 has a night before him. Where compiling begins to pay is not measured."""


def new_name() -> str:
    """What a worker is called that nobody has named: machine, process, and what tells it from others of both."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"


def run_worker(settings: Settings, *, revision: str | None, dtype: str | None, name: str) -> None:
    """Work until SIGTERM or SIGINT, and come back when the chunks in work are committed or put back.

    Raises SystemExit at once for a signal that comes before the work begins, and for a GPU that is lost; when loader,
    model or database give out, or a port cannot be had, their error.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, _leave)
    broker_name(settings.broker)  # a wrong URL is told before a model is loaded
    health = Health()
    metrics = WorkerMetrics(name, health)
    observer = metrics if settings.metrics_port else Observer()  # each word of it costs some microseconds
    faults: list[BaseException] = []
    with serving(settings, metrics.registry, live=health.live, ready=health.ready):
        _work(settings, name, resolve(settings.model, revision, dtype), health, observer, faults)
    if faults and isinstance(faults[0], DeviceLost):
        log.critical("worker ended", why=str(faults[0]))
        raise SystemExit(TRY_AGAIN)
    if faults:
        raise faults[0]
    log.info("worker ended")


def _work(
    settings: Settings, name: str, ref: ModelRef, health: Health, observer: Observer, faults: list[BaseException]
) -> None:
    """The worker from its model to its end. What ended it before a signal did is in `faults` afterwards."""

    def broken(error: BaseException) -> None:
        faults.append(error)
        os.kill(os.getpid(), signal.SIGTERM)

    with closing(Database(settings.db)) as database:
        try:
            upgrade(database)
        except DatabaseAway as error:
            log.critical("worker ended", why=str(error))
            raise SystemExit(TRY_AGAIN) from None
        engine, runtime = load_engine(ref, settings, compile_after=COMPILE_AFTER, observer=observer)
        limits, storage = Limits.from_settings(settings), StorageOptions.of(settings)
        processes = loader_processes(settings, gpu=runtime.startswith("cuda"))
        with engine, Loader(limits, processes, storage, observer) as loader:
            annotator = Annotator(database, loader, engine, settings, runtime)
            # leases are renewed though the chunks have taken every connection of their pool
            with closing(Database(settings.db)) as apart, closing(Leases(apart, name, settings.lease_s)) as leases:
                task = ChunkTask(name, database, annotator, leases, settings, broken, observer)
                health.working = Working(ref, runtime, engine, loader, task)
                queue = queue_name(ref.name, ref.revision, ref.dtype)
                log.info("worker ready", model=ref.name, revision=ref.revision, queue=queue, runtime=runtime)
                with closing(Reporter(engine, task.clock)):
                    consume(settings, task, queue, engine.figures.slots, health.link, lambda: _abandon(faults))


def _abandon(faults: Sequence[BaseException]) -> None:
    """Ends the process with nothing in work. What the broker was not told, the ledger knows."""
    log.warning("worker ended without its broker, which does not answer", why=str(faults[0]) if faults else None)
    os._exit(TRY_AGAIN if faults and isinstance(faults[0], DeviceLost) else 1 if faults else 0)


def _leave(number: int, frame: FrameType | None) -> None:
    """What a signal does while nothing is in work."""
    raise SystemExit(0)


def load_engine(
    ref: ModelRef, settings: Settings, *, compile_after: int | None = None, observer: Observer | None = None
) -> tuple[Any, str]:
    """The engine of a model, and what it runs on in words. `compile_after` is for long work; a CPU never compiles."""
    ours = f"kosmograph={version('kosmograph')}"
    if ref.name == NULL:
        return NullEngine(), f"none {ours}"
    import torch
    import transformers

    from worker.engine import Engine
    from worker.model import load_model, pick_device, pick_dtype

    device = pick_device(settings.device)
    gpu = device.startswith("cuda")
    dtype = pick_dtype(ref.dtype, device)
    torch.set_num_threads(torch_threads(settings, gpu=gpu))
    engine = Engine(
        load_model(ref, device, dtype),
        settings.slots,
        compile_after=compile_after if gpu else None,
        observer=observer,
    )
    return engine, f"{device} {dtype} torch={torch.__version__} transformers={transformers.__version__} {ours}"
