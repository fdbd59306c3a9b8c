"""An SQLite database that another process holds."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.night import ON_SQLITE, Night

pytestmark = ON_SQLITE
HOLD = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
held.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
held.execute("ROLLBACK")
"""


@contextmanager
def held(night: Night) -> "Iterator[subprocess.Popen[str]]":
    """Another process has the write lock while the block runs."""
    command = [sys.executable, "-c", HOLD, str(night.database.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        yield holder


@pytest.mark.parametrize("end", ["released", "killed"])
def test_database_that_is_locked_for_longer_than_a_lease_is_waited_for(night: Night, end: str) -> None:
    """No lease is renewed meanwhile: whether it is renewed or taken back at the end, no image has two outcomes."""
    uris = night.job(300)
    worker, dispatcher = night.worker(image_s=0.02, KOSMOGRAPH_LEASE_S="4"), night.dispatcher()
    night.until(night.is_mid_chunk)
    with held(night) as holder:
        expired = "chunks WHERE state = 'running' AND lease_until >= unixepoch('subsec') - 2"
        night.until(lambda: not night.count(expired))
        assert night.count("chunks WHERE state = 'running'")
        if end == "killed":
            holder.kill()
    night.finish(uris)
    assert worker.code is None
    assert dispatcher.code is None


def test_database_is_sound_after_its_writers_were_killed(night: Night) -> None:
    """Given commits without pause, when worker and dispatcher are killed in them, then others go on where they were."""
    uris = night.job(400, chunk_size=2)
    for number in range(3):
        worker, dispatcher = night.worker(f"w{number}", KOSMOGRAPH_LEASE_S="4"), night.dispatcher(f"d{number}")
        before = night.count("outcomes")
        night.until(lambda before=before: night.count("outcomes") > before)
        worker.kill()
        dispatcher.kill()
    with sqlite3.connect(str(night.database.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    night.worker("last")
    night.dispatcher("last")
    night.finish(uris)
