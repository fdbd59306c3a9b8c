"""`doctor`: each part that a run needs, tried, with the remedy where it fails."""

import importlib
import importlib.util
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kosmograph.exits import DONE, TROUBLE
from kosmograph.output import say
from schemas.broker import broker_name
from schemas.database import Database
from schemas.errors import KosmographError
from schemas.settings import Settings

MARKS = {"ok": "ok  ", "note": "note", "warn": "WARN", "bad": "BAD "}
SLOW_RESIZE = "Pillow's (slower; no C compiler was there at install)"


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    state: str
    what: str
    found: str


def examine(
    settings: Settings, *, with_model: bool, revision: str | None, dtype: str | None, golden: Path | None
) -> int:
    """Print a line for each part; the exit code: 1 when something that is needed does not work."""
    checks: dict[str, Callable[[Settings], Iterator[Finding]]] = {
        "python": _python,
        "packages": _packages,
        "resize": _resize,
        "redis": _redis,
        "database": _database,
        "gpu": _gpu,
        "disk": _disk,
    }
    if with_model:
        checks["model"] = partial(_model, revision=revision, dtype=dtype, golden=golden)
    bad = False
    for what, check in checks.items():
        for finding in _guarded(what, check, settings):
            bad = bad or finding.state == "bad"
            say(f"{MARKS[finding.state]}  {finding.what:<10} {finding.found}")
    return TROUBLE if bad else DONE


def _guarded(what: str, check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> Iterator[Finding]:
    try:
        yield from check(settings)
    except KosmographError as error:
        yield Finding("bad", what, str(error))


def _python(settings: Settings) -> Iterator[Finding]:
    state = "ok" if sys.version_info >= (3, 11) else "bad"
    yield Finding(state, "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _packages(settings: Settings) -> Iterator[Finding]:
    wanted = {
        "torch": "worker",
        "transformers": "worker",
        "psycopg": "postgres",
        "pyarrow": "export",
        "starlette": "gallery",
    }
    for name, extra in wanted.items():
        if importlib.util.find_spec(name) is None:
            yield Finding("note", name, f"not installed: pip install 'kosmograph[{extra}]' where it is needed")
        else:
            from importlib.metadata import version

            yield Finding("ok", name, version(name))


def _resize(settings: Settings) -> Iterator[Finding]:
    from worker.resample import COMPILED

    yield Finding("ok" if COMPILED else "note", "resize", "compiled" if COMPILED else SLOW_RESIZE)


def _redis(settings: Settings) -> Iterator[Finding]:
    from kosmograph.redis_server import RedisServer, find_redis_server

    if settings.broker:
        from kosmograph.exposure import examine_broker
        from producer.queue import BrokerErrors

        name = broker_name(settings.broker)
        try:
            warning = examine_broker(settings.broker)
        except BrokerErrors as error:
            yield Finding("bad", "redis", f"{name} does not answer: {error}")
            return
        yield Finding("ok", "redis", f"{name} answers")
        if warning:
            yield Finding("warn", "redis", warning)
        return
    with tempfile.TemporaryDirectory(prefix="kosmograph-") as folder:
        RedisServer(Path(folder)).stop()
    yield Finding("ok", "redis", f"none given; {find_redis_server()} starts for a run of annotate")


def _database(settings: Settings) -> Iterator[Finding]:
    from sqlalchemy.exc import DBAPIError

    from schemas.migrations import version_of
    from schemas.version import HEAD

    database = Database(settings.db)
    if database.path is not None and not database.path.exists():
        yield Finding("ok", "database", f"{database.path} will be made by the first run")
        return
    try:
        version = version_of(database)
    except DBAPIError as error:
        yield Finding("bad", "database", f"{database} does not answer: {str(error.orig).strip().splitlines()[0]}")
        return
    if version in (None, HEAD):
        yield Finding("ok", "database", f"{database}, {'empty' if version is None else f'schema {version}'}")
    else:
        yield Finding("note", "database", f"{database}, schema {version}: the next annotate brings it to {HEAD}")


def _gpu(settings: Settings) -> Iterator[Finding]:
    from kosmograph.workers import gpus_here

    gpus = gpus_here()
    if not gpus:
        yield Finding("note", "gpu", "none: the CPU does it, which is for trying things and for --model demo")
        return
    if importlib.util.find_spec("torch") is not None and not importlib.import_module("torch").cuda.is_available():
        yield Finding("bad", "gpu", f"{len(gpus)} visible, but this torch has no CUDA: install the CUDA build of torch")
        return
    yield Finding("ok", "gpu", f"{len(gpus)} visible: one worker each")


def _disk(settings: Settings) -> Iterator[Finding]:
    path = Database(settings.db).path
    if path is not None:
        free = shutil.disk_usage(path.parent).free / 2**30
        yield Finding("ok" if free > 1 else "bad", "disk", f"{free:.0f} GiB free beside the database")


def _model(settings: Settings, revision: str | None, dtype: str | None, golden: Path | None) -> Iterator[Finding]:
    """Each part of the model, down to a caption that is known."""
    from worker.revision import NULL, resolve

    ref = resolve(settings.model, revision, dtype, settings.device)
    yield Finding("ok", "model", f"{ref.name}, revision {ref.revision}, {ref.dtype}")
    if ref.name == NULL:
        return
    from worker.proof import prove

    for proof in prove(ref, settings, golden):
        yield Finding(*proof)
