"""Pictures, limits and loaders for the worker's tests."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Semaphore, Thread
from typing import Any
from urllib.parse import quote_from_bytes

import numpy as np
import pytest
from celery.worker import state
from PIL import Image

from schemas.broker import CELERY_SETTINGS
from schemas.settings import Settings
from schemas.storage import StorageOptions
from worker.consumer import Consumer, Worker, make_app
from worker.images import Limits
from worker.loader import Loader
from worker.probe import BrokerLink


@pytest.fixture(scope="session")
def limits() -> Limits:
    return Limits.from_settings(Settings())


@pytest.fixture(scope="session")
def photograph() -> Callable[..., Image.Image]:
    """A smooth, asymmetric picture, unlike under every turn: `photograph(width, height, mode)`."""

    def make(width: int = 61, height: int = 37, mode: str = "RGB") -> Image.Image:
        random = np.random.default_rng(width * 1000 + height)
        small = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)

    return make


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """The bytes of a picture in a format of Pillow's."""

    def encode(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def file_uri() -> Callable[[Any], str]:
    """The URI of a path, as bytes or otherwise."""

    def uri(path: Any) -> str:
        name = path if isinstance(path, bytes) else bytes(path)
        return "file://" + quote_from_bytes(name)

    return uri


@pytest.fixture
def new_loader(limits: Limits) -> Iterator[Callable[..., Loader]]:
    """Loaders with some limits changed, closed at the end: `new_loader(processes=1, max_bytes=…)`."""
    loaders: list[Loader] = []

    def make(processes: int = 1, storage: StorageOptions = StorageOptions(), **changed: Any) -> Loader:  # noqa: B008
        loaders.append(Loader(replace(limits, **changed), processes, storage))
        return loaders[-1]

    yield make
    for loader in loaders:
        loader.close()


class Gated:
    """A task that begins when it likes and ends when the test lets it."""

    name = "gated"

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.gate = Semaphore(0)

    def __call__(self, chunk_id: int, **_: Any) -> None:
        self.begun.append(chunk_id)
        self.gate.acquire()
        self.ended.append(chunk_id)

    def refuse(self, why: str) -> None:
        raise AssertionError(f"no message is to be refused here: {why}")


@pytest.fixture
def task() -> Gated:
    return Gated()


@pytest.fixture
def consuming(own_broker: Any, task: Gated, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Worker]]:
    """A real worker for the queue `gated`, in a thread of this process. It gives up a dead connection soon."""
    threads: list[Thread] = []

    def start(*steps: Any, concurrency: int) -> Worker:
        app = make_app(own_broker.url, task, BrokerLink(), *steps)  # type: ignore[arg-type]
        quick = {"socket_timeout": 2, "socket_connect_timeout": 1}
        app.conf.broker_transport_options = CELERY_SETTINGS["broker_transport_options"] | quick
        worker = Worker(
            app=app,
            hostname="gated@here",
            pool_cls="threads",
            concurrency=concurrency,
            queues=[task.name],
            consumer_cls=Consumer,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        monkeypatch.setattr(state, "should_stop", None)
        threads.append(Thread(target=worker.start))
        threads[-1].start()
        return worker

    yield start
    state.should_stop = 0
    task.gate.release(1000)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
