"""A worker process: one device, one model, loaded once; chunks from one queue until it is told to stop."""

import os
import signal
import socket
import uuid
from importlib.metadata import version
from math import ceil
from typing import Any

import structlog
from celery.signals import worker_shutting_down

from schemas.broker import broker_name
from schemas.database import Database
from schemas.logs import configure_logs
from schemas.migrations import upgrade
from schemas.recipes import queue_name
from schemas.settings import Settings
from worker.annotator import Annotator
from worker.fetch import Storage
from worker.images import Limits
from worker.leases import Leases
from worker.loader import Loader
from worker.null_engine import NullEngine
from worker.revision import NULL, ModelRef, resolve
from worker.tasks import ChunkTask, make_app

log = structlog.get_logger()


def run_worker(settings: Settings, *, revision: str | None, dtype: str | None, name: str | None = None) -> int:
    """Work until SIGTERM or SIGINT; the exit code: 0 after a clean drain, 1 when model or database gave out."""
    name = name or f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"
    configure_logs(settings, worker=name)
    broker_name(settings.broker)  # a wrong URL is told before a model is loaded
    ref = resolve(settings.model, revision, dtype)
    database = Database(settings.db)
    upgrade(database)
    faults: list[BaseException] = []

    def broken(error: BaseException) -> None:
        if not faults:
            log.critical("worker stops", error=str(error))
            faults.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

    engine, runtime = load_engine(ref, settings)
    with Loader(Limits.from_settings(settings), loader_processes(settings), Storage.from_settings(settings)) as loader:
        annotator = Annotator(database, loader, engine, settings, runtime)
        leases = Leases(database, name, settings.lease_s)
        task = ChunkTask(name, database, annotator, leases, settings, broken)
        queue = queue_name(ref.name, ref.revision, ref.dtype)
        log.info("worker ready", model=ref.name, revision=ref.revision, queue=queue, runtime=runtime)
        code = _consume(settings, task, queue, name)
        leases.close()
        engine.close()
    database.close()
    return 1 if faults else code


def load_engine(ref: ModelRef, settings: Settings) -> tuple[Any, str]:
    """The engine of a model, and what it runs on in words."""
    ours = f"kosmograph={version('kosmograph')}"
    if ref.name == NULL:
        return NullEngine(), f"none {ours}"
    import torch
    import transformers

    from worker.engine import Engine
    from worker.model import load_model, pick_device

    device = pick_device(settings.device)
    torch.set_num_threads(settings.torch_threads or max(1, (os.cpu_count() or 1) // max(1, settings.workers)))
    engine = Engine(load_model(ref, device), settings.batch_size)
    return engine, f"{device} torch={torch.__version__} transformers={transformers.__version__} {ours}"


def loader_processes(settings: Settings) -> int:
    """As many as told; else the cores, shared among the workers of this machine."""
    return settings.loader_processes or max(1, (os.cpu_count() or 1) // max(1, settings.workers))


def chunk_tasks(settings: Settings) -> int:
    """How many chunks are in flight at once: one to load, one to compute, and at least three batches of images."""
    return max(2, ceil(3 * settings.batch_size / settings.chunk_size))


def _consume(settings: Settings, task: ChunkTask, queue: str, name: str) -> int:
    app = make_app(settings.broker, task)

    def drain(**_: Any) -> None:
        task.stopping.set()

    worker_shutting_down.connect(drain)
    worker = app.Worker(
        hostname=f"kosmograph@{name}",
        pool_cls="threads",
        concurrency=chunk_tasks(settings),
        queues=[queue],
        loglevel=settings.log_level,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)
