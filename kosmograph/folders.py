"""The folder of a run, for its Redis and its logs. Those that killed runs have left are removed a day later."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from schemas.errors import SetupError

PREFIX = "kosmograph-"
LOCK = "run.lock"
KEPT_S = 86_400.0
"""How long the logs of a run that was killed, or could not work, lie there to be read."""


@contextmanager
def run_folder() -> Iterator[Path]:
    """A private folder, gone when the block ends; after a SetupError its logs are what is left of the reason."""
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    with (folder / LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        except SetupError:
            raise
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def sweep(kept_s: float = KEPT_S) -> None:
    """Remove the old folders of ours that no run has any more."""
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError), lock.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > kept_s:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
