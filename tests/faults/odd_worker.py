"""A worker that is odd in the ways that its environment names, for faults that cannot be timed from outside.

FAULTS_IMAGE_S: seconds that its model takes for an image. FAULTS_POISON: it kills itself when its model sees a white
image. FAULTS_SOCKET_TIMEOUT_S: how long it waits for a Redis that says nothing. All else is as in `kosmograph worker`.
"""

import os
import signal
import sys
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from time import sleep
from typing import Any

from schemas.broker import CELERY_SETTINGS
from schemas.logs import configure_logs
from schemas.settings import load_settings
from worker import service
from worker.generation import Generation, Request
from worker.null_engine import SNOWMAN, NullEngine


class OddEngine(NullEngine):
    """The null engine as slow as a model, one image after the other; what waits can be given up."""

    def __init__(self) -> None:
        super().__init__()
        self._image_s = float(os.environ.get("FAULTS_IMAGE_S", "0"))
        self._waiting: SimpleQueue[Future[Generation]] = SimpleQueue()
        Thread(target=self._generate, daemon=True).start()

    def submit(self, request: Request) -> "Future[Generation]":
        if "FAULTS_POISON" in os.environ and request.pixels.min() == 255:
            os.kill(os.getpid(), signal.SIGKILL)
        self._images += 1
        future: Future[Generation] = Future()
        self._waiting.put(future)
        return future

    def _generate(self) -> None:
        while True:
            future = self._waiting.get()
            if future.set_running_or_notify_cancel():
                sleep(self._image_s)
                future.set_result(SNOWMAN)


if __name__ == "__main__":
    options: dict[str, Any] = CELERY_SETTINGS["broker_transport_options"]
    options["socket_timeout"] = float(os.environ.get("FAULTS_SOCKET_TIMEOUT_S", options["socket_timeout"]))
    service.NullEngine = OddEngine  # type: ignore[misc]
    settings = load_settings(model="null")
    configure_logs(settings, worker=sys.argv[1])
    service.run_worker(settings, revision=None, dtype=None, name=sys.argv[1])
